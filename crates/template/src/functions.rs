//! The functions: Go's and Docker's.

use std::sync::Arc;

use crate::{List, Type, Value, compare, print, printf};

const NAMES: [&str; 27] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "eq", "ne",
    "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper", "pad", "truncate", "call",
];

/// Why a call gave no value.
pub(crate) enum Problem {
    /// The function itself refuses.
    Call(String),
    /// Too many arguments, or too few.
    Count { want: &'static str },
    /// An argument is not of the function's type.
    Argument { at: usize, message: String },
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Call(message)
    }
}

/// Whether a function has the name.
pub(crate) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether the function makes another text of a text.
pub(crate) fn changes_text(name: &str) -> bool {
    matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate")
}

type Answer = Result<Value, Problem>;

/// Calls a function.
pub(crate) fn call(name: &str, arguments: &[Value]) -> Answer {
    match name {
        "not" => exactly(arguments, 1, "1").map(|a| Value::Bool(!a[0].is_true())),
        "len" => exactly(arguments, 1, "1").and_then(|a| length(&a[0])),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::text(sprint(arguments))),
        "println" => Ok(Value::text(line(arguments))),
        "printf" => {
            let Some((_, rest)) = arguments.split_first() else { return Err(Problem::Count { want: "at least 1" }) };
            Ok(Value::text(printf::sprintf(&text(arguments, 0)?, rest)))
        }
        "html" => Ok(Value::text(html(&joined(arguments)))),
        "js" => Ok(Value::text(js(&joined(arguments)))),
        "urlquery" => Ok(Value::text(url(&joined(arguments)))),
        "eq" if arguments.is_empty() => Err(Problem::Count { want: "at least 1" }),
        "eq" => Ok(Value::Bool(compare::equals_any(arguments)?)),
        "ne" => {
            let pair = exactly(arguments, 2, "2")?;
            Ok(Value::Bool(!compare::equal(&pair[0], &pair[1])?))
        }
        "lt" => ordered(arguments, |order| order.is_lt()),
        "le" => ordered(arguments, |order| order.is_le()),
        "gt" => ordered(arguments, |order| order.is_gt()),
        "ge" => ordered(arguments, |order| order.is_ge()),
        "json" => exactly(arguments, 1, "1").map(|a| {
            let escape = matches!(&a[0], Value::Struct(object) if object.escape_html);
            Value::text(print::json(&a[0].to_json(), escape))
        }),
        "split" => {
            exactly(arguments, 2, "2")?;
            let (whole, separator) = (text(arguments, 0)?, text(arguments, 1)?);
            let parts: Vec<Value> = if separator.is_empty() {
                whole.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                whole.split(&*separator).map(Value::text).collect()
            };
            Ok(Value::List(Arc::new(List { items: parts, element: Type::String, nil: false })))
        }
        "join" => join(arguments),
        "title" => Ok(Value::text(title(&only_text(arguments)?))),
        "lower" => Ok(Value::text(only_text(arguments)?.to_lowercase())),
        "upper" => Ok(Value::text(only_text(arguments)?.to_uppercase())),
        "pad" => {
            exactly(arguments, 3, "3")?;
            let (inner, before, after) = (text(arguments, 0)?, number(arguments, 1)?, number(arguments, 2)?);
            if inner.is_empty() {
                return Ok(Value::text(""));
            }
            Ok(Value::text(format!("{}{inner}{}", spaces(before)?, spaces(after)?)))
        }
        "truncate" => {
            exactly(arguments, 2, "2")?;
            let (whole, length) = (text(arguments, 0)?, number(arguments, 1)?);
            let length =
                usize::try_from(length).map_err(|_| format!("runtime error: slice bounds out of range [:{length}]"))?;
            let bytes = whole.as_bytes();
            Ok(Value::text(String::from_utf8_lossy(&bytes[..length.min(bytes.len())])))
        }
        "call" => Err(Problem::Call("non-function".to_owned())),
        other => Err(Problem::Call(format!("{} is not a defined function", print::quote(other)))),
    }
}

fn exactly<'a>(arguments: &'a [Value], count: usize, want: &'static str) -> Result<&'a [Value], Problem> {
    if arguments.len() == count { Ok(arguments) } else { Err(Problem::Count { want }) }
}

fn only_text(arguments: &[Value]) -> Result<Arc<str>, Problem> {
    exactly(arguments, 1, "1")?;
    text(arguments, 0)
}

fn text(arguments: &[Value], at: usize) -> Result<Arc<str>, Problem> {
    match &arguments[at] {
        Value::String(text) => Ok(text.clone()),
        Value::Missing => Err(Problem::Argument { at, message: "invalid value; expected string".to_owned() }),
        other => {
            let message = format!("wrong type for value; expected string; got {}", other.type_name());
            Err(Problem::Argument { at, message })
        }
    }
}

fn number(arguments: &[Value], at: usize) -> Result<i64, Problem> {
    match &arguments[at] {
        Value::Int(value) => Ok(*value),
        other => {
            let message = format!("wrong type for value; expected int; got {}", other.type_name());
            Err(Problem::Argument { at, message })
        }
    }
}

/// More padding than this is a mistake.
const MAX_SPACES: usize = 100_000;

fn spaces(count: i64) -> Result<String, Problem> {
    let count = usize::try_from(count).map_err(|_| "strings: negative Repeat count".to_owned())?;
    Ok(" ".repeat(count.min(MAX_SPACES)))
}

fn ordered(arguments: &[Value], holds: impl Fn(std::cmp::Ordering) -> bool) -> Answer {
    let pair = exactly(arguments, 2, "2")?;
    Ok(Value::Bool(compare::order(&pair[0], &pair[1])?.is_some_and(holds)))
}

fn length(value: &Value) -> Answer {
    let length = match value {
        Value::String(text) | Value::JsonNumber(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Missing | Value::Null => return Err(Problem::Call("len of nil pointer".to_owned())),
        Value::NilPointer(_) => return Err(Problem::Call("len of nil pointer".to_owned())),
        other => return Err(Problem::Call(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(arguments: &[Value]) -> Answer {
    let Some((first, keys)) = arguments.split_first() else { return Err(Problem::Count { want: "at least 1" }) };
    let mut value = first.clone();
    if matches!(value, Value::Missing | Value::Null) {
        return Err(Problem::Call("index of untyped nil".to_owned()));
    }
    for key in keys {
        value = match (&value, key) {
            (Value::List(list), key) => list.items[position(key, list.items.len(), false)?].clone(),
            (Value::String(text) | Value::JsonNumber(text), key) => {
                let at = position(key, text.len(), false).map_err(|problem| match problem {
                    Problem::Call(words) => Problem::Call(words.replace("reflect: slice", "reflect: string")),
                    other => other,
                })?;
                Value::Int(i64::from(text.as_bytes()[at]))
            }
            (Value::Map(map), Value::String(_)) if map.key.is_some() => {
                let key = map.key.unwrap_or_default();
                return Err(Problem::Call(format!("value has type string; should be {key}")));
            }
            (Value::Map(map), Value::String(key)) => match map.get(key) {
                Some(found) => found.clone(),
                // Go gives the zero value of the map's type, which for any is nothing.
                None if matches!(map.element, Type::Any) => Value::Missing,
                None => map.element.zero(),
            },
            (Value::Map(_), Value::Missing | Value::Null) => {
                return Err(Problem::Call("value is nil; should be of type string".to_owned()));
            }
            (Value::Map(_), other) => {
                let kind = other.type_name();
                return Err(Problem::Call(format!("value has type {kind}; should be string")));
            }
            (Value::Missing | Value::Null | Value::NilPointer(_), _) => {
                return Err(Problem::Call("index of nil pointer".to_owned()));
            }
            (other, _) => return Err(Problem::Call(format!("can't index item of type {}", other.type_name()))),
        };
    }
    Ok(value)
}

/// An index that lies in the range; `end`: it may also be the length itself.
fn position(key: &Value, length: usize, end: bool) -> Result<usize, Problem> {
    let index = match key {
        Value::Int(index) => *index,
        Value::Uint(index) => i64::try_from(*index).unwrap_or(i64::MAX),
        Value::Missing | Value::Null => return Err(Problem::Call("cannot index slice/array with nil".to_owned())),
        other => {
            return Err(Problem::Call(format!("cannot index slice/array with type {}", other.type_name())));
        }
    };
    match usize::try_from(index) {
        Ok(at) if at < length || (end && at == length) => Ok(at),
        Ok(at) if at == length => Err(Problem::Call("reflect: slice index out of range".to_owned())),
        _ => Err(Problem::Call(format!("index out of range: {index}"))),
    }
}

fn slice(arguments: &[Value]) -> Answer {
    let Some((value, bounds)) = arguments.split_first() else { return Err(Problem::Count { want: "at least 1" }) };
    if bounds.len() > 3 {
        return Err(Problem::Call(format!("too many slice indexes: {}", bounds.len())));
    }
    let length = match value {
        Value::String(_) | Value::JsonNumber(_) if bounds.len() == 3 => {
            return Err(Problem::Call("cannot 3-index slice a string".to_owned()));
        }
        Value::String(text) | Value::JsonNumber(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Missing | Value::Null => return Err(Problem::Call("slice of untyped nil".to_owned())),
        other => return Err(Problem::Call(format!("can't slice item of type {}", other.type_name()))),
    };
    let from = bounds.first().map_or(Ok(0), |bound| position(bound, length, true))?;
    let to = bounds.get(1).map_or(Ok(length), |bound| position(bound, length, true))?;
    if from > to {
        return Err(Problem::Call(format!("invalid slice index: {from} > {to}")));
    }
    match value {
        Value::String(text) | Value::JsonNumber(text) => {
            Ok(Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to])))
        }
        Value::List(list) => {
            let items = list.items[from..to].to_vec();
            Ok(Value::List(Arc::new(List { items, element: list.element.clone(), nil: false })))
        }
        _ => Ok(Value::Missing),
    }
}

fn join(arguments: &[Value]) -> Answer {
    exactly(arguments, 2, "2")?;
    let Value::List(list) = &arguments[0] else {
        let message = format!("wrong type for value; expected []string; got {}", arguments[0].type_name());
        return Err(Problem::Argument { at: 0, message });
    };
    let separator = text(arguments, 1)?;
    let mut parts = Vec::with_capacity(list.items.len());
    for item in &list.items {
        let Value::String(part) = item else {
            let message = format!("wrong type for value; expected []string; got {}", arguments[0].type_name());
            return Err(Problem::Argument { at: 0, message });
        };
        parts.push(part.to_string());
    }
    Ok(Value::text(parts.join(&separator)))
}

/// `fmt.Sprint`: a space between two that are both no texts.
fn sprint(arguments: &[Value]) -> String {
    let mut output = String::new();
    for (at, value) in arguments.iter().enumerate() {
        let texts = matches!(value, Value::String(_)) || at > 0 && matches!(arguments[at - 1], Value::String(_));
        if at > 0 && !texts {
            output.push(' ');
        }
        output.push_str(&shown(value));
    }
    output
}

fn line(arguments: &[Value]) -> String {
    let parts: Vec<_> = arguments.iter().map(shown).collect();
    parts.join(" ") + "\n"
}

fn shown(value: &Value) -> String {
    match value {
        Value::Missing => "<nil>".to_owned(),
        other => print::plain(other),
    }
}

fn joined(arguments: &[Value]) -> String {
    match arguments {
        [only] => print::output(only),
        _ => sprint(arguments),
    }
}

/// Every word's first letter in upper case.
fn title(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            output.push(c)
        } else {
            output.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    output
}

fn html(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => output.push('\u{fffd}'),
            '"' => output.push_str("&#34;"),
            '\'' => output.push_str("&#39;"),
            '&' => output.push_str("&amp;"),
            '<' => output.push_str("&lt;"),
            '>' => output.push_str("&gt;"),
            c => output.push(c),
        }
    }
    output
}

fn js(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => output.push_str("\\\\"),
            '\'' => output.push_str("\\'"),
            '"' => output.push_str("\\\""),
            '<' | '>' | '&' | '=' => output.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => output.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => output.push(c),
        }
    }
    output
}

fn url(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => output.push(char::from(byte)),
            b' ' => output.push('+'),
            _ => output.push_str(&format!("%{byte:02X}")),
        }
    }
    output
}
