//! `docker exec`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{int, text};
use crate::options::{checks, env};
use crate::parse::Matches;
use crate::signals::Resize;
use crate::stream::{self, Ended, Streams};
use crate::terminal;

/// How often, and after which pause each, a command is looked at whose stream has ended.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    Arity::AtLeast(2),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(FLAGS)
.stops_at_argument();

const FLAGS: &[Flag] = &[
    Flag::switch("detach", "Detached mode: run command in the background").short('d'),
    Flag::text("detach-keys", "Override the key sequence for detaching a container"),
    Flag::list("env", "Set environment variables").short('e').check(checks::env),
    Flag::list("env-file", "Read in a file of environment variables"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::switch("privileged", "Give extended privileges to the command"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::text("user", "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
    Flag::text("workdir", "Working directory inside the container").short('w'),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (detach, tty) = (matches.on("detach"), matches.on("tty"));
    let variables = env::variables(matches.all("env-file"), matches.all("env"))?;
    let stdin = matches.on("interactive") && !detach;
    let keys = matches.some("detach-keys").or_else(|| app.config().text("detachKeys")).unwrap_or_default();
    let (name, command) = matches.arguments.split_first().ok_or_else(|| Failure::code(1))?;
    let mut config = json!({
        "User": matches.text("user"),
        "Privileged": matches.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStderr": !detach,
        "AttachStdout": !detach,
        "DetachKeys": keys,
        "Env": if variables.is_empty() { Json::Null } else { json!(variables) },
        "WorkingDir": matches.text("workdir"),
        "Cmd": command,
    });
    let client = app.client().await?;
    // A container that does not exist is a better reason to fail than a missing terminal.
    client.get(&format!("/containers/{name}/json")).send().await?.bytes().await?;
    if !detach {
        terminal::check(stdin, tty)?;
    }
    let mut start = json!({"Detach": detach, "Tty": tty});
    if tty {
        let (rows, columns) = terminal::size();
        config["ConsoleSize"] = json!([rows, columns]);
        start["ConsoleSize"] = json!([rows, columns]);
    }
    let created: Json = client.post(&format!("/containers/{name}/exec")).json(&config)?.send().await?.json().await?;
    let id = text(&created["Id"]);
    if id.is_empty() {
        return Err("exec ID empty".into());
    }
    let request = client.post(&format!("/exec/{id}/start")).json(&start)?;
    if detach {
        request.send().await?;
        return Ok(0);
    }
    let io = request.hijack().await?;
    let _resize = (tty && io::stdin().is_terminal()).then(|| Resize::start(client, format!("/exec/{id}/resize")));
    let streams = Streams { stdin, stdout: true, stderr: true, tty, detach_keys: keys.to_owned() };
    if stream::relay(io, &streams).await? == Ended::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    // Its stream ends when it does, with other engines a moment before.
    for _ in 0..LOOKS {
        let state: Json = client.get(&format!("/exec/{id}/json")).send().await?.json().await?;
        if state["Running"] != true {
            return Ok((int(&state["ExitCode"]) & 0xff) as u8);
        }
        tokio::time::sleep(PAUSE).await;
    }
    // An ssh on the way was killed, or a proxy has given up.
    Err(Failure::new("the connection to the engine was cut off: the command runs on"))
}
