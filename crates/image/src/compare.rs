//! Two images beside each other: which layer, file and step it is that makes them differ.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use serde_json::Value;
use wharf_archive::{Entry, Kind, Reader};
use wharf_reference::{Digest, Hasher};

use crate::config::ImageConfig;
use crate::images::{ImageRecord, Images};
use crate::{ImageError, Result};

/// So many files of a layer are named; the others are counted.
const MOST_NAMED: usize = 100;

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Of the configurations, by the path of the field.
    pub config: Vec<String>,
    pub layers: Vec<LayerDifference>,
}

/// One layer that is not the same in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerDifference {
    /// From the base on, beginning with 1.
    pub number: usize,
    /// What the history says that made it.
    pub step: String,
    /// Files, with what of them differs.
    pub files: Vec<(String, String)>,
    /// Further files that are not named.
    pub more: usize,
    /// Entries of which nothing but the time differs.
    pub times: usize,
}

impl Comparison {
    /// Whether they are the same, byte for byte.
    pub fn is_same(&self) -> bool {
        self.config.is_empty() && self.layers.is_empty()
    }
}

/// An entry as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    entry: Entry,
    content: Option<Digest>,
}

impl Images {
    /// Compares the image `old` with `new`, which was to become the same.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn compare(&self, old: &ImageRecord, new: &ImageRecord) -> Result<Comparison> {
        let mut comparison = Comparison { config: configs(&old.config, &new.config)?, layers: Vec::new() };
        let steps = [steps(&old.config), steps(&new.config)];
        let _held = self.hold(&[old.diff_ids.clone(), new.diff_ids.clone()].concat());
        for at in 0..old.diff_ids.len().max(new.diff_ids.len()) {
            let (before, after) = (old.diff_ids.get(at), new.diff_ids.get(at));
            if before == after {
                continue;
            }
            let step = steps.iter().rev().find_map(|steps| steps.get(at)).cloned().unwrap_or_default();
            let mut layer = LayerDifference { number: at + 1, step, ..LayerDifference::default() };
            match (before, after) {
                (Some(before), Some(after)) => self.layer(before, after, &mut layer)?,
                (Some(_), None) => layer.files.push(("/".into(), "the layer is there no more".into())),
                _ => layer.files.push(("/".into(), "the layer is new".into())),
            }
            comparison.layers.push(layer);
        }
        Ok(comparison)
    }

    fn layer(&self, before: &Digest, after: &Digest, found: &mut LayerDifference) -> Result<()> {
        let (before, mut after) = (self.entries(before)?, self.entries(after)?);
        let mut files = Vec::new();
        for (path, old) in before {
            match after.remove(&path) {
                None => files.push((path, "is there no more".to_owned())),
                Some(new) => {
                    let what = differences(&old, &new);
                    if !what.is_empty() {
                        files.push((path, what.join(", ")));
                    } else if old.entry.mtime != new.entry.mtime {
                        found.times += 1;
                    }
                }
            }
        }
        files.extend(after.into_keys().map(|path| (path, "is new".to_owned())));
        files.sort();
        if files.is_empty() && found.times == 0 {
            files.push((b"/".to_vec(), "the order or form of its archive is another one".into()));
        }
        found.more = files.len().saturating_sub(MOST_NAMED);
        files.truncate(MOST_NAMED);
        let shown = |(path, what): (Vec<u8>, String)| (String::from_utf8_lossy(&path).into_owned(), what);
        found.files = files.into_iter().map(shown).collect();
        Ok(())
    }

    /// The entries of a layer by their names; of one that comes twice the last counts.
    fn entries(&self, diff_id: &Digest) -> Result<BTreeMap<Vec<u8>, Seen>> {
        let failing = |e: io::Error| ImageError::Io("a layer cannot be read", e);
        let (mut reader, writer) = io::pipe().map_err(failing)?;
        let layers = self.layers();
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut output = BufWriter::with_capacity(1 << 16, writer);
                layers.write_tar(diff_id, &mut output)?;
                output.flush().map_err(failing)
            });
            let read = read(&mut reader);
            drop(reader);
            let written: Result<()> = writing.join().map_err(|_| ImageError::NoLayer(diff_id.clone()))?;
            match read {
                Ok(entries) => written.map(|()| entries),
                Err(error) => Err(error),
            }
        })
    }
}

fn read(input: &mut impl Read) -> Result<BTreeMap<Vec<u8>, Seen>> {
    let mut entries = BTreeMap::new();
    let mut reader = Reader::new(&mut *input);
    while let Some(entry) = reader.next_entry()? {
        let content = match entry.kind {
            Kind::File => {
                let mut hasher = Hasher::new();
                io::copy(&mut reader, &mut hasher).map_err(|e| ImageError::Io("a layer cannot be read", e))?;
                Some(hasher.finish())
            }
            _ => None,
        };
        entries.insert(entry.path.clone(), Seen { entry, content });
    }
    drop(reader);
    // What is behind the last entry has to go somewhere.
    io::copy(input, &mut io::sink()).map_err(|e| ImageError::Io("a layer cannot be read", e))?;
    Ok(entries)
}

/// What of an entry differs, but for its time.
fn differences(old: &Seen, new: &Seen) -> Vec<String> {
    let (a, b) = (&old.entry, &new.entry);
    if a.kind != b.kind {
        return vec![format!("was a {:?} and is a {:?}", a.kind, b.kind).to_lowercase()];
    }
    let mut all = Vec::new();
    if old.content != new.content {
        all.push(if a.size == b.size {
            format!("content ({} bytes in both)", a.size)
        } else {
            format!("content ({} bytes, was {})", b.size, a.size)
        });
    }
    if a.mode != b.mode {
        all.push(format!("mode {:o}, was {:o}", b.mode, a.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        all.push(format!("owner {}:{}, was {}:{}", b.uid, b.gid, a.uid, a.gid));
    }
    if a.link != b.link {
        all.push(format!("leads to {}, was {}", String::from_utf8_lossy(&b.link), String::from_utf8_lossy(&a.link)));
    }
    if a.device != b.device {
        all.push("device".to_owned());
    }
    if a.xattrs != b.xattrs {
        all.push("extended attributes".to_owned());
    }
    all
}

/// What made each layer.
fn steps(config: &ImageConfig) -> Vec<String> {
    let made = config.history.iter().filter(|entry| !entry.empty_layer);
    made.map(|entry| entry.created_by.clone().or_else(|| entry.comment.clone()).unwrap_or_default()).collect()
}

/// Fields of configurations that differ. The layers are told of apart, and what a cache has put in is of no meaning.
fn configs(old: &ImageConfig, new: &ImageConfig) -> Result<Vec<String>> {
    let value = |config: &ImageConfig| -> Result<Value> {
        let mut value = serde_json::to_value(config).map_err(ImageError::Config)?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("rootfs");
            fields.remove("moby.buildkit.cache.v0");
        }
        Ok(value)
    };
    let mut all = Vec::new();
    fields("", &value(old)?, &value(new)?, &mut all);
    Ok(all)
}

fn fields(path: &str, old: &Value, new: &Value, all: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let none = Value::Null;
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(&below, a.get(name).unwrap_or(&none), b.get(name).unwrap_or(&none), all);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                fields(&format!("{path}[{at}]"), a, b, all);
            }
        }
        (old, new) => all.push(format!("{path}: {new}, was {old}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_differ_are_named() {
        let old = json!({ "config": { "Env": ["A=1", "B=2"], "Cmd": ["x"] }, "same": 1 });
        let new = json!({ "config": { "Env": ["A=1", "B=3"], "Cmd": ["x", "y"] }, "same": 1, "new": true });
        let mut all = Vec::new();
        fields("", &old, &new, &mut all);
        let expected =
            [r#"config.Cmd: ["x","y"], was ["x"]"#, r#"config.Env[1]: "B=3", was "B=2""#, "new: true, was null"];
        assert_eq!(all, expected);
    }
}
