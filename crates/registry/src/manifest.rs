//! Manifests as far as a registry must understand them: what they name must be there, what they are about is listed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use wharf_reference::Digest;

use crate::error::{ApiError, Code};
use crate::repositories::{ManifestRow, Referrer};

/// Largest manifest that is taken (OCI distribution-spec, "Pushing Manifests").
pub(crate) const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// Most descriptors in one.
const MAX_DESCRIPTORS: usize = 10_000;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    /// Whether registries need not have it (OCI image-spec, "Non-Distributable Layers").
    fn is_elsewhere(&self) -> bool {
        let foreign = self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
            || self.media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        foreign && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }

    fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST)
    }
}

/// A manifest that was read.
#[derive(Debug)]
pub(crate) struct Understood {
    pub(crate) row: ManifestRow,
    pub(crate) referrer: Referrer,
    /// How large it says that contents are; what it is about need not be here.
    pub(crate) sizes: Vec<(Digest, u64)>,
}

/// Reads a manifest that came as `content_type`; without one, as what it calls itself.
///
/// # Errors
/// `MANIFEST_INVALID` with a reason.
pub(crate) fn read(bytes: &[u8], content_type: Option<&str>, digest: &Digest) -> Result<Understood, ApiError> {
    let body: Body = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    let named = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    let own = body.media_type.clone().filter(|own| !own.is_empty());
    let media_type = match (named.filter(|named| !named.is_empty()), own) {
        (Some(named), Some(own)) if named != own => {
            return Err(invalid(format!("it came as {named} and calls itself {own}")));
        }
        (Some(named), _) => named,
        (None, Some(own)) => own,
        (None, None) => return Err(invalid("it has no media type")),
    };
    if body.schema_version != Some(2) {
        return Err(invalid("its schemaVersion is not 2"));
    }
    let row = |blobs, manifests| ManifestRow {
        media_type: media_type.clone(),
        size: bytes.len() as u64,
        blobs,
        manifests,
        subject: body.subject.as_ref().map(|subject| subject.digest.clone()),
        pushed: Timestamp::now(),
    };
    let (row, config_type) = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => {
            if body.manifests.is_some() {
                return Err(invalid("it is both an image and an index"));
            }
            let config = body.config.as_ref().ok_or_else(|| invalid("it has no config"))?;
            let layers = body.layers.as_deref().unwrap_or_default();
            let blobs = layers.iter().filter(|layer| !layer.is_elsewhere()).chain([config]);
            (row(distinct(blobs)?, Vec::new()), Some(config.media_type.clone()))
        }
        OCI_INDEX | DOCKER_LIST => {
            if body.config.is_some() || body.layers.is_some() {
                return Err(invalid("it is both an index and an image"));
            }
            // Go's encoder writes `null` for an empty list.
            let entries = body.manifests.as_deref().unwrap_or_default();
            let (manifests, blobs): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_manifest());
            (row(distinct(blobs.into_iter())?, distinct(manifests.into_iter())?), None)
        }
        other => return Err(invalid(format!("its media type is not supported: {other}"))),
    };
    let named = body.config.iter().chain(body.layers.iter().flatten()).chain(body.manifests.iter().flatten());
    let named = named.filter(|descriptor| !descriptor.is_elsewhere());
    let sizes = named.filter_map(|descriptor| Some((descriptor.digest.clone(), descriptor.size?))).collect();
    let artifact_type = body.artifact_type.filter(|own| !own.is_empty()).or(config_type.filter(|own| !own.is_empty()));
    let annotations = body.annotations.unwrap_or_default();
    let referrer =
        Referrer { media_type, digest: digest.clone(), size: bytes.len() as u64, annotations, artifact_type };
    Ok(Understood { row, referrer, sizes })
}

/// Refuses a size that is not that of the content.
pub(crate) fn check_size(digest: &Digest, said: u64, found: u64) -> Result<(), ApiError> {
    if said == found {
        return Ok(());
    }
    Err(invalid(format!("{digest} has {found} bytes, and not {said}")))
}

fn distinct<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Result<Vec<Digest>, ApiError> {
    let mut digests: Vec<Digest> = Vec::new();
    for descriptor in descriptors {
        if digests.len() >= MAX_DESCRIPTORS {
            return Err(invalid(format!("it names more than {MAX_DESCRIPTORS} contents")));
        }
        digests.push(descriptor.digest.clone());
    }
    digests.sort_unstable();
    digests.dedup();
    Ok(digests)
}

fn invalid(reason: impl Into<String>) -> ApiError {
    let reason: String = reason.into();
    ApiError::with_detail(Code::ManifestInvalid, reason.chars().take(512).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image() -> Value {
        let layer = json!({"mediaType": "l", "digest": EMPTY, "size": 0});
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"mediaType": "c", "digest": EMPTY, "size": 0}, "layers": [layer.clone(), layer]})
    }

    fn of(value: &Value, content_type: Option<&str>) -> Result<(ManifestRow, Referrer), ApiError> {
        let bytes = value.to_string().into_bytes();
        read(&bytes, content_type, &Digest::sha256(&bytes)).map(|understood| (understood.row, understood.referrer))
    }

    #[test]
    fn what_a_manifest_names_is_found() {
        let (row, referrer) = of(&image(), None).unwrap();
        assert_eq!((row.blobs.len(), row.manifests.len(), row.subject), (1, 0, None));
        assert_eq!(referrer.artifact_type.as_deref(), Some("c"));
        let mut artifact = image();
        artifact["artifactType"] = "a/b".into();
        artifact["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": EMPTY, "size": 0});
        let (row, referrer) = of(&artifact, Some(&format!("{OCI_MANIFEST}; charset=utf-8"))).unwrap();
        assert!(row.subject.is_some());
        assert_eq!(referrer.artifact_type.as_deref(), Some("a/b"));
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": EMPTY, "size": 0});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let (row, referrer) = of(&index, Some(OCI_INDEX)).unwrap();
        assert_eq!((row.blobs.len(), row.manifests.len(), referrer.artifact_type), (0, 1, None));
    }

    #[test]
    fn layers_that_are_elsewhere_need_not_be_here() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let other = Digest::sha256(b"x");
        let mut value = image();
        value["layers"] = json!([{"mediaType": foreign, "digest": other, "size": 1, "urls": ["https://x/"]}]);
        assert_eq!(of(&value, None).unwrap().0.blobs.len(), 1);
        value["layers"][0]["urls"] = json!([]);
        assert_eq!(of(&value, None).unwrap().0.blobs.len(), 2);
    }

    #[test]
    fn confused_manifests_are_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        let mut old = image();
        old["schemaVersion"] = 1.into();
        let mut path = image();
        path["config"]["digest"] = "sha256:../../x".into();
        let untyped = json!({"schemaVersion": 2});
        for bad in [&both, &old, &path, &untyped, &json!([]), &json!({"schemaVersion": 2, "mediaType": "a/b"})] {
            assert_eq!(of(bad, None).unwrap_err().code(), Code::ManifestInvalid, "{bad}");
        }
        assert!(of(&image(), Some(DOCKER_MANIFEST)).is_err());
    }
}
