//! JSON seen as a Go program sees it that has decoded it into structs.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::{List, Map, Struct, Value};

/// A Go type.
#[derive(Clone, Debug, Default)]
pub enum Type {
    /// Whatever the JSON is.
    #[default]
    Any,
    /// `bool`.
    Bool,
    /// One of the whole numbers.
    Int,
    /// `float64`.
    Float,
    /// `string`, or another type that is one.
    String,
    /// `time.Time`: a text that has a zero value.
    Time,
    /// `time.Duration`: a whole number of nanoseconds.
    Duration,
    /// `[]T`.
    List(Arc<Type>),
    /// `map[string]T`.
    Map(Arc<Type>),
    /// `map[K]T` where K is another type that is a text, by Go's name.
    Keyed(&'static str, Arc<Type>),
    /// `*T`.
    Pointer(Arc<Type>),
    /// A struct.
    Struct(Arc<Fields>),
}

/// The fields of a struct type.
#[derive(Debug, Default)]
pub struct Fields {
    name: String,
    fields: Vec<Field>,
}

/// A field of a struct type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Go's name.
    pub name: &'static str,
    /// JSON's name; empty: the fields of the value's type lie in the same object (an embedded struct). `-`: JSON does not
    /// have it.
    pub json: &'static str,
    /// `json` leaves it out when it is empty.
    pub omit_empty: bool,
    /// What it is.
    pub kind: Type,
}

impl Type {
    /// A struct type with Go's name and its fields.
    pub fn object(name: &str, fields: Vec<Field>) -> Self {
        Self::Struct(Arc::new(Fields { name: name.to_owned(), fields }))
    }

    /// `[]T`.
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// `map[string]T`.
    pub fn map(element: Self) -> Self {
        Self::Map(Arc::new(element))
    }

    /// `map[K]T`.
    pub fn keyed(key: &'static str, element: Self) -> Self {
        Self::Keyed(key, Arc::new(element))
    }

    /// `*T`.
    pub fn pointer(target: Self) -> Self {
        Self::Pointer(Arc::new(target))
    }

    /// Go's name of the type.
    pub fn name(&self) -> String {
        match self {
            Self::Any => "interface {}".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Float => "float64".to_owned(),
            Self::String => "string".to_owned(),
            Self::Time => "time.Time".to_owned(),
            Self::Duration => "time.Duration".to_owned(),
            Self::List(element) => format!("[]{}", element.name()),
            Self::Map(element) => format!("map[string]{}", element.name()),
            Self::Keyed(key, element) => format!("map[{key}]{}", element.name()),
            Self::Pointer(target) => format!("*{}", target.name()),
            Self::Struct(fields) => fields.name.clone(),
        }
    }

    /// The value that a variable of the type has before anything is put into it.
    pub fn zero(&self) -> Value {
        match self {
            Self::Any => Value::Null,
            Self::Bool => Value::Bool(false),
            Self::Int => Value::Int(0),
            Self::Float => Value::Float(0.0),
            Self::String => Value::text(""),
            Self::Duration => Value::Duration(0),
            Self::Time => Value::Time(Arc::from("0001-01-01T00:00:00Z")),
            Self::List(element) => {
                Value::List(Arc::new(List { items: Vec::new(), element: (**element).clone(), nil: true }))
            }
            Self::Map(element) => map(element, None, None),
            Self::Keyed(key, element) => map(element, Some(key), None),
            Self::Pointer(target) => Value::NilPointer((**target).clone()),
            Self::Struct(_) => self.view(&Json::Object(serde_json::Map::new())),
        }
    }

    /// The JSON as a value of the type. JSON of another shape is taken as it is.
    pub fn view(&self, json: &Json) -> Value {
        match (self, json) {
            (Self::Any, json) => Value::from(json),
            (_, Json::Null) => self.zero(),
            (Self::List(element), Json::Array(items)) => {
                let items = items.iter().map(|item| element.view(item)).collect();
                Value::List(Arc::new(List { items, element: (**element).clone(), nil: false }))
            }
            (Self::Map(element), Json::Object(entries)) => map(element, None, Some(entries)),
            (Self::Keyed(key, element), Json::Object(entries)) => map(element, Some(key), Some(entries)),
            (Self::Pointer(target), json) => target.view(json),
            (Self::Duration, Json::Number(number)) => {
                number.as_i64().map_or_else(|| Value::from(json), Value::Duration)
            }
            (Self::Time, Json::String(text)) => Value::Time(Arc::from(text.as_str())),
            (Self::Struct(object), Json::Object(entries)) => {
                let mut fields = Vec::with_capacity(object.fields.len());
                let mut embedded = Vec::new();
                let mut marshalled = serde_json::Map::new();
                for field in &object.fields {
                    if field.json.is_empty() {
                        let inner = field.kind.view(json);
                        if let Json::Object(entries) = inner.to_json() {
                            marshalled.extend(entries);
                        }
                        embedded.push(fields.len());
                        fields.push((field.name.to_owned(), inner));
                        continue;
                    }
                    let value = entries.get(field.json).map_or_else(|| field.kind.zero(), |v| field.kind.view(v));
                    if field.json != "-" && !(field.omit_empty && is_empty(&value)) {
                        marshalled.insert(field.json.to_owned(), value.to_json());
                    }
                    fields.push((field.name.to_owned(), value));
                }
                let (name, json) = (object.name.clone(), Some(Json::Object(marshalled)));
                Value::Struct(Arc::new(Struct { name, fields, embedded, json, ..Struct::default() }))
            }
            (_, json) => Value::from(json),
        }
    }
}

/// A map; a nil one without entries.
fn map(element: &Type, key: Option<&'static str>, entries: Option<&serde_json::Map<String, Json>>) -> Value {
    let all = entries.into_iter().flatten().map(|(key, value)| (key.clone(), element.view(value))).collect();
    Value::Map(Arc::new(Map { entries: all, element: element.clone(), key, nil: entries.is_none() }))
}

/// What Go's `omitempty` takes for empty.
fn is_empty(value: &Value) -> bool {
    !matches!(value, Value::Struct(_) | Value::Time(_)) && !value.is_true()
}
