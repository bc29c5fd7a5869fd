//! Descriptors, manifests and indexes: OCI image-spec 1.1 and Docker's image manifest version 2, schema 2.
//!
//! They come from strangers: everything is bounded and its form checked before anybody works with it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use wharf_reference::Digest;

use crate::error::{DistributionError, Result};
use crate::media_type;
use crate::platform::Platform;

/// Largest manifest that is read or sent (OCI distribution-spec, "Pushing Manifests").
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Most layers of an image. Overlay mounts end at 500, and a 10,000-layer manifest is an attack.
pub const MAX_LAYERS: usize = 500;
/// Most manifests in an index.
pub const MAX_MANIFESTS: usize = 1000;
/// What the image specification says of `urls` has no bound; this is more than any mirror list.
const MAX_URLS: usize = 16;

/// What some content is, and how to know that it is it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    /// Where the content is too, should the registry not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }
}

/// The manifest of one image, or of another artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, usually one per platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest of either form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one of them at a time, and it is looked into at once")]
pub enum Manifest {
    Image(ImageManifest),
    Index(Index),
}

impl Manifest {
    /// Parses and checks a manifest that came as `media_type`.
    ///
    /// # Errors
    /// `Invalid` when it is too large, no manifest, of another form than `media_type` says, or both an index and
    /// an image (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(invalid(format!("it is larger than {MAX_MANIFEST} bytes")));
        }
        if media_type::is_schema1(media_type) {
            return Err(DistributionError::Schema1);
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        shape.check(media_type)?;
        if media_type::is_index(media_type) {
            let index: Index = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
            if index.manifests.len() > MAX_MANIFESTS {
                return Err(invalid(format!("it lists more than {MAX_MANIFESTS} manifests")));
            }
            index.manifests.iter().try_for_each(check_descriptor)?;
            return Ok(Self::Index(index));
        }
        if media_type::is_manifest(media_type) {
            let image: ImageManifest = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
            if image.layers.len() > MAX_LAYERS {
                return Err(invalid(format!("it has more than {MAX_LAYERS} layers")));
            }
            image.layers.iter().chain([&image.config]).try_for_each(check_descriptor)?;
            return Ok(Self::Image(image));
        }
        Err(DistributionError::UnknownMediaType(media_type.chars().take(160).collect()))
    }
}

impl ImageManifest {
    /// Whether it says of itself that it is an image and no other artifact.
    pub fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
    }
}

impl Index {
    /// The manifest that fits `platform` best; among equals the first.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let fits = |entry: &&Descriptor| {
            let attestation = entry.annotations.contains_key("vnd.docker.reference.type");
            !attestation && (media_type::is_manifest(&entry.media_type) || media_type::is_index(&entry.media_type))
        };
        let ranked = self.manifests.iter().filter(fits).filter_map(|entry| {
            // An entry that says nothing is for everybody, but worse than any that says that it fits.
            let distance = entry.platform.as_ref().map_or(Some(u32::MAX), |offered| platform.distance(offered))?;
            Some((distance, entry))
        });
        ranked.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry)
    }
}

/// The fields that tell forms apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Shape {
    fn check(&self, media_type: &str) -> Result<()> {
        if self.schema_version == Some(1) || self.fs_layers.is_some() {
            return Err(DistributionError::Schema1);
        }
        // Go's libraries write 0 where nobody has set it, as in the archives of Docker's own tests, which it loads.
        if !matches!(self.schema_version, Some(0 | 2)) {
            return Err(invalid("its schemaVersion is not 2".into()));
        }
        if let Some(own) = self.media_type.as_deref().filter(|own| !own.is_empty() && *own != media_type) {
            let own: String = own.chars().take(160).collect();
            return Err(invalid(format!("it came as {media_type} and calls itself {own}")));
        }
        if self.manifests.is_some() && (self.config.is_some() || self.layers.is_some()) {
            return Err(invalid("it is both an index and an image".into()));
        }
        Ok(())
    }
}

/// The media type that a manifest itself tells, for registries that name none.
pub(crate) fn sniff(bytes: &[u8]) -> Option<String> {
    let shape: Shape = serde_json::from_slice(bytes).ok()?;
    if let Some(own) = shape.media_type.filter(|own| !own.is_empty()) {
        return Some(own);
    }
    // Only OCI manifests may leave it out.
    match (shape.manifests, shape.config) {
        (Some(_), None) => Some(media_type::OCI_INDEX.into()),
        (None, Some(_)) => Some(media_type::OCI_MANIFEST.into()),
        _ => None,
    }
}

fn check_descriptor(descriptor: &Descriptor) -> Result<()> {
    if descriptor.media_type.is_empty() || descriptor.media_type.len() > 255 {
        return Err(invalid("a descriptor has no media type".into()));
    }
    if descriptor.urls.len() > MAX_URLS {
        return Err(invalid(format!("a descriptor has more than {MAX_URLS} addresses")));
    }
    if descriptor.size > i64::MAX as u64 {
        return Err(invalid("a descriptor's size is no size".into()));
    }
    Ok(())
}

fn invalid(reason: String) -> DistributionError {
    DistributionError::InvalidManifest(reason)
}

/// Go writes an empty list or map as `null` now and then.
fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Descriptors without those that name the same content again, in order.
pub fn distinct(descriptors: &[Descriptor]) -> Vec<&Descriptor> {
    let mut seen = HashSet::new();
    descriptors.iter().filter(|descriptor| seen.insert(&descriptor.digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"{DIGEST}","size":0}},"layers":null}}"#,
            media_type::OCI_CONFIG
        )
    }

    fn index(entries: &str) -> Index {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
        match Manifest::parse(text.as_bytes(), media_type::OCI_INDEX).unwrap() {
            Manifest::Index(index) => index,
            Manifest::Image(_) => panic!("an image"),
        }
    }

    #[test]
    fn manifests_are_parsed_by_their_type() {
        assert!(matches!(
            Manifest::parse(image("").as_bytes(), media_type::OCI_MANIFEST).unwrap(),
            Manifest::Image(found) if found.layers.is_empty() && found.is_image()
        ));
        assert_eq!(sniff(image("").as_bytes()).unwrap(), media_type::OCI_MANIFEST);
        assert_eq!(sniff(br#"{"schemaVersion":2,"mediaType":"a/b"}"#).unwrap(), "a/b");
        assert_eq!(sniff(b"[]"), None);
    }

    #[test]
    fn confused_and_old_forms_are_refused() {
        let other = image(&format!(r#""mediaType":"{}","#, media_type::OCI_INDEX));
        let both = image(r#""manifests":[],"#);
        for bad in [other.as_str(), &both, "", "{}", "[]", r#"{"schemaVersion":3}"#] {
            assert!(Manifest::parse(bad.as_bytes(), media_type::OCI_MANIFEST).is_err(), "{bad}");
        }
        let unnumbered = image("").replace("\"schemaVersion\":2", "\"schemaVersion\":0");
        Manifest::parse(unnumbered.as_bytes(), media_type::OCI_MANIFEST).unwrap();
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(Manifest::parse(old, media_type::DOCKER_MANIFEST), Err(DistributionError::Schema1)));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Manifest::parse(deep.as_bytes(), media_type::OCI_INDEX).is_err());
    }

    #[test]
    fn the_platform_decides_which_manifest_of_an_index() {
        let entry = |arch: &str, extra: &str, nth: u64| {
            format!(
                r#"{{"mediaType":"{}","digest":"{DIGEST}","size":{nth},{extra}"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
                media_type::OCI_MANIFEST
            )
        };
        let attestation = r#""annotations":{"vnd.docker.reference.type":"attestation-manifest"},"#;
        let entries =
            [entry("amd64", attestation, 1), entry("arm64", "", 2), entry("amd64", "", 3), entry("amd64", "", 4)];
        let index = index(&entries.join(","));
        let pick = |text: &str| index.select(&Platform::parse(text).unwrap()).map(|entry| entry.size);
        assert_eq!((pick("linux/amd64"), pick("linux/arm64/v8"), pick("linux/s390x")), (Some(3), Some(2), None));
    }

    #[test]
    fn a_descriptor_keeps_its_form() {
        let text = format!(r#"{{"mediaType":"a/b","digest":"{DIGEST}","size":7,"annotations":{{"k":"v"}}}}"#);
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
    }
}
