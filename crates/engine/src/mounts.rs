//! What is mounted in a container: `--volume`, `--mount`, `--tmpfs`, `--volumes-from`, and the image's volumes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wharf_volume::CreateVolume;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::{Container, MountPoint};
use crate::spec::MountRequest;

/// Finds out what a new container mounts; makes volumes that are not there, and directories for binds whose source
/// is missing, as Docker does. Waits for the disk.
pub(crate) fn resolve(engine: &Engine, record: &mut Container, warnings: &mut Vec<String>) -> Result<Vec<MountPoint>> {
    let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
    let mut own = BTreeSet::new();
    let host = record.host.clone();
    for from in host.volumes_from.iter().flatten() {
        let (name, mode) = from.split_once(':').unwrap_or((from, ""));
        // Clients take "not found" for the image.
        let other = engine.inspect(name).map_err(|error| EngineError::invalid(error.message))?;
        for point in &other.mounts {
            let mut point = point.clone();
            match mode {
                "" | "rw" | "z" | "Z" => {}
                "ro" => point.rw = false,
                other => return Err(EngineError::invalid(format!("invalid mode: {other}"))),
            }
            point.anonymous = false;
            points.insert(point.destination.clone(), point);
        }
    }
    for text in host.binds.iter().flatten() {
        let point = bind(engine, record, text, warnings)?;
        add(&mut points, &mut own, point)?;
    }
    for request in host.mounts.iter().flatten() {
        let point = mount(engine, record, request)?;
        add(&mut points, &mut own, point)?;
    }
    for target in host.tmpfs.iter().flatten().map(|(target, _)| target) {
        let destination = destination(target)?;
        let point = MountPoint { kind: "tmpfs".into(), destination, rw: true, ..MountPoint::default() };
        add(&mut points, &mut own, point)?;
    }
    let image_volumes: Vec<String> = record.config.volumes.iter().flatten().map(|(path, _)| path.clone()).collect();
    for target in image_volumes {
        let destination = destination(&target)?;
        if let Entry::Vacant(free) = points.entry(destination) {
            let point = volume(engine, record, None, free.key(), true, &VolumeWish::default())?;
            free.insert(MountPoint { mode: String::new(), ..point });
        }
    }
    Ok(points.into_values().collect())
}

/// What a request says of a volume beside its name.
#[derive(Debug, Default)]
struct VolumeWish {
    no_copy: bool,
    labels: BTreeMap<String, String>,
    driver: String,
    options: BTreeMap<String, String>,
}

/// What `--volumes-from` brought is overridden; two of the request's own contradict each other.
fn add(points: &mut BTreeMap<String, MountPoint>, own: &mut BTreeSet<String>, point: MountPoint) -> Result<()> {
    if !own.insert(point.destination.clone()) {
        return Err(EngineError::invalid(format!("Duplicate mount point: {}", point.destination)));
    }
    points.insert(point.destination.clone(), point);
    Ok(())
}

fn destination(target: &str) -> Result<String> {
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
fn bind(engine: &Engine, record: &Container, text: &str, warnings: &mut Vec<String>) -> Result<MountPoint> {
    let parts: Vec<&str> = text.split(':').collect();
    let bad = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad()),
    };
    let destination = destination(target)?;
    let mut rw = true;
    let mut propagation = String::new();
    let mut no_copy = false;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "rw" => rw = true,
            "ro" => rw = false,
            "nocopy" => no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => propagation = option.into(),
            "z" | "Z" => warnings.push(format!("the option '{option}' of volume '{text}' has no meaning: no SELinux")),
            "delegated" | "cached" | "consistent" => {}
            other => return Err(EngineError::invalid(format!("invalid mode: {other}"))),
        }
    }
    if source.is_empty() && parts.len() > 1 {
        return Err(bad());
    }
    if !source.starts_with('/') {
        let name = (!source.is_empty()).then_some(source);
        let wish = VolumeWish { no_copy, driver: record.host.volume_driver.clone(), ..VolumeWish::default() };
        let mut point = volume(engine, record, name, &destination, rw, &wish)?;
        if !options.is_empty() {
            options.clone_into(&mut point.mode);
        }
        return Ok(point);
    }
    let source = clean(source);
    if !Path::new(&source).exists() {
        std::fs::create_dir_all(&source)
            .map_err(|e| EngineError::from_source(&format!("error while creating mount source path '{source}'"), &e))?;
    }
    if propagation.is_empty() {
        propagation = "rprivate".into();
    }
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

/// One `--mount`.
fn mount(engine: &Engine, record: &Container, request: &MountRequest) -> Result<MountPoint> {
    if request.target.is_empty() {
        return Err(EngineError::invalid("invalid mount config: field Target must not be empty"));
    }
    let destination = destination(&request.target)?;
    match request.kind.as_str() {
        "bind" => {
            let options = request.bind_options.clone().unwrap_or_default();
            if !request.source.starts_with('/') {
                return Err(EngineError::invalid(format!(
                    "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
                    request.source
                )));
            }
            let source = clean(&request.source);
            if !Path::new(&source).exists() {
                if !options.create_mountpoint {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {source}"
                    )));
                }
                std::fs::create_dir_all(&source).map_err(|e| {
                    EngineError::from_source(&format!("error while creating mount source path '{source}'"), &e)
                })?;
            }
            let propagation = if options.propagation.is_empty() { "rprivate".to_owned() } else { options.propagation };
            Ok(MountPoint {
                kind: "bind".into(),
                source,
                destination,
                rw: !request.read_only,
                propagation,
                ..MountPoint::default()
            })
        }
        "volume" => {
            let options = request.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() {
                return Err(EngineError::not_implemented("volume-subpath is not supported yet"));
            }
            let driver = options.driver_config.unwrap_or_default();
            let wish = VolumeWish {
                no_copy: options.no_copy,
                labels: options.labels.unwrap_or_default(),
                driver: driver.name,
                options: driver.options.unwrap_or_default(),
            };
            let name = (!request.source.is_empty()).then_some(request.source.as_str());
            volume(engine, record, name, &destination, !request.read_only, &wish)
        }
        "tmpfs" => {
            if !request.source.is_empty() {
                return Err(EngineError::invalid(
                    "invalid mount config for type \"tmpfs\": field Source must not be specified",
                ));
            }
            Ok(MountPoint { kind: "tmpfs".into(), destination, rw: !request.read_only, ..MountPoint::default() })
        }
        "image" => Err(EngineError::not_implemented("mounts of type image are not supported yet")),
        other => Err(EngineError::invalid(format!("mount type unknown: \"{other}\""))),
    }
}

/// A volume, made where it is missing, with the image's content on its first use.
fn volume(
    engine: &Engine,
    record: &Container,
    name: Option<&str>,
    destination: &str,
    rw: bool,
    wish: &VolumeWish,
) -> Result<MountPoint> {
    if !matches!(wish.driver.as_str(), "" | "local") {
        return Err(EngineError::not_found(format!("no volume driver named '{}' is here", wish.driver)));
    }
    let there = name.is_some_and(|name| engine.volumes().get(name).is_ok());
    let found = engine.volumes().create(&CreateVolume {
        name: name.unwrap_or_default().to_owned(),
        labels: wish.labels.clone(),
        driver: "local".into(),
        options: wish.options.clone(),
    })?;
    if !there {
        engine.tell_of("volume", "create", &found.name, &[("driver", "local")]);
    }
    if !wish.no_copy {
        let view = engine.images().layers().view(&record.layers, None)?;
        engine.volumes().mount(&found.name, &record.id).map_err(|error| {
            let error = EngineError::from(error);
            EngineError::new(error.kind, format!("failed to populate volume: {}", error.message))
        })?;
        let copied = engine.volumes().copy_up(&found.name, &view, destination);
        engine.volumes().release(&found.name, &record.id)?;
        copied?;
    }
    Ok(MountPoint {
        kind: "volume".into(),
        name: found.name.clone(),
        source: found.mountpoint.to_string_lossy().into_owned(),
        destination: destination.into(),
        driver: "local".into(),
        mode: "z".into(),
        rw,
        anonymous: name.is_none(),
        ..MountPoint::default()
    })
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
}
