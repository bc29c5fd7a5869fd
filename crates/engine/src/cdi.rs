//! Devices by name, `vendor.com/class=name`: what CNCF's Container Device Interface says of them, in files of the host's
//! administrator (CDI specification 0.8).
//!
//! The files are read when a container that names such a device starts, so what is there then counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::Spec;
use rustix::fs::OFlags;

use crate::cdi_spec::{Edits, File};
use crate::cdi_yaml;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::record::Container;
use crate::spec::DeviceRequest;

/// Where files are looked for unless the daemon is told; what is in a later one counts before the same of an earlier one.
pub const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Larger ones describe no devices.
const MAX_FILE: u64 = 4 << 20;

/// What all files say.
#[derive(Debug, Default)]
pub struct Devices {
    devices: BTreeMap<String, Device>,
    /// What is wrong with a file, and which.
    pub(crate) errors: Vec<(PathBuf, String)>,
}

#[derive(Debug)]
struct Device {
    file: Arc<File>,
    path: PathBuf,
    /// Which of the file's.
    at: usize,
    /// Of its directory.
    priority: usize,
}

impl Devices {
    /// Reads the files of these directories; one that is not there has none.
    pub fn read(dirs: &[PathBuf]) -> Self {
        let mut all = Self::default();
        let mut conflicts = BTreeSet::new();
        for (priority, dir) in dirs.iter().enumerate() {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|end| end == "json" || end == "yaml"));
            paths.sort();
            for path in paths {
                match load(&path) {
                    Ok(file) => all.add(&Arc::new(file), &path, priority, &mut conflicts),
                    Err(why) => all.errors.push((path, why)),
                }
            }
        }
        all.devices.retain(|name, device| !conflicts.contains(&(name.clone(), device.priority)));
        all
    }

    fn add(&mut self, file: &Arc<File>, path: &Path, priority: usize, conflicts: &mut BTreeSet<(String, usize)>) {
        for (at, name) in file.names().enumerate() {
            let device = Device { file: Arc::clone(file), path: path.to_owned(), at, priority };
            match self.devices.get(&name).filter(|known| known.priority == priority) {
                Some(known) => {
                    let paths = (known.path.display(), path.display());
                    let why = format!("conflicting device {name:?} (CDI Specs \"{}\", \"{}\")", paths.0, paths.1);
                    self.errors.push((path.to_owned(), why));
                    conflicts.insert((name, priority));
                }
                None => drop(self.devices.insert(name, device)),
            }
        }
    }

    /// The full names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// What `docker info` warns of.
    pub fn warnings(&self) -> Vec<String> {
        let warn =
            |(path, why): &(PathBuf, String)| format!("CDI: Error associated with spec file {}: {why}", path.display());
        self.errors.iter().map(warn).collect()
    }

    /// What these devices change of a container, in the order in which it is done: of each file first what is for all of its
    /// devices.
    ///
    /// # Errors
    /// Names that no file has, in the library's words.
    pub(crate) fn edits(&self, names: &[String]) -> Result<Vec<&Edits>, String> {
        let unknown: Vec<&str> =
            names.iter().filter(|name| !self.devices.contains_key(*name)).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(format!("unresolvable CDI devices {}", unknown.join(", ")));
        }
        let (mut edits, mut seen) = (Vec::new(), BTreeSet::new());
        for device in names.iter().filter_map(|name| self.devices.get(name)) {
            if seen.insert(&device.path) {
                edits.push(&device.file.container_edits);
            }
            edits.extend(device.file.devices.get(device.at).map(|device| &device.container_edits));
        }
        Ok(edits)
    }
}

impl Engine {
    /// What the files of the host say of devices by name; nothing where there is to be no such thing.
    pub fn named_devices(&self) -> Devices {
        self.inner.options.cdi_dirs.as_deref().map(Devices::read).unwrap_or_default()
    }

    /// Adds what the container asks for by name.
    pub(crate) fn with_named_devices(&self, record: &Container, spec: Spec) -> Result<Spec, EngineError> {
        let requests = record.host.resources.device_requests.iter().flatten();
        let requests: Vec<&DeviceRequest> = requests.filter(|request| request.driver == "cdi").collect();
        if requests.is_empty() {
            return Ok(spec);
        }
        let failed = |why: String| EngineError::system(format!("CDI device injection failed: {why}"));
        if self.inner.options.cdi_dirs.as_ref().is_some_and(Vec::is_empty) {
            return Err(failed("no CDI specification directories specified".into()));
        }
        let unreadable = |error| EngineError::from_source("the container's configuration cannot be changed", &error);
        let mut changed = serde_json::to_value(&spec).map_err(unreadable)?;
        let devices = self.named_devices();
        for request in requests {
            if request.count != 0 {
                return Err(EngineError::system("unexpected count in CDI device request"));
            }
            if request.options.as_ref().is_some_and(|options| !options.is_empty()) {
                return Err(EngineError::system("unexpected options in CDI device request"));
            }
            let edits = devices.edits(request.device_ids.as_deref().unwrap_or_default()).map_err(|why| {
                devices.errors.iter().for_each(|(path, why)| tracing::warn!("{}: {why}", path.display()));
                failed(why)
            })?;
            for edit in edits {
                edit.apply(&mut changed).map_err(|why| failed(format!("failed to inject devices: {why}")))?;
            }
        }
        serde_json::from_value(changed).map_err(unreadable)
    }
}

fn load(path: &Path) -> Result<File, String> {
    let failed = |why: String| format!("failed to load CDI Spec {why}");
    let parse = |why: String| failed(format!("failed to parse CDI Spec \"{}\": {why}", path.display()));
    let text =
        read(path).map_err(|error| failed(format!("failed to read CDI Spec \"{}\": {error}", path.display())))?;
    let value = match path.extension() {
        Some(end) if end == "yaml" => cdi_yaml::parse(&text).map_err(parse)?,
        _ => serde_json::from_str(&text).map_err(|error| parse(error.to_string()))?,
    };
    let file: File = serde_json::from_value(value).map_err(|error| parse(error.to_string()))?;
    file.check().map_err(|why| failed(format!("invalid CDI Spec: {why}")))?;
    Ok(file)
}

fn read(path: &Path) -> std::io::Result<String> {
    let other = std::io::Error::other;
    // To open a pipe would wait for somebody who writes to it, and to open a device may do whatever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(other("it is no regular file".to_owned()));
    }
    // It may have become one meanwhile, or grow while it is read.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(other("it is no regular file".to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"cdiVersion":"0.6.0","kind":"v.test/c","containerEdits":{"env":["ALL=1"]},
        "devices":[{"name":"a","containerEdits":{"env":["A=1"]}},{"name":"b","containerEdits":{"env":["B=1"]}}]}"#;

    fn env<'a>(devices: &'a Devices, names: &[&str]) -> Result<Vec<&'a str>, String> {
        let names: Vec<String> = names.iter().map(|name| format!("v.test/c={name}")).collect();
        Ok(devices.edits(&names)?.into_iter().flat_map(|edits| &edits.env).map(String::as_str).collect())
    }

    #[test]
    fn later_directories_count_before_earlier_ones_and_conflicts_are_nobodys() {
        let place = tempfile::tempdir().unwrap();
        let dirs = [place.path().join("1"), place.path().join("2"), place.path().join("none")];
        dirs[..2].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        std::fs::write(dirs[0].join("x.json"), ONE).unwrap();
        std::fs::write(dirs[0].join("ignored.txt"), "{").unwrap();
        let devices = Devices::read(&dirs);
        assert_eq!(devices.names().collect::<Vec<_>>(), ["v.test/c=a", "v.test/c=b"]);
        assert_eq!(env(&devices, &["b", "a"]).unwrap(), ["ALL=1", "B=1", "A=1"]);
        assert_eq!(env(&devices, &["x", "a", "y"]).unwrap_err(), "unresolvable CDI devices v.test/c=x, v.test/c=y");
        let yaml = "cdiVersion: 0.3.0\nkind: v.test/c\ndevices:\n- name: a\n  containerEdits:\n    env: [\"A=2\"]\n";
        std::fs::write(dirs[1].join("y.yaml"), yaml).unwrap();
        assert_eq!(env(&Devices::read(&dirs), &["a", "b"]).unwrap(), ["A=2", "ALL=1", "B=1"]);
        std::fs::write(dirs[1].join("z.yaml"), yaml).unwrap();
        let devices = Devices::read(&dirs);
        assert!(env(&devices, &["a"]).is_err() && env(&devices, &["b"]).is_ok());
        assert!(devices.warnings()[0].contains("conflicting device \"v.test/c=a\""), "{:?}", devices.warnings());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let place = tempfile::tempdir().unwrap();
        let dirs = [place.path().to_owned()];
        let old = ONE.replace(r#"{"env":["A=1"]}"#, r#"{"additionalGids":[7]}"#);
        for (text, why) in [
            (ONE.replace("\"env\"", "\"nev\""), "unknown field `nev`"),
            (ONE.replace("0.6.0", "9.0.0"), "invalid version \"9.0.0\""),
            (old, "the spec version must be at least v0.7.0"),
            (ONE.replace("v.test/c", "vtest"), "invalid kind \"vtest\""),
            (ONE.replace("\"a\"", "\"a b\""), "invalid device name \"a b\""),
            ("{".into(), "failed to parse CDI Spec"),
        ] {
            std::fs::write(place.path().join("x.json"), text).unwrap();
            let devices = Devices::read(&dirs);
            assert_eq!(devices.names().count(), 0);
            assert!(devices.warnings()[0].contains(why), "{:?}", devices.warnings());
        }
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let dirs = [place.path().to_owned()];
        let pipe = place.path().join("a.json");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        std::fs::create_dir(place.path().join("b.json")).unwrap();
        let large = std::fs::File::create(place.path().join("c.json")).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        std::fs::write(place.path().join("d.json"), ONE).unwrap();
        let devices = Devices::read(&dirs);
        assert_eq!(devices.names().count(), 2);
        let warnings = devices.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("a.json") && warnings[0].contains("no regular file"), "{warnings:?}");
        assert!(warnings[1].contains("b.json") && warnings[1].contains("no regular file"), "{warnings:?}");
        assert!(warnings[2].contains("c.json") && warnings[2].contains("more than 4194304 bytes"), "{warnings:?}");
    }
}
