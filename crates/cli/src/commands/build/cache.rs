//! `--cache-to`, `--cache-from`: steps of other engines.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wharf_client::{Body, Client};

use super::output::into;
use super::registry_cache;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::json::int;
use crate::parse::{Matches, commas};
use crate::tar::{Pack, pack};

/// What of a build's cache goes somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct What {
    /// With steps of stages that are no part of the image.
    all: bool,
    /// With the directories of `RUN --mount=type=cache`.
    mounts: bool,
}

/// Where a cache goes, or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Local {
        dir: PathBuf,
        what: What,
    },
    Registry {
        reference: String,
        what: What,
        /// Without TLS, or with a certificate of anybody's.
        insecure: bool,
    },
    /// In the image itself.
    Inline,
    /// Images whose steps may be taken over.
    Images(Vec<String>),
}

pub(super) fn check_to(text: &str) -> Result<(), String> {
    match parse(text, "dest")? {
        Place::Images(_) => {
            Err("a cache goes to a directory (type=local,dest=DIR), a registry (type=registry,ref=NAME) or the image \
                 itself (type=inline)"
                .to_owned())
        }
        _ => Ok(()),
    }
}

pub(super) fn check_from(text: &str) -> Result<(), String> {
    match parse(text, "src")? {
        Place::Inline => Err("what an image has of its own build comes with type=registry,ref=IMAGE".to_owned()),
        _ => Ok(()),
    }
}

fn parse(text: &str, key: &str) -> Result<Place, String> {
    let fields = commas(text);
    if !fields.iter().any(|field| field.contains('=')) {
        return Ok(Place::Images(fields));
    }
    let (mut kind, mut dir, mut what) = (String::new(), None, What::default());
    let (mut reference, mut insecure) = (None, false);
    for field in &fields {
        match field.split_once('=') {
            Some(("type", value)) => value.clone_into(&mut kind),
            Some((name, value)) if name == key => dir = Some(PathBuf::from(value)),
            Some(("mode", "max")) => what.all = true,
            Some(("mode", "min")) => what.all = false,
            Some(("cache-mounts", value @ ("true" | "false"))) if key == "dest" => what.mounts = value == "true",
            Some(("ref", value)) => {
                crate::references::parse(value).map_err(|failure| failure.text)?;
                reference = Some(value.to_owned());
            }
            Some(("registry.insecure", value @ ("true" | "false"))) => insecure = value == "true",
            // As it is done in any case.
            Some(("image-manifest" | "oci-mediatypes", "true")) => {}
            _ => {
                return Err(format!(
                    "unexpected {field:?}: known are type=local with {key}=DIR, type=registry with ref=NAME, mode and cache-mounts"
                ));
            }
        }
    }
    match (kind.as_str(), dir, reference) {
        ("local", Some(dir), None) => Ok(Place::Local { dir, what }),
        ("local", None, None) => Err(format!("{key} is required")),
        ("registry", None, Some(reference)) => Ok(Place::Registry { reference, what, insecure }),
        ("registry", None, None) => Err("ref is required".to_owned()),
        ("inline", None, None) if what == What::default() => Ok(Place::Inline),
        ("inline", None, None) => {
            Err("an image has no steps of other stages in it, and no cache mounts: inline is mode=min".to_owned())
        }
        ("local" | "registry" | "inline", ..) => Err(format!("{text:?} names a place that type={kind} does not have")),
        _ => Err(format!("caches of type {kind:?} are not supported: type=local, type=registry and type=inline are")),
    }
}

fn places(matches: &Matches, flag: &str, key: &str) -> Outcome<Vec<Place>> {
    matches.all(flag).iter().map(|text| parse(text, key).map_err(Failure::new)).collect()
}

/// Whether a flag asks for what only our own engine has.
pub(super) fn is_asked(matches: &Matches) -> Outcome<bool> {
    let imported = places(matches, "cache-from", "src")?.iter().any(|place| !matches!(place, Place::Images(_)));
    Ok(imported || matches.changed("cache-to"))
}

/// Whether the image is to have the cache in it.
pub(super) fn is_inline(matches: &Matches) -> Outcome<bool> {
    Ok(places(matches, "cache-to", "dest")?.contains(&Place::Inline))
}

/// Images of `--cache-from`.
pub(super) fn images(matches: &Matches) -> Outcome<Vec<String>> {
    let all = places(matches, "cache-from", "src")?.into_iter();
    Ok(all.flat_map(|place| if let Place::Images(names) = place { names } else { Vec::new() }).collect())
}

/// Gives the engine what directories and registries have. One that has nothing yet is no failure: the first build of all finds none.
pub(super) async fn give(app: &App, matches: &Matches, quiet: bool) -> Outcome {
    for place in places(matches, "cache-from", "src")? {
        match place {
            Place::Local { dir, .. } if dir.join("index.json").exists() => {
                let name = dir.display().to_string();
                tell_unused(app, &name, give_layout(app, &dir, &name, quiet).await);
            }
            Place::Local { dir, .. } => app.complain(&format!("WARNING: no cache was found in {}", dir.display())),
            Place::Registry { reference, insecure, .. } => give_registry(app, &reference, insecure, quiet).await,
            // As with BuildKit: a name is one in a registry. What is here has its steps here.
            Place::Images(names) if app.has_own_engine().await? => {
                for name in names {
                    let here = app.client().await?.get(&format!("/images/{name}/json")).send().await;
                    if here.is_err() {
                        give_registry(app, &name, false, quiet).await;
                    }
                }
            }
            Place::Inline | Place::Images(_) => {}
        }
    }
    Ok(())
}

/// Gives the engine what a registry has. As with BuildKit: what cannot be had of a cache is made again.
async fn give_registry(app: &App, reference: &str, insecure: bool, quiet: bool) {
    let given = match registry_cache::fetch(app, reference, insecure).await {
        Ok(layout) => give_layout(app, &layout.path, reference, quiet).await,
        Err(failure) => Err(failure),
    };
    tell_unused(app, reference, given);
}

/// A cache that is damaged, or cannot be had, is no reason not to build.
fn tell_unused(app: &App, name: &str, given: Outcome) {
    if let Err(failure) = given {
        app.complain(&format!("WARNING: the cache {name} is not used: {}", failure.text));
    }
}

/// Gives the engine a layout of a cache.
async fn give_layout(app: &App, dir: &Path, name: &str, quiet: bool) -> Outcome {
    let (sender, body) = Body::channel();
    let own = dir.to_owned();
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack(&own, &Pack { as_root: true, ..Pack::default() }, sender.clone().blocking());
        if let Err(error) = packed {
            let broken = std::io::Error::other(error.to_string());
            tokio::runtime::Handle::current().block_on(sender.fail(broken));
        }
    });
    let answer: Value =
        app.client().await?.post("/build/cache").body("application/x-tar", body).send().await?.json().await?;
    packing.await.map_err(|error| error.to_string())?;
    if !quiet {
        app.complain(&format!("{} steps from the cache in {name} are new here", int(&answer["New"])));
    }
    Ok(())
}

/// Writes the steps of a build to the directories and registries that are asked for, in place of what they had.
pub(super) async fn take(app: &App, client: &Client, matches: &Matches, build: &str) -> Outcome {
    for place in places(matches, "cache-to", "dest")? {
        let (Place::Local { what, .. } | Place::Registry { what, .. }) = place else { continue };
        let request = client.get(&format!("/build/history/{build}/cache"));
        let response =
            request.query_some("mode", what.all.then_some("max")).query_if(what.mounts, "mounts").send().await?;
        let dir = match place {
            Place::Local { dir, .. } => dir,
            Place::Registry { reference, insecure, .. } => {
                let layout = registry_cache::Layout::new()?;
                into(response, &layout.path).await?;
                registry_cache::push(app, &layout, &reference, insecure).await?;
                continue;
            }
            _ => continue,
        };
        // Beside it first: what is there stays whole until the new one is.
        let new = beside(&dir)?;
        let done = into(response, &new).await;
        if done.is_err() {
            let _ = wharf_rooted_path::remove_dir_all(&new);
            return done;
        }
        if dir.exists() {
            for name in ["blobs", "index.json", "oci-layout"] {
                let old = dir.join(name);
                let removed =
                    if old.is_dir() { wharf_rooted_path::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(wharf_report::path("remove", &old, &error).into());
                    }
                    _ => {}
                }
                std::fs::rename(new.join(name), &old).map_err(|error| wharf_report::path("rename", &old, &error))?;
            }
            let _ = std::fs::remove_dir(&new);
        } else {
            std::fs::rename(&new, &dir).map_err(|error| wharf_report::path("rename", &dir, &error))?;
        }
    }
    Ok(())
}

fn beside(dir: &Path) -> Outcome<PathBuf> {
    let Some(name) = dir.file_name() else {
        return Err(format!("{} cannot be a cache: it has no name", dir.display()).into());
    };
    let mut name = name.to_owned();
    name.push(format!(".new{}", std::process::id()));
    Ok(dir.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_caches() {
        let what = |all| What { all, mounts: false };
        let local = |dir: &str, all| Place::Local { dir: dir.into(), what: what(all) };
        let with_mounts = Place::Local { dir: "d".into(), what: What { all: false, mounts: true } };
        assert_eq!(parse("type=local,dest=d,cache-mounts=true", "dest").unwrap(), with_mounts);
        assert!(parse("type=local,src=d,cache-mounts=true", "src").is_err());
        assert_eq!(parse("type=local,dest=d,mode=max", "dest").unwrap(), local("d", true));
        assert_eq!(parse("type=local,src=d", "src").unwrap(), local("d", false));
        assert_eq!(parse("a:1,b", "src").unwrap(), Place::Images(vec!["a:1".into(), "b".into()]));
        let registry = |all, insecure| Place::Registry { reference: "h/x:1".into(), what: what(all), insecure };
        assert_eq!(parse("type=registry,ref=h/x:1,mode=max", "dest").unwrap(), registry(true, false));
        assert_eq!(parse("type=registry,ref=h/x:1,registry.insecure=true", "src").unwrap(), registry(false, true));
        assert_eq!(parse("type=inline", "dest").unwrap(), Place::Inline);
        for bad in [
            "type=local",
            "type=gha",
            "type=registry",
            "type=registry,ref=X",
            "type=registry,ref=x,src=y",
            "type=inline",
            "src=d",
            "type=local,src=d,mode=x",
        ] {
            assert!(check_from(bad).is_err(), "{bad}");
        }
        assert!(check_to("image").is_err() && check_to("type=local,dest=x").is_ok());
    }
}
