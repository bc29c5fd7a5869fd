//! Programs in running containers.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::UPGRADE;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_engine::spec::ExecConfig;
use wharf_engine::{Engine, EngineError, ExecRecord};

use super::{Call, Result};
use crate::detach;
use crate::hijack::{Reframe, Streams, content_type, hijack};
use crate::http::{ApiError, empty, json_answer, ok, read_exactly, read_json, typed};
use crate::lenient::lenient;

/// How long an exec may take to run after it was started, and to end after its output.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn create(mut call: Call, id: &str) -> Result {
    let body = match read_exactly(&mut call.request).await? {
        Value::Null => json!({}),
        body => body,
    };
    // Only a container's own command may be one text.
    let mut fields = body.as_object().into_iter().flatten();
    if fields.any(|(key, value)| key.eq_ignore_ascii_case("Cmd") && value.is_string()) {
        return Err(ApiError::bad(
            "invalid JSON: json: cannot unmarshal string into Go struct field ExecOptions.Cmd of type []string",
        ));
    }
    let config: ExecConfig = typed(lenient(body), "container.ExecOptions")?;
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(ApiError::bad("No exec command specified"));
    }
    detach::check(&config.detach_keys)
        .map_err(|_| ApiError::bad(format!("Invalid escape keys ({}) provided", config.detach_keys)))?;
    let id = call.api.engine.exec_create(id, config).await?;
    Ok(json_answer(StatusCode::CREATED, &json!({ "Id": id })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Start {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

pub(super) async fn start(mut call: Call, id: &str) -> Result {
    // The request goes on to be a stream, so its body is read without taking it apart.
    let start: Start = read_json(&mut call.request, "container.ExecStartOptions").await?;
    let engine = call.api.engine.clone();
    let exec = engine.exec_inspect(id)?;
    let size = start.console_size.map(|[rows, columns]| (rows, columns));
    if start.detach {
        engine.exec_start(&exec.id, true, size).await?;
        return Ok(empty(StatusCode::OK));
    }
    // What is wrong already is said by a status; later there is only the stream.
    if exec.running || exec.exit_code.is_some() {
        return Err(EngineError::exec_began(&exec.id, exec.running).into());
    }
    engine.exec_can_run(&exec.container)?;
    // How the answer is framed is the start's to say, whatever the exec was made with.
    let (tty, has_terminal) = (start.tty, exec.config.tty);
    let kind = content_type(tty || !call.request.headers().contains_key(UPGRADE), call.version);
    Ok(hijack(call.request, kind, async move {
        match engine.exec_start(&exec.id, false, size).await {
            Ok(streams) => {
                let mut streams = Streams::new(streams, mpsc::channel(1).1);
                streams.reframe = Reframe::between(has_terminal, tty);
                // Clients ask for its code when they see the end.
                streams.settled =
                    Box::pin(async move { until(&engine, &exec.id, |exec| exec.exit_code.is_some()).await });
                streams
            }
            Err(error) => Streams::message(tty, &error.message),
        }
    }))
}

/// Waits, but not for long, until an exec is so.
async fn until(engine: &Engine, id: &str, so: impl Fn(&ExecRecord) -> bool) {
    let mut pause = Duration::from_micros(200);
    let mut waited = Duration::ZERO;
    while waited < SETTLE && engine.exec_inspect(id).is_ok_and(|exec| !so(&exec)) {
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

pub(super) async fn resize(call: Call, id: &str) -> Result {
    let (rows, columns) = super::containers::size(&call)?;
    let engine = call.api.engine;
    // Clients say the size right after they have asked for the start.
    until(&engine, id, |exec| exec.running || exec.exit_code.is_some()).await;
    if !engine.exec_inspect(id)?.config.tty {
        return Ok(empty(StatusCode::OK));
    }
    engine.exec_resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

pub(super) fn inspect(call: &Call, id: &str) -> Result {
    let exec = call.api.engine.exec_inspect(id)?;
    let mut words = exec.config.cmd.clone().unwrap_or_default().into_iter();
    let program = words.next().unwrap_or_default();
    let mut answer = json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": exec.config.tty,
            "entrypoint": program,
            "arguments": words.collect::<Vec<_>>(),
            "privileged": exec.config.privileged,
        },
        "OpenStdin": exec.config.attach_stdin,
        "OpenStderr": exec.config.attach_stderr,
        "OpenStdout": exec.config.attach_stdout,
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": exec.config.detach_keys,
        "Pid": exec.pid,
    });
    if !exec.config.user.is_empty() {
        answer["ProcessConfig"]["user"] = exec.config.user.into();
    }
    Ok(ok(&answer))
}
