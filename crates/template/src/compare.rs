//! `eq`, `ne`, `lt`, `le`, `gt`, `ge`.

use std::cmp::Ordering;

use crate::Value;

const INCOMPATIBLE: &str = "incompatible types for comparison";
const MISSING: &str = "missing argument for comparison";
const INVALID: &str = "invalid type for comparison";

/// Whether the first argument equals one of the others.
pub(crate) fn equals_any(arguments: &[Value]) -> Result<bool, String> {
    let Some((first, others)) = arguments.split_first() else { return Err(MISSING.to_owned()) };
    if others.is_empty() {
        return Err(MISSING.to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two values are the same.
pub(crate) fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::String(a) | Value::JsonNumber(a), Value::String(b) | Value::JsonNumber(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (a, b) if whole(a).is_some() && whole(b).is_some() => Ok(whole(a) == whole(b)),
        (Value::List(_) | Value::Map(_), _) => {
            Err(format!("non-comparable type {}: {}", crate::print::plain(a), a.type_name()))
        }
        _ if is_nil(a) || is_nil(b) => Ok(is_nil(a) && is_nil(b)),
        _ => Err(INCOMPATIBLE.to_owned()),
    }
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Missing | Value::Null | Value::NilPointer(_))
}

/// The order of two values that have one.
pub(crate) fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::String(a) | Value::JsonNumber(a), Value::String(b) | Value::JsonNumber(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (a, b) if whole(a).is_some() && whole(b).is_some() => Ok(whole(a).partial_cmp(&whole(b))),
        (Value::Bool(_), Value::Bool(_)) => Err(INVALID.to_owned()),
        (a, b) if basic(a) && basic(b) => Err(INCOMPATIBLE.to_owned()),
        _ => Err(INVALID.to_owned()),
    }
}

fn basic(value: &Value) -> bool {
    matches!(
        value,
        Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Duration(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::JsonNumber(_)
    )
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(value) | Value::Duration(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}
