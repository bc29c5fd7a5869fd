//! Images as one archive: what `docker save` has written since version 25, a Docker archive that is an OCI layout too.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use wharf_archive::Writer;
use wharf_distribution::media_type;
use wharf_reference::{Digest, Reference};
use wharf_snapshot::Layer;

use crate::images::{ImageRecord, Images};
use crate::{ImageError, Result};

impl Images {
    /// Writes images, by name or ID, with the names that were asked for.
    ///
    /// # Errors
    /// `NotFound` before anything is written; then when the output fails.
    pub fn save(&self, names: &[String], output: &mut dyn Write) -> Result<()> {
        let mut images: Vec<(ImageRecord, Vec<String>)> = Vec::new();
        for name in names {
            let image = self.resolve(name)?;
            let tag = Reference::parse(name).ok().filter(|r| r.digest().is_none());
            let tag = tag.map(|r| r.tag_or_latest().familiar()).filter(|tag| image.tags.contains(tag));
            match images.iter_mut().find(|(known, _)| known.id == image.id) {
                Some((_, tags)) => tags.extend(tag),
                None => images.push((image, tag.into_iter().collect())),
            }
        }
        let mut archive = Archive { writer: Writer::new(output), written: BTreeMap::new() };
        archive.writer.directory("blobs")?;
        archive.writer.directory("blobs/sha256")?;
        let mut docker = Vec::new();
        let mut index = Vec::new();
        for (image, tags) in &images {
            let manifest = self.save_one(image, &mut archive)?;
            let bytes = serde_json::to_vec(&manifest).map_err(ImageError::Config)?;
            let digest = Digest::sha256(&bytes);
            archive.blob(&digest, &bytes)?;
            let descriptor = json!({ "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": bytes.len() });
            if tags.is_empty() {
                index.push(descriptor.clone());
            }
            for tag in tags {
                let mut named = descriptor.clone();
                let reference = Reference::parse(tag)?;
                named["annotations"] = json!({
                    "io.containerd.image.name": format!("{}:{}", reference.name(), reference.tag().unwrap_or("latest")),
                    "org.opencontainers.image.ref.name": reference.tag(),
                });
                index.push(named);
            }
            let layers: Vec<String> = image.diff_ids.iter().map(|id| format!("blobs/sha256/{}", id.hex())).collect();
            docker.push(json!({
                "Config": format!("blobs/sha256/{}", image.id.hex()),
                "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
                "Layers": layers,
            }));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": index });
        archive.file("index.json", index.to_string().as_bytes())?;
        archive.file("manifest.json", json!(docker).to_string().as_bytes())?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(archive.writer.finish()?)
    }

    /// Writes configuration and layers, and answers with the manifest that names them.
    fn save_one(&self, image: &ImageRecord, archive: &mut Archive<'_>) -> Result<Value> {
        let config = self.config_bytes(&image.id)?;
        archive.blob(&image.id, &config)?;
        let mut layers = Vec::new();
        for diff_id in &image.diff_ids {
            let layer = self.layers().get(diff_id)?.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?;
            archive.layer(self, &layer)?;
            layers.push(json!({ "mediaType": media_type::OCI_LAYER, "digest": diff_id, "size": layer.size }));
        }
        Ok(json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": { "mediaType": media_type::OCI_CONFIG, "digest": image.id, "size": config.len() },
            "layers": layers,
        }))
    }
}

struct Archive<'a> {
    writer: Writer<'a>,
    /// What several images share is written once.
    written: BTreeMap<Digest, ()>,
}

impl Archive<'_> {
    fn file(&mut self, name: &str, mut bytes: &[u8]) -> Result<()> {
        Ok(self.writer.file(name, bytes.len() as u64, &mut bytes)?)
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(digest.clone(), ()).is_none() {
            self.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        Ok(())
    }

    fn layer(&mut self, images: &Images, layer: &Layer) -> Result<()> {
        if self.written.insert(layer.diff_id.clone(), ()).is_some() {
            return Ok(());
        }
        let name = format!("blobs/sha256/{}", layer.diff_id.hex());
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| ImageError::Io("cannot make a pipe", errno.into()))?;
        let (layers, diff_id) = (images.layers().clone(), layer.diff_id.clone());
        let writing = std::thread::spawn(move || {
            let mut output = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::from(writer));
            layers.write_tar(&diff_id, &mut output)?;
            output.flush().map_err(|e| ImageError::Io("cannot write a layer", e))
        });
        let mut input = std::fs::File::from(reader);
        let copied = self.writer.file(&name, layer.size, &mut input);
        // So that the writer does not wait for a reader that has given up.
        drop(input);
        let written = writing.join().map_err(|_| ImageError::NoLayer(layer.diff_id.clone()))?;
        copied?;
        written
    }
}
