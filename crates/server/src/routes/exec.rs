//! Programs in running containers.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use wharf_engine::ErrorKind;
use wharf_engine::spec::ExecConfig;

use super::{Call, Result};
use crate::hijack::{content_type, hijack, say};
use crate::http::{empty, json_answer, ok, read_json};

pub(super) async fn create(call: Call, id: &str) -> Result {
    let config: ExecConfig = read_json(call.request.into_body()).await?;
    let id = call.api.engine.exec_create(id, config)?;
    Ok(json_answer(StatusCode::CREATED, &json!({ "Id": id })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Start {
    detach: bool,
    console_size: Option<[u16; 2]>,
}

pub(super) async fn start(mut call: Call, id: &str) -> Result {
    // The request goes on to be a stream, so its body is read without taking it apart.
    let start: Start = read_json(call.request.body_mut()).await?;
    let engine = &call.api.engine;
    let exec = engine.exec_inspect(id)?;
    let tty = exec.config.tty;
    let size = start.console_size.map(|[rows, columns]| (rows, columns));
    let kind = content_type(tty, call.version);
    match engine.exec_start(id, start.detach, size).await {
        Ok(Some(streams)) => Ok(hijack(call.request, streams, kind, mpsc::channel(1).1)),
        Ok(None) => Ok(empty(StatusCode::OK)),
        // It was tried, and its exit code says how it went: clients show the stream and ask for the code.
        Err(error) if !start.detach && engine.exec_inspect(id).is_ok_and(|exec| exec.exit_code.is_some()) => {
            match error.kind {
                ErrorKind::Conflict | ErrorKind::NotFound => Err(error.into()),
                _ => Ok(say(call.request, tty, kind, &error.message)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn resize(call: Call, id: &str) -> Result {
    let (rows, columns) = super::containers::size(&call)?;
    call.api.engine.exec_resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

pub(super) fn inspect(call: &Call, id: &str) -> Result {
    let exec = call.api.engine.exec_inspect(id)?;
    let mut words = exec.config.cmd.clone().unwrap_or_default().into_iter();
    let program = words.next().unwrap_or_default();
    Ok(ok(&json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": exec.config.tty,
            "entrypoint": program,
            "arguments": words.collect::<Vec<_>>(),
            "privileged": exec.config.privileged,
            "user": exec.config.user,
        },
        "OpenStdin": exec.config.attach_stdin,
        "OpenStderr": exec.config.attach_stderr,
        "OpenStdout": exec.config.attach_stdout,
        "CanRemove": !exec.running && exec.exit_code.is_some(),
        "ContainerID": exec.container,
        "DetachKeys": exec.config.detach_keys,
        "Pid": exec.pid,
    })))
}
