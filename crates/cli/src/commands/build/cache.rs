//! `--cache-to`, `--cache-from`: steps of other engines.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wharf_client::{Body, Client};

use super::output::into;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::json::int;
use crate::parse::{Matches, commas};
use crate::tar::{Pack, pack};

/// Where a cache goes, or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Local {
        dir: PathBuf,
        /// With steps of stages that are no part of the image.
        all: bool,
    },
    /// Images whose steps may be taken over.
    Images(Vec<String>),
}

pub(super) fn check_to(text: &str) -> Result<(), String> {
    match parse(text, "dest")? {
        Place::Local { .. } => Ok(()),
        Place::Images(_) => Err("a cache goes to a directory: type=local,dest=DIR[,mode=max]".to_owned()),
    }
}

pub(super) fn check_from(text: &str) -> Result<(), String> {
    parse(text, "src").map(|_| ())
}

fn parse(text: &str, key: &str) -> Result<Place, String> {
    let fields = commas(text);
    if !fields.iter().any(|field| field.contains('=')) {
        return Ok(Place::Images(fields));
    }
    let (mut kind, mut dir, mut all) = (String::new(), None, false);
    for field in &fields {
        match field.split_once('=') {
            Some(("type", value)) => value.clone_into(&mut kind),
            Some((name, value)) if name == key => dir = Some(PathBuf::from(value)),
            Some(("mode", "max")) => all = true,
            Some(("mode", "min")) => all = false,
            _ => return Err(format!("unexpected {field:?}: type=local,{key}=DIR is what is known")),
        }
    }
    if kind != "local" {
        return Err(format!("caches of type {kind:?} are not supported: type=local is"));
    }
    Ok(Place::Local { dir: dir.ok_or_else(|| format!("{key} is required"))?, all })
}

fn places(matches: &Matches, flag: &str, key: &str) -> Outcome<Vec<Place>> {
    matches.all(flag).iter().map(|text| parse(text, key).map_err(Failure::new)).collect()
}

/// Whether a flag asks for what only our own engine has.
pub(super) fn is_asked(matches: &Matches) -> Outcome<bool> {
    let local = places(matches, "cache-from", "src")?.iter().any(|place| matches!(place, Place::Local { .. }));
    Ok(local || matches.changed("cache-to"))
}

/// Images of `--cache-from`.
pub(super) fn images(matches: &Matches) -> Outcome<Vec<String>> {
    let all = places(matches, "cache-from", "src")?.into_iter();
    Ok(all.flat_map(|place| if let Place::Images(names) = place { names } else { Vec::new() }).collect())
}

/// Gives the engine what directories have. One that has nothing yet is no failure: the first build of all finds none.
pub(super) async fn give(app: &App, matches: &Matches, quiet: bool) -> Outcome {
    for place in places(matches, "cache-from", "src")? {
        let Place::Local { dir, .. } = place else { continue };
        if !dir.join("index.json").exists() {
            app.complain(&format!("WARNING: no cache was found in {}", dir.display()));
            continue;
        }
        let (sender, body) = Body::channel();
        let own = dir.clone();
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
            app.complain(&format!("{} steps from the cache in {} are new here", int(&answer["New"]), dir.display()));
        }
    }
    Ok(())
}

/// Writes the steps of a build to the directories that are asked for, in place of what they had.
pub(super) async fn take(client: &Client, matches: &Matches, reference: &str) -> Outcome {
    for place in places(matches, "cache-to", "dest")? {
        let Place::Local { dir, all } = place else { continue };
        let request = client.get(&format!("/build/history/{reference}/cache"));
        let response = request.query_some("mode", all.then_some("max")).send().await?;
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
        let local = |dir: &str, all| Place::Local { dir: dir.into(), all };
        assert_eq!(parse("type=local,dest=d,mode=max", "dest").unwrap(), local("d", true));
        assert_eq!(parse("type=local,src=d", "src").unwrap(), local("d", false));
        assert_eq!(parse("a:1,b", "src").unwrap(), Place::Images(vec!["a:1".into(), "b".into()]));
        for bad in ["type=local", "type=gha", "type=registry,ref=x", "src=d", "type=local,src=d,mode=x"] {
            assert!(check_from(bad).is_err(), "{bad}");
        }
        assert!(check_to("image").is_err() && check_to("type=local,dest=x").is_ok());
    }
}
