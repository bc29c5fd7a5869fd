//! `wharf system fsck`: what does not fit in the data root. Docker has no such command.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::CHECK;
use crate::app::App;
use crate::command::{Arity, Command as Own};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{array, int, text};
use crate::parse::Matches;
use crate::units;

pub(crate) static COMMAND: Own = Own::new(
    "[OPTIONS]",
    "Find and repair what is damaged, lost or nobody's in the data root",
    Arity::None,
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::text("data-root", "Look at this data root, which no daemon may have, instead of asking a daemon"),
    Flag::switch("deep", "Also read each layer whole and compare it with its digest"),
    Flag::switch("dry-run", "Only say what is wrong"),
    Flag::text("format", "Format the output: 'json', or plain text without it"),
]);

/// 0: nothing was wrong. 1: something was, repaired or not.
async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let format = matches.some("format").unwrap_or("text");
    if !matches!(format, "text" | "json") {
        return Err(format!("unknown format '{format}': give json, or leave it out").into());
    }
    let answer = match matches.some("data-root") {
        Some(root) => without_daemon(Some(root), matches)?,
        None if is_nobody_there(app).await? => {
            app.complain("no daemon answers: its data root is looked at without it");
            without_daemon(None, matches)?
        }
        None => {
            let request = app
                .client()
                .await?
                .post("/system/fsck")
                .query_if(matches.on("deep"), "deep")
                .query_if(matches.on("dry-run"), "dry-run");
            request.send().await?.json().await?
        }
    };
    let found = array(&answer["Findings"]);
    if format == "json" {
        app.say(&answer.to_string())?;
    } else {
        app.print(&plain(&answer))?;
    }
    Ok(u8::from(!found.is_empty()))
}

/// Whether the default daemon does not run. None is started: it may be what the look is for.
async fn is_nobody_there(app: &App) -> Outcome<bool> {
    let client = app.bare_client()?;
    let negotiated = client.negotiate().await;
    Ok(app.endpoint()?.is_default && negotiated.is_err_and(|error| error.is_unreachable()))
}

/// Has our own program look, which knows the store; this part of it does not.
fn without_daemon(root: Option<&str>, matches: &Matches) -> Outcome<Json> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("wharf").arg(CHECK).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(root) = root {
        command.arg("--data-root").arg(root);
    }
    for switch in ["deep", "dry-run"].into_iter().filter(|switch| matches.on(switch)) {
        command.arg(format!("--{switch}"));
    }
    let output = command.output().map_err(|error| format!("cannot look: {}", wharf_report::os(&error)))?;
    if !output.status.success() {
        // It has said why.
        return Err(Failure::code(1));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the look has ended too early: {error}").into())
}

fn plain(answer: &Json) -> String {
    let found = array(&answer["Findings"]);
    let mut output = String::new();
    for finding in found {
        let outcome = match text(&finding["Outcome"]) {
            "found" => "would be ",
            "left" => "NOT repaired: ",
            _ => "",
        };
        output.push_str(&format!(
            "{}: {}{}: {outcome}{}\n",
            text(&finding["Problem"]),
            text(&finding["What"]),
            size(finding),
            text(&finding["Repair"])
        ));
    }
    for note in array(&answer["Notes"]) {
        output.push_str(&format!("note: {}{}: {}\n", text(&note["What"]), size(note), text(&note["Why"])));
    }
    let bytes: i64 = found.iter().map(|finding| int(&finding["Bytes"])).sum();
    let left = found.iter().filter(|finding| text(&finding["Outcome"]) == "left").count();
    let looked = format!(
        "{} things looked at, {} read",
        int(&answer["LookedAt"]),
        units::human_size(int(&answer["BytesRead"]) as f64)
    );
    output.push_str(&match (found.len(), answer["DryRun"].as_bool().unwrap_or(false)) {
        (0, _) => format!("clean: {looked}\n"),
        (count, true) => {
            format!("{count} found ({}), nothing changed: {looked}\n", units::human_size(bytes as f64))
        }
        (count, false) => {
            format!("{count} found ({}), {} repaired: {looked}\n", units::human_size(bytes as f64), count - left)
        }
    });
    output
}

fn size(of: &Json) -> String {
    match int(&of["Bytes"]) {
        0 => String::new(),
        bytes => format!(" ({})", units::human_size(bytes as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn findings_notes_and_their_sum_are_said() {
        let finding = |outcome: &str| json!({ "Problem": "unowned", "What": "blob x", "Bytes": 1500, "Repair": "deleted", "Outcome": outcome });
        let clean = json!({ "DryRun": false, "LookedAt": 3, "BytesRead": 0, "Findings": [], "Notes": [] });
        assert_eq!(plain(&clean), "clean: 3 things looked at, 0B read\n");
        let mut answer = clean;
        answer["Findings"] = json!([finding("repaired"), finding("left")]);
        assert_eq!(
            plain(&answer),
            "unowned: blob x (1.5kB): deleted\nunowned: blob x (1.5kB): NOT repaired: deleted\n2 found (3kB), 1 \
             repaired: 3 things looked at, 0B read\n"
        );
        answer["DryRun"] = true.into();
        answer["Findings"] = json!([finding("found")]);
        answer["Notes"] = json!([{ "What": "x", "Bytes": 0, "Why": "left alone" }]);
        assert_eq!(
            plain(&answer),
            "unowned: blob x (1.5kB): would be deleted\nnote: x: left alone\n1 found (1.5kB), nothing changed: 3 things \
             looked at, 0B read\n"
        );
    }
}
