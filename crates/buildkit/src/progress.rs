//! What is shown of a build while it is under way: vertexes, how far they are, and what they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use wharf_build::{StepEvent, Warned};
use wharf_reference::Digest;

use crate::failure;
use crate::proto::Timestamp;
use crate::proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use crate::proto::llb::{Position, Range, SourceInfo};

mod told;

pub(crate) use told::Follower;
use told::Told;

/// Warnings of one build.
const MOST_WARNINGS: usize = 1000;
/// With a warning goes the Dockerfile, of which clients show a few lines. One that is longer does not go.
const MAX_SHOWN: usize = 256 << 10;
/// All that was told of one build so far. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    told: Arc<Told>,
    /// Gives each vertex a digest of its own.
    vertexes: AtomicU64,
    warnings: AtomicUsize,
}

/// A vertex that is under way. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct Step {
    progress: Progress,
    vertex: Vertex,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let told = Arc::new(Told::new());
        Self(Arc::new(Inner { told, vertexes: AtomicU64::new(0), warnings: AtomicUsize::new(0) }))
    }

    fn tell(&self, message: StatusResponse) {
        self.0.told.tell(message, None);
    }

    /// Waits, where somebody follows, until there is room for more output.
    pub(crate) async fn room(&self) {
        self.0.told.room().await;
    }

    /// All that is kept of what was told, without the text that warnings are about.
    pub(crate) fn all(&self) -> Vec<Arc<StatusResponse>> {
        self.0.told.kept()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.told.has_ended()
    }

    /// No more will come.
    pub(crate) fn end(&self) {
        self.0.told.end();
    }

    /// Hears everything, from the beginning.
    pub(crate) fn follow(&self) -> Follower {
        Follower::of(&self.0.told)
    }

    /// Begins a vertex.
    pub(crate) fn step(&self, name: &str) -> Step {
        let number = self.0.vertexes.fetch_add(1, Ordering::Relaxed) + 1;
        let digest = Digest::sha256(format!("{:p} {number} {name}", Arc::as_ptr(&self.0)).as_bytes());
        let vertex = Vertex {
            digest: digest.to_string(),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        };
        let step = Step { progress: self.clone(), vertex };
        step.tell();
        step
    }
}

impl Step {
    fn tell(&self) {
        self.progress.tell(StatusResponse { vertexes: vec![self.vertex.clone()], ..StatusResponse::default() });
    }

    /// What it says, on the standard output (1) or error (2).
    pub(crate) fn say(&self, stream: u8, bytes: &[u8]) {
        let log = VertexLog {
            vertex: self.vertex.digest.clone(),
            timestamp: Some(Timestamp::now()),
            stream: stream.into(),
            msg: bytes.to_vec(),
        };
        self.progress.tell(StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// How far something of it is. `began` is when that had begun.
    pub(crate) fn status(&self, id: &str, current: u64, total: u64, began: Timestamp, completed: bool) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.vertex.digest.clone(),
            name: String::new(),
            current: number(current),
            total: number(total),
            timestamp: Some(Timestamp::now()),
            started: Some(began),
            completed: completed.then(Timestamp::now),
        };
        self.progress.tell(StatusResponse { statuses: vec![status], ..StatusResponse::default() });
    }

    fn warn(&self, warned: &Warned) {
        let count = self.progress.0.warnings.fetch_add(1, Ordering::Relaxed) + 1;
        if count > MOST_WARNINGS {
            if count == MOST_WARNINGS + 1 {
                let message = format!("there are more than {MOST_WARNINGS} warnings: the others are not shown\n");
                self.say(2, message.as_bytes());
            }
            return;
        }
        let source = Some(&warned.text).filter(|text| text.len() <= MAX_SHOWN);
        let line = |line: u32| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        let warning = VertexWarning {
            vertex: self.vertex.digest.clone(),
            level: 1,
            short: format!("{}: {} (line {})", warned.rule, warned.message, warned.lines.0).into_bytes(),
            url: wharf_dockerfile::address(warned.rule),
            info: source.map(|_| SourceInfo {
                filename: warned.file.clone(),
                data: Vec::new(),
                language: "Dockerfile".into(),
            }),
            detail: vec![wharf_dockerfile::description(warned.rule).into()],
            // One for each line, as BuildKit has them.
            ranges: (warned.lines.0..=warned.lines.1).map(|at| Range { start: line(at), end: line(at) }).collect(),
        };
        let message = StatusResponse { warnings: vec![warning], ..StatusResponse::default() };
        self.progress.0.told.tell(message, source.cloned());
    }

    /// It is over, and nothing was to be done, or it has failed.
    pub(crate) fn end(mut self, cached: bool, error: Option<String>) {
        self.vertex.cached = cached;
        self.vertex.error = error.unwrap_or_default();
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.vertex.completed = Some(Timestamp::now());
        self.tell();
    }
}

/// The steps of one build of ours, as they are told of.
#[derive(Debug)]
pub(crate) struct Steps {
    progress: Progress,
    open: std::collections::HashMap<u64, Open>,
    /// The vertex that warnings belong to.
    warnings: Option<Step>,
}

#[derive(Debug)]
struct Open {
    step: Step,
    layers: Transfers,
}

/// Layers that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Transfers(std::collections::HashMap<String, Transfer>);

#[derive(Debug)]
struct Transfer {
    began: Timestamp,
    told: std::time::Instant,
}

/// So often it is told how far one is: what was told is kept for who asks later.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(250);

impl Transfers {
    pub(crate) fn tell(&mut self, step: &Step, progress: &wharf_image::Progress) {
        let Some(current) = progress.current.filter(|_| !progress.id.is_empty()) else { return };
        let id = format!("{} {}", progress.status.to_lowercase(), progress.id);
        let total = progress.total.unwrap_or(current);
        let now = std::time::Instant::now();
        let is_new = !self.0.contains_key(&id);
        let transfer = self.0.entry(id.clone()).or_insert(Transfer { began: Timestamp::now(), told: now });
        let whole = current >= total;
        if is_new || whole || now.duration_since(transfer.told) >= INTERVAL {
            transfer.told = now;
            step.status(&id, current, total, transfer.began, whole);
        }
    }
}

impl Steps {
    pub(crate) fn of(progress: &Progress) -> Self {
        Self { progress: progress.clone(), open: std::collections::HashMap::new(), warnings: None }
    }

    pub(crate) fn hear(&mut self, event: StepEvent) {
        match event {
            StepEvent::Began { step, name } => {
                let open = Open { step: self.progress.step(&name), layers: Transfers::default() };
                self.open.insert(step, open);
            }
            StepEvent::Said { step, stream, bytes } => {
                if let Some(open) = self.open.get(&step) {
                    open.step.say(stream, &bytes);
                }
            }
            StepEvent::Progress { step, progress } => {
                let Some(open) = self.open.get_mut(&step) else { return };
                open.layers.tell(&open.step, &progress);
            }
            StepEvent::Ended { step, cached, error } => {
                if let Some(open) = self.open.remove(&step) {
                    open.step.end(cached, error.map(|error| failure::words(&error)));
                }
            }
            StepEvent::Warned(warned) => {
                let progress = &self.progress;
                let step = self.warnings.get_or_insert_with(|| progress.step("[internal] checking the Dockerfile"));
                step.warn(&warned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    async fn all(progress: &Progress) -> Vec<Arc<StatusResponse>> {
        progress.end();
        let (mut all, mut follower) = (Vec::new(), progress.follow());
        loop {
            let some = follower.next().await;
            assert!(some.len() <= told::AT_ONCE);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    fn warned(text: &Arc<str>, line: u32) -> StepEvent {
        StepEvent::Warned(Warned {
            rule: "StageNameCasing",
            message: "m".into(),
            file: "Dockerfile".into(),
            text: Arc::clone(text),
            lines: (line, line),
        })
    }

    #[tokio::test]
    async fn warnings_share_what_they_are_about() {
        let progress = Progress::new();
        let mut steps = Steps::of(&progress);
        let text: Arc<str> = "FROM x AS Y\n".repeat(2000).into();
        (1..=2000).for_each(|line| steps.hear(warned(&text, line)));
        drop(steps);
        let kept: usize = progress.all().iter().map(|message| message.encoded_len()).sum();
        assert!(kept < 1 << 20, "{kept}");
        let all = all(&progress).await;
        let warnings: Vec<_> = all.iter().flat_map(|message| &message.warnings).collect();
        assert_eq!(warnings.len(), MOST_WARNINGS);
        assert!(warnings.iter().all(|warning| warning.info.as_ref().unwrap().data == text.as_bytes()));
        let said: Vec<_> = all.iter().flat_map(|message| &message.logs).collect();
        assert!(matches!(said[..], [log] if String::from_utf8_lossy(&log.msg).contains("more than 1000 warnings")));
    }

    #[tokio::test]
    async fn a_text_that_nobody_wrote_goes_with_no_warning() {
        let progress = Progress::new();
        Steps::of(&progress).hear(warned(&"FROM x AS Y\n".repeat(1 << 15).into(), 1));
        let all = all(&progress).await;
        assert_eq!(all.iter().flat_map(|message| &message.warnings).filter(|one| one.info.is_none()).count(), 1);
    }

    #[tokio::test]
    async fn what_is_said_is_bounded_with_how_far_things_are() {
        let progress = Progress::new();
        let step = progress.step("a");
        let id = "x".repeat(1 << 20);
        (0..20).for_each(|_| step.status(&id, 1, 2, Timestamp::now(), false));
        step.say(1, b"too late");
        step.say(1, b"and later");
        step.end(false, None);
        let all = all(&progress).await;
        let statuses = all.iter().map(|message| message.statuses.len()).sum::<usize>();
        assert_eq!(statuses, 16);
        let said: Vec<_> = all.iter().flat_map(|message| &message.logs).map(|log| log.msg.as_slice()).collect();
        assert!(matches!(said[..], [one] if one.starts_with(b"[output clipped")), "{said:?}");
        // Its end is told all the same.
        assert!(all.last().unwrap().vertexes[0].completed.is_some());
    }
}
