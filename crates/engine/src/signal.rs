//! Signals by name or number, as `kill` and `--stop-signal` take them.

use crate::error::{EngineError, Result};

/// signal(7), the numbers of x86 and ARM, which are those of all that we build for.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// First and last real-time signal that programs may use with glibc.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3` → the number.
///
/// # Errors
/// `InvalidParameter` with Docker's words.
pub fn parse(text: &str) -> Result<i32> {
    let bad = || EngineError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return match number {
            0 => Err(bad()),
            1..=RTMAX => Ok(number),
            _ => Err(EngineError::invalid(format!("the linux daemon does not support signal {number}"))),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(plus), _) => RTMIN + plus.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).ok_or_else(bad)?,
        (_, Some(minus)) => RTMAX - minus.strip_prefix('-').and_then(|n| n.parse::<i32>().ok()).ok_or_else(bad)?,
        _ => return Err(bad()),
    };
    if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) }
}

/// The number's name: `SIGTERM`.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_numbers_and_real_time() {
        assert_eq!(parse("SIGTERM").unwrap(), 15);
        assert_eq!(parse("kill").unwrap(), 9);
        assert_eq!(parse("9").unwrap(), 9);
        assert_eq!(parse("RTMIN+3").unwrap(), 37);
        assert_eq!(parse("SIGRTMAX-1").unwrap(), 63);
        for bad in ["", "0", "65", "FOO", "RTMIN+99", "-1", "SIG"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
