//! Small readings of the engine's JSON: what is missing is empty.

use serde_json::Value;

/// A text, or an empty one.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A number, or 0.
pub(crate) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| value.as_f64().unwrap_or_default() as i64)
}

/// A list, or an empty one.
pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A list's texts.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    array(value).iter().map(text).collect()
}

/// `strconv.Quote`.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if (c as u32) < 0x80 && c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// JSON text with four spaces of indent, everything else as it was: numbers and escapes keep their form.
pub(crate) fn indent(text: &str) -> String {
    let mut output = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut scanner = Scanner::new(text);
    while let Some(piece) = scanner.next() {
        match piece {
            "{" | "[" => {
                output.push_str(piece);
                if scanner.closes() {
                    continue;
                }
                depth += 1;
                newline(&mut output, depth);
            }
            "}" | "]" => {
                if !output.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    newline(&mut output, depth);
                }
                output.push_str(piece);
            }
            "," => {
                output.push(',');
                newline(&mut output, depth);
            }
            ":" => output.push_str(": "),
            piece => output.push_str(piece),
        }
    }
    output
}

/// JSON text without spaces, with what HTML takes for markup escaped: Go's `json.Marshal` of JSON.
pub(crate) fn compact(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut scanner = Scanner::new(text);
    while let Some(piece) = scanner.next() {
        for c in piece.chars() {
            match c {
                '<' | '>' | '&' => output.push_str(&format!("\\u{:04x}", c as u32)),
                c => output.push(c),
            }
        }
    }
    output
}

fn newline(output: &mut String, depth: usize) {
    output.push('\n');
    output.extend(std::iter::repeat_n("    ", depth));
}

/// Cuts JSON text into marks, strings and words; the space between them is dropped.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        let length = match first {
            '{' | '}' | '[' | ']' | ',' | ':' => 1,
            '"' => {
                let mut escaped = false;
                let end = self.rest.char_indices().skip(1).find(|&(_, c)| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.map_or(self.rest.len(), |(at, _)| at + 1)
            }
            _ => self.rest.find(|c: char| "{}[],: \t\r\n".contains(c)).unwrap_or(self.rest.len()),
        };
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(piece)
    }

    /// Whether a closing mark comes next.
    fn closes(&self) -> bool {
        self.rest.trim_start().starts_with(['}', ']'])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept() {
        let text = r#"{"a": 1.0,"b":[],"c":{},"d":["x\"y",{"e":null}],"f":"\u003c<"}"#;
        let indented = indent(text);
        let expected = "{\n    \"a\": 1.0,\n    \"b\": [],\n    \"c\": {},\n    \"d\": [\n        \"x\\\"y\",\n        {\n            \"e\": null\n        }\n    ],\n    \"f\": \"\\u003c<\"\n}";
        assert_eq!(indented, expected);
        assert_eq!(compact("{ \"a\" : \"<\" }"), "{\"a\":\"\\u003c\"}");
        assert_eq!(indent("[]"), "[]");
    }
}
