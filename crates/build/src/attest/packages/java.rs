//! Archives of Java: what Maven says in them of the artifacts that they are made of.
//!
//! Source: PKWARE APPNOTE.TXT. Archives of more than 4 GiB (ZIP64), and such in others, are not looked into.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::DeflateDecoder;

use super::{Package, escaped};

/// How far from its end the directory may begin to be told of: 22 bytes and a comment.
const MAX_END: u64 = 22 + 0xffff;
/// Bytes of a directory, and of what Maven says.
const MAX_DIRECTORY: u64 = 64 << 20;
const MAX_ABOUT: u64 = 64 << 10;
/// Artifacts of one archive: such as have everything in them have some hundreds.
const MAX_ARTIFACTS: usize = 10_000;

/// Whether a file may be such an archive.
pub(super) fn is_archive(path: &str) -> bool {
    [".jar", ".war", ".ear"].iter().any(|end| path.ends_with(end))
}

/// The artifacts of an archive; nothing of what is none.
pub(super) fn packages(file: &File, from: &Path) -> Vec<Package> {
    entries(file).unwrap_or_default().iter().filter_map(|entry| artifact(&text(file, entry)?, from)).collect()
}

/// A file in an archive.
struct Entry {
    stored: bool,
    size: u64,
    offset: u64,
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    Some(bytes.get(at..at + size)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn part(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// What Maven has put there.
fn entries(file: &File) -> Option<Vec<Entry>> {
    let length = file.metadata().ok()?.len();
    let tail = length.min(MAX_END);
    let tail = part(file, length - tail, tail)?;
    let at = tail.windows(4).rposition(|four| four == b"PK\x05\x06")?;
    let (size, offset) = (number(&tail, at + 12, 4)?, number(&tail, at + 16, 4)?);
    let directory = part(file, offset, Some(size).filter(|size| *size <= MAX_DIRECTORY)?)?;
    let (mut rest, mut all) = (directory.as_slice(), Vec::new());
    while rest.starts_with(b"PK\x01\x02") && all.len() < MAX_ARTIFACTS {
        let sizes = [number(rest, 28, 2)?, number(rest, 30, 2)?, number(rest, 32, 2)?];
        let [name, extra, comment] = sizes.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let path = String::from_utf8_lossy(rest.get(46..46 + name)?);
        if path.starts_with("META-INF/maven/") && path.ends_with("/pom.properties") {
            let (method, size) = (number(rest, 10, 2)?, number(rest, 20, 4)?);
            if matches!(method, 0 | 8) && size <= MAX_ABOUT {
                all.push(Entry { stored: method == 0, size, offset: number(rest, 42, 4)? });
            }
        }
        rest = rest.get(46 + name + extra + comment..)?;
    }
    Some(all)
}

fn text(file: &File, entry: &Entry) -> Option<String> {
    let header = part(file, entry.offset, 30)?;
    if !header.starts_with(b"PK\x03\x04") {
        return None;
    }
    let before = 30 + number(&header, 26, 2)? + number(&header, 28, 2)?;
    let bytes = part(file, entry.offset + before, entry.size)?;
    if entry.stored {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    let mut text = Vec::new();
    DeflateDecoder::new(bytes.as_slice()).take(MAX_ABOUT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The lines of a `pom.properties`.
fn artifact(text: &str, from: &Path) -> Option<Package> {
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix('='));
        found.map(str::trim).filter(|value| !value.is_empty())
    };
    let (group, name, version) = (value("groupId")?, value("artifactId")?, value("version")?);
    let url = format!("pkg:maven/{}/{}@{}", escaped(group), escaped(name), escaped(version));
    Some(Package {
        kind: "maven",
        name: format!("{group}:{name}"),
        version: version.to_owned(),
        url,
        license: String::new(),
        supplier: String::new(),
        from: from.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_what_maven_has_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let about = dir.path().join("META-INF/maven/org.example/app");
        std::fs::create_dir_all(&about).unwrap();
        let text = "#Created by Maven\nartifactId = app\ngroupId=org.example\nversion=1.0-SNAPSHOT\n".repeat(20);
        std::fs::write(about.join("pom.properties"), text).unwrap();
        let pack = "import sys, zipfile\nfor name, kind in (('a.jar', 8), ('b.jar', 0)):\n  z = zipfile.ZipFile(name, 'w', \
                    kind)\n  z.writestr('x.class', b'x' * 1000)\n  z.write('META-INF/maven/org.example/app/pom.properties')\n  z.comment = b'c' * 99\n  z.close()\n";
        let packed = std::process::Command::new("python3").args(["-c", pack]).current_dir(dir.path()).status();
        if !packed.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no Python");
            return;
        }
        for name in ["a.jar", "b.jar"] {
            let found = packages(&File::open(dir.path().join(name)).unwrap(), Path::new(name));
            let urls: Vec<&str> = found.iter().map(|package| package.url.as_str()).collect();
            assert_eq!(urls, ["pkg:maven/org.example/app@1.0-SNAPSHOT"], "{name}");
        }
        // Cut off, it is nothing, wherever that is.
        let bytes = std::fs::read(dir.path().join("a.jar")).unwrap();
        for end in (0..bytes.len()).step_by(7) {
            std::fs::write(dir.path().join("c.jar"), &bytes[..end]).unwrap();
            let _ = packages(&File::open(dir.path().join("c.jar")).unwrap(), Path::new("c"));
        }
        assert!(is_archive("usr/share/java/x.jar") && !is_archive("x.jar.txt"));
    }
}
