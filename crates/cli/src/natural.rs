//! The order in which people sort names: `a2` before `a10`.

use std::cmp::Ordering;

/// Compares two names, runs of digits by their value.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (left, right) = (digits(a), digits(b));
                let (plain_left, plain_right) = (without_zeros(left), without_zeros(right));
                let order = plain_left.len().cmp(&plain_right.len()).then_with(|| plain_left.cmp(plain_right));
                let order = order.then_with(|| left.len().cmp(&right.len()));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (&a[left.len()..], &b[right.len()..]);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|byte| *byte != b'0').unwrap_or(digits.len());
    &digits[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order() {
        let mut names = ["a10", "a2", "b", "a", "a02"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["a", "a2", "a02", "a10", "b"]);
    }
}
