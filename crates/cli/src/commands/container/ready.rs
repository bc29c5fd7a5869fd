//! `run --detach --wait`: until a container can be used.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::failure::Outcome;
use crate::json::{int, text};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until it is healthy or, without a health check, runs. 1, and a word about it, when that is not to be.
pub(super) async fn wait(app: &App, id: &str, seconds: Option<i64>) -> Outcome<u8> {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let client = app.client().await?;
    let short = &id[..id.len().min(12)];
    let mut ran = false;
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
        match (text(&state["Status"]), health) {
            ("running", "healthy") => return Ok(0),
            // What ends as soon as it has begun has been seen to run, too.
            ("running", "" | "none") if ran => return Ok(0),
            ("running", "" | "none") => ran = true,
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
