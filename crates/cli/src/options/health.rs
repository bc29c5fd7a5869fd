//! `--health-*`: how a container is asked whether it is well.

use serde_json::{Map, Value, json};

use crate::failure::Outcome;
use crate::parse::Matches;

/// Refuses what is neither a port nor a URL. What is wrong with these the engine says.
pub(crate) fn check_http(text: &str) -> Result<(), String> {
    let is_place = text.starts_with(|c: char| c.is_ascii_digit()) || text.starts_with("http://");
    if is_place {
        Ok(())
    } else {
        Err(format!("invalid place `{text}`: write PORT[/PATH] or http://HOST[:PORT][/PATH]"))
    }
}

pub(crate) fn check_action(text: &str) -> Result<(), String> {
    match text {
        "none" | "kill" | "restart" | "stop" => Ok(()),
        _ => Err(format!("unknown action `{text}`: none, kill, restart or stop")),
    }
}

fn url(place: &str) -> String {
    if place.starts_with("http://") { place.to_owned() } else { format!("http://localhost:{place}") }
}

/// The health check that flags ask for.
///
/// # Errors
/// For what excludes one another, and for negative numbers.
pub(crate) fn of(matches: &Matches) -> Outcome<Option<Value>> {
    let durations = ["interval", "timeout", "start-period", "start-interval"]
        .map(|name| (name, matches.duration(&format!("health-{name}"))));
    let retries = matches.int("health-retries");
    let tests: Vec<Value> = [
        matches.some("health-cmd").map(|command| json!(["CMD-SHELL", command])),
        matches.some("health-http").map(|place| json!(["HTTP", url(place)])),
        matches.some("health-tcp").map(|place| json!(["TCP", place])),
    ]
    .into_iter()
    .flatten()
    .collect();
    let given = !tests.is_empty() || retries != 0 || durations.iter().any(|(_, duration)| *duration != 0);
    if matches.on("no-healthcheck") {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(json!({"Test": ["NONE"]})));
    }
    if !given {
        return Ok(None);
    }
    for (name, duration) in durations {
        if duration < 0 {
            return Err(format!("--health-{name} cannot be negative").into());
        }
    }
    if retries < 0 {
        return Err("--health-retries cannot be negative".into());
    }
    if tests.len() > 1 {
        return Err("conflicting options: --health-cmd, --health-http and --health-tcp: one of them".into());
    }
    let mut health = Map::new();
    if let Some(test) = tests.into_iter().next() {
        health.insert("Test".to_owned(), test);
    }
    for (key, (_, duration)) in ["Interval", "Timeout", "StartPeriod", "StartInterval"].into_iter().zip(durations) {
        if duration != 0 {
            health.insert(key.to_owned(), json!(duration));
        }
    }
    if retries != 0 {
        health.insert("Retries".to_owned(), json!(retries));
    }
    Ok(Some(Value::Object(health)))
}
