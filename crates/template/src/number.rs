//! Number literals, as Go writes them.

use crate::Value;

/// Reads an integer (decimal, `0x`, `0o`, `0b`, leading zero, `_`) or a float; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(magnitude) = integer(digits) {
        let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
        return i64::try_from(value).map(Value::Int).ok().or_else(|| u64::try_from(value).map(Value::Uint).ok());
    }
    let plain = digits.replace('_', "");
    let allowed = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !plain.chars().all(allowed) {
        return None;
    }
    let value: f64 = plain.parse().ok()?;
    Some(Value::Float(if negative { -value } else { value }))
}

fn integer(digits: &str) -> Option<u64> {
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    u64::from_str_radix(&body.replace('_', ""), radix).ok()
}

/// A character constant's number.
pub(crate) fn character(text: &str) -> Option<i64> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    let plain = crate::print::unquote_escapes(inner)?;
    let mut chars = plain.chars();
    let first = chars.next()?;
    chars.next().is_none().then(|| i64::from(u32::from(first)))
}
