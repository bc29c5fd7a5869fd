//! `docker logs`.

use bytes::BytesMut;
use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::stream::{Output, Streams};
use crate::timestamps;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] CONTAINER", "Fetch the logs of a container", Arity::Exactly(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::switch("details", "Show extra details provided to logs"),
    Flag::switch("follow", "Follow log output").short('f'),
    Flag::text(
        "since",
        "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
    Flag::text("tail", "Number of lines to show from the end of the logs").short('n').default("all"),
    Flag::switch("timestamps", "Show timestamps").short('t'),
    Flag::text(
        "until",
        "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
];

/// Enough for one write.
const GATHERED: usize = 64 * 1024;

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let container: Json = client.get(&format!("/containers/{}/json", matches.argument(0))).send().await?.json().await?;
    let moment = |flag: &str| match matches.some(flag) {
        Some(value) => {
            timestamps::parse(value).map(Some).map_err(|reason| format!("invalid value for {flag:?}: {reason}"))
        }
        None => Ok(None),
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let mut response = client
        .get(&format!("/containers/{}/logs", text(&container["Id"])))
        .query("stdout", 1)
        .query("stderr", 1)
        .query_some("since", since)
        .query_some("until", until)
        .query_if(matches.on("timestamps"), "timestamps")
        .query_if(matches.on("details"), "details")
        .query_if(matches.on("follow"), "follow")
        .query("tail", matches.text("tail"))
        .send()
        .await?;
    let tty = container["Config"]["Tty"].as_bool().unwrap_or(false);
    let mut output = Output::new(&Streams { stdout: true, stderr: true, tty, ..Streams::default() });
    while let Some(chunk) = response.chunk().await? {
        let mut gathered = BytesMut::from(chunk);
        // An engine that sends each line by itself must not make us write each by itself.
        while gathered.len() < GATHERED {
            let Some(more) = response.chunk_now().await? else { break };
            gathered.extend_from_slice(&more);
        }
        output.write(gathered.freeze()).await?;
    }
    Ok(0)
}
