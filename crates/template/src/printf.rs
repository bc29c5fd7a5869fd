//! `printf`, as Go's fmt formats.

use crate::{Value, print};

/// What stands between `%` and the verb.
#[derive(Default)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// A width beyond this is not believed.
const MAX_WIDTH: usize = 100_000;

/// Formats the arguments.
pub(crate) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut output = String::new();
    let mut next = 0;
    let mut reordered = false;
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        output.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (flags, after) = flags(rest, arguments, &mut next);
        let (after, chosen) = explicit(after, &mut next);
        reordered |= chosen;
        let Some(verb) = after.chars().next() else {
            output.push_str("%!(NOVERB)");
            return output;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            output.push('%');
            continue;
        }
        let Some(value) = arguments.get(next) else {
            output.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        next += 1;
        output.push_str(&one(verb, &flags, value));
    }
    output.push_str(rest);
    if next < arguments.len() && !reordered {
        let extra: Vec<_> =
            arguments[next..].iter().map(|value| format!("{}={}", kind(value), print::plain(value))).collect();
        output.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    output
}

/// `[n]`: the argument that comes next; whether there was one.
fn explicit<'a>(text: &'a str, next: &mut usize) -> (&'a str, bool) {
    let Some((number, rest)) = text.strip_prefix('[').and_then(|inner| inner.split_once(']')) else {
        return (text, false);
    };
    match number.parse::<usize>() {
        Ok(number) if number > 0 => {
            *next = number - 1;
            (rest, true)
        }
        _ => (text, false),
    }
}

/// An element of a list or a map.
fn inner(verb: char, flags: &Flags, value: &Value) -> String {
    match value {
        Value::Missing | Value::Null => "<nil>".to_owned(),
        value => one(verb, flags, value),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Missing | Value::Null => "<nil>".to_owned(),
        other => other.type_name(),
    }
}

fn flags<'a>(text: &'a str, arguments: &[Value], next: &mut usize) -> (Flags, &'a str) {
    let mut flags = Flags::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '-' => flags.minus = true,
            '+' => flags.plus = true,
            '#' => flags.sharp = true,
            ' ' => flags.space = true,
            '0' => flags.zero = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let mut number = |rest: &mut &'a str| {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            let width = match arguments.get(*next) {
                Some(Value::Int(width)) => usize::try_from(*width).ok(),
                _ => None,
            };
            *next += 1;
            return width;
        }
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let width = rest[..digits].parse().ok();
        *rest = &rest[digits..];
        width
    };
    flags.width = number(&mut rest).map(|width| width.min(MAX_WIDTH));
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        flags.precision = Some(number(&mut rest).unwrap_or(0).min(MAX_WIDTH));
    }
    (flags, rest)
}

fn one(verb: char, flags: &Flags, value: &Value) -> String {
    match (verb, value) {
        ('v' | 's', Value::JsonNumber(text)) => pad(cut(text, flags), flags),
        ('q', Value::JsonNumber(text)) => pad(print::quote(&cut(text, flags)), flags),
        ('T', value) => pad(kind(value), flags),
        ('v', Value::Missing | Value::Null) => pad("<nil>".to_owned(), flags),
        ('v', Value::String(text)) if flags.sharp => pad(print::quote(text), flags),
        ('v' | 's', Value::String(text)) => pad(cut(text, flags), flags),
        ('q', Value::String(text)) if flags.sharp && !text.contains('`') => pad(format!("`{text}`"), flags),
        ('q', Value::String(text)) => pad(print::quote(&cut(text, flags)), flags),
        ('x' | 'X', Value::String(text)) => {
            let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            pad(if verb == 'X' { hex.to_uppercase() } else { hex }, flags)
        }
        ('v' | 't', Value::Bool(value)) => pad(value.to_string(), flags),
        ('v' | 'd' | 'x' | 'X' | 'o' | 'O' | 'b' | 'c' | 'q' | 'U', Value::Int(_) | Value::Uint(_)) => {
            whole(verb, flags, value)
        }
        ('v' | 's', Value::Duration(_)) => pad(print::plain(value), flags),
        ('x' | 'X' | 'q', Value::Duration(_)) => one(verb, flags, &Value::text(print::plain(value))),
        ('d' | 'o' | 'O' | 'b', Value::Duration(nanoseconds)) => whole(verb, flags, &Value::Int(*nanoseconds)),
        ('v', Value::Float(value)) => signed(print::float(*value), flags),
        ('f' | 'F' | 'e' | 'E' | 'g' | 'G', Value::Float(value)) => fraction(verb, flags, *value),
        ('v', value) => pad(print::plain(value), flags),
        ('s' | 'd' | 'q' | 'x' | 'X' | 't', Value::List(list)) => {
            let items: Vec<_> = list.items.iter().map(|item| inner(verb, flags, item)).collect();
            format!("[{}]", items.join(" "))
        }
        ('s' | 'd' | 'q' | 'x' | 'X', Value::Map(map)) => {
            let text = if matches!(verb, 's' | 'q') { verb } else { 's' };
            let items: Vec<_> = map
                .sorted()
                .into_iter()
                .map(|(key, item)| format!("{}:{}", one(text, flags, &Value::text(key)), inner(verb, flags, item)))
                .collect();
            format!("map[{}]", items.join(" "))
        }
        (verb, Value::Missing | Value::Null) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={})", kind(value), print::plain(value)),
    }
}

fn cut(text: &str, flags: &Flags) -> String {
    match flags.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    }
}

fn pad(text: String, flags: &Flags) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    match missing {
        0 => text,
        _ if flags.minus => text + &" ".repeat(missing),
        _ => " ".repeat(missing) + &text,
    }
}

/// Pads a number: zeros go between the sign and the digits.
fn signed(text: String, flags: &Flags) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits.to_owned()),
        None if flags.plus => ("+", text.trim_start_matches('+').to_owned()),
        None if flags.space => (" ", text),
        None => ("", text),
    };
    if flags.zero && !flags.minus {
        let missing = flags.width.unwrap_or(0).saturating_sub(digits.len() + sign.len());
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    pad(format!("{sign}{digits}"), flags)
}

fn whole(verb: char, flags: &Flags, value: &Value) -> String {
    let number = match value {
        Value::Int(value) => i128::from(*value),
        Value::Uint(value) => i128::from(*value),
        _ => 0,
    };
    let character = || u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match verb {
        'c' => return pad(character().to_string(), flags),
        'q' => return pad(format!("'{}'", character()), flags),
        'U' => return pad(format!("U+{number:04X}"), flags),
        _ => {}
    }
    let sign = if number < 0 { "-" } else { "" };
    let magnitude = number.unsigned_abs();
    let (prefix, mut digits) = match verb {
        'x' => (if flags.sharp { "0x" } else { "" }, format!("{magnitude:x}")),
        'X' => (if flags.sharp { "0X" } else { "" }, format!("{magnitude:X}")),
        'o' => (if flags.sharp { "0" } else { "" }, format!("{magnitude:o}")),
        'O' => ("0o", format!("{magnitude:o}")),
        'b' => (if flags.sharp { "0b" } else { "" }, format!("{magnitude:b}")),
        _ => ("", magnitude.to_string()),
    };
    if let Some(precision) = flags.precision {
        digits = "0".repeat(precision.saturating_sub(digits.len())) + &digits;
    }
    signed(format!("{sign}{prefix}{digits}"), flags)
}

fn fraction(verb: char, flags: &Flags, value: f64) -> String {
    if !value.is_finite() {
        return pad(print::float(value), flags);
    }
    let exponent = |text: String| {
        let (mantissa, exponent) = text.split_once('e').map_or((text.as_str(), "0"), |parts| parts);
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        format!("{mantissa}e{sign}{digits:0>2}")
    };
    let text = match verb {
        'f' | 'F' => format!("{value:.*}", flags.precision.unwrap_or(6)),
        'e' | 'E' => exponent(format!("{value:.*e}", flags.precision.unwrap_or(6))),
        _ => match flags.precision {
            None => print::float(value),
            Some(precision) => general(value, precision.max(1), exponent),
        },
    };
    signed(if verb.is_ascii_uppercase() { text.to_uppercase() } else { text }, flags)
}

/// `%.Ng`: so many digits that matter, an exponent when the number is out of their range.
fn general(value: f64, precision: usize, exponent: impl Fn(String) -> String) -> String {
    let scientific = format!("{value:.*e}", precision - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if power < -4 || power >= i32::try_from(precision).unwrap_or(i32::MAX) {
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return exponent(format!("{}e{power}", trim(mantissa)));
    }
    let decimals = usize::try_from(i32::try_from(precision).unwrap_or(i32::MAX) - 1 - power).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}
