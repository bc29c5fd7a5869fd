//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`.

/// Nanoseconds, or `None` when the text is no duration or out of range.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().ok().filter(|_| digits > 0)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[letters..];
        total += number * unit;
    }
    // 2^63 ns is 292 years; a healthcheck needs no more than 2^53 exactly.
    if total >= 9.2e18 {
        return None;
    }
    let nanoseconds = total.round() as i64;
    Some(if negative { -nanoseconds } else { nanoseconds })
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("1h1m1s", Some(3_661_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("1", None),
            ("", None),
            ("s", None),
            ("1x", None),
            ("1..5s", None),
            ("1e3s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(super::parse(text), expected, "{text}");
        }
    }
}
