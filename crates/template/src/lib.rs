//! Go's text/template, as far as `--format` uses it.
//!
//! [`Template::parse`] reads a template once, [`Template::execute`] applies it to a [`Value`]. Values come from JSON,
//! either as they are (maps, like Go's `map[string]any`) or seen through a [`Type`] (structs, with the fields and the
//! zero values that a Go program would see). The functions are Go's and those that Docker adds. Errors are in Go's
//! words, because people search for them.
//!
//! Left out, because nothing that `--format` is given has it: methods with side effects, channels, complex numbers and
//! `call`.

mod compare;
mod error;
mod execute;
mod functions;
mod lexer;
mod node;
mod number;
mod parser;
mod print;
mod printf;
#[cfg(test)]
mod tests;
mod types;
mod value;

pub use error::TemplateError;
pub use types::{Field, Type};
pub use value::{List, Map, Method, Struct, Value};

use std::collections::HashMap;

use node::Nodes;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, TemplateError>;

/// What happens when a map does not have the key that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingKey {
    /// Prints `<no value>`.
    #[default]
    NoValue,
    /// Is an error.
    Error,
}

/// A template that has been read.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    root: Nodes,
    defined: HashMap<String, Nodes>,
    missing_key: MissingKey,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// The text is no template, or uses a function or a variable that does not exist.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_named("", text)
    }

    /// The same with a name, which stands in error messages.
    ///
    /// # Errors
    ///
    /// As [`Template::parse`].
    pub fn parse_named(name: &str, text: &str) -> Result<Self> {
        let (root, defined) = parser::parse(name, text)?;
        let (name, text) = (name.to_owned(), text.to_owned());
        Ok(Self { name, text, root, defined, missing_key: MissingKey::default() })
    }

    /// The same template with another answer to missing keys.
    #[must_use]
    pub fn missing_key(mut self, missing_key: MissingKey) -> Self {
        self.missing_key = missing_key;
        self
    }

    /// Applies the template.
    ///
    /// # Errors
    ///
    /// The value does not have what the template asks for; see [`Template::execute_into`] for what was written before.
    pub fn execute(&self, data: &Value) -> Result<String> {
        let mut output = String::new();
        self.execute_into(data, &mut output)?;
        Ok(output)
    }

    /// Applies the template, writing as it goes: after an error `output` has what came before it.
    ///
    /// # Errors
    ///
    /// The value does not have what the template asks for.
    pub fn execute_into(&self, data: &Value, output: &mut String) -> Result<()> {
        execute::execute(self, data, output, false)
    }

    /// Applies the template to the titles of columns: functions that change texts give them back as they are.
    ///
    /// A mistake ends it: what came before it is the value, for rows may well be right.
    pub fn execute_titles(&self, titles: &Value) -> String {
        let mut output = String::new();
        let _ = execute::execute(self, titles, &mut output, true);
        output
    }

    /// Whether the template writes its whole value as JSON, and so every field of it.
    pub fn writes_all(&self) -> bool {
        node::writes_all(&self.root) || self.defined.values().any(node::writes_all)
    }

    /// Whether a value is taken as a whole anywhere (`.`, `$`), and not a field of it.
    pub fn takes_whole(&self) -> bool {
        let mut found = false;
        let mut look = |names: &[String]| found |= names.is_empty();
        node::fields(&self.root, &mut look);
        self.defined.values().for_each(|nodes| node::fields(nodes, &mut look));
        found
    }

    /// Whether the template mentions the field anywhere (`.Name`). Decides what has to be fetched.
    pub fn mentions(&self, field: &str) -> bool {
        let mut found = false;
        let mut look = |names: &[String]| found |= names.iter().any(|name| name == field);
        node::fields(&self.root, &mut look);
        self.defined.values().for_each(|nodes| node::fields(nodes, &mut look));
        found
    }
}
