//! Times and states as people read them (go-units, moby's `container/state.go`).

use jiff::Timestamp;
use wharf_engine::record::{Container, NEVER, Status};

/// How long, in Docker's words.
pub(crate) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// The STATUS column of `ps`.
pub(crate) fn status(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |text: &str| {
        let then: Timestamp = text.parse().unwrap_or(now);
        duration(now.duration_since(then).as_secs())
    };
    match state.status {
        Status::Created => "Created".into(),
        Status::Running | Status::Paused => {
            let up = since(&state.started_at);
            if state.status == Status::Paused {
                return format!("Up {up} (Paused)");
            }
            match state.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("" | "none") => format!("Up {up}"),
                Some("starting") => format!("Up {up} (health: starting)"),
                Some(health) => format!("Up {up} ({health})"),
            }
        }
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(&state.finished_at)),
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Exited if state.finished_at == NEVER => "Exited".into(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(&state.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use wharf_engine::record::Health;

    use super::*;
    use crate::render::container::sample;

    #[test]
    fn durations_are_docker_s() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (172_800, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
            (-5, "Less than a second"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn states_are_docker_s() {
        let now: Timestamp = "2026-01-02T03:04:05.5Z".parse().unwrap();
        let mut c = sample();
        let mut say = |state: Status, started: &str, finished: &str, health: Option<&str>| {
            c.state.status = state;
            (c.state.started_at, c.state.finished_at) = (started.into(), finished.into());
            c.state.exit_code = 3;
            c.state.health = health.map(|status| Health { status: status.into(), ..Health::default() });
            status(&c, now)
        };
        let (started, ended) = ("2026-01-02T03:04:02.1Z", "2026-01-02T03:02:00Z");
        assert_eq!(say(Status::Created, NEVER, NEVER, None), "Created");
        assert_eq!(say(Status::Running, started, NEVER, None), "Up 3 seconds");
        assert_eq!(say(Status::Running, "2026-01-02T03:04:04.9Z", NEVER, None), "Up Less than a second");
        assert_eq!(say(Status::Running, started, NEVER, Some("healthy")), "Up 3 seconds (healthy)");
        assert_eq!(say(Status::Running, started, NEVER, Some("starting")), "Up 3 seconds (health: starting)");
        assert_eq!(say(Status::Paused, started, NEVER, Some("healthy")), "Up 3 seconds (Paused)");
        assert_eq!(say(Status::Restarting, started, ended, None), "Restarting (3) 2 minutes ago");
        assert_eq!(say(Status::Exited, started, ended, None), "Exited (3) 2 minutes ago");
        assert_eq!(say(Status::Removing, started, ended, None), "Removal In Progress");
        assert_eq!(say(Status::Dead, started, ended, None), "Dead");
    }
}
