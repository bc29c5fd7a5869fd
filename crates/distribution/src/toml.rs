//! As much of TOML 1.0 as configurations of registries are written in: tables, strings, booleans, integers, arrays.
//!
//! What is outside of that is an error that names its line; nothing is passed over.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    List(Vec<Value>),
}

/// A line `key = value`, with the names of the tables that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) table: Vec<String>,
    pub(crate) key: Vec<String>,
    pub(crate) value: Value,
    /// From 1.
    pub(crate) line: usize,
}

/// Tables and settings in their order; a table without settings is there too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) tables: Vec<Vec<String>>,
    pub(crate) settings: Vec<Setting>,
}

/// Arrays in arrays; nobody writes three.
const MAX_DEPTH: u32 = 4;

/// # Errors
/// `line N: what is wrong`.
pub(crate) fn parse(text: &str) -> Result<Document, String> {
    let mut document = Document::default();
    let mut parser = Parser { text, at: 0 };
    let mut table = Vec::new();
    loop {
        parser.skip_lines();
        let line = parser.line();
        let fail = |why: &str| format!("line {line}: {why}");
        if parser.rest().is_empty() {
            return Ok(document);
        }
        if parser.rest().starts_with("[[") {
            return Err(fail("arrays of tables are not known here"));
        }
        if parser.take('[') {
            table = parser.key().map_err(|why| fail(&why))?;
            if !parser.take(']') {
                return Err(fail("a table's name ends with ]"));
            }
            if document.tables.contains(&table) {
                return Err(fail("the table is there twice"));
            }
            document.tables.push(table.clone());
        } else {
            let key = parser.key().map_err(|why| fail(&why))?;
            if !parser.take('=') {
                return Err(fail("a key is followed by ="));
            }
            parser.skip_blanks();
            let value = parser.value(0).map_err(|why| fail(&why))?;
            let twice = document.settings.iter().any(|other| other.table == table && other.key == key);
            if twice {
                return Err(fail("the key is there twice"));
            }
            document.settings.push(Setting { table: table.clone(), key, value, line });
        }
        parser.skip_blanks();
        if !parser.rest().is_empty() && !parser.rest().starts_with(['\n', '\r', '#']) {
            return Err(fail("there is something behind the end"));
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Blanks, line ends and comments.
    fn skip_lines(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn take(&mut self, letter: char) -> bool {
        self.skip_blanks();
        let there = self.rest().starts_with(letter);
        self.at += if there { letter.len_utf8() } else { 0 };
        there
    }

    /// `a.b."c.d"`.
    fn key(&mut self) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        loop {
            self.skip_blanks();
            let name = match self.rest().chars().next() {
                Some('"' | '\'') => self.text()?,
                _ => {
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    let length = self.rest().find(|c| !bare(c)).unwrap_or(self.rest().len());
                    let name = &self.rest()[..length];
                    self.at += length;
                    name.to_owned()
                }
            };
            if name.is_empty() {
                return Err("a key is missing".into());
            }
            names.push(name);
            if !self.take('.') {
                return Ok(names);
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value, String> {
        let rest = self.rest();
        if rest.starts_with(['"', '\'']) {
            return self.text().map(Value::Text);
        }
        if rest.starts_with('[') {
            return self.list(depth);
        }
        let length = rest.find(|c: char| c.is_whitespace() || ",]#".contains(c)).unwrap_or(rest.len());
        let word = &rest[..length];
        let value = match word {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            _ => {
                let number = word.replace('_', "").parse();
                Value::Number(number.map_err(|_| format!("`{word}` is no text, flag, number or list"))?)
            }
        };
        self.at += length;
        Ok(value)
    }

    fn list(&mut self, depth: u32) -> Result<Value, String> {
        if depth >= MAX_DEPTH {
            return Err("lists are nested too deeply".into());
        }
        self.at += 1;
        let mut values = Vec::new();
        loop {
            self.skip_lines();
            if self.take(']') {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth + 1)?);
            self.skip_lines();
            if !self.take(',') && !self.rest().starts_with(']') {
                return Err("a list has commas between its values and ends with ]".into());
            }
        }
    }

    /// A text of one line, in quotes.
    fn text(&mut self) -> Result<String, String> {
        let open = || "a text has no end".to_owned();
        let mut letters = self.rest().char_indices();
        let quote = letters.next().ok_or_else(open)?.1;
        if self.rest().starts_with("\"\"\"") || self.rest().starts_with("'''") {
            return Err("texts of several lines are not known here".into());
        }
        let mut text = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\n' => return Err(open()),
                _ if letter == quote => {
                    self.at += at + letter.len_utf8();
                    return Ok(text);
                }
                '\\' if quote == '"' => text.push(match letters.next().ok_or_else(open)?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    same @ ('"' | '\\') => same,
                    other => return Err(format!("`\\{other}` is not known here")),
                }),
                _ => text.push(letter),
            }
        }
        Err(open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_settings_are_read_in_order() {
        let text = "server = \"https://a.example\" # why\n\n[host.\"https://b.example:5000\"]\n  capabilities = [\n    \
                    'pull', # one\n    \"res\\\"olve\",\n  ]\n  skip_verify=true\n  client = [[\"a\", \"b\"], []]\n\
                    [host.\"https://b.example:5000\".header]\r\n  n = 1_0\r\n[empty]";
        let document = parse(text).unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(document.tables[0], texts(&["host", "https://b.example:5000"]));
        assert_eq!(document.tables[2], texts(&["empty"]));
        let values: Vec<_> = document.settings.iter().map(|setting| (setting.key.join("."), &setting.value)).collect();
        let list = |all: &[&str]| Value::List(all.iter().map(|text| Value::Text((*text).into())).collect());
        assert_eq!(values[0], ("server".into(), &Value::Text("https://a.example".into())));
        assert_eq!(values[1], ("capabilities".into(), &list(&["pull", "res\"olve"])));
        assert_eq!(values[2].1, &Value::Flag(true));
        assert_eq!(values[3].1, &Value::List(vec![list(&["a", "b"]), list(&[])]));
        assert_eq!((values[4].1, document.settings[4].line), (&Value::Number(10), 11));
        assert_eq!(parse("").unwrap(), Document::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, why) in [
            ("a", "line 1: a key is followed by ="),
            ("\na = ", "line 2: `` is no text"),
            ("a = \"x", "a text has no end"),
            ("a = \"x\ny\"", "a text has no end"),
            ("a = 1 2", "behind the end"),
            ("[a", "ends with ]"),
            ("[[a]]", "arrays of tables"),
            ("a = [1 2]", "commas"),
            ("a = [[[[[1]]]]]", "too deeply"),
            ("a = '''x'''", "several lines"),
            ("a = \"\\x\"", "not known here"),
            ("a = 1\na = 2", "line 2: the key is there twice"),
            ("[a]\n[a]", "line 2: the table is there twice"),
            ("= 1", "a key is missing"),
            ("a = {}", "no text, flag"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
