//! `docker start`.

use serde_json::Value as Json;

use super::run::{Waiting, attach};
use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::signals::{Forward, Resize};
use crate::stream::{Ended, Streams};

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    Arity::AtLeast(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::switch("attach", "Attach STDOUT/STDERR and forward signals").short('a'),
    Flag::text("detach-keys", "Override the key sequence for detaching a container"),
    Flag::switch("interactive", "Attach container's STDIN").short('i'),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    if !matches.on("attach") && !matches.on("interactive") {
        return plain(app, matches).await;
    }
    if matches.arguments.len() > 1 {
        return Err("you cannot start and attach multiple containers at once".into());
    }
    let client = app.client().await?;
    let container: Json = client.get(&format!("/containers/{}/json", matches.argument(0))).send().await?.json().await?;
    let id = text(&container["Id"]);
    let on = |value: &Json| value.as_bool().unwrap_or(false);
    let config = &container["Config"];
    let (tty, remove) = (on(&config["Tty"]), on(&container["HostConfig"]["AutoRemove"]));
    let _forward = (!tty).then(|| Forward::start(client, id));
    let keys = matches.some("detach-keys").or_else(|| app.config().text("detachKeys")).unwrap_or_default();
    let stdin = matches.on("interactive") && on(&config["OpenStdin"]);
    let streams = Streams { stdin, stdout: true, stderr: true, tty, detach_keys: keys.to_owned() };
    let session = attach(client, id, streams).await?;
    let waiting = Waiting::register(client, id, remove).await?;
    if let Err(error) = client.post(&format!("/containers/{id}/start")).send().await {
        drop(session);
        if remove {
            waiting.status(app).await;
        }
        return Err(error.into());
    }
    let _resize = (tty && app.shows_terminal()).then(|| Resize::start(client, format!("/containers/{id}/resize")));
    match session.relay().await? {
        Ended::Detached => Ok(0),
        Ended::Closed => Ok(waiting.status(app).await),
    }
}

async fn plain(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let mut failed: Vec<&str> = Vec::new();
    for name in &matches.arguments {
        match client.post(&format!("/containers/{name}/start")).send().await {
            Ok(_) => app.say(name)?,
            Err(error) => {
                app.complain(&error.to_string());
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}
