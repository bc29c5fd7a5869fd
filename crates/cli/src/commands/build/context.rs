//! The files that are sent to the builder.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use wharf_archive::{Entry, Kind};
use wharf_dockerfile::{Dockerfile, Ignore, Needs};
use wharf_git::Repository;

use super::checkout::Checkout;
use super::dockerfile::{self, Found};
use super::listing::Listing;
use crate::failure::{Failure, Outcome};
use crate::parse::Matches;
use crate::tar::{Pack, PackError, Writer, pack};

const IGNORE_FILE: &str = ".dockerignore";
const DOCKERFILE: &str = "Dockerfile";

/// A context, not read yet.
#[derive(Debug)]
pub(super) struct Context {
    source: Source,
    /// The Dockerfile's path in it; empty: the builder's default.
    pub(super) dockerfile: String,
    /// What the user calls it, where it is none of the context's and has a name of chance there.
    pub(super) shown: Option<String>,
    /// A Dockerfile that is not in the context, under the name that it gets there.
    added: Option<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Source {
    Directory {
        dir: PathBuf,
        ignore: Ignore,
        /// The patterns, where they do not come from the context's own file.
        patterns: String,
        /// Removed when it has been sent.
        _checkout: Option<Checkout>,
    },
    /// The engine gets it.
    Remote(String),
    /// Standard input: the first bytes have been looked at.
    Archive(Vec<u8>),
    /// Nothing but a Dockerfile.
    Dockerfile(Vec<u8>),
}

/// Whether a repository comes with its `.git` (`BUILDKIT_CONTEXT_KEEP_GIT_DIR`).
pub(super) fn keeps_git_dir(matches: &Matches) -> bool {
    let given =
        matches.all("build-arg").iter().rev().find_map(|text| text.strip_prefix("BUILDKIT_CONTEXT_KEEP_GIT_DIR="));
    matches!(given, Some("1" | "true"))
}

/// Finds out what PATH and `-f` mean.
pub(super) fn prepare(path: &str, file: &str, keep_git_dir: bool) -> Outcome<Context> {
    let unable = |reason: String| Failure::new(format!("unable to prepare context: {reason}"));
    if file.starts_with("http://") || file.starts_with("https://") {
        let words =
            format!("-f takes no address: fetch the file first, as by `curl -fsSL {file} | wharf build -f - {path}`");
        return Err(unable(words));
    }
    if path == "-" {
        if file == "-" {
            return Err("invalid argument: can't use stdin for both build context and dockerfile".into());
        }
        return from_stdin(file).map_err(unable);
    }
    if Path::new(path).exists() {
        return from_directory(Path::new(path), file, None);
    }
    if Repository::is_address(path) {
        let checkout = Checkout::get(path, keep_git_dir).map_err(|failure| unable(failure.text))?;
        let file = match file {
            "" | "-" => file.to_owned(),
            name => checkout.dir.join(name).to_string_lossy().into_owned(),
        };
        let dir = checkout.dir.clone();
        return from_directory(&dir, &file, Some(checkout));
    }
    if path.starts_with("http://") || path.starts_with("https://") {
        if file == "-" {
            return Err(
                "invalid argument: a Dockerfile on stdin cannot be used with a context that the engine gets".into()
            );
        }
        return Ok(Context {
            source: Source::Remote(path.to_owned()),
            dockerfile: file.to_owned(),
            shown: None,
            added: None,
        });
    }
    Err(unable(format!("path {path:?} not found")))
}

fn from_stdin(file: &str) -> Result<Context, String> {
    let mut first = Vec::new();
    let read = io::stdin().lock().take(1024).read_to_end(&mut first);
    read.map_err(|error| format!("failed to peek context header from STDIN: {}", wharf_report::os(&error)))?;
    if is_archive(&first) {
        return Ok(Context { source: Source::Archive(first), dockerfile: file.to_owned(), shown: None, added: None });
    }
    if !file.is_empty() {
        return Err("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles".to_owned());
    }
    io::stdin().lock().read_to_end(&mut first).map_err(|error| wharf_report::os(&error))?;
    Ok(Context { source: Source::Dockerfile(first), dockerfile: DOCKERFILE.to_owned(), shown: None, added: None })
}

/// Whether the bytes begin a tar archive, compressed or not.
fn is_archive(bytes: &[u8]) -> bool {
    const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
        return true;
    }
    // A header's checksum is hard to have by chance.
    bytes.len() >= 512 && wharf_archive::Reader::new(bytes).next_entry().is_ok_and(|entry| entry.is_some())
}

fn from_directory(path: &Path, file: &str, checkout: Option<Checkout>) -> Outcome<Context> {
    let unable = |reason: String| Failure::new(format!("unable to prepare context: {reason}"));
    let dir = std::fs::canonicalize(path).map_err(|error| {
        unable(format!("unable to evaluate symlinks in context path: {}", wharf_report::path("lstat", path, &error)))
    })?;
    if !dir.is_dir() {
        return Err(unable(format!("context must be a directory: {}", dir.display())));
    }
    let (mut added, mut outside) = (None, None);
    let dockerfile = if file == "-" {
        let mut content = Vec::new();
        io::stdin().lock().read_to_end(&mut content)?;
        added = Some((foreign_name()?, content));
        None
    } else {
        match dockerfile::find(&dir, file).map_err(|failure| unable(failure.text))? {
            Found::Inside(name) => Some(name),
            Found::Outside(path) => {
                let content = std::fs::read(&path).map_err(|error| {
                    format!("unable to open Dockerfile: {}", wharf_report::path("open", &path, &error))
                })?;
                added = Some((foreign_name()?, content));
                outside = Some(path);
                None
            }
        }
    };
    let (ignore, patterns) = ignore(&dir, dockerfile.as_deref(), outside.as_deref())?;
    let of_file = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let shown = outside.as_ref().and_then(of_file).or_else(|| added.is_some().then(|| DOCKERFILE.to_owned()));
    let name = added.as_ref().map(|(name, _)| name.clone()).or(dockerfile).unwrap_or_default();
    let source = Source::Directory { dir, ignore, patterns, _checkout: checkout };
    Ok(Context { source, dockerfile: name, shown, added })
}

/// A name that no file has.
fn foreign_name() -> Outcome<String> {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Ok(format!(".dockerfile.{}", random.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// The ignore file's patterns, and its text: that of the Dockerfile's own (`NAME.dockerignore` beside it), else that of
/// the context. The builder needs the Dockerfile and the ignore file even when they are ignored: it takes them away
/// itself.
fn ignore(dir: &Path, dockerfile: Option<&str>, outside: Option<&Path>) -> Outcome<(Ignore, String)> {
    let own = dockerfile.map(|name| format!("{name}{IGNORE_FILE}"));
    let beside = outside.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(IGNORE_FILE);
        PathBuf::from(name)
    });
    let usual = (dir.join(IGNORE_FILE), Some(IGNORE_FILE));
    let places = own.iter().map(|name| (dir.join(name), Some(name.as_str()))).chain(beside.map(|path| (path, None)));
    for (path, name) in places.chain([usual]) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wharf_report::path("open", &path, &error).into()),
        };
        let wrong = |error| Failure::new(format!("error checking context: {error}"));
        let ignore = Ignore::parse(&text).map_err(wrong)?;
        let needed: Vec<&str> =
            [name, dockerfile].into_iter().flatten().filter(|name| ignore.is_ignored(name)).collect();
        let kept: String = needed.iter().map(|name| format!("\n!{name}")).collect();
        let ignore = if needed.is_empty() { ignore } else { Ignore::parse(&(text.clone() + &kept)).map_err(wrong)? };
        return Ok((ignore, text));
    }
    Ok((Ignore::default(), String::new()))
}

/// The ignore file of a directory, for a context that has no Dockerfile.
pub(super) fn ignore_of(dir: &Path) -> Outcome<Ignore> {
    Ok(ignore(dir, None, None)?.0)
}

impl Context {
    /// The address that the engine gets it from.
    pub(super) fn remote(&self) -> Option<&str> {
        match &self.source {
            Source::Remote(address) => Some(address),
            _ => None,
        }
    }

    /// Whether it is a repository that was got for this build.
    pub(super) fn is_checked_out(&self) -> bool {
        matches!(self.source, Source::Directory { _checkout: Some(_), .. })
    }

    /// When the newest commit of the repository that it is in was made, in seconds since the epoch.
    pub(super) fn committed(&self) -> Option<i64> {
        match &self.source {
            Source::Directory { dir, .. } => wharf_git::committed(dir),
            _ => None,
        }
    }

    /// The text of the Dockerfile and what is ignored; nothing for a context that is not here, or on standard input.
    pub(super) fn look(&self) -> Outcome<Option<(String, Ignore)>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match &self.source {
            Source::Directory { dir, patterns, .. } => {
                let content = match &self.added {
                    Some((_, content)) => content.clone(),
                    None => {
                        let name = if self.dockerfile.is_empty() { DOCKERFILE } else { &self.dockerfile };
                        let path = dir.join(name);
                        std::fs::read(&path).map_err(|error| wharf_report::path("open", &path, &error))?
                    }
                };
                // As it is written: what a build needs all the same is not to be copied.
                let ignore = Ignore::parse(patterns).map_err(|error| error.to_string())?;
                Some((text(&content), ignore))
            }
            Source::Dockerfile(content) => Some((text(content), Ignore::default())),
            Source::Archive(_) | Source::Remote(_) => None,
        })
    }

    /// Whether it can be listed, and its files sent when they are asked for.
    pub(super) fn can_be_listed(&self) -> bool {
        matches!(self.source, Source::Directory { _checkout: None, .. })
    }

    /// What is in it, if it can be listed: what the Dockerfile names, or with `whole` all.
    pub(super) fn listing(&self, whole: bool) -> Result<Option<Listing>, PackError> {
        let Source::Directory { dir, ignore, patterns, _checkout: None } = &self.source else { return Ok(None) };
        let own = format!("{}{IGNORE_FILE}", self.dockerfile);
        let Some((name, content)) = &self.added else {
            let needed = [if self.dockerfile.is_empty() { DOCKERFILE } else { &self.dockerfile }, &own, IGNORE_FILE];
            return Listing::of(dir, ignore, &needed, &[], &self.needs(whole)).map(Some);
        };
        let hiding = hiding(patterns, name);
        let added = [(name.as_str(), content.as_slice()), (IGNORE_FILE, hiding.as_bytes())];
        Listing::of(dir, &without_ignore_file(patterns, ignore.clone()), &[], &added, &self.needs(whole)).map(Some)
    }

    /// What the Dockerfile names; all where it is an error, which the engine tells of.
    fn needs(&self, whole: bool) -> Needs {
        let text = if whole { None } else { self.look().ok().flatten() };
        let parsed = text.and_then(|(text, _)| Dockerfile::parse("", &text).ok());
        parsed.map_or(Needs::All, |dockerfile| Needs::of(&dockerfile))
    }

    /// Writes it as an archive.
    pub(super) fn write<W: Write>(&self, mut output: W) -> Result<W, PackError> {
        match &self.source {
            Source::Archive(first) => {
                output.write_all(first)?;
                io::copy(&mut io::stdin().lock(), &mut output)?;
                Ok(output)
            }
            Source::Dockerfile(content) => {
                let mut writer = Writer::new(output);
                add(&mut writer, DOCKERFILE, content)?;
                Ok(writer.finish()?)
            }
            Source::Remote(_) => Ok(output),
            Source::Directory { dir, ignore, patterns, _checkout } => {
                if let Some((name, content)) = &self.added {
                    let mut writer = Writer::new(&mut output);
                    add(&mut writer, name, content)?;
                    add(&mut writer, IGNORE_FILE, hiding(patterns, name).as_bytes())?;
                }
                let ignore = match &self.added {
                    // It is there already, with a line more.
                    Some(_) => without_ignore_file(patterns, ignore.clone()),
                    None => ignore.clone(),
                };
                pack(dir, &Pack { ignore: Some(&ignore), as_root: true, ..Pack::default() }, output)
            }
        }
    }
}

/// The ignore file that hides an added Dockerfile from the build.
fn hiding(patterns: &str, name: &str) -> String {
    format!("{}\n{name}\n", if patterns.is_empty() { IGNORE_FILE } else { patterns })
}

fn without_ignore_file(patterns: &str, ignore: Ignore) -> Ignore {
    Ignore::parse(&format!("{patterns}\n{IGNORE_FILE}")).unwrap_or(ignore)
}

fn add<W: Write>(writer: &mut Writer<W>, name: &str, content: &[u8]) -> io::Result<()> {
    let entry = Entry {
        path: name.as_bytes().to_vec(),
        kind: Kind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: content.len() as u64,
        mtime: (0, 0),
        link: Vec::new(),
        device: (0, 0),
        xattrs: BTreeMap::new(),
    };
    writer.header(&entry)?;
    writer.content(&mut &*content, entry.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_standard_input_is() {
        let archive = pack(tempfile::tempdir().unwrap().path(), &Pack::default(), Vec::new()).unwrap();
        assert!(!is_archive(&archive), "an empty archive has no entry to tell it by");
        let mut writer = Writer::new(Vec::new());
        add(&mut writer, "x", b"y").unwrap();
        assert!(is_archive(&writer.finish().unwrap()));
        assert!(is_archive(b"\x1f\x8b..."));
        assert!(!is_archive(b"FROM scratch\n"));
    }

    #[test]
    fn needed_files_are_not_ignored() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(IGNORE_FILE), "*\n").unwrap();
        std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        std::fs::write(dir.path().join("other"), "").unwrap();
        let (ignore, _) = ignore(dir.path(), Some("Dockerfile"), None).unwrap();
        assert!(!ignore.is_ignored("Dockerfile") && !ignore.is_ignored(IGNORE_FILE) && ignore.is_ignored("other"));
    }

    #[test]
    fn a_dockerfile_has_an_ignore_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [(IGNORE_FILE, "a\n"), ("x.Dockerfile.dockerignore", "b\n"), ("y.dockerignore", "c\n"), ("y", "")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let ignored = |inside: Option<&str>, outside: Option<&Path>| {
            let (ignore, _) = ignore(dir.path(), inside, outside).unwrap();
            ["a", "b", "c"].into_iter().filter(|name| ignore.is_ignored(name)).collect::<String>()
        };
        assert_eq!(ignored(Some("Dockerfile"), None), "a");
        assert_eq!(ignored(Some("x.Dockerfile"), None), "b");
        assert_eq!(ignored(None, Some(&dir.path().join("y"))), "c");
        assert_eq!(ignored(None, Some(&dir.path().join("z"))), "a");
    }

    #[test]
    fn remote() {
        assert_eq!(prepare("http://x/y.tar", "f", false).unwrap().remote(), Some("http://x/y.tar"));
        assert!(prepare("https://example.com/x.git#-x", "", false).unwrap_err().text.contains("no name of a branch"));
        assert_eq!(
            prepare("/nonexistent", "", false).unwrap_err().text,
            "unable to prepare context: path \"/nonexistent\" not found"
        );
    }
}
