//! Why a container is as it is, in words.

use std::sync::Arc;

use serde::Serialize;
use wharf_logs::{ReadOptions, Reader};

use crate::engine::Engine;
use crate::error::Result;
use crate::event::Event;
use crate::log_options;
use crate::record::{Container, HealthProbe, NEVER, SentSignal, State, Status};
use crate::signal;

/// Lines of the log, and events, that are shown.
const LINES: u64 = 10;
const EVENTS: usize = 10;

/// The answer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Why {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub status: Status,
    /// One sentence.
    pub summary: String,
    /// What it comes from, and what follows.
    pub reasons: Vec<String>,
    /// The last probes of its health, the oldest first.
    pub probes: Vec<HealthProbe>,
    /// What has happened to it, the oldest first.
    pub events: Vec<Event>,
    /// The end of its log.
    pub log: Vec<String>,
}

impl Engine {
    /// Why a container does not run, has ended, or is not well. Waits for the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn why(&self, name: &str) -> Result<Why> {
        let record = self.inspect(name)?;
        let past = self.events().past();
        let own: Vec<_> = past.iter().filter(|event| event.actor.id == record.id).collect();
        let events = own[own.len().saturating_sub(EVENTS)..].iter().map(|event| Event::clone(event)).collect();
        let (summary, reasons) = explain(&record);
        Ok(Why {
            id: record.id.clone(),
            name: record.name.clone(),
            status: record.state.status,
            summary,
            reasons,
            probes: record.state.health.as_ref().map(|health| health.log.clone()).unwrap_or_default(),
            events,
            log: end_of_log(&record),
        })
    }
}

/// What is not there, or cannot be read, is no reason to say nothing.
fn end_of_log(record: &Arc<Container>) -> Vec<String> {
    if log_options::kept(&record.host.log_config) == "none" {
        return Vec::new();
    }
    let options = ReadOptions { tail: Some(LINES), stdout: true, stderr: true, ..ReadOptions::default() };
    let Ok(mut reader) = Reader::open(record.log_path.as_ref(), options) else { return Vec::new() };
    let mut lines = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        lines.push(String::from_utf8_lossy(&entry.line).trim_end_matches(['\r', '\n']).to_owned());
    }
    lines
}

fn explain(record: &Container) -> (String, Vec<String>) {
    let state = &record.state;
    let mut reasons = Vec::new();
    let summary = match state.status {
        Status::Created if state.error.is_empty() => "It was created and never started.".to_owned(),
        Status::Created => format!("It could not be started: {}", state.error),
        Status::Running => running(state, &mut reasons),
        Status::Paused => "It is paused: its processes stand still until `unpause`.".into(),
        Status::Restarting => {
            reasons.push(end(record));
            "It ended, and its restart policy starts it again in a moment.".into()
        }
        Status::Removing | Status::Dead => "It is being removed.".into(),
        Status::Exited => {
            reasons.extend(not_again(record));
            if state.oom_killed && state.last_signal.as_ref().is_some_and(|sent| is_cause(sent, state.exit_code)) {
                reasons.push(format!(
                    "A process of it had been killed before, as memory ran out{}.",
                    whose_limit(state, None)
                ));
            }
            end(record)
        }
    };
    if state.lines_lost > 0 {
        let (lines, driver) = (state.lines_lost, &record.host.log_config.driver);
        reasons.push(format!(
            "{lines} lines of its log were lost: the disk was full, or the receiver of its log driver, {driver}, slow or away."
        ));
    }
    if record.restart_count > 0 {
        let times = if record.restart_count == 1 { "once".into() } else { format!("{} times", record.restart_count) };
        reasons.push(format!("Its restart policy, {}, has started it again {times}.", policy(record)));
    }
    (summary, reasons)
}

fn running(state: &State, reasons: &mut Vec<String>) -> String {
    let since = &state.started_at;
    if state.oom_killed {
        reasons.push(format!("A process of it was killed since, as memory ran out{}.", whose_limit(state, None)));
    }
    let Some(health) = &state.health else { return format!("It has been running since {since}.") };
    match health.status.as_str() {
        "unhealthy" => {
            reasons.extend(health.log.last().map(|probe| {
                let text = probe.output.trim();
                let said = if text.is_empty() { String::new() } else { format!(" and said: {text}") };
                format!("The last probe, at {}, ended with {}{said}.", probe.end, probe.exit_code)
            }));
            format!(
                "It runs since {since} and is unhealthy: {} probes failed one after the other.",
                health.failing_streak
            )
        }
        "starting" => format!("It runs since {since}; no probe of its health has succeeded yet."),
        status => format!("It has been running since {since} and is {status}."),
    }
}

/// How the last run ended.
fn end(record: &Container) -> String {
    let state = &record.state;
    let (code, at) = (state.exit_code, &state.finished_at);
    if !state.error.is_empty() {
        return format!("It could not go on (exit code {code}): {}", state.error);
    }
    let sent = state.last_signal.as_ref().filter(|sent| !is_before(&sent.at, &state.started_at));
    let cause = sent.filter(|sent| is_cause(sent, code));
    if state.oom_killed && cause.is_none() {
        return format!("It ended with {code} at {at}: memory ran out{}.", whose_limit(state, Some(record)));
    }
    if let Some(sent) = cause {
        let name = signal::name(sent.signal);
        let took = match sent.then_killed {
            true if sent.signal != crate::stop::SIGKILL => ", and then SIGKILL, as it had not ended in time",
            _ => "",
        };
        return format!("{} sent it {name}{took}; it ended with {code} at {at}.", sent.by);
    }
    if let Some(remedy) = remedy_of(record) {
        return format!(
            "Its health check failed too often, and it was ended for that (`--health-on-failure {remedy}`), with {code}, at {at}."
        );
    }
    let by_itself = match code {
        0 => format!("Its program ended by itself, with 0 (success), at {at}."),
        126 => format!("It ended with 126 at {at}: as a rule, a shell in it found a program that cannot be executed."),
        127 => format!("It ended with 127 at {at}: as a rule, a shell in it did not find a program."),
        137 => format!(
            "It ended with 137 at {at}: SIGKILL that nobody sent through this engine. A process of its own did, one of the \
             host, or the kernel because the whole host had no memory left (`dmesg` says so then); or its program gave \
             this code itself."
        ),
        129..=192 => {
            let name = signal::name(code - 128);
            format!("It ended with {code} at {at}: {name}, which {}.", meaning(code - 128))
        }
        _ => format!("Its program ended by itself, with {code}, at {at}: what that means is the program's own affair."),
    };
    match sent {
        Some(sent) => format!("{by_itself} Before, {} had sent it {}.", sent.by, signal::name(sent.signal)),
        None => by_itself,
    }
}

/// What its health check does to it when it is unhealthy, which it was.
fn remedy_of(record: &Container) -> Option<&str> {
    let remedy = record.host.health_on_failure.as_deref().filter(|remedy| !matches!(*remedy, "" | "none"))?;
    record.state.health.as_ref().filter(|health| health.status == "unhealthy").map(|_| remedy)
}

/// Whether a signal may have ended it so: it says so itself, or it is one that asks for an end, in whatever way.
fn is_cause(sent: &SentSignal, code: i32) -> bool {
    const ASKING: &[i32] = &[1, 2, 3, 15];
    let killed = code == 128 + crate::stop::SIGKILL;
    sent.then_killed || code == 128 + sent.signal || (ASKING.contains(&sent.signal) && !killed)
}

fn is_before(a: &str, b: &str) -> bool {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    time(a).zip(time(b)).is_some_and(|(a, b)| a < b)
}

fn meaning(signal: i32) -> &'static str {
    match signal {
        4 => "its program got for an instruction that this CPU does not know",
        6 => "its program sends itself when it gives up (abort)",
        7 | 11 => "its program got for memory that is not its own: a bug in it",
        8 => "its program got for a division by zero or the like",
        31 => "its program got for a system call that its seccomp profile forbids",
        _ => "nobody sent through this engine: a process of its own or of the host did",
    }
}

fn whose_limit(state: &State, record: Option<&Container>) -> String {
    let Some(group) = &state.oom_group else { return String::new() };
    let own = record.filter(|record| group.ends_with(&record.id));
    match own.map(|record| record.host.resources.memory).filter(|bytes| *bytes > 0) {
        Some(bytes) => format!(", as its own limit of {} MiB was reached", bytes >> 20),
        None => format!(", as the limit of the group {group} was reached"),
    }
}

/// Why nothing has started it again.
fn not_again(record: &Container) -> Option<String> {
    if record.state.started_at == NEVER {
        return None;
    }
    let why = match record.host.restart_policy.name.as_str() {
        "" | "no" => "it has no restart policy (`--restart`)".to_owned(),
        _ if record.stopped_by_user => {
            format!("it was stopped by hand, which goes before its policy, {}", policy(record))
        }
        "on-failure" if record.state.exit_code == 0 => "its policy, on-failure, has nothing against success".into(),
        "on-failure" => format!("its policy, {}, allows no more tries", policy(record)),
        _ => return None,
    };
    Some(format!("It is not started again: {why}."))
}

fn policy(record: &Container) -> String {
    let policy = &record.host.restart_policy;
    match policy.maximum_retry_count {
        count if count > 0 => format!("{}:{count}", policy.name),
        _ => policy.name.clone(),
    }
}
