//! What of the host a container sees: `-v`, `--mount`, `--tmpfs`, `VOLUME` and `--volumes-from`, made one list.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::MountPoint;
use crate::spec::{Config, HostConfig, MountRequest};

/// Puts together all mounts of a container that is being created, and makes the volumes that it names.
/// What comes later in Docker's order of precedence replaces what has the same destination.
pub(crate) fn resolve(engine: &Engine, id: &str, config: &Config, host: &HostConfig) -> Result<Vec<MountPoint>> {
    let mut by_destination: BTreeMap<String, MountPoint> = BTreeMap::new();
    for from in host.volumes_from.iter().flatten() {
        for point in volumes_from(engine, from)? {
            by_destination.insert(point.destination.clone(), point);
        }
    }
    for bind in host.binds.iter().flatten() {
        let point = parse_bind(engine, id, bind)?;
        if host.mounts.iter().flatten().any(|m| clean(&m.target) == point.destination) {
            return Err(EngineError::invalid(format!("Duplicate mount point: {}", point.destination)));
        }
        by_destination.insert(point.destination.clone(), point);
    }
    for request in host.mounts.iter().flatten() {
        if request.kind == "tmpfs" {
            check_destination(&request.target)?;
            by_destination.insert(clean(&request.target), tmpfs_point(&request.target));
            continue;
        }
        let point = parse_mount(engine, id, request)?;
        by_destination.insert(point.destination.clone(), point);
    }
    for target in host.tmpfs.iter().flatten().map(|(target, _)| target) {
        check_destination(target)?;
        by_destination.insert(clean(target), tmpfs_point(target));
    }
    for target in config.volumes.iter().flatten().map(|(target, _)| clean(target)) {
        check_destination(&target)?;
        if !by_destination.contains_key(&target) {
            by_destination.insert(target.clone(), anonymous(engine, id, &target)?);
        }
    }
    // Parents before children, which is the order of the map: `/a` < `/a/b`.
    Ok(by_destination.into_values().collect())
}

fn tmpfs_point(target: &str) -> MountPoint {
    MountPoint { kind: "tmpfs".into(), destination: clean(target), rw: true, ..MountPoint::default() }
}

/// The path without doubled and trailing slashes and dots; `..` is taken as the parent, as there is no link to follow yet.
fn clean(path: &str) -> String {
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out.to_string_lossy().into_owned()
}

fn check_destination(target: &str) -> Result<()> {
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid mount config: mount path must be absolute: {target}"
        )));
    }
    if clean(target) == "/" {
        return Err(EngineError::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(())
}

/// `SOURCE:TARGET[:OPTIONS]`, `NAME:TARGET[:OPTIONS]` or `TARGET`.
fn parse_bind(engine: &Engine, id: &str, bind: &str) -> Result<MountPoint> {
    let parts: Vec<&str> = bind.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => return check_destination(target).and_then(|()| anonymous(engine, id, &clean(target))),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(EngineError::invalid(format!("invalid volume specification: '{bind}'"))),
    };
    if source.is_empty() {
        return Err(EngineError::invalid(format!("invalid volume specification: '{bind}': empty section between colons")));
    }
    check_destination(target)?;
    let mut propagation = String::new();
    let mut rw = true;
    let mut copy = true;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => rw = false,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => copy = false,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => propagation = option.into(),
            _ => {
                return Err(EngineError::invalid(format!(
                    "invalid volume specification: '{bind}': invalid mode: {option}"
                )));
            }
        }
    }
    if source.starts_with('/') {
        // The old form makes what is missing, as Docker does; `--mount` refuses.
        if !crate::engine::exists(Path::new(source)) {
            std::fs::create_dir_all(source)
                .map_err(|e| EngineError::from_source(&format!("error while creating mount source path '{source}'"), &e))?;
        }
        return Ok(MountPoint {
            kind: "bind".into(),
            source: clean(source),
            destination: clean(target),
            mode: options.into(),
            rw,
            propagation: if propagation.is_empty() { "rprivate".into() } else { propagation },
            ..MountPoint::default()
        });
    }
    let mut point = named(engine, id, source, &clean(target), &BTreeMap::new(), &BTreeMap::new(), copy)?;
    point.mode = if options.is_empty() { "z".into() } else { options.into() };
    point.rw = rw;
    Ok(point)
}

fn parse_mount(engine: &Engine, id: &str, request: &MountRequest) -> Result<MountPoint> {
    check_destination(&request.target)?;
    let target = clean(&request.target);
    match request.kind.as_str() {
        "bind" => {
            let options = request.bind_options.clone().unwrap_or_default();
            if !request.source.starts_with('/') {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
                    request.source
                )));
            }
            if !crate::engine::exists(Path::new(&request.source)) {
                if !options.create_mountpoint {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        request.source
                    )));
                }
                std::fs::create_dir_all(&request.source).map_err(|e| {
                    EngineError::from_source(&format!("error while creating mount source path '{}'", request.source), &e)
                })?;
            }
            Ok(MountPoint {
                kind: "bind".into(),
                source: clean(&request.source),
                destination: target,
                rw: !request.read_only,
                propagation: if options.propagation.is_empty() { "rprivate".into() } else { options.propagation },
                ..MountPoint::default()
            })
        }
        "volume" => {
            let options = request.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() {
                return Err(EngineError::not_implemented("volume-subpath is not supported yet"));
            }
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") {
                return Err(EngineError::not_found(format!(
                    "error looking up volume plugin {}: plugin \"{0}\" not found",
                    driver.name
                )));
            }
            let mut point = if request.source.is_empty() {
                anonymous(engine, id, &target)?
            } else {
                let labels = options.labels.unwrap_or_default();
                named(engine, id, &request.source, &target, &labels, &driver.options.unwrap_or_default(), !options.no_copy)?
            };
            point.rw = !request.read_only;
            point.mode = "z".into();
            Ok(point)
        }
        other => Err(EngineError::not_implemented(format!(
            "mount type \"{other}\" is not supported; use bind, volume or tmpfs"
        ))),
    }
}

fn volumes_from(engine: &Engine, from: &str) -> Result<Vec<MountPoint>> {
    let (name, mode) = from.split_once(':').unwrap_or((from, ""));
    let rw = match mode {
        "" | "rw" | "z" | "Z" => true,
        "ro" => false,
        _ => return Err(EngineError::invalid(format!("invalid mode for volumes-from: {mode}"))),
    };
    let mut points = engine.get(name)?.mounts.clone();
    points.retain(|point| point.kind != "tmpfs");
    for point in &mut points {
        point.rw &= rw;
        point.anonymous = false;
    }
    Ok(points)
}

fn anonymous(engine: &Engine, id: &str, target: &str) -> Result<MountPoint> {
    let name = crate::names::random_id()?;
    let labels = BTreeMap::from([("com.docker.volume.anonymous".to_owned(), String::new())]);
    let mut point = named(engine, id, &name, target, &labels, &BTreeMap::new(), true)?;
    point.anonymous = true;
    Ok(point)
}

fn named(
    engine: &Engine,
    _id: &str,
    name: &str,
    target: &str,
    labels: &BTreeMap<String, String>,
    options: &BTreeMap<String, String>,
    _copy: bool,
) -> Result<MountPoint> {
    let volume = crate::volumes::ensure(engine, name, labels, options)?;
    Ok(MountPoint {
        kind: "volume".into(),
        name: name.into(),
        source: volume,
        destination: target.into(),
        driver: "local".into(),
        rw: true,
        ..MountPoint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned_without_touching_the_disk() {
        assert_eq!(clean("/a//b/./c/"), "/a/b/c");
        assert_eq!(clean("/a/../b"), "/b");
        assert_eq!(clean("/../.."), "/");
    }

    #[test]
    fn the_root_is_no_destination() {
        assert!(check_destination("/").is_err());
        assert!(check_destination("/x/..").is_err());
        assert!(check_destination("rel").is_err());
        assert!(check_destination("/x").is_ok());
    }
}
