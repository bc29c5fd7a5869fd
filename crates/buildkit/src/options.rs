//! Options of the frontend `dockerfile.v0` as what the builder is asked for.
//!
//! Source: moby/buildkit `frontend/dockerui/config.go`, `frontend/dockerfile/builder/build.go`. What is not known is passed over, as
//! BuildKit does.

use std::collections::{BTreeMap, HashMap};

use wharf_build::{BuildRequest, Limits, Ulimit};

use crate::grpc::Status;

/// Options, by name.
pub(crate) type Options = HashMap<String, String>;

/// The text of an option; empty without it.
pub(crate) fn text<'a>(options: &'a Options, name: &str) -> &'a str {
    options.get(name).map(String::as_str).unwrap_or_default()
}

/// All options whose names begin so, by the rest of their names.
pub(crate) fn below<'a>(options: &'a Options, prefix: &str) -> BTreeMap<&'a str, &'a str> {
    options.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.as_str()))).collect()
}

fn owned(map: BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    map.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the options ask for, but for contexts.
///
/// # Errors
/// For a value that makes no sense.
pub(crate) fn request(options: &Options) -> Result<BuildRequest, Status> {
    let mut request = BuildRequest {
        build_args: owned(below(options, "build-arg:")),
        labels: owned(below(options, "label:")),
        target: Some(text(options, "target").to_owned()).filter(|target| !target.is_empty()),
        pull: text(options, "image-resolve-mode") == "pull",
        platform: Some(text(options, "platform").to_owned()).filter(|platform| !platform.is_empty()),
        cgroup_parent: Some(text(options, "cgroup-parent").to_owned()).filter(|parent| !parent.is_empty()),
        steps: true,
        ..BuildRequest::default()
    };
    match options.get("no-cache").map(String::as_str) {
        None => {}
        Some("") => request.no_cache = true,
        Some(stages) => request.no_cache_filter = stages.split(',').map(|stage| stage.trim().to_owned()).collect(),
    }
    if matches!(text(options, "multi-platform"), "true" | "1") {
        request.build_args.insert("BUILDKIT_MULTI_PLATFORM".into(), "1".into());
    }
    for pair in text(options, "add-hosts").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (host, address) = pair.split_once('=').ok_or_else(|| Status::invalid(format!("invalid host {pair:?}")))?;
        request.extra_hosts.push(format!("{host}:{}", address.trim_start_matches('[').trim_end_matches(']')));
    }
    if let Some(size) = options.get("shm-size").filter(|size| !size.is_empty()) {
        let bad = |_| Status::invalid(format!("invalid shm-size {size:?}: it is a number of bytes"));
        request.shm_size = Some(size.parse().map_err(bad)?).filter(|size| *size > 0);
    }
    request.limits = Limits { ulimits: ulimits(text(options, "ulimit"))?, ..Limits::default() };
    match text(options, "force-network-mode") {
        "" | "sandbox" => {}
        mode @ ("host" | "none") => request.network = mode.to_owned(),
        other => {
            return Err(Status::invalid(format!("invalid network mode {other:?}: there are host, none and sandbox")));
        }
    }
    if let Some(hostname) = options.get("hostname").filter(|name| !name.is_empty()) {
        request.build_args.entry("BUILDKIT_SANDBOX_HOSTNAME".into()).or_insert_with(|| hostname.clone());
    }
    Ok(request)
}

/// `nofile=1024:2048,nproc=5`.
fn ulimits(text: &str) -> Result<Vec<Ulimit>, Status> {
    let one = |field: &str| {
        let (name, values) = field.split_once('=')?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        Some(Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
    };
    let fields = text.split(',').map(str::trim).filter(|field| !field.is_empty());
    fields.map(|field| one(field).ok_or_else(|| Status::invalid(format!("invalid ulimit {field:?}")))).collect()
}

/// `attest:provenance=mode=min`, `attest:sbom=`, as `--attest` has them; those that are wanted where they cost nothing only
/// (`inline-only=true`) if `inline`.
pub(crate) fn attestations(options: &Options, inline: bool) -> Vec<String> {
    let mut all = Vec::new();
    for (kind, value) in below(options, "attest:") {
        let fields: Vec<&str> = value.split(',').map(str::trim).filter(|field| !field.is_empty()).collect();
        let has = |wanted: &str| fields.iter().any(|field| field.eq_ignore_ascii_case(wanted));
        if has("disabled=true") || has("disabled=1") || (has("inline-only=true") && !inline) {
            continue;
        }
        let rest = fields.iter().filter(|field| !field.starts_with("inline-only=") && !field.starts_with("disabled="));
        let mut text = format!("type={kind}");
        rest.for_each(|field| text.push_str(&format!(",{field}")));
        all.push(text);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_what_the_builder_is_asked_for() {
        let asked = request(&options(&[
            ("build-arg:A", "1"),
            ("label:b", "2"),
            ("target", "t"),
            ("no-cache", ""),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("shm-size", "4096"),
            ("ulimit", "nofile=1:2,nproc=3"),
            ("force-network-mode", "none"),
            ("vcs:revision", "whatever"),
        ]))
        .unwrap();
        assert_eq!((asked.build_args["A"].as_str(), asked.labels["b"].as_str()), ("1", "2"));
        assert_eq!((asked.target.as_deref(), asked.no_cache, asked.network.as_str()), (Some("t"), true, "none"));
        assert_eq!((asked.extra_hosts.join(" "), asked.shm_size), ("a:1.2.3.4 b:::1".into(), Some(4096)));
        assert_eq!(asked.limits.ulimits[1], Ulimit { name: "nproc".into(), soft: 3, hard: 3 });
        for bad in [("ulimit", "nofile"), ("shm-size", "many"), ("force-network-mode", "mine"), ("add-hosts", "a")] {
            assert!(request(&options(&[bad])).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_to_be_stated_is_passed_on() {
        let all = options(&[("attest:provenance", "mode=min,inline-only=true"), ("attest:sbom", "")]);
        assert_eq!(attestations(&all, false), ["type=sbom"]);
        assert_eq!(attestations(&all, true), ["type=provenance,mode=min", "type=sbom"]);
        assert!(attestations(&options(&[("attest:sbom", "disabled=true")]), true).is_empty());
    }
}
