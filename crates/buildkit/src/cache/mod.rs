//! Caches of builds elsewhere (`--cache-from`, `--cache-to`): in registries, in directories of the client, and in images.
//!
//! What travels is what `wharf_build` makes of a build's steps; BuildKit's own caches have keys of its graph, which mean nothing here.
//!
//! Source: moby/buildkit `cache/remotecache`, `client/solve.go` (`parseCacheOptions`).

mod export;
mod import;

use wharf_build::{CacheCompression, CacheForm};
use wharf_image::registry::Repository;
use wharf_reference::Reference;

use crate::BuildKit;
use crate::grpc::Status;
use crate::job::Job;
use crate::proto::control::CacheOption;

/// The configuration of a cache.
const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In a directory of the client's, by the name that it has there.
    Directory(String),
    Registry {
        reference: Reference,
        insecure: bool,
    },
    /// In the image.
    Inline,
}

/// A cache that is to be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Export {
    place: Place,
    form: CacheForm,
    /// The build is no failure when this is one.
    may_fail: bool,
}

fn attribute<'a>(option: &'a CacheOption, name: &str) -> &'a str {
    option.attrs.get(name).map(String::as_str).unwrap_or_default()
}

fn flag(option: &CacheOption, name: &str, usual: bool) -> Result<bool, Status> {
    match attribute(option, name) {
        "" => Ok(usual),
        "true" | "1" | "t" | "True" | "TRUE" => Ok(true),
        "false" | "0" | "f" | "False" | "FALSE" => Ok(false),
        other => Err(Status::invalid(format!("invalid {name}={other:?} of a cache: it is true or false"))),
    }
}

/// What is said of a kind of caches that there is not.
fn unknown(kind: &str) -> Status {
    Status::unsupported(format!(
        "caches of type {kind:?} are not supported: there are type=registry, type=local and type=inline"
    ))
}

fn registry(option: &CacheOption) -> Result<Place, Status> {
    let text = attribute(option, "ref");
    if text.is_empty() {
        return Err(Status::invalid("a cache of type registry needs ref=NAME"));
    }
    let bad = |e| Status::invalid(format!("invalid ref={text:?} of a cache: {e}"));
    let reference = Reference::parse(text).map_err(|e| bad(e.to_string()))?.tag_or_latest();
    Ok(Place::Registry { reference, insecure: flag(option, "registry.insecure", false)? })
}

/// What an option of `--cache-to` asks for. Attributes that are not known are passed over, as BuildKit does.
fn export(option: &CacheOption) -> Result<Export, Status> {
    let place = match option.kind.as_str() {
        "inline" => Place::Inline,
        "registry" => registry(option)?,
        "local" => match attribute(option, "dest") {
            "" => return Err(Status::invalid("a cache of type local needs dest=DIR")),
            dir => Place::Directory(format!("local:{dir}")),
        },
        other => return Err(unknown(other)),
    };
    let compression = match attribute(option, "compression") {
        "" | "gzip" => CacheCompression::Gzip,
        "zstd" => CacheCompression::Zstd,
        "uncompressed" => CacheCompression::None,
        other => {
            let message =
                format!("caches with compression={other} are not supported: there are gzip, zstd and uncompressed");
            return Err(Status::unsupported(message));
        }
    };
    if !flag(option, "oci-mediatypes", true)? {
        return Err(Status::unsupported("oci-mediatypes=false is not supported: caches have OCI's media types"));
    }
    let form = CacheForm {
        all: attribute(option, "mode") == "max",
        mounts: flag(option, "cache-mounts", false)?,
        compression,
        index: !flag(option, "image-manifest", true)?,
    };
    Ok(Export { place, form, may_fail: flag(option, "ignore-error", false)? })
}

/// Refuses caches that cannot be exported, before anything is built.
///
/// # Errors
/// Names what that is.
pub(crate) fn check(job: &[CacheOption]) -> Result<(), Status> {
    job.iter().try_for_each(|option| export(option).map(drop))
}

/// Whether the image is to have its cache in it.
pub(crate) fn is_inline(exports: &[CacheOption]) -> bool {
    exports.iter().any(|option| option.kind == "inline")
}

impl BuildKit {
    /// A repository as who has begun the build sees it.
    async fn repository(&self, job: &Job, reference: &Reference, insecure: bool) -> Result<Repository, Status> {
        let credentials = self.credentials(job, reference.domain()).await;
        let client = self.inner.engine.registry();
        if !insecure {
            return Ok(client.repository(reference, credentials));
        }
        let client = client.with_insecure(reference.domain()).map_err(|e| crate::layout::refused(&e))?;
        Ok(client.repository(reference, credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(kind: &str, attrs: &[(&str, &str)]) -> CacheOption {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        CacheOption { kind: kind.into(), attrs }
    }

    #[test]
    fn options_of_caches() {
        let local = export(&option("local", &[("dest", "d"), ("mode", "max"), ("compression", "zstd")])).unwrap();
        assert_eq!(local.place, Place::Directory("local:d".into()));
        assert!(local.form.all && local.form.compression == CacheCompression::Zstd && !local.form.index);
        let name = ("ref", "h.example/x");
        let registry = export(&option("registry", &[name, ("image-manifest", "false"), ("ignore-error", "true")]));
        let registry = registry.unwrap();
        let reference = Reference::parse("h.example/x:latest").unwrap();
        assert_eq!(registry.place, Place::Registry { reference, insecure: false });
        assert!(registry.form.index && registry.may_fail);
        assert!(is_inline(&[option("inline", &[])]));
        for (bad, said) in [
            (option("gha", &[("mode", "max")]), "\"gha\""),
            (option("s3", &[]), "\"s3\""),
            (option("azblob", &[]), "\"azblob\""),
            (option("local", &[]), "dest=DIR"),
            (option("registry", &[("ref", "X")]), "ref=\"X\""),
            (option("registry", &[name, ("compression", "estargz")]), "estargz"),
            (option("registry", &[name, ("oci-mediatypes", "false")]), "oci-mediatypes"),
            (option("registry", &[name, ("ignore-error", "maybe")]), "ignore-error"),
        ] {
            let refused = check(&[bad]).unwrap_err();
            assert!(refused.message().contains(said), "{}", refused.message());
        }
    }
}
