//! What a template is applied to.

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::Type;

/// A value as a Go template sees it.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing at all: a key that a map does not have. Prints `<no value>`.
    #[default]
    Missing,
    /// JSON's `null`, Go's nil interface. Prints `<no value>`.
    Null,
    /// A nil pointer. Prints `<nil>`.
    NilPointer(Type),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that needs the sign's bit.
    Uint(u64),
    /// A fraction.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A number of JSON that nobody has given a type: Go's `json.Number`, which is a text.
    JsonNumber(Arc<str>),
    /// A moment, as JSON has it (RFC 3339); printed in Go's form.
    Time(Arc<str>),
    /// A span of time in nanoseconds, `time.Duration`.
    Duration(i64),
    /// A slice.
    List(Arc<List>),
    /// A map with text keys.
    Map(Arc<Map>),
    /// A struct.
    Struct(Arc<Struct>),
    /// A method that takes arguments: `.Label "key"`.
    Method(Method),
}

/// A slice.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The elements.
    pub items: Vec<Value>,
    /// What they are; [`Type::Any`] for JSON.
    pub element: Type,
    /// A nil slice: `json` writes `null`.
    pub nil: bool,
}

/// A map. Whatever is done with all of its entries is done in Go's order, by key.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The entries.
    pub entries: Vec<(String, Value)>,
    /// What the values are; [`Type::Any`] for JSON.
    pub element: Type,
    /// What the keys are, if not `string`: a text of the template's own is none, and finds nothing.
    pub key: Option<&'static str>,
    /// A nil map: `json` writes `null`.
    pub nil: bool,
}

/// A struct: asking for a field that it does not have is an error.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// Go's name of the type, for messages.
    pub name: String,
    /// The fields, by Go's names, in the order of the type.
    pub fields: Vec<(String, Value)>,
    /// The places of embedded structs among the fields: their fields can be asked for as if they were the struct's own.
    pub embedded: Vec<usize>,
    /// What `json` writes; `None`: an object of the fields by name, as Go marshals a map.
    pub json: Option<Json>,
    /// What is printed: the type has a `String` method.
    pub text: Option<String>,
    /// `json` escapes what HTML would take for markup: the type has a JSON form of its own, made by Go's `json.Marshal`.
    pub escape_html: bool,
}

impl Struct {
    fn to_json(&self) -> Json {
        if let Some(json) = &self.json {
            return json.clone();
        }
        let mut sorted: Vec<_> = self.fields.iter().filter(|(_, value)| !matches!(value, Value::Method(_))).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        Json::Object(sorted.into_iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
    }
}

/// The code of a [`Method`].
type Code = dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync;

/// A method that takes arguments.
#[derive(Clone)]
pub struct Method(Arc<Code>);

impl Method {
    /// Makes a method of a function.
    pub fn new(code: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(code))
    }

    pub(crate) fn call(&self, arguments: &[Value]) -> Result<Value, String> {
        (self.0)(arguments)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Method")
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }

    /// JSON as it is, its numbers as they are written: what Go decodes with `UseNumber`.
    pub fn raw(json: &Json) -> Self {
        match json {
            Json::Number(number) => Self::JsonNumber(Arc::from(number.to_string())),
            Json::Array(items) => {
                Self::List(Arc::new(List { items: items.iter().map(Self::raw).collect(), ..List::default() }))
            }
            Json::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), Self::raw(value))).collect();
                Self::Map(Arc::new(Map { entries, ..Map::default() }))
            }
            other => Self::from(other),
        }
    }

    /// Go's name of the value's type.
    pub fn type_name(&self) -> String {
        match self {
            Self::Missing | Self::Null => "interface {}".to_owned(),
            Self::NilPointer(kind) => format!("*{}", kind.name()),
            Self::Bool(_) => "bool".to_owned(),
            Self::Int(_) => "int".to_owned(),
            Self::Uint(_) => "uint64".to_owned(),
            Self::Float(_) => "float64".to_owned(),
            Self::String(_) => "string".to_owned(),
            Self::JsonNumber(_) => "json.Number".to_owned(),
            Self::Time(_) => "time.Time".to_owned(),
            Self::Duration(_) => "time.Duration".to_owned(),
            Self::List(list) => format!("[]{}", list.element.name()),
            Self::Map(map) => format!("map[{}]{}", map.key.unwrap_or("string"), map.element.name()),
            Self::Struct(object) => object.name.clone(),
            Self::Method(_) => "func".to_owned(),
        }
    }

    /// Whether an `if` takes it for true: not zero, not empty.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Null | Self::NilPointer(_) => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Duration(value) => *value != 0,
            Self::Uint(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::String(text) | Self::JsonNumber(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Struct(_) | Self::Time(_) | Self::Method(_) => true,
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Missing | Self::Null | Self::NilPointer(_) | Self::Method(_) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) | Self::Duration(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Float(value) => Json::from(*value),
            Self::String(text) | Self::Time(text) => Json::String(text.to_string()),
            Self::JsonNumber(text) => serde_json::from_str(text).unwrap_or(Json::Null),
            Self::List(list) if list.nil => Json::Null,
            Self::List(list) => Json::Array(list.items.iter().map(Self::to_json).collect()),
            Self::Map(map) if map.nil => Json::Null,
            Self::Map(map) => Json::Object(map.sorted().into_iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
            Self::Struct(object) => object.to_json(),
        }
    }
}

impl Map {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries in Go's order.
    pub(crate) fn sorted(&self) -> Vec<&(String, Value)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }
}

impl Struct {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let own = self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        own.or_else(|| {
            self.embedded.iter().find_map(|&at| match &self.fields[at].1 {
                Value::Struct(inner) => inner.get(name),
                _ => None,
            })
        })
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let whole = number.as_i64().map(Self::Int).or_else(|| number.as_u64().map(Self::Uint));
                whole.unwrap_or_else(|| Self::Float(number.as_f64().unwrap_or_default()))
            }
            Json::String(text) => Self::text(text),
            Json::Array(items) => {
                Self::List(Arc::new(List { items: items.iter().map(Self::from).collect(), ..List::default() }))
            }
            Json::Object(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect();
                Self::Map(Arc::new(Map { entries, ..Map::default() }))
            }
        }
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        Self::from(&json)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
