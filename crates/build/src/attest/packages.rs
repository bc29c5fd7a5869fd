//! Packages in an image's files: of dpkg and apk, those that Python's and Node's own tools have installed, artifacts in archives of
//! Java, and what programs of Go and audited ones of Rust say of themselves.
//!
//! All of it is the image's, so it is hostile: read inside the root, regular files only, bounded.

mod binaries;
mod java;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::Value;
use wharf_rooted_path::RootDir;

use crate::cancel::Cancel;
use crate::error::Result;

/// Databases of package managers are larger than what a package says of itself.
const MAX_DATABASE: u64 = 256 << 20;
const MAX_ABOUT: u64 = 4 << 20;
/// A name, a version or what else a package says of itself; longer ones are none.
const MAX_FIELD: usize = 1 << 10;
/// All that they say together, in bytes: an image can have a file of the largest size for each of its packages.
const MAX_SAID: usize = 64 << 20;
/// More packages are in no image that anybody made on purpose.
const MAX_PACKAGES: usize = 200_000;

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// As in its URL: `deb`, `apk`, `pypi`, `npm`, `maven`, `golang` or `cargo`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    /// A package URL (purl-spec).
    pub(super) url: String,
    /// As it says itself.
    pub(super) license: String,
    pub(super) supplier: String,
    /// The file that says so.
    pub(super) from: PathBuf,
}

impl Package {
    /// Bytes, near enough.
    fn size(&self) -> usize {
        let texts = [&self.name, &self.version, &self.url, &self.license, &self.supplier];
        texts.iter().map(|text| text.len()).sum::<usize>() + self.from.as_os_str().len()
    }

    /// Whether it says what a package may say.
    fn is_sound(&self) -> bool {
        [&self.name, &self.version, &self.license, &self.supplier].iter().all(|text| text.len() <= MAX_FIELD)
    }
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Sorted.
    pub(super) packages: Vec<Package>,
    /// Databases of a form that is not read here.
    pub(super) unread: Vec<String>,
}

/// The distribution, for URLs of its packages.
#[derive(Debug, Default)]
struct Distribution {
    id: String,
    version: String,
}

/// Looks through all files below `root`.
pub(super) fn find(root: &RootDir, cancel: &Cancel) -> Result<Found> {
    let distribution =
        ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| text(root, Path::new(path), MAX_ABOUT));
    let distribution = Distribution::of(&distribution.unwrap_or_default());
    let (mut packages, mut unread, mut said) = (BTreeSet::new(), Vec::new(), 0);
    let mut stack = vec![PathBuf::new()];
    while let Some(dir) = stack.pop() {
        for name in root.read_dir(&dir)? {
            cancel.check()?;
            let path = dir.join(&name);
            let mode = root.metadata(&path, false)?.st_mode;
            match FileType::from_raw_mode(mode) {
                FileType::Directory => stack.push(path),
                FileType::RegularFile => {
                    let known = path.to_string_lossy();
                    if packages.len() >= MAX_PACKAGES || said >= MAX_SAID {
                        unread.push(format!("/{known}"));
                        continue;
                    }
                    match kind(&known) {
                        Some(Database::Rpm) => unread.push(format!("/{known}")),
                        found => {
                            let Some(all) = said_by(root, found, &path, mode, &distribution) else {
                                unread.push(format!("/{known}"));
                                continue;
                            };
                            for package in all {
                                if packages.len() >= MAX_PACKAGES || said >= MAX_SAID {
                                    unread.push(format!("/{known}"));
                                    break;
                                }
                                said += package.size();
                                packages.insert(package);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }
    unread.sort();
    Ok(Found { packages: packages.into_iter().collect(), unread })
}

/// What a file says of packages; `None` when it cannot be read and should be.
fn said_by(
    root: &RootDir,
    database: Option<Database>,
    path: &Path,
    mode: u32,
    distribution: &Distribution,
) -> Option<Vec<Package>> {
    let mut all = match database {
        Some(database) => {
            let is_large = matches!(database, Database::Dpkg | Database::Apk);
            let text = text(root, path, if is_large { MAX_DATABASE } else { MAX_ABOUT })?;
            database.packages(&text, path, distribution)
        }
        None if java::is_archive(&path.to_string_lossy()) => java::packages(&root.open_file(path).ok()?, path),
        None if mode & 0o111 != 0 => binaries::packages(&root.open_file(path).ok()?, path),
        None => Vec::new(),
    };
    all.retain(Package::is_sound);
    Some(all)
}

fn text(root: &RootDir, path: &Path, most: u64) -> Option<String> {
    root.read_small(path, most).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Database {
    Dpkg,
    Apk,
    Rpm,
    Python,
    Node,
}

/// What a file is to us, by its path.
fn kind(path: &str) -> Option<Database> {
    match path {
        "var/lib/dpkg/status" => return Some(Database::Dpkg),
        "lib/apk/db/installed" | "usr/lib/apk/db/installed" => return Some(Database::Apk),
        "var/lib/rpm/rpmdb.sqlite"
        | "var/lib/rpm/Packages"
        | "var/lib/rpm/Packages.db"
        | "usr/lib/sysimage/rpm/rpmdb.sqlite"
        | "usr/lib/sysimage/rpm/Packages.db" => return Some(Database::Rpm),
        _ => {}
    }
    // Images without a package manager have a file for each package.
    if let Some(name) = path.strip_prefix("var/lib/dpkg/status.d/") {
        return (!name.contains('/') && !name.ends_with(".md5sums")).then_some(Database::Dpkg);
    }
    let (above, name) = path.rsplit_once('/')?;
    if (name == "METADATA" && above.ends_with(".dist-info")) || (name == "PKG-INFO" && above.ends_with(".egg-info")) {
        return Some(Database::Python);
    }
    // Only of a package itself, which may be in a scope, not of what is inside it.
    let (_, below) = above.rsplit_once("node_modules/")?;
    let parts = below.split('/').count();
    let whole = if below.starts_with('@') { parts == 2 } else { parts == 1 };
    (name == "package.json" && whole).then_some(Database::Node)
}

impl Database {
    fn packages(self, text: &str, from: &Path, distribution: &Distribution) -> Vec<Package> {
        match self {
            Self::Dpkg => dpkg(text, from, distribution),
            Self::Apk => apk(text, from, distribution),
            Self::Python => python(text, from).into_iter().collect(),
            Self::Node => node(text, from).into_iter().collect(),
            Self::Rpm => Vec::new(),
        }
    }
}

impl Distribution {
    /// From `os-release` (os-release(5)).
    fn of(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        Self { id: value("ID"), version: value("VERSION_ID") }
    }

    fn vendor(&self, usual: &str) -> String {
        if self.id.is_empty() { usual.to_owned() } else { escaped(&self.id) }
    }

    /// The qualifiers of a URL.
    fn qualifiers(&self, architecture: &str) -> String {
        let mut all = Vec::new();
        if !architecture.is_empty() {
            all.push(format!("arch={}", escaped(architecture)));
        }
        if !self.id.is_empty() && !self.version.is_empty() {
            all.push(format!("distro={}-{}", escaped(&self.id), escaped(&self.version)));
        }
        if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
    }
}

/// Percent-encoded, as purl-spec wants it.
fn escaped(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => all.push(char::from(byte)),
            _ => all.push_str(&format!("%{byte:02X}")),
        }
    }
    all
}

/// The fields of one paragraph (deb-control(5)); what goes on on further lines is left out.
fn fields(paragraph: &str) -> impl Fn(&str) -> String {
    let all: Vec<(String, String)> = paragraph
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    move |name: &str| {
        let found = all.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn dpkg(text: &str, from: &Path, distribution: &Distribution) -> Vec<Package> {
    let one = |paragraph: &str| {
        let field = fields(paragraph);
        let (name, version, status) = (field("package"), field("version"), field("status"));
        // Of one that was removed the settings may be there; files of `status.d` have no such field.
        if name.is_empty() || version.is_empty() || !(status.is_empty() || status.ends_with(" installed")) {
            return None;
        }
        let (vendor, rest) = (distribution.vendor("debian"), distribution.qualifiers(&field("architecture")));
        let url = format!("pkg:deb/{vendor}/{}@{}{rest}", escaped(&name), escaped(&version));
        let supplier = field("maintainer");
        Some(Package { kind: "deb", name, version, url, license: String::new(), supplier, from: from.to_owned() })
    };
    text.split("\n\n").filter_map(one).collect()
}

fn apk(text: &str, from: &Path, distribution: &Distribution) -> Vec<Package> {
    let one = |paragraph: &str| {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().to_owned()
        };
        let (name, version) = (field("P"), field("V"));
        if name.is_empty() || version.is_empty() {
            return None;
        }
        let (vendor, rest) = (distribution.vendor("alpine"), distribution.qualifiers(&field("A")));
        let url = format!("pkg:apk/{vendor}/{}@{}{rest}", escaped(&name), escaped(&version));
        let (license, supplier) = (field("L"), field("m"));
        Some(Package { kind: "apk", name, version, url, license, supplier, from: from.to_owned() })
    };
    text.split("\n\n").filter_map(one).collect()
}

/// The core metadata of a distribution package.
fn python(text: &str, from: &Path) -> Option<Package> {
    let field = fields(text.split("\n\n").next()?);
    let (name, version) = (field("name"), field("version"));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    // Names are the same whatever is between their words (purl-spec, "pypi").
    let url = format!("pkg:pypi/{}@{}", escaped(&name.to_lowercase().replace('_', "-")), escaped(&version));
    let license = [field("license-expression"), field("license")].into_iter().find(|text| !text.is_empty());
    let supplier = [field("author"), field("author-email")].into_iter().find(|text| !text.is_empty());
    let (license, supplier) = (license.unwrap_or_default(), supplier.unwrap_or_default());
    Some(Package { kind: "pypi", name, version, url, license, supplier, from: from.to_owned() })
}

fn node(text: &str, from: &Path) -> Option<Package> {
    let about: Value = serde_json::from_str(text).ok()?;
    let (name, version) = (about["name"].as_str()?.to_owned(), about["version"].as_str()?.to_owned());
    let parts: Vec<String> = name.split('/').map(escaped).collect();
    let url = format!("pkg:npm/{}@{}", parts.join("/"), escaped(&version));
    let license = about["license"].as_str().or(about["license"]["type"].as_str()).unwrap_or_default().to_owned();
    let supplier = about["author"].as_str().or(about["author"]["name"].as_str()).unwrap_or_default().to_owned();
    Some(Package { kind: "npm", name, version, url, license, supplier, from: from.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn debian() -> Distribution {
        Distribution::of("PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n")
    }

    #[test]
    fn databases_are_known_by_their_place() {
        for (path, expected) in [
            ("var/lib/dpkg/status", Some(Database::Dpkg)),
            ("var/lib/dpkg/status.d/tzdata", Some(Database::Dpkg)),
            ("var/lib/dpkg/status.d/tzdata.md5sums", None),
            ("lib/apk/db/installed", Some(Database::Apk)),
            ("usr/lib/python3/dist-packages/x-1.dist-info/METADATA", Some(Database::Python)),
            ("opt/x.egg-info/PKG-INFO", Some(Database::Python)),
            ("app/node_modules/left-pad/package.json", Some(Database::Node)),
            ("app/node_modules/@a/b/package.json", Some(Database::Node)),
            ("app/node_modules/@a/package.json", None),
            ("app/node_modules/a/node_modules/b/package.json", Some(Database::Node)),
            ("app/node_modules/a/test/package.json", None),
            ("app/package.json", None),
            ("var/lib/rpm/rpmdb.sqlite", Some(Database::Rpm)),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn packages_are_read() {
        let status = "Package: libc6\nStatus: install ok installed\nMaintainer: GNU <x@y>\nArchitecture: amd64\n\
                      Version: 2.36-9+deb12u10\nDescription: C\n more: of it\n\nPackage: gone\n\
                      Status: deinstall ok config-files\nVersion: 1\n";
        let found = dpkg(status, Path::new("status"), &debian());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].url, "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12");
        assert_eq!(found[0].supplier, "GNU <x@y>");
        let found = apk("P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\nF:lib\n", Path::new("i"), &Distribution::default());
        assert_eq!(
            (found[0].url.as_str(), found[0].license.as_str()),
            ("pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64", "MIT")
        );
        let metadata = "Metadata-Version: 2.1\nName: Zope_Event\nVersion: 5.0\nLicense: ZPL\n\nName: not this\n";
        assert_eq!(python(metadata, Path::new("m")).unwrap().url, "pkg:pypi/zope-event@5.0");
        let package = r#"{"name":"@scope/pkg","version":"1.0.0","license":"MIT","author":{"name":"A"}}"#;
        let package = node(package, Path::new("p")).unwrap();
        assert_eq!((package.url.as_str(), package.supplier.as_str()), ("pkg:npm/%40scope/pkg@1.0.0", "A"));
        assert!(node("[1]", Path::new("p")).is_none() && python("", Path::new("p")).is_none());
    }

    #[test]
    fn a_tree_is_looked_through_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("etc/os-release", "ID=debian\nVERSION_ID=12\n");
        put("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n");
        put("srv/node_modules/b/package.json", r#"{"name":"b","version":"2"}"#);
        put("var/lib/rpm/Packages", "x");
        std::os::unix::fs::symlink("../srv/node_modules", dir.path().join("etc/node_modules")).unwrap();
        let found = find(&RootDir::open(dir.path()).unwrap(), &Cancel::new().unwrap()).unwrap();
        let urls: Vec<&str> = found.packages.iter().map(|package| package.url.as_str()).collect();
        assert_eq!(urls, ["pkg:deb/debian/a@1?distro=debian-12", "pkg:npm/b@2"]);
        assert_eq!(found.unread, ["/var/lib/rpm/Packages"]);
    }
}
