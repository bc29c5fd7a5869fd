//! `--chmod`: octal, or symbolic as chmod(1) has it.

use crate::error::{BuildError, Result};

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeChange {
    Octal(u32),
    Symbolic(Vec<Clause>),
}

/// `ugo+rwx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Bits of those who are meant, with set-ID; sticky is everybody's alone (setmode(3) of BSD, as with BuildKit).
    who: u32,
    operator: char,
    /// For all three at once, cut down by `who`.
    bits: u32,
    /// `X`: execute for directories, and where somebody may execute already.
    conditional: bool,
    /// `g=u`: the bits of these are copied.
    copy: Option<char>,
}

impl ModeChange {
    /// Parses the flag's value.
    ///
    /// # Errors
    /// With BuildKit's words.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let octal = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(|| BuildError::invalid(octal()));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_clauses(part, &mut clauses)
                .ok_or_else(|| BuildError::invalid(format!("invalid chmod parameter: '{text}'")))?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// The permission bits of directories above what is copied, if they must be made: those of an octal mode that nobody but
    /// the owner writes by (BuildKit's, since 0.21, below its mask).
    pub(crate) fn of_new_directories(&self) -> Option<u32> {
        match self {
            Self::Octal(mode) => Some(mode & 0o755),
            Self::Symbolic(_) => None,
        }
    }

    /// The permission bits after the change.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

fn parse_clauses(text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let end = text.find(['+', '-', '='])?;
    let mut who = 0;
    for c in text[..end].chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    // Without a name everybody is meant; the umask of a build is 022 and takes nothing that matters.
    let who = if who == 0 { 0o7777 } else { who };
    let mut rest = text[end..].chars().peekable();
    while let Some(operator) = rest.next() {
        if !matches!(operator, '+' | '-' | '=') {
            return None;
        }
        let mut clause = Clause { who, operator, bits: 0, conditional: false, copy: None };
        while let Some(c) = rest.next_if(|c| !matches!(c, '+' | '-' | '=')) {
            match c {
                'r' => clause.bits |= 0o444,
                'w' => clause.bits |= 0o222,
                'x' => clause.bits |= 0o111,
                'X' => clause.conditional = true,
                's' => clause.bits |= 0o6000,
                't' => clause.bits |= 0o1000,
                'u' | 'g' | 'o' if clause.copy.is_none() => clause.copy = Some(c),
                _ => return None,
            }
        }
        clauses.push(clause);
    }
    Some(())
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional && (directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(from) = self.copy {
            let three = match from {
                'u' => mode >> 6,
                'g' => mode >> 3,
                _ => mode,
            } & 0o7;
            bits |= three << 6 | three << 3 | three;
        }
        let who = self.who;
        match self.operator {
            '+' => mode | (bits & who),
            '-' => mode & !(bits & who),
            // What is not named goes, set-ID too; sticky stays.
            _ => (mode & !(who & 0o6777)) | (bits & who),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_set_and_changed() {
        for (text, before, directory, after) in [
            ("755", 0o644, false, 0o755),
            ("0", 0o644, false, 0),
            ("7777", 0, false, 0o7777),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o777, false, 0o700),
            ("a=r", 0o777, false, 0o444),
            ("u=rwx,go=rx", 0o600, false, 0o755),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o744, false, 0o755),
            ("a+X", 0o644, true, 0o755),
            ("g=u", 0o740, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, false, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("u+rw-x", 0o100, false, 0o600),
            ("u=", 0o777, false, 0o077),
            ("u=rw,go=r", 0o4755, false, 0o644),
            ("a=rwx", 0o6755, false, 0o777),
            ("g=r", 0o6755, true, 0o4745),
            ("ug=rX,o=", 0o1755, true, 0o1550),
            ("u=rwxs", 0o755, false, 0o4755),
            ("o=t", 0o6711, false, 0o6710),
            ("a=rx,+t", 0o6711, false, 0o1555),
        ] {
            assert_eq!(ModeChange::parse(text).unwrap().apply(before, directory), after, "{text} {before:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for bad in ["8", "10000", "", "x", "u", "u+q", "z+x", "u+x,", "99999999999"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
