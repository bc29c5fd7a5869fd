//! `docker context export` and `import`: a context as an archive of its metadata and TLS files.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read, Write};
use std::path::Path;

use serde_json::Value as Json;
use wharf_archive::{Entry, Kind, Reader};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::contexts::{self, DEFAULT};
use crate::failure::{Failure, Outcome};
use crate::parse::Matches;
use crate::tar::Writer;

/// Docker's bound on an archive that is imported.
const MAX_SIZE: u64 = 10 << 20;
/// The files of an endpoint that are secret or trusted.
const MATERIAL: &[&str] = &["ca.pem", "cert.pem", "key.pem"];

pub(crate) static EXPORT: Command = Command::new(
    "CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    Arity::Between(1, 2),
    |app, matches| Box::pin(export(app, matches)),
);

pub(crate) static IMPORT: Command =
    Command::new("CONTEXT FILE|-", "Import a context from a tar or zip file", Arity::Exactly(2), |app, matches| {
        Box::pin(import(app, matches))
    });

async fn export(app: &App, matches: &Matches) -> Outcome<u8> {
    let name = matches.argument(0);
    if name == DEFAULT {
        return Err("context \"default\": cannot export the default context".into());
    }
    let context = contexts::load(app.config(), name)?;
    let tls = contexts::dirs(app.config(), name).1.join("docker");
    let meta = context.meta.to_string();
    let mut files = vec![("meta.json".to_owned(), meta.into_bytes())];
    for file in MATERIAL {
        if let Ok(content) = std::fs::read(tls.join(file)) {
            files.push((format!("tls/docker/{file}"), content));
        }
    }
    let archive = pack(&files)?;
    let target = match matches.argument(1) {
        "" => format!("{name}.dockercontext"),
        given => given.to_owned(),
    };
    if target == "-" {
        if std::io::stdout().is_terminal() {
            return Err("cowardly refusing to export to a terminal, specify a file path".into());
        }
        std::io::stdout().write_all(&archive)?;
        return Ok(0);
    }
    let path = Path::new(&target);
    let wrong = |error: std::io::Error| Failure::new(wharf_report::path("open", path, &error));
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    file.write_all(&archive)?;
    app.complain(&format!("Written file {target:?}"));
    Ok(0)
}

fn pack(files: &[(String, Vec<u8>)]) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        writer.header(&Entry {
            path: name.clone().into_bytes(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
        })?;
        writer.content(&mut content.as_slice(), content.len() as u64)?;
    }
    writer.finish()
}

async fn import(app: &App, matches: &Matches) -> Outcome<u8> {
    let (name, source) = (matches.argument(0), matches.argument(1));
    super::context::check_name(name)?;
    if name == DEFAULT {
        return Err("\"default\" is a reserved context name".into());
    }
    if contexts::load(app.config(), name).is_ok() {
        return Err(format!("context {name:?} already exists").into());
    }
    let mut bytes = Vec::new();
    if source == "-" {
        std::io::stdin().take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    } else {
        let path = Path::new(source);
        let file = std::fs::File::open(path).map_err(|error| wharf_report::path("open", path, &error))?;
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_SIZE {
        return Err("read exceeds the defined limit".into());
    }
    if bytes.starts_with(b"PK") {
        return Err("context archives in zip form are not supported: give a tar".into());
    }
    let (mut meta, material) = unpack(&bytes)?;
    meta["Name"] = name.into();
    let (meta_dir, tls_dir) = contexts::dirs(app.config(), name);
    let write = |dir: &Path, file: &str, content: &[u8]| -> Outcome {
        let path = dir.join(file);
        let done = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, content));
        Ok(done.map_err(|error| wharf_report::path("open", &path, &error))?)
    };
    for (file, content) in &material {
        write(&tls_dir.join("docker"), file, content)?;
    }
    write(&meta_dir, "meta.json", meta.to_string().as_bytes())?;
    app.say(name)?;
    app.complain(&format!("Successfully imported context {name:?}"));
    Ok(0)
}

/// The metadata and the TLS files of an archive; only names that are known are written anywhere.
fn unpack(bytes: &[u8]) -> Outcome<(Json, BTreeMap<&'static str, Vec<u8>>)> {
    let bad = |error: &dyn std::error::Error| Failure::new(wharf_report::chain(error));
    let (mut meta, mut material) = (None, BTreeMap::new());
    let mut reader = Reader::new(bytes);
    while let Some(entry) = reader.next_entry().map_err(|error| bad(&error))? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if entry.kind != Kind::File {
            continue;
        }
        let mut content = Vec::new();
        if path == "meta.json" {
            reader.read_to_end(&mut content)?;
            meta = Some(serde_json::from_slice(&content)?);
        } else if let Some(file) = MATERIAL.iter().find(|file| path == format!("tls/docker/{file}")) {
            reader.read_to_end(&mut content)?;
            material.insert(*file, content);
        } else if let Some(file) = path.strip_prefix("tls/")
            && !is_of_endpoint(file)
        {
            return Err(format!("invalid context: unexpected file {path}").into());
        }
        // Of other endpoints than Docker's, which older versions wrote, there is nobody to use them.
    }
    let meta = meta.ok_or_else(|| Failure::new("invalid context: no metadata found".to_owned()))?;
    Ok((meta, material))
}

/// Whether it is `ENDPOINT/FILE`.
fn is_of_endpoint(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    path.split_once('/').is_some_and(|(endpoint, file)| plain(endpoint) && plain(file) && !file.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let files = [("meta.json".to_owned(), b"{\"Name\":\"x\"}".to_vec()), ("tls/docker/ca.pem".to_owned(), vec![1])];
        let (meta, material) = unpack(&pack(&files).unwrap()).unwrap();
        assert_eq!((meta["Name"].as_str(), &material["ca.pem"]), (Some("x"), &vec![1]));
        assert!(unpack(&pack(&files[1..]).unwrap()).is_err());
        assert!(unpack(&pack(&[("tls/docker/../x".to_owned(), vec![1])]).unwrap()).is_err());
        let of_another = [files[0].clone(), ("tls/kubernetes/ca.pem".to_owned(), vec![1])];
        assert!(unpack(&pack(&of_another).unwrap()).unwrap().1.is_empty());
    }
}
