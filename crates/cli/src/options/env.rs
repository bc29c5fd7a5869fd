//! Environment variables and labels, from flags and files.

use serde_json::{Map, Value, json};

use crate::failure::Outcome;

/// The variables of the files, then those of the flags. A name alone takes the value that it has here.
pub(crate) fn variables(files: &[String], given: &[String]) -> Outcome<Vec<String>> {
    let mut variables = Vec::new();
    for file in files {
        variables.extend(read(file, true)?);
    }
    variables.extend(given.iter().map(|text| with_value(text)));
    Ok(variables)
}

/// `NAME` as `NAME=value` when it is set here.
fn with_value(text: &str) -> String {
    match text.contains('=') {
        true => text.to_owned(),
        false => std::env::var(text).map_or_else(|_| text.to_owned(), |value| format!("{text}={value}")),
    }
}

/// The labels of the files, then those of the flags.
pub(crate) fn labels(files: &[String], given: &[String]) -> Outcome<Map<String, Value>> {
    let mut pairs = Vec::new();
    for file in files {
        pairs.extend(read(file, false)?);
    }
    pairs.extend_from_slice(given);
    Ok(map(&pairs))
}

/// `key=value` texts as a map; a key alone has an empty value.
pub(crate) fn map(pairs: &[String]) -> Map<String, Value> {
    let split = |text: &String| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), json!(value)),
        None => (text.clone(), json!("")),
    };
    pairs.iter().map(split).collect()
}

/// The lines of a file; `environment`: a name alone takes the value that it has here. Without one it is left
/// out.
fn read(path: &str, environment: bool) -> Outcome<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|error| wharf_report::path("open", path.as_ref(), &error))?;
    let wrong = |reason: String| format!("invalid env file ({path}): {reason}");
    let mut lines = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| {
            wrong(format!("invalid utf8 bytes at line {}: {}", number + 1, String::from_utf8_lossy(line)))
        })?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            return Err(wrong(format!("no variable name on line '{line}'")).into());
        }
        if name.contains(char::is_whitespace) {
            return Err(wrong(format!("variable '{name}' contains whitespaces")).into());
        }
        match value {
            Some(value) => lines.push(format!("{name}={value}")),
            None if environment => lines.extend(std::env::var(name).ok().map(|value| format!("{name}={value}"))),
            None => {}
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# comment\nA=b c\n\n  C = x\nNOT_SET_ANYWHERE\r\nD=\r\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let failure = variables(std::slice::from_ref(&path), &[]).unwrap_err();
        assert!(failure.text.ends_with("variable 'C ' contains whitespaces"), "{}", failure.text);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xef\xbb\xbfA=b c\nNOT_SET_ANYWHERE\r\nD=\r\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(variables(&[path], &["E=f".to_owned()]).unwrap(), ["A=b c", "D=", "E=f"]);
        assert!(variables(&["/nonexistent".to_owned()], &[]).is_err());
    }
}
