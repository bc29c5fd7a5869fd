//! Telling the client, which may have gone.
//!
//! Stages run side by side and are told one after another: the first that has not ended speaks, and what others say is
//! kept until it is their turn.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use wharf_image::Progress;

use crate::error::{BuildError, Result};
use crate::request::BuildEvent;
use crate::steps::Steps;

/// More than this of a stage that waits for its turn goes to the disk.
const IN_MEMORY: usize = 1 << 20;

/// Where a build's events go. A client that has gone ends the build.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    events: Sender<BuildEvent>,
    pub(crate) quiet: bool,
    /// What is said before it is this one's turn.
    waiting: Option<Arc<Waiting>>,
    /// Where steps are told of, if anybody wants that.
    pub(crate) steps: Option<Steps>,
}

#[derive(Debug)]
struct Waiting {
    turn: Mutex<Turn>,
    /// A file of its name takes what is too much for the memory.
    file: std::path::PathBuf,
}

#[derive(Debug)]
enum Turn {
    /// To come, with what was said so far.
    Kept(Kept),
    Here,
    /// Over: nobody hears any more.
    Over,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<BuildEvent>,
    bytes: usize,
    /// Texts, each after its length. Only texts: how far a download is does not matter any more.
    rest: Option<File>,
}

impl Output {
    pub(crate) fn new(events: Sender<BuildEvent>, quiet: bool) -> Self {
        Self { events, quiet, waiting: None, steps: None }
    }

    /// The same, which tells of steps as well.
    pub(crate) fn telling_steps(mut self) -> Self {
        self.steps = Some(Steps::new(self.events.clone()));
        self
    }

    /// One that is heard when its turn has come.
    pub(crate) fn waiting(&self, file: &Path) -> Self {
        let waiting = Waiting { turn: Mutex::new(Turn::Kept(Kept::default())), file: file.to_owned() };
        let steps = self.steps.as_ref().map(Steps::beside);
        Self { events: self.events.clone(), quiet: self.quiet, waiting: Some(Arc::new(waiting)), steps }
    }

    /// It is this one's turn: what it has said is told, and what it says from now on.
    pub(crate) fn turn(&self) -> Result<()> {
        let Some(waiting) = &self.waiting else { return Ok(()) };
        let mut turn = waiting.lock();
        let Turn::Kept(said) = &mut *turn else { return Ok(()) };
        let said = std::mem::take(said);
        *turn = Turn::Here;
        for event in said.events {
            self.send(event)?;
        }
        let Some(mut file) = said.rest else { return Ok(()) };
        let failing = |e: io::Error| BuildError::system("what a stage has said cannot be read", &e);
        file.rewind().map_err(failing)?;
        let mut file = BufReader::new(file);
        let mut length = [0; 4];
        while file.read_exact(&mut length).is_ok() {
            let mut text = vec![0; u32::from_le_bytes(length) as usize];
            file.read_exact(&mut text).map_err(failing)?;
            self.send(BuildEvent::Stream(String::from_utf8_lossy(&text).into_owned()))?;
        }
        Ok(())
    }

    /// Nobody hears this one any more.
    pub(crate) fn end(&self) {
        if let Some(waiting) = &self.waiting {
            *waiting.lock() = Turn::Over;
        }
    }

    /// Tells text, unless only the result is wanted.
    pub(crate) fn text(&self, text: impl Into<String>) -> Result<()> {
        if self.quiet { Ok(()) } else { self.event(BuildEvent::Stream(text.into())) }
    }

    pub(crate) fn event(&self, event: BuildEvent) -> Result<()> {
        if self.events.is_closed() {
            return Err(BuildError::cancelled());
        }
        if let Some(waiting) = &self.waiting {
            // Held while it is told: what was said before comes first.
            let mut turn = waiting.lock();
            return match &mut *turn {
                Turn::Kept(kept) => kept.add(event, &waiting.file),
                Turn::Here => self.send(event),
                Turn::Over => Err(BuildError::cancelled()),
            };
        }
        self.send(event)
    }

    /// Tells a text, and of a step, if that can be done without waiting for anybody. False when it cannot.
    pub(crate) fn try_say(&self, text: String, step: Option<BuildEvent>) -> Result<bool> {
        let mut room = match self.events.try_reserve_many(2) {
            Ok(room) => room,
            Err(TrySendError::Full(())) => return Ok(false),
            Err(TrySendError::Closed(())) => return Err(BuildError::cancelled()),
        };
        // Whoever has it may be telling what was kept, and waiting for a client that does not read.
        let mut turn = match self.waiting.as_ref().map(|waiting| waiting.turn.try_lock()) {
            None => None,
            Some(Ok(turn)) => Some(turn),
            Some(Err(TryLockError::Poisoned(turn))) => Some(turn.into_inner()),
            Some(Err(TryLockError::WouldBlock)) => return Ok(false),
        };
        let mut send = |event| room.next().map(|place| place.send(event));
        step.map(&mut send);
        match (turn.as_deref_mut(), &self.waiting) {
            (Some(Turn::Over), _) => return Err(BuildError::cancelled()),
            _ if self.quiet => {}
            (Some(Turn::Kept(kept)), Some(waiting)) => kept.add(BuildEvent::Stream(text), &waiting.file)?,
            _ => drop(send(BuildEvent::Stream(text))),
        }
        Ok(true)
    }

    /// As [`Self::event`], for how far something is, from where nothing may block. False when nobody hears it any more.
    pub(crate) async fn progress(&self, progress: Progress) -> bool {
        if let Some(steps) = &self.steps {
            return steps.progress(&progress).await;
        }
        if self.quiet {
            return true;
        }
        let event = BuildEvent::Progress(progress);
        if let Some(waiting) = &self.waiting {
            match &mut *waiting.lock() {
                Turn::Kept(kept) => return kept.add(event, &waiting.file).is_ok(),
                Turn::Over => return false,
                Turn::Here => {}
            }
        }
        self.events.send(event).await.is_ok()
    }

    fn send(&self, event: BuildEvent) -> Result<()> {
        self.events.blocking_send(event).map_err(|_| BuildError::cancelled())
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, event: BuildEvent, file: &Path) -> Result<()> {
        let BuildEvent::Stream(text) = event else {
            if self.rest.is_none() && self.bytes <= IN_MEMORY {
                self.bytes += size_of::<BuildEvent>();
                self.events.push(event);
            }
            return Ok(());
        };
        self.bytes += size_of::<BuildEvent>() + text.len();
        if self.bytes <= IN_MEMORY {
            self.events.push(BuildEvent::Stream(text));
            return Ok(());
        }
        let failing = |e: io::Error| BuildError::system("what a stage says cannot be kept", &e);
        if self.rest.is_none() {
            let opened = File::options().read(true).write(true).create_new(true).open(file).map_err(failing)?;
            std::fs::remove_file(file).map_err(failing)?;
            self.rest = Some(opened);
        }
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let length = u32::try_from(text.len()).map_err(|_| BuildError::invalid("a line of output is too long"))?;
        rest.write_all(&[&length.to_le_bytes()[..], text.as_bytes()].concat()).map_err(failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_download_is_waits_too() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut told) = tokio::sync::mpsc::channel(16);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let own = Output::new(sender, false).waiting(&dir.path().join("1"));
        let say = |status: &str| runtime.block_on(own.progress(Progress::new("layer", status)));
        assert!(say("early") && told.try_recv().is_err());
        own.turn().unwrap();
        assert!(say("late"));
        let statuses: Vec<BuildEvent> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        let expected = ["early", "late"].map(|status| BuildEvent::Progress(Progress::new("layer", status)));
        assert_eq!(statuses, expected);
        own.end();
        assert!(!say("too late"));
    }

    #[test]
    fn who_may_not_wait_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut told) = tokio::sync::mpsc::channel(2);
        let own = Output::new(sender, false).waiting(&dir.path().join("1"));
        for number in 0..5 {
            assert!(own.try_say(number.to_string(), None).unwrap());
        }
        // It is told what was kept, and the client does not read.
        let turn = std::thread::spawn({
            let own = own.clone();
            move || own.turn()
        });
        while told.len() < 2 {
            std::thread::yield_now();
        }
        assert!(!own.try_say("late".into(), None).unwrap());
        // It reads a little: who tells what was kept comes first.
        assert_eq!(told.blocking_recv(), Some(BuildEvent::Stream("0".into())));
        assert!(!own.try_say("late".into(), None).unwrap() && !turn.is_finished());
        (1..5).for_each(|number| assert_eq!(told.blocking_recv(), Some(BuildEvent::Stream(number.to_string()))));
        turn.join().unwrap().unwrap();
        assert!(own.try_say("late".into(), None).unwrap());
        drop(told);
        assert!(own.try_say("too late".into(), None).is_err());
    }

    #[test]
    fn what_is_said_early_is_told_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, mut told) = tokio::sync::mpsc::channel(1 << 12);
        let output = Output::new(sender, false);
        let (first, second) = (output.waiting(&dir.path().join("1")), output.waiting(&dir.path().join("2")));
        first.turn().unwrap();
        let large = "ä".repeat(1 << 10);
        for _ in 0..2000 {
            second.text(large.clone()).unwrap();
        }
        first.text("first").unwrap();
        second.turn().unwrap();
        second.text("last").unwrap();
        second.end();
        assert!(second.text("too late").is_err());
        drop((output, first, second));
        let mut all = Vec::new();
        while let Some(BuildEvent::Stream(text)) = told.blocking_recv() {
            all.push(text);
        }
        assert_eq!((all.len(), all[0].as_str(), all[2001].as_str()), (2002, "first", "last"));
        assert!(all[1..2001].iter().all(|text| *text == large));
    }
}
