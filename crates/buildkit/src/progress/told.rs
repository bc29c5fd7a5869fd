//! What was told of one build, for those who follow it and for those who ask later.
//!
//! So much of what it says is kept for everybody. What it says beyond that is there until those who follow it have it, and the
//! build waits for them, as a command waits for who reads its pipe: nothing is cut. Who follows and does not read for
//! [`PATIENCE`] has missed something, which is said.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;

use crate::proto::control::StatusResponse;

/// Bytes of output, of how far things are and of warnings that one build may keep for who asks for its progress.
const MOST_SAID: usize = 16 << 20;
/// Bytes of output beyond that which wait for those who follow.
const MOST_LATE: usize = 2 << 20;
/// So long the build waits for who follows it and does not read.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages that are given at once: each has what it needs of its own.
pub(super) const AT_ONCE: usize = 16;
const CLIPPED: &str = "[output clipped, log limit 16MiB reached]\n";

#[derive(Debug)]
pub(super) struct Told {
    state: Mutex<State>,
    /// Changes with what is told, and becomes `None` when no more will come.
    grown: watch::Sender<Option<u64>>,
    /// Changes when somebody has read.
    read: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// By their numbers.
    messages: BTreeMap<u64, Message>,
    next: u64,
    said: usize,
    /// Output beyond what is kept: numbers and bytes, the first first.
    late: VecDeque<(u64, usize)>,
    late_bytes: usize,
    /// How far those are who follow.
    followers: HashMap<u64, u64>,
    next_follower: u64,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Message {
    message: Arc<StatusResponse>,
    /// What its warnings are about: all warnings of a build have the same.
    source: Option<Arc<str>>,
    /// It is not kept for those who come later.
    late: bool,
    /// It stands for output that is not there any more.
    gap: bool,
}

impl Message {
    /// With the source in it.
    fn whole(&self) -> Arc<StatusResponse> {
        let Some(source) = &self.source else { return Arc::clone(&self.message) };
        let mut message = StatusResponse::clone(&self.message);
        for info in message.warnings.iter_mut().filter_map(|warning| warning.info.as_mut()) {
            info.data = source.as_bytes().to_vec();
        }
        Arc::new(message)
    }
}

impl State {
    fn push(&mut self, message: StatusResponse, source: Option<Arc<str>>, late: bool) {
        self.messages.insert(self.next, Message { message: Arc::new(message), source, late, gap: false });
        self.next += 1;
    }

    /// Lets go of output that everybody has who follows; with `in_any_case` also of what somebody has not.
    fn let_go(&mut self, in_any_case: bool) {
        let slowest = self.followers.values().min().copied().unwrap_or(u64::MAX);
        while let Some((number, bytes)) = self.late.front().copied() {
            let wanted = number >= slowest;
            if wanted && !(in_any_case && self.late_bytes > MOST_LATE) {
                return;
            }
            self.late.pop_front();
            self.late_bytes -= bytes;
            if let Some(gone) = self.messages.remove(&number) {
                self.leave_gap(number, &gone.message);
            }
        }
    }

    /// Puts one mark in the place of output that is gone, for those who come there later.
    fn leave_gap(&mut self, number: u64, gone: &StatusResponse) {
        if self.messages.range(..number).next_back().is_some_and(|(_, before)| before.gap) {
            return;
        }
        let mut logs: Vec<_> = gone.logs.iter().take(1).cloned().collect();
        logs.iter_mut().for_each(|log| log.msg = CLIPPED.into());
        let message = Arc::new(StatusResponse { logs, ..StatusResponse::default() });
        self.messages.insert(number, Message { message, source: None, late: false, gap: true });
    }
}

impl Told {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), grown: watch::Sender::new(Some(0)), read: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, mut message: StatusResponse, source: Option<Arc<str>>) {
        let mut state = self.state();
        if state.ended {
            return;
        }
        // That a step has begun and ended is always told: there are no more of them than the Dockerfile has.
        if !message.vertexes.is_empty() {
            state.push(message, source, false);
        } else if state.said < MOST_SAID {
            state.said += message.encoded_len();
            state.push(message, source, false);
        } else if message.logs.is_empty() {
            // How far something is, and more warnings, are of no use to anybody.
            return;
        } else {
            message.statuses.clear();
            let bytes = message.encoded_len();
            let number = state.next;
            state.late.push_back((number, bytes));
            state.late_bytes += bytes;
            state.push(message, source, true);
            state.let_go(false);
        }
        // Under the lock: or the end of all could come before it.
        self.grown.send_replace(Some(state.next));
    }

    /// Waits until there is room for more output.
    pub(super) async fn room(&self) {
        self.room_within(PATIENCE).await;
    }

    async fn room_within(&self, patience: Duration) {
        let mut read = self.read.subscribe();
        let waiting = async {
            loop {
                read.borrow_and_update();
                {
                    let mut state = self.state();
                    state.let_go(false);
                    if state.late_bytes <= MOST_LATE {
                        return;
                    }
                }
                // The sender is here.
                let _ = read.changed().await;
            }
        };
        if tokio::time::timeout(patience, waiting).await.is_err() {
            self.state().let_go(true);
        }
    }

    /// All that is kept, without the text that warnings are about.
    pub(super) fn kept(&self) -> Vec<Arc<StatusResponse>> {
        let state = self.state();
        state.messages.values().filter(|message| !message.late).map(|message| Arc::clone(&message.message)).collect()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// No more will come.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        self.grown.send_replace(None);
    }
}

/// Who hears all that is told of a build, from its beginning.
#[derive(Debug)]
pub(crate) struct Follower {
    told: Arc<Told>,
    own: u64,
    next: u64,
}

impl Follower {
    pub(super) fn of(told: &Arc<Told>) -> Self {
        let mut state = told.state();
        let own = state.next_follower;
        state.next_follower += 1;
        state.followers.insert(own, 0);
        drop(state);
        Self { told: Arc::clone(told), own, next: 0 }
    }

    /// What comes next; waits for it. Empty when there is no more.
    pub(crate) async fn next(&mut self) -> Vec<Arc<StatusResponse>> {
        let mut grown = self.told.grown.subscribe();
        loop {
            // Before it is looked: what comes behind it wakes.
            let over = grown.borrow_and_update().is_none();
            let some = self.some();
            if !some.is_empty() || over {
                return some;
            }
            // The sender is here.
            let _ = grown.changed().await;
        }
    }

    fn some(&mut self) -> Vec<Arc<StatusResponse>> {
        let mut state = self.told.state();
        let found: Vec<(u64, Message)> = state
            .messages
            .range(self.next..)
            .take(AT_ONCE)
            .map(|(number, message)| (*number, message.clone()))
            .collect();
        let Some((last, _)) = found.last() else { return Vec::new() };
        self.next = last + 1;
        state.followers.insert(self.own, self.next);
        state.let_go(false);
        drop(state);
        self.told.read.send_modify(|count| *count += 1);
        found.iter().map(|(_, message)| message.whole()).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.told.state();
        state.followers.remove(&self.own);
        state.let_go(false);
        drop(state);
        self.told.read.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::control::VertexLog;

    fn said(bytes: usize, mark: u8) -> StatusResponse {
        let log = VertexLog { msg: vec![mark; bytes], ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    async fn all(follower: &mut Follower) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let some = follower.next().await;
            if some.is_empty() {
                return all;
            }
            some.iter().flat_map(|message| &message.logs).for_each(|log| all.extend_from_slice(&log.msg));
        }
    }

    #[tokio::test]
    async fn who_follows_has_all_and_the_build_waits() {
        let told = Arc::new(Told::new());
        let mut follower = Follower::of(&told);
        let building = {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                for number in 0..30u8 {
                    told.room().await;
                    told.tell(said(1 << 20, number), None);
                    assert!(told.state().late_bytes <= MOST_LATE + (2 << 20));
                }
                told.end();
            })
        };
        let heard = all(&mut follower).await;
        building.await.unwrap();
        let marks: Vec<u8> = (0..30u8).collect();
        let pieces: Vec<&[u8]> = heard.chunks(1 << 20).collect();
        assert_eq!(pieces.iter().map(|piece| piece[0]).collect::<Vec<_>>(), marks);
        assert!(pieces.iter().all(|piece| piece.len() == 1 << 20 && piece.last() == piece.first()));
        // Who comes later has what is kept, and is told that there was more.
        let later = all(&mut Follower::of(&told)).await;
        assert!(later.len() < MOST_SAID + (2 << 20) && later.ends_with(CLIPPED.as_bytes()), "{}", later.len());
        assert_eq!(told.kept().len(), 17);
    }

    #[tokio::test]
    async fn who_does_not_read_holds_nobody_up_for_long() {
        let told = Arc::new(Told::new());
        let mut follower = Follower::of(&told);
        for _ in 0..40 {
            told.room_within(Duration::from_millis(5)).await;
            told.tell(said(1 << 20, b'a'), None);
        }
        told.end();
        let heard = all(&mut follower).await;
        assert!(heard.len() < MOST_SAID + MOST_LATE + (3 << 20), "{}", heard.len());
        let text = String::from_utf8(heard).unwrap();
        assert_eq!(text.matches(CLIPPED).count(), 1);
    }

    #[tokio::test]
    async fn without_anybody_nothing_waits() {
        let told = Told::new();
        for _ in 0..40 {
            told.room().await;
            told.tell(said(1 << 20, b'a'), None);
        }
        assert_eq!(told.kept().len(), 17);
        assert_eq!(told.state().late_bytes, 0);
    }
}
