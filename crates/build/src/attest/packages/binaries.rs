//! What programs say of what they were built from: Go's build information, and the list that `cargo auditable` puts into Rust's.
//!
//! Sources: Go `debug/buildinfo`, `runtime/debug` (`parseBuildInfo`); rust-secure-code/cargo-auditable `PARSING.md`; the ELF
//! specification. Only the sections are looked for: a program's other bytes are not read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::ZlibDecoder;
use serde_json::Value;

use super::{Package, escaped};

/// Sections of one program, and bytes of their names; no linker makes more.
const MAX_SECTIONS: u64 = 4096;
const MAX_NAMES: u64 = 1 << 20;
/// What a program says of itself, also when it is not compressed any more.
const MAX_SAID: u64 = 8 << 20;
const GO: &str = ".go.buildinfo";
const RUST: &str = ".dep-v0";
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// The strings are behind the header, and not elsewhere in the program: since Go 1.18.
const INLINE: u8 = 2;
const GO_HEADER: usize = 32;

/// What a program says; nothing of what is none, or says nothing.
pub(super) fn packages(file: &File, from: &Path) -> Vec<Package> {
    let Some(sections) = Sections::of(file) else { return Vec::new() };
    let mut all = Vec::new();
    if let Some(bytes) = sections.content(file, GO) {
        all.extend(go(&bytes, from).unwrap_or_default());
    }
    if let Some(bytes) = sections.content(file, RUST) {
        all.extend(rust(&bytes, from).unwrap_or_default());
    }
    all
}

/// Where sections are in an ELF file, by their names.
struct Sections(Vec<(String, u64, u64)>);

/// Numbers of one ELF file.
#[derive(Clone, Copy)]
struct Form {
    wide: bool,
    little: bool,
}

impl Form {
    fn number(self, bytes: &[u8], at: usize, size: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + size)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// A number that is as wide as addresses are, at either of two places.
    fn address(self, bytes: &[u8], narrow: usize, wide: usize) -> Option<u64> {
        if self.wide { self.number(bytes, wide, 8) } else { self.number(bytes, narrow, 4) }
    }
}

impl Sections {
    fn of(file: &File) -> Option<Self> {
        let header = part(file, 0, 64)?;
        if !header.starts_with(b"\x7fELF") {
            return None;
        }
        let form = Form { wide: *header.get(4)? == 2, little: *header.get(5)? == 1 };
        let table = form.address(&header, 32, 40)?;
        let at = if form.wide { 58 } else { 46 };
        let (size, count) = (form.number(&header, at, 2)?, form.number(&header, at + 2, 2)?);
        let names = form.number(&header, at + 4, 2)?;
        if !(40..=256).contains(&size) || count > MAX_SECTIONS || names >= count {
            return None;
        }
        let table = part(file, table, size * count)?;
        let size = usize::try_from(size).ok()?;
        let entries: Vec<&[u8]> = table.chunks_exact(size).collect();
        let place = |entry: &[u8]| Some((form.address(entry, 16, 24)?, form.address(entry, 20, 32)?));
        let (offset, length) = place(entries.get(usize::try_from(names).ok()?)?)?;
        let names = part(file, offset, Some(length).filter(|length| *length <= MAX_NAMES)?)?;
        let one = |entry: &&[u8]| {
            let name = names.get(usize::try_from(form.number(entry, 0, 4)?).ok()?..)?;
            let name = name.split(|byte| *byte == 0).next()?;
            let (offset, length) = place(entry)?;
            Some((String::from_utf8_lossy(name).into_owned(), offset, length))
        };
        Some(Self(entries.iter().filter_map(one).collect()))
    }

    fn content(&self, file: &File, name: &str) -> Option<Vec<u8>> {
        let (_, offset, length) = self.0.iter().find(|(own, _, _)| own == name)?;
        part(file, *offset, Some(*length).filter(|length| *length <= MAX_SAID)?)
    }
}

/// A part of a file, whole.
fn part(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// A string behind its length, which has seven bits in each byte.
fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (mut length, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
    let (text, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(text)
}

fn go(section: &[u8], from: &Path) -> Option<Vec<Package>> {
    if !section.starts_with(GO_MAGIC) || section.get(15)? & INLINE == 0 {
        return None;
    }
    let mut rest = section.get(GO_HEADER..)?;
    let (version, modules) = (string(&mut rest)?, string(&mut rest)?);
    // 16 bytes on both sides by which the linker finds it.
    let modules = modules.get(16..modules.len().checked_sub(16)?).unwrap_or_default();
    let module = |name: &str, version: &str| {
        let parts: Vec<String> = name.split('/').map(escaped).collect();
        let url = format!("pkg:golang/{}@{}", parts.join("/"), escaped(version));
        package("golang", name, version, url, from)
    };
    let version = String::from_utf8_lossy(version);
    let mut all: Vec<Package> =
        version.split_whitespace().next()?.strip_prefix("go").map(|v| module("stdlib", v)).into_iter().collect();
    for line in String::from_utf8_lossy(modules).lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["mod" | "dep", name, version, ..] if !version.is_empty() => all.push(module(name, version)),
            // In place of the one before it, unless it is a directory of whoever has built it.
            ["=>", name, version, ..] if !name.starts_with(['.', '/']) && !version.is_empty() && all.len() > 1 => {
                all.pop();
                all.push(module(name, version));
            }
            _ => {}
        }
    }
    Some(all)
}

fn rust(section: &[u8], from: &Path) -> Option<Vec<Package>> {
    let mut text = Vec::new();
    ZlibDecoder::new(section).take(MAX_SAID).read_to_end(&mut text).ok()?;
    let about: Value = serde_json::from_slice(&text).ok()?;
    let one = |crate_: &Value| {
        // What only its build has run is not in it.
        if crate_["kind"] == "build" {
            return None;
        }
        let (name, version) = (crate_["name"].as_str()?, crate_["version"].as_str()?);
        let url = format!("pkg:cargo/{}@{}", escaped(name), escaped(version));
        Some(package("cargo", name, version, url, from))
    };
    Some(about["packages"].as_array()?.iter().filter_map(one).collect())
}

fn package(kind: &'static str, name: &str, version: &str, url: String, from: &Path) -> Package {
    let (name, version) = (name.to_owned(), version.to_owned());
    Package { kind, name, version, url, license: String::new(), supplier: String::new(), from: from.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    fn urls(file: &Path) -> Vec<String> {
        packages(&File::open(file).unwrap(), Path::new("p")).into_iter().map(|package| package.url).collect()
    }

    #[test]
    fn a_program_of_go_names_its_modules() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), text).unwrap();
        };
        let require = "require (\n\texample.org/dep v1.2.3\n\texample.org/old v0.1.0\n)\n";
        let replace = "replace example.org/dep v1.2.3 => ./dep\nreplace example.org/old => ./old\n";
        put("go.mod", &format!("module example.org/app\n\ngo 1.18\n\n{require}\n{replace}"));
        put(
            "main.go",
            "package main\n\nimport (\n\t\"example.org/dep\"\n\t\"example.org/old\"\n)\n\nfunc main() { println(dep.X, old.X) }\n",
        );
        for name in ["dep", "old"] {
            put(&format!("{name}/go.mod"), &format!("module example.org/{name}\n\ngo 1.18\n"));
            put(&format!("{name}/x.go"), &format!("package {name}\n\nconst X = 1\n"));
        }
        let built = Command::new("go")
            .args(["build", "-trimpath", "-o", "app", "."])
            .current_dir(dir.path())
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOCACHE", dir.path().join("cache"))
            .output();
        if !built.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: there is no Go");
            return;
        }
        let urls = urls(&dir.path().join("app"));
        assert!(urls.iter().any(|url| url.starts_with("pkg:golang/stdlib@1.")), "{urls:?}");
        assert!(urls.iter().any(|url| url == "pkg:golang/example.org/dep@v1.2.3"), "{urls:?}");
        assert!(urls.iter().any(|url| url == "pkg:golang/example.org/app@%28devel%29"), "{urls:?}");
    }

    #[test]
    fn an_audited_program_of_rust_names_its_crates() {
        let list = r#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},{"name":"app","version":"0.1.0","root":true}]}"#;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(list.as_bytes()).unwrap();
        let list = zlib.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("list"), &list).unwrap();
        // As the linker puts it there.
        let added = Command::new("objcopy")
            .arg(format!("--add-section={RUST}={}", dir.path().join("list").display()))
            .args(["/bin/true"])
            .arg(dir.path().join("app"))
            .status();
        if added.is_ok_and(|status| status.success()) {
            assert_eq!(urls(&dir.path().join("app")), ["pkg:cargo/serde@1.0.1", "pkg:cargo/app@0.1.0"]);
        }
        assert!(rust(b"no list", Path::new("p")).is_none());
    }

    #[test]
    fn what_lies_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = vec![0u8; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for (at, value) in [(40, u64::MAX), (40, 1 << 40), (40, 0)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
            header[58..64].copy_from_slice(&[64, 0, 255, 255, 0, 0]);
            std::fs::write(dir.path().join("x"), &header).unwrap();
            assert!(urls(&dir.path().join("x")).is_empty());
        }
        let mut section = GO_MAGIC.to_vec();
        section.resize(GO_HEADER, INLINE);
        assert!(go(&section, Path::new("p")).is_none());
        section.extend([0xff; 12]);
        assert!(go(&section, Path::new("p")).is_none());
    }
}
