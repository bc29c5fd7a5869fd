//! Values of JSON for our own types, at any depth without what serde takes beyond Go: a list in an object's place, for the
//! object's fields in the order in which the type happens to have them. What does not fit is said with its field, in the
//! words of Go's `encoding/json`.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

pub(crate) struct Objects {
    value: Value,
    /// Which field it is: `UpdateConfig.Memory`.
    at: String,
}

impl Objects {
    /// `of`: what Go calls the whole.
    pub(crate) fn new(value: Value, of: &str) -> Self {
        Self { value, at: of.to_owned() }
    }
}

/// Go's words for a value that is of another type. `None` for what is wrong otherwise.
pub(crate) fn in_go_s_words(error: &Error, value: &Value, at: &str) -> Option<String> {
    let text = error.to_string();
    let expected = text.strip_prefix("invalid ").and_then(|rest| rest.split_once(", expected "))?.1;
    if value.is_null() {
        return None;
    }
    let wanted = match expected {
        "a string" => "string",
        "a boolean" => "bool",
        "i8" | "i16" | "i32" | "i64" => "int64",
        "u8" | "u16" | "u32" | "u64" => "uint64",
        "f32" | "f64" => "float64",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        other => other.strip_prefix("struct ").unwrap_or(other),
    };
    Some(wrong_type(value, at, wanted))
}

/// The words for a field that is of another type than Go's `wanted`.
pub(crate) fn wrong_type(value: &Value, at: &str, wanted: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let which = match value {
        Value::Number(number) if wanted.contains("int") => format!("{kind} {number}"),
        _ => kind.to_owned(),
    };
    format!("json: cannot unmarshal {which} into Go struct field {at} of type {wanted}")
}

impl<'de> Deserializer<'de> for Objects {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let at = self.at;
        match self.value {
            Value::Array(list) => {
                let item = |(index, value)| Objects { value, at: format!("{at}.{index}") };
                let mut list = SeqDeserializer::new(list.into_iter().enumerate().map(item));
                let value = visitor.visit_seq(&mut list)?;
                list.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let field = |(key, value)| {
                    let at = format!("{at}.{key}");
                    (key, Objects { value, at })
                };
                let mut fields = MapDeserializer::new(fields.into_iter().map(field));
                let value = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(value)
            }
            other => other
                .clone()
                .deserialize_any(visitor)
                .map_err(|error| in_go_s_words(&error, &other, &at).map_or(error, Error::custom)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(_) => {
                let error = Error::invalid_type(Unexpected::Seq, &visitor);
                let words = in_go_s_words(&error, &self.value, &self.at);
                Err(words.map_or(error, Error::custom))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_string)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_array)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_object)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_boolean)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_number)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.expect(visitor, Value::is_number)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

impl Objects {
    /// As [`deserialize_any`](Deserializer::deserialize_any) where the value is of the kind that is wanted.
    fn expect<'de, V: Visitor<'de>>(self, visitor: V, is: impl Fn(&Value) -> bool) -> Result<V::Value, Error> {
        if is(&self.value) {
            return self.deserialize_any(visitor);
        }
        let found = match &self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(truth) => Unexpected::Bool(*truth),
            Value::Number(_) => Unexpected::Other("number"),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        let error = Error::invalid_type(found, &visitor);
        let words = in_go_s_words(&error, &self.value, &self.at);
        Err(words.map_or(error, Error::custom))
    }
}

impl IntoDeserializer<'_, Error> for Objects {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        a: String,
        b: Option<i64>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Outer {
        one: Inner,
        some: Option<Inner>,
        list: Vec<Inner>,
        map: BTreeMap<String, Inner>,
        numbers: Vec<u8>,
        pair: Option<(String, f64)>,
    }

    fn read(value: Value) -> Result<Outer, String> {
        Outer::deserialize(Objects::new(value, "Outer")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_no_object_at_any_depth() {
        let whole = json!({
            "one": {"a": "x", "b": -1}, "some": {"b": null}, "list": [{"a": "y"}], "map": {"k": {"a": "z"}},
            "numbers": [1, 2], "pair": ["p", 1], "more": [[]]
        });
        assert_eq!(read(whole.clone()).unwrap(), serde_json::from_value(whole).unwrap());
        for (wrong, words) in [
            (json!({"one": ["x", 1]}), "cannot unmarshal array into Go struct field Outer.one of type Inner"),
            (json!({"some": []}), "cannot unmarshal array into Go struct field Outer.some of type Inner"),
            (json!({"list": [["x", 1]]}), "cannot unmarshal array into Go struct field Outer.list.0 of type Inner"),
            (json!({"map": {"k": []}}), "cannot unmarshal array into Go struct field Outer.map.k of type Inner"),
            (json!({"one": {"c": 1}}), "unknown field `c`"),
            (
                json!({"numbers": [300]}),
                "cannot unmarshal number 300 into Go struct field Outer.numbers.0 of type uint64",
            ),
            (json!({"one": "x"}), "cannot unmarshal string into Go struct field Outer.one of type Inner"),
            (json!({"one": {"a": 1}}), "cannot unmarshal number into Go struct field Outer.one.a of type string"),
            (json!({"one": {"b": "x"}}), "cannot unmarshal string into Go struct field Outer.one.b of type int64"),
            (json!({"one": {"b": 1.5}}), "cannot unmarshal number 1.5 into Go struct field Outer.one.b of type int64"),
            (json!({"list": {}}), "cannot unmarshal object into Go struct field Outer.list of type []string"),
            (json!({"map": true}), "cannot unmarshal bool into Go struct field Outer.map of type map[string]string"),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}
