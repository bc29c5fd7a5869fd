//! `docker attach`.

use serde_json::Value as Json;
use wharf_client::Client;

use super::run::attach;
use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{int, text};
use crate::parse::Matches;
use crate::signals::{Forward, Resize};
use crate::stream::{Ended, Streams};
use crate::terminal;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::text("detach-keys", "Override the key sequence for detaching a container"),
    Flag::switch("no-stdin", "Do not attach STDIN"),
    Flag::switch("sig-proxy", "Proxy all received signals to the process").default("true"),
]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let name = matches.argument(0);
    // Asked before we look: a container that ends in between is not waited for in vain.
    let waiting = client.post(&format!("/containers/{name}/wait")).send().await?;
    let waiting = tokio::spawn(waiting.json::<Json>());
    let container = running(client, name).await?;
    let config = &container["Config"];
    let on = |key: &str| config[key].as_bool().unwrap_or(false);
    let (tty, no_stdin) = (on("Tty"), matches.on("no-stdin"));
    terminal::check(!no_stdin, tty)?;
    let keys = matches.some("detach-keys").or_else(|| app.config().text("detachKeys")).unwrap_or_default();
    let streams =
        Streams { stdin: !no_stdin && on("OpenStdin"), stdout: true, stderr: true, tty, detach_keys: keys.to_owned() };
    let _forward = (matches.on("sig-proxy") && !tty).then(|| Forward::start(client, name));
    let session = attach(client, name, streams).await?;
    running(client, name).await?;
    let resize = format!("/containers/{name}/resize");
    if tty && app.shows_terminal() {
        // A size that changes makes the program draw its screen anew.
        let (rows, columns) = terminal::size();
        let _ = client.post(&resize).query("h", rows + 1).query("w", columns + 1).send().await;
    }
    let _resize = (tty && app.shows_terminal()).then(|| Resize::start(client, resize));
    if session.relay().await? == Ended::Detached {
        return Err(Failure::new("read escape sequence"));
    }
    let answer = waiting.await.map_err(|error| error.to_string())??;
    match text(&answer["Error"]["Message"]) {
        "" => Ok((int(&answer["StatusCode"]) & 0xff) as u8),
        message => Err(message.into()),
    }
}

async fn running(client: &Client, name: &str) -> Outcome<Json> {
    let container: Json = client.get(&format!("/containers/{name}/json")).send().await?.json().await?;
    let state = |key: &str| container["State"][key].as_bool().unwrap_or(false);
    if !state("Running") {
        return Err("You cannot attach to a stopped container, start it first".into());
    }
    if state("Paused") {
        return Err("You cannot attach to a paused container, unpause it first".into());
    }
    if state("Restarting") {
        return Err("You cannot attach to a restarting container, wait until it is running".into());
    }
    Ok(container)
}
