//! What is mounted in a container: `--volume`, `--mount`, `--tmpfs`, `--volumes-from`, and the image's volumes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wharf_image::Keep;
use wharf_volume::{CreateVolume, Volume, VolumeError};

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::mount_request::mount;
use crate::record::{Container, MountPoint};
use crate::spec::HostConfig;
use crate::tmpfs;

/// Whether what is missing is made, or only found missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Volumes, and directories for binds, as Docker does.
    Make,
    /// A volume that would be made has no source.
    Leave,
}

/// Finds out what a new container mounts (`keep` comes to keep the images among it). Waits for the disk.
///
/// # Errors
/// `InvalidParameter` with Docker's words, `NotFound`; then no volume stays that only this container would have had.
pub(crate) fn resolve(
    engine: &Engine,
    record: &Container,
    missing: Missing,
    keep: &mut Keep,
) -> Result<Vec<MountPoint>> {
    let asked = record.host.binds.iter().flatten().count() + record.host.mounts.iter().flatten().count();
    if missing == Missing::Make && asked > 1 {
        // What is wrong with one of them is found before a volume is made for another.
        collect(engine, record, Missing::Leave, &mut BTreeMap::new(), keep)?;
    }
    let mut points = BTreeMap::new();
    match collect(engine, record, missing, &mut points, keep) {
        Ok(()) => Ok(points.into_values().collect()),
        Err(error) => {
            if missing == Missing::Make {
                give_back(engine, points.values());
            }
            Err(error)
        }
    }
}

/// Removes the volumes that were made for a container that did not come to be.
pub(crate) fn give_back<'a>(engine: &Engine, points: impl Iterator<Item = &'a MountPoint>) {
    for point in points.filter(|point| point.anonymous) {
        // One that stays is unused and goes with the next prune.
        let _ = engine.volumes().remove(&point.name, true, &|name| engine.volume_users(name));
    }
}

fn collect(
    engine: &Engine,
    record: &Container,
    missing: Missing,
    points: &mut BTreeMap<String, MountPoint>,
    keep: &mut Keep,
) -> Result<()> {
    let host = record.host.clone();
    refuse_contradictions(&host)?;
    let mut own = BTreeSet::new();
    for from in host.volumes_from.iter().flatten() {
        if from.is_empty() {
            return Err(EngineError::invalid("volumes-from specification cannot be an empty string"));
        }
        let (name, mode) = from.split_once(':').unwrap_or((from, ""));
        // Clients take "not found" for the image.
        let other = engine.inspect(name).map_err(|error| EngineError::invalid(error.message))?;
        let rw = Mode::parse(mode)?.rw;
        // What lies in memory is its own.
        for point in other.mounts.iter().filter(|point| point.kind != "tmpfs") {
            let mut point = point.clone();
            point.rw &= rw;
            point.mode.clear();
            // One that nobody has named goes with its last user, whoever that is.
            engine.images().keep_mounted(keep, point.image.as_ref().map(|image| &image.id), point.layers());
            points.insert(point.destination.clone(), point);
        }
    }
    for text in host.binds.iter().flatten() {
        if host.userns_mode != "auto"
            && text.rsplit(':').next().is_some_and(|words| words.split(',').any(|w| w == "idmap"))
        {
            return Err(EngineError::invalid(format!(
                "invalid volume specification: '{text}': idmap needs a user namespace of the container's own: --userns auto"
            )));
        }
        let point = bind(engine, record, text, missing)?;
        add(points, &mut own, point)?;
    }
    for request in host.mounts.iter().flatten() {
        let point = mount(engine, record, request, missing, keep)?;
        add(points, &mut own, point)?;
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let destination = destination(target)?;
        tmpfs::check(options)?;
        let point = MountPoint { kind: "tmpfs".into(), destination, rw: true, ..MountPoint::default() };
        add(points, &mut own, point)?;
    }
    let image_volumes: Vec<String> = record.config.volumes.iter().flatten().map(|(path, _)| path.clone()).collect();
    for target in image_volumes {
        // As Docker has it: relative to the root, and the root itself is none.
        let destination = clean(&target);
        if destination == "/" {
            continue;
        }
        if let Entry::Vacant(free) = points.entry(destination) {
            let wish = VolumeWish { missing, driver: host.volume_driver.clone(), ..VolumeWish::default() };
            let point = volume(engine, record, None, free.key(), true, &wish)?;
            free.insert(MountPoint { mode: String::new(), ..point });
        }
    }
    Ok(())
}

/// Whether the host's control groups are bound into the container, at their own place.
pub(crate) fn shows_groups(host: &HostConfig) -> bool {
    let shows = |source: &str, target: &str| {
        let target = clean(target);
        clean(source) == target && matches!(target.as_str(), "/sys" | "/sys/fs/cgroup")
    };
    let bound = |text: &String| {
        let mut parts = text.split(':');
        parts.next().zip(parts.next()).is_some_and(|(source, target)| source.starts_with('/') && shows(source, target))
    };
    host.binds.iter().flatten().any(bound)
        || host.mounts.iter().flatten().any(|mount| mount.kind == "bind" && shows(&mount.source, &mount.target))
}

/// What a request says of a volume beside its name.
#[derive(Debug)]
pub(crate) struct VolumeWish {
    pub(crate) missing: Missing,
    pub(crate) no_copy: bool,
    /// What of it is mounted.
    pub(crate) subpath: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
}

impl Default for VolumeWish {
    fn default() -> Self {
        let (labels, options) = (BTreeMap::new(), BTreeMap::new());
        let (subpath, driver) = (String::new(), String::new());
        Self { missing: Missing::Make, no_copy: false, subpath, labels, driver, options }
    }
}

/// What is asked for at one place twice, before a volume is made for any: clients send binds in any order.
fn refuse_contradictions(host: &HostConfig) -> Result<()> {
    let of_bind = |text: &String| {
        let mut parts = text.split(':');
        parts.next().map(|first| parts.next().unwrap_or(first).to_owned())
    };
    let binds = host.binds.iter().flatten().filter_map(of_bind);
    let mut own = BTreeSet::new();
    for target in binds.chain(host.mounts.iter().flatten().map(|request| request.target.clone())) {
        refuse_twice(&own, &target)?;
        own.insert(clean(&target));
    }
    Ok(())
}

fn refuse_twice(own: &BTreeSet<String>, target: &str) -> Result<()> {
    let place = clean(target);
    if !target.starts_with('/') || !own.contains(&place) {
        return Ok(());
    }
    Err(EngineError::invalid(format!("Duplicate mount point: {place}")))
}

/// What `--volumes-from` brought is overridden; two of the request's own contradict each other.
fn add(points: &mut BTreeMap<String, MountPoint>, own: &mut BTreeSet<String>, point: MountPoint) -> Result<()> {
    check_proc(&point)?;
    refuse_twice(own, &point.destination)?;
    own.insert(point.destination.clone());
    points.insert(point.destination.clone(), point);
    Ok(())
}

/// Files of `/proc` that may be others', as lxcfs has them (runc, `checkProcMount`).
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What a container believes of itself is in `/proc`: nothing is mounted there, and on it only another one.
fn check_proc(point: &MountPoint) -> Result<()> {
    let target = &point.destination;
    // A volume is not yet anywhere.
    let source = if point.source.is_empty() { &point.name } else { &point.source };
    let bad = |why: &str| {
        Err(EngineError::invalid(format!(
            "error mounting {source:?} to rootfs at {target:?}: {target:?} cannot be mounted because it is {why}"
        )))
    };
    if target == "/proc" {
        let is_proc = |fs: rustix::fs::StatFs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC;
        let fine = point.kind == "bind" && rustix::fs::statfs(source.as_str()).is_ok_and(is_proc);
        return if fine { Ok(()) } else { bad("not of type proc") };
    }
    if target.starts_with("/proc/") && !PROC_FILES.contains(&target.as_str()) {
        return bad("inside /proc");
    }
    Ok(())
}

pub(crate) fn destination(target: &str) -> Result<String> {
    let clean = clean(target);
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    if clean == "/" {
        return Err(EngineError::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(clean)
}

/// A path without `.`, `..` and doubled slashes, by its words alone (Go's `filepath.Clean`).
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `SOURCE:TARGET[:OPTIONS]`, or a target alone.
fn bind(engine: &Engine, record: &Container, text: &str, missing: Missing) -> Result<MountPoint> {
    let parts: Vec<&str> = text.split(':').collect();
    let bad = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad()),
    };
    if target.is_empty() || (!source.is_empty() && !target.starts_with('/') && Mode::parse(target).is_ok()) {
        return Err(bad());
    }
    let destination = destination(target).map_err(|error| {
        let kind = if source.starts_with('/') { "bind" } else { "volume" };
        let message = &error.message;
        let text =
            format!("invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {message}");
        EngineError::invalid(text)
    })?;
    // A label, for SELinux, has no meaning here: people write it wherever their files go.
    let Mode { rw, propagation, no_copy } = Mode::parse(options)?;
    if source.is_empty() && parts.len() > 1 {
        return Err(bad());
    }
    let extra = |kind: &str, field: &str| {
        EngineError::invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": field {field} must not \
             be specified"
        ))
    };
    if !source.starts_with('/') {
        if !propagation.is_empty() {
            return Err(extra("volume", "BindOptions"));
        }
        let name = (!source.is_empty()).then_some(source);
        let driver = record.host.volume_driver.clone();
        let wish = VolumeWish { missing, no_copy, driver, ..VolumeWish::default() };
        let mut point = volume(engine, record, name, &destination, rw, &wish)?;
        if !options.is_empty() {
            options.clone_into(&mut point.mode);
        }
        return Ok(point);
    }
    if no_copy {
        return Err(extra("bind", "VolumeOptions"));
    }
    let source = clean(source);
    if missing == Missing::Make && !Path::new(&source).exists() {
        std::fs::create_dir_all(&source)
            .map_err(|e| EngineError::from_source(&format!("error while creating mount source path '{source}'"), &e))?;
    }
    let propagation = propagation_of(&engine.inner.options.data_root, &source, propagation)?;
    Ok(MountPoint {
        kind: "bind".into(),
        source,
        destination,
        mode: options.into(),
        rw,
        propagation,
        ..MountPoint::default()
    })
}

/// The words after a volume's target.
#[derive(Debug, Default)]
struct Mode {
    rw: bool,
    propagation: String,
    no_copy: bool,
}

pub(crate) const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl Mode {
    /// One word of each kind at most (moby, `linuxValidMountMode`).
    fn parse(options: &str) -> Result<Self> {
        let bad = || EngineError::invalid(format!("invalid mode: {options}"));
        let mut mode = Self { rw: true, ..Self::default() };
        let mut kinds = BTreeSet::new();
        for word in options.split(',').filter(|_| !options.is_empty()) {
            let kind = match word {
                "rw" | "ro" => {
                    mode.rw = word == "rw";
                    "access"
                }
                "nocopy" => {
                    mode.no_copy = true;
                    "copy"
                }
                "z" | "Z" => "label",
                "delegated" | "cached" | "consistent" => "consistency",
                // Read where the mount is made.
                "idmap" => "mapping",
                other if PROPAGATIONS.contains(&other) => {
                    mode.propagation = other.into();
                    "propagation"
                }
                _ => return Err(bad()),
            };
            if !kinds.insert(kind) {
                return Err(bad());
            }
        }
        Ok(mode)
    }
}

/// A bind that has the engine's own files in it must let go of what is mounted there when the engine does (moby,
/// `validateBindDaemonRoot`).
pub(crate) fn propagation_of(data_root: &Path, source: &str, asked: String) -> Result<String> {
    let own = Path::new(source).starts_with(data_root) || data_root.starts_with(source);
    match asked.as_str() {
        "" => Ok(if own { "rslave" } else { "rprivate" }.into()),
        "rslave" | "rshared" => Ok(asked),
        _ if own => Err(EngineError::invalid(format!(
            "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within \
             the daemon root, daemon root: {data_root:?}, bind mount source: {source:?}, propagation: {asked:?}"
        ))),
        _ => Ok(asked),
    }
}

/// A volume, made where it is missing, with the image's content on its first use.
pub(crate) fn volume(
    engine: &Engine,
    record: &Container,
    name: Option<&str>,
    destination: &str,
    rw: bool,
    wish: &VolumeWish,
) -> Result<MountPoint> {
    check_proc(&MountPoint {
        kind: "volume".into(),
        name: name.unwrap_or_default().into(),
        destination: destination.into(),
        ..MountPoint::default()
    })?;
    let anonymous = name.is_none_or(str::is_empty);
    let name = match wish.missing {
        Missing::Make if anonymous => engine.name_new_volume(&record.id)?,
        _ => name.unwrap_or_default().to_owned(),
    };
    let request = CreateVolume {
        name,
        anonymous,
        labels: wish.labels.clone(),
        driver: wish.driver.clone(),
        options: wish.options.clone(),
    };
    let point = |name: String, driver: String, source: String| MountPoint {
        kind: "volume".into(),
        name,
        source,
        destination: destination.into(),
        driver,
        mode: "z".into(),
        rw,
        anonymous,
        subpath: wish.subpath.clone(),
        ..MountPoint::default()
    };
    if wish.missing == Missing::Leave {
        engine.volumes().check(&request).map_err(not_the_image)?;
        let there = engine.volumes().get(&request.name).ok();
        let driver = there.as_ref().map_or("local", |there| &there.driver).to_owned();
        // One of a plugin that is there and has no path yet is not made either.
        let source = |there: Volume| match there.mountpoint.to_string_lossy().into_owned() {
            unknown if unknown.is_empty() => there.name,
            path => path,
        };
        return Ok(point(request.name.clone(), driver, there.map(source).unwrap_or_default()));
    }
    let is_new = request.name.is_empty() || engine.volumes().get(&request.name).is_err();
    let found = engine.volumes().create(&request).map_err(not_the_image)?;
    if is_new {
        engine.tell_of("volume", "create", &found.name, &[("driver", &found.driver)]);
    }
    let view = engine.images().layers().view(&record.layers, None)?;
    // Where the image has nothing there, no driver hears of a mount.
    if !wish.no_copy && view.metadata(destination.trim_start_matches('/'), true).is_ok() {
        engine.volumes().mount(&found.name, &record.id).map_err(|error| {
            let error = EngineError::from(error);
            EngineError::new(error.kind, format!("failed to populate volume: {}", error.message))
        })?;
        let copied = engine.volumes().copy_up(&found.name, &wish.subpath, &view, destination);
        engine.volumes().release(&found.name, &record.id)?;
        copied?;
    }
    Ok(point(found.name.clone(), found.driver, found.mountpoint.to_string_lossy().into_owned()))
}

/// Clients take "not found" for the image, and pull it.
fn not_the_image(error: VolumeError) -> EngineError {
    let error = EngineError::from(error);
    if error.kind == ErrorKind::NotFound { EngineError::invalid(error.message) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        assert_eq!(clean("/a//b/../c/."), "/a/c");
        assert_eq!(clean("/../.."), "/");
        assert!(destination("/").is_err() && destination("rel").is_err());
        assert_eq!(destination("/data/").unwrap(), "/data");
    }

    #[test]
    fn the_host_s_groups_are_known_by_their_place() {
        let with = |bind: &str| HostConfig { binds: Some(vec![bind.into()]), ..HostConfig::default() };
        assert!(shows_groups(&with("/sys/fs/cgroup:/sys/fs/cgroup:ro")) && shows_groups(&with("/sys/:/sys")));
        for other in ["/sys/fs/cgroup:/host/cgroup", "/sys:/host/sys", "sys:/sys", "/sys/fs/cgroup"] {
            assert!(!shows_groups(&with(other)), "{other}");
        }
    }

    #[test]
    fn a_mode_has_one_word_of_each_kind() {
        let mode = Mode::parse("ro,Z,rslave").unwrap();
        assert_eq!((mode.rw, mode.propagation.as_str()), (false, "rslave"));
        assert!(Mode::parse("").unwrap().rw);
        for bad in ["ro,rw", "z,Z", "shared,slave", "ro,", "nosuch"] {
            assert_eq!(Mode::parse(bad).unwrap_err().message, format!("invalid mode: {bad}"));
        }
    }

    #[test]
    fn proc_is_left_alone() {
        let point = |source: &str, target: &str| MountPoint {
            kind: "bind".into(),
            source: source.into(),
            destination: target.into(),
            ..MountPoint::default()
        };
        for good in
            [point("/etc", "/data"), point("/proc", "/proc"), point("/x", "/proc/cpuinfo"), point("/x", "/process")]
        {
            check_proc(&good).unwrap();
        }
        for bad in [point("/etc", "/proc"), point("/etc", "/proc/sys"), point("/proc", "/proc/1")] {
            assert!(check_proc(&bad).is_err(), "{bad:?}");
        }
    }
}
