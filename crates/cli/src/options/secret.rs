//! `--secret`: files in the container that nobody is told of.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::failure::Outcome;
use crate::parse::commas;

/// As the engine's.
const MAX_BYTES: u64 = 500 << 10;

/// Refuses what is no secret; nothing is read yet.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

/// Where a content comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(String),
    Variable(String),
    /// As BuildKit's: the variable of the secret's name if there is one, else the file.
    Either,
}

#[derive(Debug)]
struct Secret {
    id: String,
    source: Source,
    /// `Target`, `Mode`, `UID`, `GID`, as far as they are given.
    file: Map<String, Value>,
}

/// `id=NAME[,src=FILE|env=VAR][,target=PATH][,mode=0400][,uid=N][,gid=N]`; `NAME` alone is its ID.
fn parse(text: &str) -> Result<Secret, String> {
    let (mut id, mut source, mut kind) = (String::new(), Source::Either, String::new());
    let mut file = Map::new();
    for field in commas(text) {
        let Some((key, value)) = field.split_once('=') else {
            if id.is_empty() && !field.is_empty() {
                id = field;
                continue;
            }
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        let number = || value.parse::<u32>().map(Value::from).map_err(|_| format!("invalid value for {key}: {value}"));
        match key.to_lowercase().as_str() {
            "id" => value.clone_into(&mut id),
            "type" => value.clone_into(&mut kind),
            "src" | "source" => source = Source::File(value.to_owned()),
            "env" => source = Source::Variable(value.to_owned()),
            "target" | "dst" | "destination" => drop(file.insert("Target".into(), json!(value))),
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                file.insert("Mode".into(), json!(mode.ok_or_else(|| format!("invalid value for mode: {value}"))?));
            }
            "uid" => drop(file.insert("UID".into(), number()?)),
            "gid" => drop(file.insert("GID".into(), number()?)),
            other => return Err(format!("unexpected key '{other}' in '{field}'")),
        }
    }
    if id.is_empty() {
        return Err("a secret needs an id: --secret id=NAME[,src=FILE|env=VAR]".to_owned());
    }
    // BuildKit's second way to name a variable.
    source = match (kind.as_str(), source) {
        ("", source) => source,
        ("file", source @ (Source::File(_) | Source::Either)) => source,
        ("env", Source::File(name) | Source::Variable(name)) => Source::Variable(name),
        ("env", Source::Either) => Source::Variable(id.clone()),
        (kind, _) => return Err(format!("invalid secret type '{kind}'")),
    };
    Ok(Secret { id, source, file })
}

/// What the secrets are for the API: `HostConfig.Secrets`, and `SecretData` with their contents.
pub(crate) fn read(given: &[String]) -> Outcome<(Vec<Value>, Map<String, Value>)> {
    let (mut files, mut data) = (Vec::new(), Map::new());
    for text in given {
        let Secret { id, source, mut file } = parse(text)?;
        let content = match source {
            Source::File(path) => from_file(&path)?,
            Source::Variable(name) => from_variable(&name)
                .ok_or_else(|| format!("secret {id}: the environment variable {name} is not set"))?,
            Source::Either => match from_variable(&id) {
                Some(content) => content,
                None => from_file(&id)?,
            },
        };
        file.insert("ID".into(), json!(id));
        files.push(Value::Object(file));
        data.insert(id, json!(STANDARD.encode(content)));
    }
    Ok((files, data))
}

fn from_variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
}

fn from_file(path: &str) -> Outcome<Vec<u8>> {
    let fail = |error: std::io::Error| {
        format!("cannot read the secret: {}", wharf_report::path("open", std::path::Path::new(path), &error))
    };
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("the secret in {path} is too large: it may have no more than 500 KiB").into());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_files_and_variables() {
        let source = |text: &str| parse(text).unwrap().source;
        assert_eq!(source("id=a,src=/f"), Source::File("/f".into()));
        assert_eq!(source("id=a,env=V"), Source::Variable("V".into()));
        assert_eq!(source("id=a,type=env,src=V"), Source::Variable("V".into()));
        assert_eq!(source("type=env,id=a"), Source::Variable("a".into()));
        assert_eq!((source("a"), source("id=a")), (Source::Either, Source::Either));
        let file = parse("id=a,target=/x,mode=0400,uid=1,gid=2").unwrap().file;
        assert_eq!(Value::Object(file), json!({ "Target": "/x", "Mode": 0o400, "UID": 1, "GID": 2 }));
        for bad in ["", "src=/f", "id=a,mode=9", "id=a,mode=7777", "id=a,uid=x", "id=a,size=1", "id=a,b", "id=a,type=x"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
