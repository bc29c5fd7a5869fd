//! One `--mount` of a request: binds, volumes, tmpfs and images, refused with Docker's words.

use std::path::Path;

use wharf_image::Keep;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::mounts::{Missing, PROPAGATIONS, VolumeWish, clean, destination, propagation_of, volume};
use crate::record::{Container, MountPoint, MountedImage};
use crate::spec::{BindOptions, MountRequest};

/// One `--mount`.
pub(crate) fn mount(
    engine: &Engine,
    record: &Container,
    request: &MountRequest,
    missing: Missing,
    keep: &mut Keep,
) -> Result<MountPoint> {
    let bad =
        |text: String| EngineError::invalid(format!("invalid mount config for type \"{}\": {text}", request.kind));
    if request.target.is_empty() {
        return Err(bad("field Target must not be empty".into()));
    }
    let destination = destination(&request.target).map_err(|error| bad(error.message))?;
    let extra = [
        ("bind", "BindOptions", request.bind_options.is_some()),
        ("volume", "VolumeOptions", request.volume_options.is_some()),
        ("image", "ImageOptions", request.image_options.is_some()),
        ("tmpfs", "TmpfsOptions", request.tmpfs_options.is_some()),
    ];
    if let Some((_, field, _)) = extra.iter().find(|(kind, _, given)| *given && request.kind != *kind) {
        return Err(EngineError::invalid(format!("{field} must not be specified on mount type \"{}\"", request.kind)));
    }
    match request.kind.as_str() {
        "bind" => {
            let options = request.bind_options.clone().unwrap_or_default();
            if request.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            check_bind(&options, request.read_only).map_err(bad)?;
            if options.id_map && record.host.userns_mode != "auto" {
                return Err(bad("IDMap needs a user namespace of the container's own: --userns auto".into()));
            }
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
                if missing == Missing::Make {
                    std::fs::create_dir_all(&source).map_err(|e| {
                        EngineError::from_source(&format!("error while creating mount source path '{source}'"), &e)
                    })?;
                }
            }
            let propagation = propagation_of(&engine.inner.options.data_root, &source, options.propagation)?;
            Ok(MountPoint {
                kind: "bind".into(),
                source,
                destination,
                // By which the mount is known.
                mode: if options.id_map { "idmap".into() } else { String::new() },
                rw: !request.read_only,
                propagation,
                ..MountPoint::default()
            })
        }
        "volume" => {
            let options = request.volume_options.clone().unwrap_or_default();
            if !options.subpath.is_empty() && request.source.is_empty() {
                return Err(bad("must not set Subpath when using anonymous volumes".into()));
            }
            if request.read_only && request.source.is_empty() {
                return Err(bad("must not set ReadOnly mode when using anonymous volumes".into()));
            }
            check_subpath(&options.subpath).map_err(bad)?;
            let driver = options.driver_config.unwrap_or_default();
            let wish = VolumeWish {
                missing,
                no_copy: options.no_copy,
                subpath: options.subpath,
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
            // Docker's client has these two; what else a tmpfs knows has fields of its own.
            for option in request.tmpfs_options.iter().flat_map(|options| options.options.iter().flatten()) {
                match option.as_slice() {
                    [word] if matches!(word.as_str(), "exec" | "noexec") => {}
                    [word] | [word, _] => return Err(bad(format!("invalid option: {word}"))),
                    _ => return Err(bad("invalid option array length".into())),
                }
            }
            Ok(MountPoint { kind: "tmpfs".into(), destination, rw: !request.read_only, ..MountPoint::default() })
        }
        "image" => {
            if request.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            let subpath = request.image_options.clone().unwrap_or_default().subpath;
            check_subpath(&subpath).map_err(bad)?;
            image(engine, &request.source, destination, subpath, missing, keep)
        }
        _ => Err(bad("mount type unknown".into())),
    }
}

/// An image, read-only whatever is asked, as Docker's.
fn image(
    engine: &Engine,
    name: &str,
    destination: String,
    subpath: String,
    missing: Missing,
    keep: &mut Keep,
) -> Result<MountPoint> {
    // Clients take "not found" for the container's own image.
    let found =
        engine.images().resolve(name).map_err(|error| EngineError::invalid(EngineError::from(error).message))?;
    if missing == Missing::Make {
        engine.images().touch(&found.id)?;
    }
    // It may be removed in between.
    let gone = |_| EngineError::invalid(format!("No such image: {name}"));
    engine.images().keep_also(keep, &found).map_err(gone)?;
    Ok(MountPoint {
        kind: "image".into(),
        name: name.to_owned(),
        source: found.id.to_string(),
        destination,
        subpath,
        image: Some(MountedImage { id: found.id, layers: found.diff_ids }),
        ..MountPoint::default()
    })
}

/// A path that stays below where it begins, by its words alone (Go's `filepath.IsLocal`).
fn check_subpath(path: &str) -> Result<(), String> {
    let mut depth = 0i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            break;
        }
    }
    if depth < 0 || path.starts_with('/') {
        return Err("subpath must be a relative path within the volume".into());
    }
    Ok(())
}

/// What the options of a bind cannot be together.
fn check_bind(options: &BindOptions, read_only: bool) -> Result<(), String> {
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    let (alone, forced) = (options.read_only_non_recursive, options.read_only_force_recursive);
    match (read_only, alone, forced) {
        (false, true, _) => Err("mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive".into()),
        (false, _, true) => Err("mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive".into()),
        (_, true, true) => {
            Err("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subpath_stays_below_where_it_begins() {
        for good in ["", "a", "a/b", "a/../b", "./a/..", "..a/b.."] {
            check_subpath(good).unwrap();
        }
        for bad in ["/", "/a", "..", "../a", "a/../../b", "a/../.."] {
            assert!(check_subpath(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_a_bind_that_contradict_each_other_are_refused() {
        let alone = BindOptions { read_only_non_recursive: true, ..BindOptions::default() };
        assert!(check_bind(&alone, true).is_ok() && check_bind(&alone, false).is_err());
        let both = BindOptions { read_only_force_recursive: true, ..alone };
        assert!(check_bind(&both, true).is_err());
        let odd = BindOptions { propagation: "sideways".into(), ..BindOptions::default() };
        assert_eq!(check_bind(&odd, false).unwrap_err(), "invalid propagation mode: sideways");
    }
}
