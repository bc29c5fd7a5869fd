//! `--volume`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::failure::Outcome;

/// What the flag's values come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    /// `source:target[:options]`.
    pub(crate) binds: Vec<String>,
    /// Targets that get a volume without a name.
    pub(crate) anonymous: Map<String, Value>,
}

/// Reads the values.
pub(crate) fn parse(texts: &[String]) -> Outcome<Volumes> {
    let mut volumes = Volumes::default();
    for text in texts {
        match source(text)? {
            Some(source) => volumes.binds.push(absolute(text, source)),
            None => {
                volumes.anonymous.insert(text.clone(), json!({}));
            }
        }
    }
    Ok(volumes)
}

/// The part before the first colon, when it is a source. A single letter is taken for a drive of Windows, as Docker
/// does.
fn source(text: &str) -> Outcome<Option<&str>> {
    if text.is_empty() {
        return Err("invalid empty volume spec".into());
    }
    // Too short to have two parts: Docker does not look further.
    if text.len() <= 2 {
        return Ok(None);
    }
    let mut rest = text;
    let mut parts = Vec::new();
    while let Some(at) = rest.find(':') {
        let drive = at == 1 && rest.starts_with(|c: char| c.is_ascii_alphabetic());
        if drive {
            let end = rest[2..].find(':').map_or(rest.len(), |next| next + 2);
            parts.push(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
            if end == text.len() {
                break;
            }
            continue;
        }
        parts.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    if !rest.is_empty() || text.ends_with(':') {
        parts.push(rest);
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {text}: empty section between colons").into());
    }
    Ok(match parts.as_slice() {
        [source, _, ..] => Some(*source),
        _ => None,
    })
}

/// A source that starts with a dot is a path from the working directory.
fn absolute(text: &str, source: &str) -> String {
    if !source.starts_with('.') {
        return text.to_owned();
    }
    match std::env::current_dir() {
        Ok(dir) => format!("{}{}", clean(&dir.join(source)), &text[source.len()..]),
        Err(_) => text.to_owned(),
    }
}

/// A path without `.` and `..`, by its letters alone.
pub(crate) fn clean(path: &Path) -> String {
    let absolute = path.has_root();
    let mut parts: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part.to_owned()),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let list = |texts: &[&str]| parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let volumes = list(&["/a:/b", "name:/v:ro", "/only"]).unwrap();
        assert_eq!(volumes.binds, ["/a:/b", "name:/v:ro"]);
        assert_eq!(Value::Object(volumes.anonymous).to_string(), r#"{"/only":{}}"#);
        let here = std::env::current_dir().unwrap();
        assert_eq!(list(&["./x:/b"]).unwrap().binds, [format!("{}/x:/b", here.display())]);
        assert_eq!(list(&[".:/b:z"]).unwrap().binds, [format!("{}:/b:z", here.display())]);
        assert_eq!(list(&["/a::/b"]).unwrap_err().text, "invalid spec: /a::/b: empty section between colons");
        assert!(list(&[""]).is_err());
    }

    #[test]
    fn cleaned() {
        for (path, cleaned) in [("/a/./b/../c", "/a/c"), ("/..", "/"), ("a/..", "."), ("../a//b", "../a/b")] {
            assert_eq!(clean(Path::new(path)), cleaned);
        }
    }
}
