//! The types of flags' values, read as Go's strconv, time and Docker's go-units read them.

/// `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

pub(crate) fn check_bool(text: &str) -> Result<(), String> {
    parse_bool(text).map(|_| ())
}

/// `strconv.ParseInt` with the base in the prefix.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let wrong = |reason: &str| format!("strconv.ParseInt: parsing {text:?}: {reason}");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = magnitude(digits).map_err(&wrong)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| wrong("value out of range"))
}

pub(crate) fn check_int(text: &str) -> Result<(), String> {
    parse_int(text).map(|_| ())
}

/// `strconv.ParseUint` of so many bits.
pub(crate) fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    let wrong = |reason: &str| format!("strconv.ParseUint: parsing {text:?}: {reason}");
    let value = magnitude(text).map_err(&wrong)?;
    if bits < 64 && value >> bits != 0 { Err(wrong("value out of range")) } else { Ok(value) }
}

pub(crate) fn check_uint16(text: &str) -> Result<(), String> {
    parse_uint(text, 16).map(|_| ())
}

pub(crate) fn check_uint64(text: &str) -> Result<(), String> {
    parse_uint(text, 64).map(|_| ())
}

fn magnitude(digits: &str) -> Result<u64, &'static str> {
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if body.is_empty() || !body.chars().all(|c| c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    u64::from_str_radix(body, radix).map_err(|_| "value out of range")
}

/// `time.ParseDuration`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: f64 = 0.0;
    let mut whole: i128 = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, after) = rest.split_at(number);
        if digits.is_empty() || digits == "." || digits.matches('.').count() > 1 {
            return Err(invalid());
        }
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        match digits.parse::<i64>() {
            Ok(number) => whole += i128::from(number) * scale,
            Err(_) => total += digits.parse::<f64>().map_err(|_| invalid())? * scale as f64,
        }
        rest = after;
    }
    let value = whole + total as i128;
    i64::try_from(if negative { -value } else { value }).map_err(|_| invalid())
}

pub(crate) fn check_duration(text: &str) -> Result<(), String> {
    parse_duration(text).map(|_| ())
}

/// `units.RAMInBytes`: `64m`, `1.5GiB`, binary multiples.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let number = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
    let (number, suffix) = text.split_at(number);
    let (number, suffix) = match number.strip_suffix(' ') {
        Some(number) => (number, suffix),
        None => (number, suffix.strip_prefix(' ').unwrap_or(suffix)),
    };
    let size: f64 = number.parse().map_err(|_| match number {
        "" => invalid(),
        _ => format!("invalid size: '{text}'"),
    })?;
    if size < 0.0 {
        return Err(invalid());
    }
    let suffix = suffix.to_ascii_lowercase();
    let scale: f64 = match suffix.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024f64.powi(2),
        "g" | "gb" | "gib" => 1024f64.powi(3),
        "t" | "tb" | "tib" => 1024f64.powi(4),
        "p" | "pb" | "pib" => 1024f64.powi(5),
        _ => return Err(format!("invalid suffix: '{suffix}'")),
    };
    Ok((size * scale) as i64)
}

pub(crate) fn check_bytes(text: &str) -> Result<(), String> {
    parse_bytes(text).map(|_| ())
}

/// As [`check_bytes`], but `-1` stands for no limit.
pub(crate) fn check_swap(text: &str) -> Result<(), String> {
    if text == "-1" { Ok(()) } else { check_bytes(text) }
}

/// Number of CPUs as billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let value = match text.split_once('/') {
        Some((above, below)) => {
            let (above, below): (f64, f64) = (above.parse().map_err(|_| wrong())?, below.parse().map_err(|_| wrong())?);
            if below == 0.0 {
                return Err(wrong());
            }
            above / below
        }
        None => text.parse::<f64>().map_err(|_| wrong())?,
    };
    if !value.is_finite() {
        return Err(wrong());
    }
    let nano = value * 1e9;
    if (nano - nano.round()).abs() > 1e-3 {
        return Err("value is too precise".to_owned());
    }
    Ok(nano.round() as i64)
}

pub(crate) fn check_cpus(text: &str) -> Result<(), String> {
    parse_cpus(text).map(|_| ())
}

/// Refuses what is no umask.
pub(crate) fn check_umask(text: &str) -> Result<(), String> {
    parse_umask(text).map(drop)
}

/// A umask in octal digits.
pub(crate) fn parse_umask(text: &str) -> Result<u32, String> {
    let value = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok();
    value.filter(|umask| *umask <= 0o777).ok_or_else(|| "a umask has octal digits, up to 0777".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_int("0x10"), Ok(16));
        assert_eq!(parse_int("-1"), Ok(-1));
        assert_eq!(parse_int("x").unwrap_err(), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(parse_uint("70000", 16).unwrap_err(), r#"strconv.ParseUint: parsing "70000": value out of range"#);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1h1m1s"), Ok(3_661_000_000_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(parse_duration("0"), Ok(0));
        assert_eq!(parse_duration("5").unwrap_err(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse_duration("5y").unwrap_err(), r#"time: unknown unit "y" in duration "5y""#);
        assert_eq!(parse_duration("s").unwrap_err(), r#"time: invalid duration "s""#);
    }

    #[test]
    fn sizes() {
        for (text, size) in [("64m", 64 << 20), ("1.5GiB", 3 << 29), ("10", 10), ("1 kb", 1024), ("0", 0)] {
            assert_eq!(parse_bytes(text), Ok(size), "{text}");
        }
        assert_eq!(parse_bytes("abc").unwrap_err(), "invalid size: 'abc'");
        assert_eq!(parse_bytes("5x").unwrap_err(), "invalid suffix: 'x'");
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_cpus("1/2"), Ok(500_000_000));
        assert!(parse_cpus("0.00000000001").is_err());
    }
}
