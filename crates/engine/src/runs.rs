//! The runs of a container, one after the other: each is noted and told of, also when it was nobody's to see.

use std::sync::Arc;

use wharf_monitor::Exit;

use crate::engine::Engine;
use crate::record::{Container, Health, NEVER, Status};
use crate::slot::Slot;
use crate::supervise::note;

impl Engine {
    /// Runs that a monitor has ended and begun while nobody listened to it, the oldest first: no daemon was there, or the
    /// container ended at once. `started` is when the run after the last of them began, if it has. It may be the last of them
    /// itself, where that was to be started again and could not be.
    pub(crate) fn tell_untold(&self, slot: &Arc<Slot>, untold: &[Exit], started: Option<&str>) {
        for exit in untold {
            self.note_missed_start(slot, &exit.started_at);
            self.note_end_of_run(slot, exit);
        }
        if let Some(started_at) = started {
            self.note_missed_start(slot, started_at);
        }
    }

    /// The run that began then, if the last that was heard is that the one before it had ended.
    fn note_missed_start(&self, slot: &Arc<Slot>, started_at: &str) {
        let record = slot.record();
        let is_another = !started_at.is_empty() && record.state.started_at != started_at;
        if is_another && record.state.status == Status::Restarting {
            self.note_start(slot, 0, started_at, record.restart_count);
        }
    }

    /// It runs. The PID may be 0, of a run that has ended meanwhile.
    pub(crate) fn note_start(&self, slot: &Arc<Slot>, pid: i32, started_at: &str, restart_count: u64) {
        let record = slot.change(|record| {
            // A daemon that comes later hears of a start that it has in its rows.
            let is_another = record.state.started_at != started_at;
            record.state.status = Status::Running;
            record.state.pid = pid;
            started_at.clone_into(&mut record.state.started_at);
            record.state.finished_at = NEVER.into();
            record.state.oom_killed = false;
            record.state.oom_group = None;
            if is_another {
                if let Some(health) = &mut record.state.health {
                    *health = Health { status: "starting".into(), ..Health::default() };
                }
                record.state.last_signal = None;
                record.state.kill_at = None;
            }
            record.restart_count = restart_count;
        });
        self.save_soon(&record);
        if !self.was_told(&record, "start", started_at) {
            self.tell_late(&record, "start", &[], started_at);
        }
    }

    /// It has ended, and its monitor starts it again.
    pub(crate) fn note_end_of_run(&self, slot: &Arc<Slot>, exit: &Exit) {
        let before = slot.record();
        let record = slot.change(|record| {
            note(record, exit);
            record.state.status = Status::Restarting;
        });
        self.save_soon(&record);
        self.tell_exit(&before, &record);
        slot.set_life(|life| {
            life.exits += 1;
            life.code = exit.code;
        });
    }

    /// Processes of this run were ended for want of memory.
    pub(crate) fn note_oom(&self, slot: &Arc<Slot>, group: Option<String>) {
        let told = slot.record().state.oom_killed;
        let record = slot.change(|record| {
            record.state.oom_killed = true;
            record.state.oom_group = group.or(record.state.oom_group.take());
        });
        if !told {
            self.tell_oom(&record);
        }
    }

    /// False where a daemon before this one has told of it.
    pub(crate) fn tell_exit(&self, before: &Container, record: &Container) -> bool {
        let state = &record.state;
        if self.was_told(record, "die", &state.finished_at) {
            return false;
        }
        // The monitor may have told of it already.
        if state.oom_killed && !before.state.oom_killed {
            self.tell_oom(record);
        }
        let ran = |from: &str, to: &str| Some(to.parse::<jiff::Timestamp>().ok()?.duration_since(from.parse().ok()?));
        let ran = ran(&state.started_at, &state.finished_at).map_or(0, |ran| ran.as_secs().max(0)).to_string();
        let attributes = [("execDuration", ran.as_str()), ("exitCode", &state.exit_code.to_string())];
        self.tell_late(record, "die", &attributes, &state.finished_at);
        true
    }

    /// Beyond Docker's attributes: whose limit it was.
    fn tell_oom(&self, record: &Container) {
        let group = record.state.oom_group.as_deref().map(|group| ("cgroup", group));
        // While it runs, nobody has noted when.
        self.tell_late(record, "oom", group.as_slice(), &record.state.finished_at);
    }
}
