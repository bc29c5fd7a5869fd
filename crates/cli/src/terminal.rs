//! Our terminal: raw mode and size.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal of standard input in raw mode. Put back as it was when dropped.
#[derive(Debug)]
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Sets the terminal raw; nothing happens when standard input is none.
    ///
    /// # Errors
    ///
    /// The terminal refuses.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(saved)))
    }

    /// The terminal as it is.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Puts the terminal back now.
    pub(crate) fn leave(&mut self) {
        if let Some(saved) = self.0.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &saved);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A terminal that does not echo what is typed, for passwords.
#[derive(Debug)]
pub(crate) struct Silent(Option<Termios>);

impl Silent {
    /// Turns the echo off; nothing happens when standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let saved = tcgetattr(&stdin)?;
        let mut silent = saved.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent)?;
        Ok(Self(Some(saved)))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some(saved) = self.0.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &saved);
        }
    }
}

/// Rows and columns of standard output's terminal; zeros when it is none.
pub(crate) fn size() -> (u16, u16) {
    tcgetwinsize(io::stdout()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Refuses to promise a terminal when what is typed does not come from one.
///
/// # Errors
///
/// Docker's words.
pub(crate) fn check(attach_stdin: bool, tty: bool) -> Result<(), String> {
    if attach_stdin && tty && !io::stdin().is_terminal() {
        return Err("the input device is not a TTY".to_owned());
    }
    Ok(())
}
