//! `docker run`.

use serde_json::Value as Json;
use tokio::task::JoinHandle;
use wharf_client::Client;

use super::{create, plan, ready};
use crate::app::App;
use crate::command::{Arity, Command};
use crate::dry_run;
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{int, text};
use crate::options::request::{self, Attach};
use crate::parse::Matches;
use crate::signals::{Forward, Resize};
use crate::stream::{self, Ended, Streams};
use crate::terminal;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    Arity::AtLeast(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(FLAGS)
.shared_flags(request::FLAGS)
.stops_at_argument();

const FLAGS: &[Flag] = &[
    Flag::switch("detach", "Run container in background and print container ID").short('d'),
    Flag::text("detach-keys", "Override the key sequence for detaching a container"),
    dry_run::FLAG,
    Flag::text("pull", "Pull image before running (\"always\", \"missing\", \"never\")").default("missing"),
    Flag::switch("sig-proxy", "Proxy received signals to the process").default("true"),
    Flag::switch("wait", "With --detach: return when it is healthy or, without a health check, runs"),
    Flag::int("wait-timeout", "Seconds that --wait may take (default 0: as long as it takes)"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    if matches.on("wait") && !matches.on("detach") {
        return Err("conflicting options: --wait is for --detach".into());
    }
    let mut request = create::prepare(app, matches, "run")?;
    if matches.on("dry-run") {
        let said = plan::creation(app, matches, &request, true).await;
        said.map_err(|failure| start_failure(&create::reported(app, "run", &failure, true)))?;
        return Ok(0);
    }
    let remove = matches.on("rm");
    if matches.on("detach") {
        if matches.changed("attach") {
            return Err("conflicting options: cannot specify both --attach and --detach".into());
        }
        request.attach = Attach::default();
        for key in ["AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"] {
            request.config.insert(key.to_owned(), Json::Bool(false));
        }
    } else {
        terminal::check(request.attach.stdin, request.tty)?;
    }
    let created = create::create(app, matches, &request).await;
    let id = created.map_err(|failure| start_failure(&create::reported(app, "run", &failure, true)))?;
    let client = app.client().await?;
    // What is detached runs on when nobody waits for it any more.
    let _forward = (matches.on("sig-proxy") && !matches.on("detach")).then(|| Forward::start(client, &id));
    let Attach { stdin, stdout, stderr } = request.attach;
    let attached = stdin || stdout || stderr;
    if !attached {
        app.say(&id)?;
    }
    let attaching = async {
        if !attached {
            return Ok(None);
        }
        let keys = matches.some("detach-keys").or_else(|| app.config().text("detachKeys")).unwrap_or_default();
        let streams = Streams { stdin, stdout, stderr, tty: request.tty, detach_keys: keys.to_owned() };
        attach(client, &id, streams).await.map(Some)
    };
    // Registered before the start: a container may end faster than a second request arrives.
    let registering = async {
        match attached || remove {
            true => Waiting::register(client, &id, remove).await.map(Some),
            false => Ok(None),
        }
    };
    let (session, waiting) = tokio::try_join!(attaching, registering)?;
    if let Err(error) = client.post(&format!("/containers/{id}/start")).send().await {
        let failure = start_failure(&create::reported(app, "run", &error.into(), true));
        drop(session);
        if let Some(waiting) = waiting.filter(|_| remove) {
            waiting.status(app).await;
        }
        return Err(failure);
    }
    let _resize = (session.is_some() && request.tty && app.shows_terminal())
        .then(|| Resize::start(client, format!("/containers/{id}/resize")));
    if let Some(session) = session
        && session.relay().await? == Ended::Detached
    {
        return Ok(0);
    }
    match waiting {
        Some(waiting) if attached => Ok(waiting.status(app).await),
        _ if matches.on("wait") => ready::wait(app, &id, matches.int_given("wait-timeout")).await,
        _ => Ok(0),
    }
}

/// A connection to the container's streams.
#[derive(Debug)]
pub(super) struct Session {
    io: wharf_client::Hijacked,
    streams: Streams,
}

impl Session {
    pub(super) async fn relay(self) -> Outcome<Ended> {
        stream::relay(self.io, &self.streams).await
    }
}

/// Attaches to the container.
pub(super) async fn attach(client: &Client, id: &str, streams: Streams) -> Outcome<Session> {
    let io = client
        .post(&format!("/containers/{id}/attach"))
        .query("stream", 1)
        .query_if(streams.stdin, "stdin")
        .query_if(streams.stdout, "stdout")
        .query_if(streams.stderr, "stderr")
        .query_some("detachKeys", Some(streams.detach_keys.as_str()).filter(|keys| !keys.is_empty()))
        .hijack()
        .await?;
    Ok(Session { io, streams })
}

/// The engine will say how the container ended.
#[derive(Debug)]
pub(super) struct Waiting(JoinHandle<wharf_client::Result<Json>>);

impl Waiting {
    /// Returns when the engine has taken note.
    pub(super) async fn register(client: &Client, id: &str, removed: bool) -> Outcome<Self> {
        let condition = if removed { "removed" } else { "next-exit" };
        let response = client.post(&format!("/containers/{id}/wait")).query("condition", condition).send().await?;
        Ok(Self(tokio::spawn(response.json())))
    }

    /// The container's exit code.
    pub(super) async fn status(self, app: &App) -> u8 {
        let answer = match self.0.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                app.complain(&format!("Error waiting for container: {error}"));
                return 125;
            }
            Err(_) => return 125,
        };
        match text(&answer["Error"]["Message"]) {
            "" => (int(&answer["StatusCode"]) & 0xff) as u8,
            message => {
                app.complain(&format!("Error waiting for container: {message}"));
                125
            }
        }
    }
}

/// The exit code of a container that does not start: what was to run is not there, or may not be run.
pub(super) fn start_failure(failure: &Failure) -> Failure {
    let has = |words: &[&str]| words.iter().any(|word| failure.text.contains(word));
    let code =
        if has(&["executable file not found", "no such file or directory", "system cannot find the file specified"]) {
            127
        } else if has(&["permission denied", "is a directory"]) {
            126
        } else {
            125
        };
    Failure { code, text: failure.text.clone() }
}
