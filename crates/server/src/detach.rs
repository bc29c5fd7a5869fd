//! The keys by which a client wants to leave a terminal, as `ctrl-p,ctrl-q`.

use crate::http::ApiError;

/// Refuses keys that cannot be typed.
///
/// # Errors
/// 400 with Docker's words.
pub(crate) fn check(keys: &str) -> Result<(), ApiError> {
    match keys.is_empty() || keys.split(',').all(is_key) {
        true => Ok(()),
        false => Err(ApiError::bad(format!("Invalid detach keys ({keys}) provided"))),
    }
}

/// One character, or a control character (moby/term, `ToBytes`).
fn is_key(word: &str) -> bool {
    match word.strip_prefix("ctrl-") {
        Some(letter) => matches!(letter.as_bytes(), [b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_']),
        None => word.len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn keys_can_be_typed() {
        for good in ["", "a", "ctrl-p,ctrl-q", "ctrl-@,x,ctrl-\\"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["ctrl-9", "ctrl-", "ab", "a,,b", "ctrl-A"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
