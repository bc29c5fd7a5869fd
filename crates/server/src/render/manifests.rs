//! The manifests of an image: what `images` and `inspect` of API 1.47 and newer have with `manifests=1`.

use serde_json::{Value, json};
use wharf_engine::{Engine, EngineError};
use wharf_image::{ImageIndex, Images, IndexEntry};
use wharf_reference::Digest;

type Result<T> = std::result::Result<T, EngineError>;

/// What a name leads to in its registry or archive: an index, or the one manifest; `None` for what was made here and never
/// pushed.
pub(crate) fn descriptor(images: &Images, id: &Digest, index: Option<&ImageIndex>) -> Result<Option<Value>> {
    if let Some(index) = index {
        let (media_type, size) = (&index.media_type, index.bytes.len());
        return Ok(Some(json!({ "mediaType": media_type, "digest": index.digest, "size": size })));
    }
    Ok(images.manifest_of(id)?.map(|own| json!(own)))
}

/// The manifests of an index, or the one of an image without.
pub(crate) fn list(engine: &Engine, id: &Digest, index: Option<&ImageIndex>) -> Result<Value> {
    if let Some(index) = index {
        return index.manifests.iter().map(|entry| one(engine, entry)).collect();
    }
    let images = engine.images();
    let own = match images.manifest_of(id)? {
        Some(own) => json!(own),
        // It has none before it is pushed; what it is known by is its configuration.
        None => {
            let media_type = "application/vnd.oci.image.config.v1+json";
            json!({ "mediaType": media_type, "digest": id, "size": images.config_size(id)? })
        }
    };
    let digest = own["digest"].clone();
    Ok(json!([image(engine, id, digest, own, None)?]))
}

fn one(engine: &Engine, entry: &IndexEntry) -> Result<Value> {
    let descriptor = json!(entry.descriptor);
    let digest = json!(entry.descriptor.digest);
    if let Some(about) = &entry.about {
        return Ok(json!({
            "ID": digest, "Descriptor": descriptor, "Available": false, "Kind": "attestation",
            "Size": { "Content": 0, "Total": 0 }, "AttestationData": { "For": about },
        }));
    }
    let platform = entry.descriptor.platform.as_ref().map(|platform| json!(platform));
    match &entry.image {
        Some(id) => image(engine, id, digest, descriptor, platform),
        None => Ok(json!({
            "ID": digest, "Descriptor": descriptor, "Available": false, "Kind": "image",
            "Size": { "Content": 0, "Total": 0 },
            "ImageData": { "Platform": platform, "Size": { "Unpacked": 0 }, "Containers": [] },
        })),
    }
}

fn image(engine: &Engine, id: &Digest, digest: Value, descriptor: Value, platform: Option<Value>) -> Result<Value> {
    let image = engine.images().get(id)?;
    let content = engine.images().content_size(id)?;
    let own = || {
        let mut own = json!({ "architecture": image.config.architecture, "os": image.config.os });
        if let Some(variant) = &image.config.variant {
            own["variant"] = variant.as_str().into();
        }
        own
    };
    let containers: Vec<String> = engine.users(id).into_iter().map(|(container, _)| container).collect();
    Ok(json!({
        "ID": digest, "Descriptor": descriptor, "Available": true, "Kind": "image",
        "Size": { "Content": content, "Total": content + image.size },
        "ImageData": {
            "Platform": platform.unwrap_or_else(own), "Size": { "Unpacked": image.size }, "Containers": containers,
        },
    }))
}
