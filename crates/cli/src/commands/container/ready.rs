//! `run --detach --wait`: until a container can be used.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::failure::Outcome;
use crate::json::{int, text};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// As often may one with a health check end and begin again before it is ready.
const MOST_ENDS: i64 = 3;

/// Waits until it is healthy or, without a health check, runs. 1, and a word about it, when that is not to be.
pub(super) async fn wait(app: &App, id: &str, seconds: Option<i64>) -> Outcome<u8> {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let client = app.client().await?;
    let short = &id[..id.len().min(12)];
    let mut started = String::new();
    loop {
        let request = client.get(&format!("/containers/{id}/json")).send().await;
        let container: Json = match request {
            Ok(response) => response.json().await?,
            Err(error) if error.is_not_found() => {
                return Err(format!("{short} ended, and was removed, before it was ready").into());
            }
            Err(error) => return Err(error.into()),
        };
        let state = &container["State"];
        let health = text(&state["Health"]["Status"]);
        // A program that waits for another by ending is ready in the end, if somebody can tell.
        let ends = if matches!(health, "" | "none") { 0 } else { MOST_ENDS };
        if health != "healthy" && int(&container["RestartCount"]) > ends && restarts_for_ever(&container) {
            return Err(format!(
                "{short} ended before it was ready, and would be started again and again: `{} why {short}` says more",
                app.program
            )
            .into());
        }
        match (text(&state["Status"]), health) {
            ("running", "healthy") => return Ok(0),
            // What ends as soon as it has begun has been seen to run, too, and so has what begins anew then.
            ("running", "" | "none") if started == text(&state["StartedAt"]) => return Ok(0),
            ("running", "" | "none") => text(&state["StartedAt"]).clone_into(&mut started),
            ("running", "unhealthy") => {
                return Err(format!("{short} is unhealthy: `{} why {short}` says more", app.program).into());
            }
            ("exited" | "dead", _) => {
                let code = int(&state["ExitCode"]);
                return Err(format!(
                    "{short} ended with {code} before it was ready: `{} why {short}` says more",
                    app.program
                )
                .into());
            }
            _ => {}
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let waited = seconds.unwrap_or(0);
            return Err(format!(
                "{short} is not ready after {waited} s: it runs on; `{} why {short}` says more",
                app.program
            )
            .into());
        }
        sleep(PAUSE).await;
    }
}

/// Whether its restart policy never gives up: then there is no last end to wait for.
fn restarts_for_ever(container: &Json) -> bool {
    let policy = &container["HostConfig"]["RestartPolicy"];
    match text(&policy["Name"]) {
        "always" | "unless-stopped" => true,
        "on-failure" => int(&policy["MaximumRetryCount"]) == 0,
        _ => false,
    }
}
