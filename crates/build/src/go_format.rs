//! Texts as Go's `fmt` writes them: what stands in the history of images that Docker builds.

/// `%q` of a string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `%q` of a number: the character that has it, in single quotes.
pub(crate) fn quoted_character(number: i64) -> String {
    let character = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match character {
        '\'' => "'\\''".into(),
        '"' => "'\"'".into(),
        other => {
            let text = quoted(&other.to_string());
            format!("'{}'", &text[1..text.len() - 1])
        }
    }
}

/// `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" "))
}

/// `%v` of a list: `[a b]`.
pub(crate) fn list(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

/// `time.Duration`'s own form: `1m30s`, `1.5s`, `100ms`.
pub(crate) fn duration(nanoseconds: i64) -> String {
    let (sign, total) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    if total == 0 {
        return "0s".into();
    }
    if total < 1_000_000_000 {
        let (unit, size) = match total {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(total, size));
    }
    let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let seconds = decimal(rest, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u64, unit: u64) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    format!("{whole}.{part:0width$}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        assert_eq!(quoted_list(&["a".into(), "b \"c\"\n".into()]), "[\"a\" \"b \\\"c\\\"\\n\"]");
        assert_eq!(list(&["/a".into(), "/b".into()]), "[/a /b]");
        for (number, text) in [(0, "'\\x00'"), (3, "'\\x03'"), (10, "'\\n'"), (34, "'\"'"), (39, "'\\''"), (48, "'0'")]
        {
            assert_eq!(quoted_character(number), text);
        }
        for (nanoseconds, text) in [
            (0, "0s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (100_000_000, "100ms"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }
}
