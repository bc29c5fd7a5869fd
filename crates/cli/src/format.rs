//! `--format`: rows through a Go template, as table, as JSON or as they are.

use std::sync::Arc;

use serde_json::Value as Json;
use wharf_template::{Map, Method, Struct, Template, Type, Value};

use crate::failure::Outcome;
use crate::table;

/// The help of a `--format` that knows tables.
pub(crate) const TABLE_FORMAT: &str = "Format output using a custom template:\n\
    'table':            Print output in table format with column headers (default)\n\
    'table TEMPLATE':   Print output in table format using the given Go template\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// The help of a `--format` that knows none.
pub(crate) const FORMAT: &str = "Format output using a custom template:\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

/// A format that has been read.
#[derive(Debug)]
pub(crate) struct Format {
    table: bool,
    template: Template,
}

/// Which fields of a row are shown: the others need not be found out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a>(Option<&'a Template>);

impl Wanted<'_> {
    pub(crate) const ALL: Self = Self(None);

    fn has(self, field: &str) -> bool {
        self.0.is_none_or(|template| template.mentions(field))
    }
}

/// The titles of the columns, by field.
pub(crate) type Headers = [(&'static str, &'static str)];

impl Format {
    /// Reads a format: `table …`, `json`, or a template.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let table = text.starts_with("table");
        let template = match text {
            "json" => "{{json .}}".to_owned(),
            _ => {
                let text = text.strip_prefix("table").unwrap_or(text);
                text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n")
            }
        };
        let template = Template::parse(&template).map_err(|error| format!("template parsing error: {error}"))?;
        Ok(Self { table, template })
    }

    /// Whether the template asks for the field.
    pub(crate) fn mentions(&self, field: &str) -> bool {
        self.template.mentions(field) || self.template.writes_all()
    }

    /// The fields that the template may show.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted((!self.template.takes_whole()).then_some(&self.template))
    }

    /// Appends a row to the lines of a text.
    pub(crate) fn line(&self, row: &Value, body: &mut String) -> Outcome<()> {
        self.template.execute_into(row, body).map_err(|error| format!("template parsing error: {error}"))?;
        body.push('\n');
        Ok(())
    }

    /// Lines with their titles, if this is a table; `empty` stands for a row when there is none, so that a wrong field is
    /// found all the same.
    pub(crate) fn finish(&self, headers: &Headers, body: String, empty: &Value) -> Outcome<String> {
        if body.is_empty() {
            self.template.execute(empty).map_err(|error| format!("template parsing error: {error}"))?;
        }
        if !self.table {
            return Ok(body);
        }
        Ok(table::align(&format!("{}\n{body}", self.header(headers))))
    }

    /// The rows as text; `empty` stands for a row when there is none, so that a wrong field is found all the same.
    pub(crate) fn render(&self, headers: &Headers, rows: &[Value], empty: &Value) -> Outcome<String> {
        let mut body = String::new();
        rows.iter().try_for_each(|row| self.line(row, &mut body))?;
        self.finish(headers, body, empty)
    }

    /// The line of titles.
    pub(crate) fn header(&self, headers: &Headers) -> String {
        let mut entries: Vec<_> =
            headers.iter().map(|(field, title)| ((*field).to_owned(), Value::text(title))).collect();
        entries.push(("Label".to_owned(), Value::Method(Method::new(label_title))));
        let titles = Value::Map(Arc::new(Map { entries, ..Map::default() }));
        self.template.execute_titles(&titles)
    }
}

/// The title of `.Label "com.example.some-name"` is `some name`.
fn label_title(arguments: &[Value]) -> Result<Value, String> {
    let Some(Value::String(name)) = arguments.first() else { return Ok(Value::text("")) };
    let last = name.rsplit('.').next().unwrap_or_default();
    Ok(Value::text(last.replace(['-', '_'], " ")))
}

/// A row that is being put together. Its JSON has the fields by name, as Go marshals a map.
#[derive(Debug, Default)]
pub(crate) struct Row {
    name: &'static str,
    fields: Vec<(String, Value)>,
}

impl Row {
    /// A row; the name is Go's for its type, which stands in error messages.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, fields: Vec::new() }
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// A field that is empty where it is not wanted.
    pub(crate) fn field_if<T: Into<Value>>(self, wanted: Wanted<'_>, name: &str, value: impl FnOnce() -> T) -> Self {
        match wanted.has(name) {
            true => self.field(name, value()),
            false => self.field(name, Value::text("")),
        }
    }

    /// [`Self::labels`], where they are wanted.
    pub(crate) fn labels_if(self, wanted: Wanted<'_>, labels: &Json) -> Self {
        if wanted.has("Label") { self.labels(labels) } else { self.field("Label", Value::text("")) }
    }

    /// `.Label "key"`.
    pub(crate) fn labels(self, labels: &Json) -> Self {
        let labels = Type::map(Type::String).view(labels);
        let look_up = move |arguments: &[Value]| {
            let [Value::String(key)] = arguments else {
                return Err(format!("wrong number of args for {{name}}: want 1 got {}", arguments.len()));
            };
            let Value::Map(map) = &labels else { return Ok(Value::text("")) };
            let found = map.entries.iter().find(|(name, _)| **name == **key);
            Ok(found.map_or_else(|| Value::text(""), |(_, value)| value.clone()))
        };
        self.field("Label", Value::Method(Method::new(look_up)))
    }

    pub(crate) fn build(self) -> Value {
        Value::Struct(Arc::new(Struct {
            name: self.name.to_owned(),
            fields: self.fields,
            json: None,
            escape_html: true,
            ..Struct::default()
        }))
    }
}
