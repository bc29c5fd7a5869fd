//! `ps`: the processes of a container, as ps(1) of this host shows them.

use std::process::Command;

use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::state::{Container, Status};
use crate::words::Given;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let (id, words) = given.arguments.split_first().ok_or_else(|| Failure::new("a container is needed"))?;
    let container = Container::open(global, id)?;
    let pids = if container.status() == Status::Stopped { Vec::new() } else { container.group.all_processes() };
    match given.value("format") {
        Some("json") => return Ok(crate::print(&format!("{}\n", json!(pids)))),
        None | Some("table") => {}
        Some(_) => return Err(Failure::new("invalid format option")),
    }
    let own = ["-ef".to_owned()];
    let output = Command::new("ps").args(if words.is_empty() { &own } else { words }).output();
    let output = output.map_err(|error| Failure::new(format!("cannot run ps: {}", wharf_report::os(&error))))?;
    if !output.status.success() {
        return Err(Failure::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    choose(&String::from_utf8_lossy(&output.stdout), &pids).map(|text| crate::print(&text))
}

/// The heading and the lines of these processes.
fn choose(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    let mut chosen = format!("{heading}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            chosen.push_str(line);
            chosen.push('\n');
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_container_s_processes_are_shown() {
        let text = "UID PID CMD\nroot 1 init 7\nroot 7 sleep\n";
        assert_eq!(choose(text, &[7]).unwrap(), "UID PID CMD\nroot 7 sleep\n");
        assert!(choose("CMD\n", &[7]).is_err());
    }
}
