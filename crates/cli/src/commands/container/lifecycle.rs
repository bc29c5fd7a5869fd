//! `docker stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rename`, `rm`: a request per container.

use wharf_client::{Client, Request};

use super::plan;
use crate::app::{App, for_stderr};
use crate::command::{Arity, Command};
use crate::dry_run;
use crate::each::each;
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::int;
use crate::parse::Matches;

const SIGNAL: Flag = Flag::text("signal", "Signal to send to the container").short('s');
const TIMEOUT: Flag = Flag::int("timeout", "Seconds to wait before killing the container").short('t');
const OLD_TIMEOUT: Flag =
    Flag::int("time", "Seconds to wait before killing the container").deprecated("use --timeout instead");

const CONTAINERS: &str = "CONTAINER [CONTAINER...]";
const WITH_OPTIONS: &str = "[OPTIONS] CONTAINER [CONTAINER...]";

pub(crate) static STOP: Command =
    Command::new(WITH_OPTIONS, "Stop one or more running containers", Arity::AtLeast(1), |app, matches| {
        Box::pin(stop_or_restart(app, matches, "stop"))
    })
    .flags(&[SIGNAL, TIMEOUT, OLD_TIMEOUT]);

pub(crate) static RESTART: Command =
    Command::new(WITH_OPTIONS, "Restart one or more containers", Arity::AtLeast(1), |app, matches| {
        Box::pin(stop_or_restart(app, matches, "restart"))
    })
    .flags(&[SIGNAL, TIMEOUT, OLD_TIMEOUT]);

pub(crate) static KILL: Command =
    Command::new(WITH_OPTIONS, "Kill one or more running containers", Arity::AtLeast(1), |app, matches| {
        Box::pin(kill(app, matches))
    })
    .flags(&[SIGNAL]);

pub(crate) static PAUSE: Command =
    Command::new(CONTAINERS, "Pause all processes within one or more containers", Arity::AtLeast(1), |app, matches| {
        Box::pin(plain(app, matches, "pause"))
    });

pub(crate) static UNPAUSE: Command = Command::new(
    CONTAINERS,
    "Unpause all processes within one or more containers",
    Arity::AtLeast(1),
    |app, matches| Box::pin(plain(app, matches, "unpause")),
);

pub(crate) static WAIT: Command = Command::new(
    CONTAINERS,
    "Block until one or more containers stop, then print their exit codes",
    Arity::AtLeast(1),
    |app, matches| Box::pin(wait(app, matches)),
);

pub(crate) static RENAME: Command =
    Command::new("CONTAINER NEW_NAME", "Rename a container", Arity::Exactly(2), |app, matches| {
        Box::pin(rename(app, matches))
    });

pub(crate) static REMOVE: Command =
    Command::new(WITH_OPTIONS, "Remove one or more containers", Arity::AtLeast(1), |app, matches| {
        Box::pin(remove(app, matches))
    })
    .flags(&[
        dry_run::FLAG,
        Flag::switch("force", "Force the removal of a running container (uses SIGKILL)").short('f'),
        Flag::switch("link", "Remove the specified link").short('l'),
        Flag::switch("volumes", "Remove anonymous volumes associated with the container").short('v'),
    ]);

fn post<'a>(client: &'a Client, name: &str, action: &str) -> Request<'a> {
    client.post(&format!("/containers/{name}/{action}"))
}

async fn stop_or_restart(app: &App, matches: &Matches, action: &'static str) -> Outcome<u8> {
    if matches.changed("time") && matches.changed("timeout") {
        return Err("conflicting options: cannot specify both --timeout and --time".into());
    }
    let timeout = matches.int_given("timeout").or_else(|| matches.int_given("time"));
    let signal = matches.some("signal").map(str::to_owned);
    each(app, &matches.arguments, |client, name| {
        let signal = signal.clone();
        async move {
            post(&client, &name, action).query_some("t", timeout).query_some("signal", signal).send().await?;
            Ok(Some(name))
        }
    })
    .await
}

async fn kill(app: &App, matches: &Matches) -> Outcome<u8> {
    let signal = matches.some("signal").map(str::to_owned);
    each(app, &matches.arguments, |client, name| {
        let signal = signal.clone();
        async move {
            post(&client, &name, "kill").query_some("signal", signal).send().await?;
            Ok(Some(name))
        }
    })
    .await
}

async fn plain(app: &App, matches: &Matches, action: &'static str) -> Outcome<u8> {
    each(app, &matches.arguments, |client, name| async move {
        post(&client, &name, action).send().await?;
        Ok(Some(name))
    })
    .await
}

async fn wait(app: &App, matches: &Matches) -> Outcome<u8> {
    each(app, &matches.arguments, |client, name| async move {
        let answer: serde_json::Value = post(&client, &name, "wait").send().await?.json().await?;
        Ok(Some(int(&answer["StatusCode"]).to_string()))
    })
    .await
}

async fn rename(app: &App, matches: &Matches) -> Outcome<u8> {
    let (old, new) = (matches.argument(0).trim(), matches.argument(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err("Error: Neither old nor new names may be empty".into());
    }
    let sent = post(app.client().await?, old, "rename").query("name", new).send().await;
    if let Err(error) = sent {
        app.complain(&error.to_string());
        return Err(Failure::new(format!("Error: failed to rename container named {old}")));
    }
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome<u8> {
    let (force, link, volumes) = (matches.on("force"), matches.on("link"), matches.on("volumes"));
    let dry = matches.on("dry-run");
    if dry {
        dry_run::check_engine(app).await?;
    }
    each(app, &matches.arguments, |client, name| async move {
        let name = name.trim_matches('/').to_owned();
        if name.is_empty() {
            return Err("container name cannot be empty".into());
        }
        let request = client.delete(&format!("/containers/{name}"));
        let request = request.query_if(force, "force").query_if(link, "link").query_if(volumes, "v");
        match request.query_if(dry, "dry-run").send().await {
            Ok(answer) if dry => Ok(Some(plan::removal(&answer.json().await?))),
            Ok(_) => Ok(Some(name)),
            // What is not there needs no force.
            Err(error) if force && error.is_not_found() => {
                eprintln!("{}", for_stderr(&error.to_string()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}
