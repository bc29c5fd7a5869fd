//! Values and texts as Go's fmt and strconv write them.

use std::fmt::Write as _;

use serde_json::Value as Json;

use crate::Value;

/// `%v`.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Missing => "<no value>".to_owned(),
        Value::Null | Value::NilPointer(_) => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float(value) => float(*value),
        Value::String(text) | Value::JsonNumber(text) => text.to_string(),
        Value::Time(text) => moment(text),
        Value::Duration(nanoseconds) => duration(*nanoseconds),
        Value::List(list) => {
            let items: Vec<_> = list.items.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(map) => {
            let items: Vec<_> =
                map.sorted().into_iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", items.join(" "))
        }
        Value::Struct(object) if object.text.is_some() => object.text.clone().unwrap_or_default(),
        Value::Struct(object) => {
            let fields = object.fields.iter().filter(|(_, value)| !matches!(value, Value::Method(_)));
            let items: Vec<_> = fields.map(|(_, value)| plain(value)).collect();
            format!("{{{}}}", items.join(" "))
        }
        Value::Method(_) => "<func>".to_owned(),
    }
}

/// `2006-01-02 15:04:05.999999999 -0700 MST` of an RFC 3339 text; another text is given back as it is.
fn moment(text: &str) -> String {
    let Some((date, rest)) = text.split_once('T') else { return text.to_owned() };
    let Some(at) = rest.find(['Z', '+', '-']) else { return text.to_owned() };
    let (time, zone) = rest.split_at(at);
    let time = if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.') } else { time };
    match zone {
        "Z" => format!("{date} {time} +0000 UTC"),
        zone => {
            let offset = zone.replace(':', "");
            format!("{date} {time} {offset} {offset}")
        }
    }
}

/// `1h2m3.5s`; less than a second in the largest unit that it has whole ones of.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        let digits = format!("{rest:0width$}", width = unit.ilog10() as usize);
        match digits.trim_end_matches('0') {
            _ if rest == 0 => whole.to_string(),
            digits => format!("{whole}.{digits}"),
        }
    };
    match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(all, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(all, 1_000_000)),
        _ => {
            let minutes = all / 60_000_000_000;
            let seconds = fraction(all % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// As `{{…}}` writes it: nothing at all is `<no value>`.
pub(crate) fn output(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        other => plain(other),
    }
}

/// `%v` of a float64: the shortest form, with an exponent outside of 1e-4..1e21.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

/// `%q` of a text.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text that an interpreted literal stands for (what is between its quotes); `None` when an escape is wrong.
pub(crate) fn unquote_escapes(inner: &str) -> Option<String> {
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        text.extend_from_slice(&rest.as_bytes()[..at]);
        let mut chars = rest[at + 1..].chars();
        let escape = chars.next()?;
        rest = chars.as_str();
        let digits = |count: usize, radix: u32| {
            let digits = rest.get(..count)?;
            u32::from_str_radix(digits, radix).ok()
        };
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '\'' | '"' => Some(escape as u8),
            _ => None,
        };
        let count = match escape {
            _ if simple.is_some() => 0,
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => 3,
            _ => return None,
        };
        match escape {
            _ if simple.is_some() => text.extend(simple),
            'x' => text.push(u8::try_from(digits(2, 16)?).ok()?),
            'u' | 'U' => {
                let c = char::from_u32(digits(count, 16)?)?;
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => {
                let octal = format!("{escape}{}", rest.get(..2)?);
                text.push(u8::try_from(u32::from_str_radix(&octal, 8).ok()?).ok()?);
                rest = &rest[2..];
                continue;
            }
        }
        rest = &rest[count..];
    }
    text.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// JSON in Go's compact form. `escape_html`: `<`, `>` and `&` as escapes.
pub(crate) fn json(value: &Json, escape_html: bool) -> String {
    let text = value.to_string();
    let mut output = String::with_capacity(text.len());
    // These stand nowhere in JSON but inside texts.
    for c in text.chars() {
        match c {
            '<' | '>' | '&' if escape_html => {
                let _ = write!(output, "\\u{:04x}", u32::from(c));
            }
            '\u{2028}' | '\u{2029}' => {
                let _ = write!(output, "\\u{:04x}", u32::from(c));
            }
            c => output.push(c),
        }
    }
    output
}
