//! What is shown of a build while it is under way: vertexes, how far they are, and what they say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use wharf_build::{StepEvent, Warned};
use wharf_reference::Digest;

use crate::failure;
use crate::proto::Timestamp;
use crate::proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use crate::proto::llb::{Position, Range, SourceInfo};

/// Bytes of output that one build may keep for who asks for its progress.
const MOST_SAID: usize = 16 << 20;
const CLIPPED: &str = "[output clipped, log limit 16MiB reached]\n";

/// All that was told of one build so far. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    told: Mutex<Told>,
    /// How many messages there are; `None` when no more will come.
    count: watch::Sender<Option<usize>>,
}

#[derive(Debug, Default)]
struct Told {
    messages: Vec<Arc<StatusResponse>>,
    said: usize,
    /// Gives each vertex a digest of its own.
    vertexes: u64,
    ended: bool,
}

/// A vertex that is under way. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct Step {
    progress: Progress,
    vertex: Vertex,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { told: Mutex::default(), count: watch::Sender::new(Some(0)) }))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: StatusResponse) {
        let mut told = self.told();
        if told.ended {
            return;
        }
        let said: usize = message.logs.iter().map(|log| log.msg.len()).sum();
        if said > 0 && told.said >= MOST_SAID {
            return;
        }
        told.said += said;
        let mut message = message;
        if said > 0 && told.said >= MOST_SAID {
            message.logs.iter_mut().for_each(|log| log.msg.extend_from_slice(CLIPPED.as_bytes()));
        }
        told.messages.push(Arc::new(message));
        self.0.count.send_replace(Some(told.messages.len()));
    }

    /// No more will come.
    pub(crate) fn end(&self) {
        self.told().ended = true;
        self.0.count.send_replace(None);
    }

    /// The messages from `from` on; waits for more. Empty when there are no more.
    pub(crate) async fn next(&self, from: usize) -> Vec<Arc<StatusResponse>> {
        let mut count = self.0.count.subscribe();
        // The sender is here.
        let _ = count.wait_for(|count| count.is_none_or(|count| count > from)).await;
        self.told().messages.get(from..).map(<[_]>::to_vec).unwrap_or_default()
    }

    /// Begins a vertex.
    pub(crate) fn step(&self, name: &str) -> Step {
        let number = {
            let mut told = self.told();
            told.vertexes += 1;
            told.vertexes
        };
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
        let line = |line: u32| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        let warning = VertexWarning {
            vertex: self.vertex.digest.clone(),
            level: 1,
            short: format!("{}: {} (line {})", warned.rule, warned.message, warned.lines.0).into_bytes(),
            url: failure::address(warned.rule),
            info: Some(SourceInfo {
                filename: warned.file.clone(),
                data: warned.text.as_bytes().to_vec(),
                language: "Dockerfile".into(),
            }),
            ranges: vec![Range { start: line(warned.lines.0), end: line(warned.lines.1) }],
            ..VertexWarning::default()
        };
        self.progress.tell(StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
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
