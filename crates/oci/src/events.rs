//! `events`: statistics now and then, and when the container was out of memory.

use std::time::Duration;

use serde_json::{Value, json};
use wharf_cgroup::Oom;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::state::{Container, Status};
use crate::statistics;
use crate::words::Given;

/// How often it is looked whether memory was short.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let interval = given.value("interval").map_or(Ok(Duration::from_secs(5)), interval)?;
    let container = Container::open(global, &given.arguments[0])?;
    let id = container.place.id.clone();
    if container.status() == Status::Stopped {
        return Err(Failure::new(format!("container with id {id} is not running")));
    }
    let tell = |kind: &str, data: Option<Value>| {
        let mut event = json!({ "type": kind, "id": id });
        if let Some(data) = data {
            event["data"] = data;
        }
        crate::print(&format!("{event}\n"))
    };
    if given.is("stats") {
        return Ok(tell("stats", Some(statistics::read(&container))));
    }
    let mut memory = Oom::watch(&container.group);
    let mut waited = interval;
    while container.status() != Status::Stopped {
        if waited >= interval {
            tell("stats", Some(statistics::read(&container)));
            waited = Duration::ZERO;
        }
        std::thread::sleep(LOOK.min(interval));
        waited += LOOK.min(interval);
        if let Some(oom) = memory.look() {
            tell("oom", None);
            // Beyond runc's, in a line of its own: whose limit it was.
            tell("oomDetails", Some(json!({ "processes": oom.processes, "cgroup": oom.group })));
        }
    }
    Ok(0)
}

/// Go's durations, as far as they make sense here: `5s`, `100ms`, `1m30s`.
fn interval(text: &str) -> Result<Duration> {
    let bad = || Failure::new(format!("invalid value {text:?} for flag -interval: parse error"));
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        let after = &rest[digits..];
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let seconds = match &after[..letters] {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(bad()),
        };
        sum += Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        rest = &after[letters..];
    }
    if sum.is_zero() { Err(Failure::new("duration interval must be greater than 0")) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_go_s_durations() {
        assert_eq!(interval("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(interval("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(interval("1.5s").unwrap(), Duration::from_millis(1500));
        for bad in ["", "0s", "5", "s", "5x", "-1s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
