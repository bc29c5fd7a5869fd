//! Whether the kernel has ended processes of the container for want of memory.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use wharf_cgroup::Group;

/// The kernel's counter of a group, and an fd that tells when to look at it.
#[derive(Debug)]
pub(crate) struct Oom {
    /// `memory.oom_control` on v1, `memory.events` on v2; `None` where there is no memory controller.
    file: Option<PathBuf>,
    v1: bool,
    seen: u64,
    alarm: Option<OwnedFd>,
    /// Whose limit it is, since the alarm was set.
    limits: Option<wharf_cgroup::Oom>,
    /// The group whose limit was reached last.
    reached: Option<String>,
}

impl Oom {
    pub(crate) fn new(group: &Group) -> Self {
        let v1 = group.v1_dir("memory").map(|dir| dir.join("memory.oom_control"));
        let is_v1 = v1.is_some();
        let file = v1.or_else(|| group.v2_dir().map(|dir| dir.join("memory.events")));
        // The group was made for this container, so the count begins at 0.
        Self { file, v1: is_v1, seen: 0, alarm: None, limits: None, reached: None }
    }

    /// Asks the kernel to tell at once, and whose limit it is. Not needed for the count at the end, so not done before the
    /// container runs.
    pub(crate) fn arm(&mut self, group: &Group) {
        self.limits = Some(wharf_cgroup::Oom::watch(group));
        self.alarm = self.file.as_ref().and_then(|file| if self.v1 { alarm_v1(file) } else { alarm_v2(file) });
    }

    pub(crate) fn alarm(&self) -> Option<&OwnedFd> {
        self.alarm.as_ref()
    }

    /// The alarm has gone off: takes it, and answers with [`Self::look`], or whether processes wait for memory because
    /// nobody may be ended for it.
    pub(crate) fn rang(&mut self) -> bool {
        let mut bytes = [0; 4096];
        if let Some(alarm) = &self.alarm
            && rustix::io::read(alarm, &mut bytes).is_err()
        {
            self.alarm = None;
        }
        self.look() || self.stands_still()
    }

    /// Whether a group without the OOM killer, which v1 has, has no memory left.
    fn stands_still(&self) -> bool {
        let control = self.file.as_ref().filter(|_| self.v1);
        let text = control.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        ["oom_kill_disable 1", "under_oom 1"].iter().all(|wanted| text.lines().any(|line| line == *wanted))
    }

    /// Whether processes have been ended since the last look.
    pub(crate) fn look(&mut self) -> bool {
        let text = self.file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let count =
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(self.seen);
        let more = count > self.seen;
        self.seen = count;
        if more {
            let told = self.limits.as_mut().and_then(wharf_cgroup::Oom::look);
            let group = told.and_then(|told| told.group).map(|path| path.to_string_lossy().into_owned());
            self.reached = group.or(self.reached.take());
        }
        more
    }

    /// The group whose limit was reached when processes were ended, `/parent/child`: the container's or one above it.
    /// `None` when it is not known, or was nobody's: the host had no memory left.
    pub(crate) fn reached(&self) -> Option<String> {
        self.reached.clone()
    }

    /// What was before does not count for what comes.
    pub(crate) fn forget(&mut self) -> Option<String> {
        self.reached.take()
    }
}

/// cgroup-v1/memory.rst, "OOM Control".
fn alarm_v1(control: &PathBuf) -> Option<OwnedFd> {
    let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
    let file = File::open(control).ok()?;
    let line = format!("{} {}", alarm.as_raw_fd(), file.as_raw_fd());
    fs::write(control.with_file_name("cgroup.event_control"), line).ok()?;
    Some(alarm)
}

/// cgroup-v2.rst, "Populated notification": the file is modified with every event.
fn alarm_v2(events: &PathBuf) -> Option<OwnedFd> {
    let alarm = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&alarm, events, inotify::WatchFlags::MODIFY).ok()?;
    Some(alarm)
}
