//! Images as one archive: what `docker save` has written since version 25, a Docker archive that is an OCI layout too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use wharf_archive::{ArchiveError, Writer};
use wharf_distribution::{Descriptor, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::{Form, Layer, LayerBlob};

use crate::images::{ImageRecord, Images};
use crate::index::platform_of;
use crate::names::moment;
use crate::passing::is_passing;
use crate::rows::{Row, familiar, is_digest, key, repository};
use crate::{ImageError, Result};

/// How the layers of an archive are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// As they are, whatever they came as: as `docker save` has them.
    #[default]
    Plain,
    /// As registries get them: in this form, or in that in which they came, else with gzip.
    Compressed(Option<Form>),
}

impl Images {
    /// Writes images, by name or ID, with the names that were asked for. A repository without a tag means all its
    /// tags. Of an image that is here for several platforms all are written, or those that are asked for.
    ///
    /// # Errors
    /// `NotFound` before anything is written; then when the output fails.
    pub fn save(&self, names: &[String], platforms: &[String], output: &mut dyn Write) -> Result<()> {
        self.save_chosen(&self.chosen(names, platforms)?, Packing::Plain, output)
    }

    /// As [`Self::save`], as one image that has these names in the archive, whatever it has here.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_named(
        &self,
        names: &[String],
        there: &[Reference],
        packing: Packing,
        output: &mut dyn Write,
    ) -> Result<()> {
        let mut chosen = self.chosen(names, &[])?;
        if !there.is_empty() && !chosen.is_empty() {
            let mut one = chosen.remove(0);
            one.images.extend(chosen.drain(..).flat_map(|other| other.images));
            one.tags = there.iter().map(key).collect();
            chosen.push(one);
        }
        self.save_chosen(&chosen, packing, output)
    }

    /// Writes images as those of one name for several platforms, under names that they need not have here; with what is
    /// stated about them by `index`, if they have one that is here.
    ///
    /// # Errors
    /// `NotFound`, and for what is no name, before anything is written; then when the output fails.
    pub fn save_as(
        &self,
        images: &[Digest],
        index: Option<&Digest>,
        names: &[Reference],
        packing: Packing,
        output: &mut dyn Write,
    ) -> Result<()> {
        let images = images.iter().map(|id| self.get(id)).collect::<Result<_>>()?;
        let tags = names.iter().map(key).collect();
        self.save_chosen(&[Chosen { images, index: index.cloned(), tags }], packing, output)
    }

    fn save_chosen(&self, chosen: &[Chosen], packing: Packing, output: &mut dyn Write) -> Result<()> {
        let of = |one: &Chosen| one.images.iter().map(|image| self.hold(&image.diff_ids)).collect::<Vec<_>>();
        let _held: Vec<_> = chosen.iter().map(of).collect();
        let mut archive = Archive { writer: Writer::new(output), written: BTreeSet::new(), created: 0 };
        archive.writer.directory("blobs")?;
        archive.writer.directory("blobs/sha256")?;
        let (mut docker, mut ids) = (Vec::new(), Vec::new());
        let mut repositories = Repositories::new();
        let mut index = Vec::new();
        for Chosen { images, index: own, tags } in chosen {
            let stated = match own {
                Some(digest) => self.stated(images, digest)?,
                None => None,
            };
            if let Some(stated) = stated {
                index.extend(descriptors(&stated.descriptor(), tags));
                stated.write(self, &mut archive)?;
                let Some((first, plan)) = stated.images.first() else { continue };
                let of = |blob: &LayerBlob| Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
                let layers: Vec<_> = plan.layers.iter().map(of).collect();
                note(&mut docker, &mut repositories, first, tags, &layers);
                ids.push(first.id.clone());
                continue;
            }
            let (mut below, mut layers) = (Vec::new(), None);
            for image in images {
                let (mut descriptor, own) = match packing {
                    Packing::Plain => self.save_plain(image, &mut archive)?,
                    Packing::Compressed(form) => self.save_compressed(image, form, &mut archive)?,
                };
                descriptor.platform = (images.len() > 1).then(|| platform_of(&image.config));
                below.push(descriptor);
                layers.get_or_insert(own);
            }
            match below.as_slice() {
                [one] => index.extend(descriptors(one, tags)),
                all => {
                    let bytes = index_of(all).to_string().into_bytes();
                    let digest = Digest::sha256(&bytes);
                    archive.blob(&digest, &bytes)?;
                    index
                        .extend(descriptors(&Descriptor::new(media_type::OCI_INDEX, digest, bytes.len() as u64), tags));
                }
            }
            // Older readers know one platform of a name, the first.
            let Some((first, layers)) = images.first().zip(layers) else { continue };
            note(&mut docker, &mut repositories, first, tags, &layers);
            ids.push(first.id.clone());
        }
        for (entry, parent) in docker.iter_mut().zip(self.parents_among(&ids)?) {
            if let Some(parent) = parent {
                entry["Parent"] = json!(parent);
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": index });
        archive.file("index.json", index.to_string().as_bytes())?;
        archive.file("manifest.json", json!(docker).to_string().as_bytes())?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            // What Docker had before `manifest.json`, and still writes: the topmost layer of each name.
            archive.file("repositories", json!(repositories).to_string().as_bytes())?;
        }
        Ok(archive.writer.finish()?)
    }

    /// Whether all of that could be saved.
    ///
    /// # Errors
    /// As [`Self::save`], before anything is written.
    pub fn check_save(&self, names: &[String], platforms: &[String]) -> Result<()> {
        self.chosen(names, platforms).map(drop)
    }

    /// The images that texts mean, with the keys of the tags that they mean.
    fn chosen(&self, names: &[String], platforms: &[String]) -> Result<Vec<Chosen>> {
        let mut chosen: Vec<Chosen> = Vec::new();
        let mut add = |text: &str, tag: Option<String>| -> Result<()> {
            let images = self.for_platforms(text, platforms)?;
            let same =
                |known: &&mut Chosen| known.images.iter().map(|image| &image.id).eq(images.iter().map(|i| &i.id));
            match chosen.iter_mut().find(same) {
                Some(known) => known.tags.extend(tag.filter(|tag| !known.tags.contains(tag))),
                None => {
                    // That of the first name counts.
                    let index = tag.as_deref().map(|tag| self.index_of_name(tag)).transpose()?.flatten();
                    let index = index.map(|(digest, _)| digest);
                    chosen.push(Chosen {
                        images,
                        index,
                        tags: tag.into_iter().filter(|tag| !is_passing(tag)).collect(),
                    });
                }
            }
            Ok(())
        };
        for name in names {
            let reference = Reference::parse(name).ok();
            if let Some(whole) = reference.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none()) {
                let rows = self.rows()?;
                let all = rows.iter().flat_map(|(_, row)| row.tags());
                let mut own = all.filter(|tag| repository(tag) == whole.name()).peekable();
                if own.peek().is_some() {
                    own.try_for_each(|tag| add(tag, Some(tag.clone())))?;
                    continue;
                }
            }
            let id = self.find(name)?;
            let tag = reference.map(|reference| key(&reference)).filter(|tag| !is_digest(tag));
            add(name, tag.filter(|tag| self.row(&id).is_ok_and(|row| row.names.contains(tag))))?;
        }
        Ok(chosen)
    }

    /// The images that a text means: for all platforms that are here, the one that its name leads to first, or for those
    /// that are asked for.
    fn for_platforms(&self, text: &str, platforms: &[String]) -> Result<Vec<ImageRecord>> {
        if !platforms.is_empty() {
            let mut images: Vec<ImageRecord> = Vec::new();
            for platform in platforms {
                let image = self.resolve_for(text, Some(platform))?;
                if images.iter().all(|known| known.id != image.id) {
                    images.push(image);
                }
            }
            return Ok(images);
        }
        let first = self.resolve(text)?;
        let mut images = Vec::new();
        if let Some((_, row)) = self.index_row(text)? {
            let others = row.members.iter().filter(|member| member.image != first.id);
            images = others.map(|member| self.get(&member.image)).collect::<Result<_>>()?;
        }
        images.insert(0, first);
        Ok(images)
    }

    /// Writes an image with its layers as a registry gets them. The value is its manifest's descriptor, and its layers.
    fn save_compressed(
        &self,
        image: &ImageRecord,
        form: Option<Form>,
        archive: &mut Archive<'_>,
    ) -> Result<(Descriptor, Vec<Descriptor>)> {
        let plan = self.plan(image, None, form)?;
        archive.image(image);
        archive.config(&image.id, &self.config_bytes(&image.id)?)?;
        plan.layers.iter().try_for_each(|layer| archive.stored(self, &layer.digest))?;
        archive.blob(&plan.stored.digest, &plan.bytes)?;
        let layers = plan.layers.iter().map(|blob| Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size));
        let manifest = Descriptor::new(&plan.stored.media_type, plan.stored.digest.clone(), plan.bytes.len() as u64);
        Ok((manifest, layers.collect()))
    }

    /// Writes an image with its layers not compressed. The value is its manifest's descriptor, and its layers.
    fn save_plain(&self, image: &ImageRecord, archive: &mut Archive<'_>) -> Result<(Descriptor, Vec<Descriptor>)> {
        let config = self.config_bytes(&image.id)?;
        archive.image(image);
        archive.config(&image.id, &config)?;
        for diff_id in &image.diff_ids {
            let layer = self.layers().get(diff_id)?.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?;
            archive.layer(self, &layer)?;
        }
        let mut manifest = self.plain_manifest(image)?;
        let row: Row = self.row(&image.id)?;
        let annotations = row.manifest.map(|stored| self.annotations_of(&stored)).unwrap_or_default();
        if !annotations.is_empty() {
            manifest["annotations"] = json!(annotations);
        }
        let bytes = serde_json::to_vec(&manifest).map_err(ImageError::Config)?;
        let digest = Digest::sha256(&bytes);
        archive.blob(&digest, &bytes)?;
        let manifest = Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64);
        Ok((manifest, self.plain_layers(image)?))
    }

    /// An image's layers as they are, not compressed.
    fn plain_layers(&self, image: &ImageRecord) -> Result<Vec<Descriptor>> {
        let plain = |diff_id: &Digest| {
            let layer = self.layers().get(diff_id)?.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?;
            Ok(Descriptor::new(media_type::OCI_LAYER, diff_id.clone(), layer.tar_size))
        };
        image.diff_ids.iter().map(plain).collect()
    }

    /// The manifest of an image with its layers as they are, not compressed.
    pub(crate) fn plain_manifest(&self, image: &ImageRecord) -> Result<Value> {
        let layers = self.plain_layers(image)?;
        let layers: Vec<Value> = layers.iter().map(described).collect();
        let size = self.store().blobs().size(&image.id).ok_or_else(|| ImageError::NotFound(image.id.to_string()))?;
        Ok(json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": { "mediaType": media_type::OCI_CONFIG, "digest": image.id, "size": size },
            "layers": layers,
        }))
    }
}

/// A layer as manifests name it.
fn described(layer: &Descriptor) -> Value {
    json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size })
}

/// The topmost layer of each name, by repository and tag.
type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// Notes an image for older readers, with the blobs that have its layers.
fn note(docker: &mut Vec<Value>, all: &mut Repositories, image: &ImageRecord, tags: &[String], layers: &[Descriptor]) {
    let tags: Vec<String> = tags.iter().map(|tag| familiar(tag)).collect();
    for (name, tag) in tags.iter().filter_map(|name| name.rsplit_once(':')) {
        if let Some(top) = layers.last() {
            all.entry(name.to_owned()).or_default().insert(tag.to_owned(), top.digest.hex().to_owned());
        }
    }
    docker.push(json!({
        "Config": path(&image.id),
        "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
        "Layers": layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        "LayerSources": image.diff_ids.iter().zip(layers).map(|(diff_id, layer)| (diff_id.to_string(), described(layer)))
            .collect::<Map<String, Value>>(),
    }));
}

/// A manifest in the index: once for each tag, or once without.
fn descriptors(plain: &Descriptor, tags: &[String]) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![plain.clone()];
    }
    let named = |tag: &String| {
        let mut named = plain.clone();
        named.annotations.insert("io.containerd.image.name".into(), tag.clone());
        if let Some((_, short)) = tag.rsplit_once(':') {
            named.annotations.insert("org.opencontainers.image.ref.name".into(), short.into());
        }
        named
    };
    tags.iter().map(named).collect()
}

/// An index of manifests.
pub(crate) fn index_of(manifests: &[Descriptor]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests })
}

/// An image that is saved.
struct Chosen {
    /// For each platform one.
    images: Vec<ImageRecord>,
    /// The index that may state something about them.
    index: Option<Digest>,
    tags: Vec<String>,
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(crate) struct Archive<'a> {
    pub(crate) writer: Writer<'a>,
    /// What several images share is written once.
    written: BTreeSet<Digest>,
    /// When the image was made whose configuration and layers come now, in seconds since the epoch: as with Docker these
    /// files have its time, and all others none.
    created: u64,
}

impl Archive<'_> {
    fn file(&mut self, name: &str, mut bytes: &[u8]) -> Result<()> {
        Ok(self.writer.file(name, bytes.len() as u64, &mut bytes)?)
    }

    /// Begins with an image.
    pub(crate) fn image(&mut self, image: &ImageRecord) {
        let created = image.config.created.as_deref().map_or(0, |text| moment(text).as_second());
        self.created = u64::try_from(created).unwrap_or(0);
    }

    /// An image's configuration.
    fn config(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(digest.clone()) {
            self.writer.file_at(&path(digest), bytes.len() as u64, self.created, &mut &*bytes)?;
        }
        Ok(())
    }

    pub(crate) fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(digest.clone()) {
            self.file(&path(digest), bytes)?;
        }
        Ok(())
    }

    /// A blob of the store.
    pub(crate) fn stored(&mut self, images: &Images, digest: &Digest) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let blobs = images.store().blobs();
        let size = blobs.size(digest).ok_or_else(|| ImageError::NotFound(digest.to_string()))?;
        Ok(self.writer.file_at(&path(digest), size, self.created, &mut blobs.reader(digest)?)?)
    }

    fn layer(&mut self, images: &Images, layer: &Layer) -> Result<()> {
        if !self.written.insert(layer.diff_id.clone()) {
            return Ok(());
        }
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| ImageError::Io("cannot make a pipe", errno.into()))?;
        let (layers, diff_id) = (images.layers().clone(), layer.diff_id.clone());
        let writing = std::thread::spawn(move || {
            let mut output = io::BufWriter::with_capacity(1 << 16, File::from(writer));
            layers.write_tar(&diff_id, &mut output)?;
            output.flush().map_err(|e| ImageError::Io("cannot write a layer", e))
        });
        let mut input = File::from(reader);
        let copied = self.writer.file_at(&path(&layer.diff_id), layer.tar_size, self.created, &mut input);
        // The digest is checked behind the last byte; and a writer must not wait for a reader that has given up.
        drop(input);
        let written = writing.join().map_err(|_| ImageError::NoLayer(layer.diff_id.clone()))?;
        match (copied, written) {
            // Each side's failure ends the other's stream: the cause first.
            (Err(error @ ArchiveError::Write(_)), _) => Err(error.into()),
            (copied, written) => written.and(Ok(copied?)),
        }
    }
}
