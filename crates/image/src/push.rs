//! Sending an image to a registry: only what it does not have.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::json;
use tokio::task::JoinSet;
use wharf_distribution::MAX_MANIFEST;
use wharf_distribution::{Client, Credentials, Descriptor, Manifest, Platform, Repository, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::{Form, Hold, LayerBlob};

use crate::attestations::Whole;
use crate::images::{ImageRecord, Images};
use crate::index::{INDEXES, ImageIndex, IndexEntry, IndexRow, Member, join, lead, manifest_left, platform_of, point};
use crate::progress::{Progress, ProgressSender};
use crate::pull::blocking;
use crate::rows::{IMAGES, Row, StoredManifest, change, key};
use crate::save::index_of;
use crate::{ImageError, Result};

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub tag: String,
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Of the manifest, or the index.
    pub media_type: String,
}

/// Repositories that are asked to share a layer; each is a request.
const MOST_SOURCES: usize = 3;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

/// What a push sends.
struct Going {
    /// With the manifest that the index names.
    images: Vec<(ImageRecord, Option<StoredManifest>)>,
    /// What the index has about them.
    attestations: Vec<Whole>,
    /// That lists all of these, and nothing else.
    index: Option<ImageIndex>,
    /// The index of which this is one image, as others are not here.
    instead_of: Option<Descriptor>,
}

/// A manifest, and the blobs that it names.
pub(crate) struct Plan {
    pub(crate) stored: StoredManifest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) layers: Vec<LayerBlob>,
    /// Keeps a manifest that was made for this push.
    #[expect(dead_code, reason = "it is there to be dropped at the end")]
    held: Option<Hold>,
}

impl Images {
    /// Pushes the image of `reference` to the repository that it names: with its index, if it is here for all platforms of
    /// that; else for the one that is asked for, or the only one, or this host's, which an `aux` message tells then.
    ///
    /// An image that came from a registry goes back byte for byte, as long as its layers are here as they came and no
    /// other `form` of them is asked for.
    ///
    /// # Errors
    /// `NotTagged` with Docker's words, that it is not here for the platform, `Conflict` when somebody has to choose one, and
    /// what the registry answers.
    pub async fn push(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<Credentials>,
        registry: &Client,
        form: Option<Form>,
        progress: ProgressSender,
    ) -> Result<Pushed> {
        let reference = reference.clone().tag_or_latest();
        let say = |id: &str, status: String| drop(progress.send(Progress::new(id, status)));
        let (images, own, asked) = (self.clone(), reference.clone(), platform.map(str::to_owned));
        let going = blocking(move || images.going(&own, asked.as_deref())).await;
        // A choice that nobody has made is a status, and no line of a stream.
        if !matches!(going, Err(ImageError::Conflict(_))) {
            say("", format!("The push refers to repository [{}]", reference.name()));
        }
        let Going { images: going, attestations, index, instead_of } = going?;
        let diff_ids: Vec<Digest> = going.iter().flat_map(|(image, _)| image.diff_ids.clone()).collect();
        let images = self.clone();
        let _held = blocking(move || Ok(images.hold(&diff_ids))).await?;
        // Docker lists them from the top.
        for diff_id in going.iter().flat_map(|(image, _)| image.diff_ids.iter().rev()) {
            say(diff_id.short(), "Preparing".into());
        }
        let repository = registry.repository(&reference, auth);
        let mut plans = Vec::new();
        for (image, manifest) in &going {
            let (images, own, manifest) = (self.clone(), image.clone(), manifest.clone());
            let plan = blocking(move || images.plan(&own, manifest, form)).await?;
            self.push_layers(&repository, &reference, image, &plan, &progress).await?;
            self.push_small(&repository, &image.id).await?;
            plans.push(plan);
        }
        // They are about the manifests that the index names.
        let named = |(of, plan): (&(ImageRecord, Option<StoredManifest>), &Plan)| {
            of.1.as_ref().is_none_or(|named| named.digest == plan.stored.digest)
        };
        let as_named = going.iter().zip(&plans).all(named);
        if !as_named && !attestations.is_empty() {
            say("", "Attestations are left out: they are about other forms of the layers".into());
        }
        for attestation in attestations.iter().filter(|_| as_named) {
            for blob in &attestation.blobs {
                self.push_small(&repository, &blob.digest).await?;
            }
            let of = &attestation.descriptor;
            repository.push_manifest(of.digest.as_str(), &of.media_type, &attestation.bytes).await?;
        }
        let tag = reference.tag().map(str::to_owned);
        let (digest, size, whole) = match (plans.as_slice(), index) {
            ([plan], None) => {
                let tag = tag.as_deref().unwrap_or(plan.stored.digest.as_str());
                (repository.push_manifest(tag, &plan.stored.media_type, &plan.bytes).await?, plan.bytes.len(), None)
            }
            (plans, index) => {
                for plan in plans {
                    let digest = plan.stored.digest.as_str();
                    repository.push_manifest(digest, &plan.stored.media_type, &plan.bytes).await?;
                }
                let (bytes, media_type) = index_for(&going, plans, &attestations, index);
                let own = Digest::sha256(&bytes).to_string();
                let tag = tag.as_deref().unwrap_or(&own);
                let digest = repository.push_manifest(tag, &media_type, &bytes).await?;
                (digest, bytes.len(), Some((bytes, media_type)))
            }
        };
        let tag = tag.unwrap_or_else(|| digest.to_string());
        if let Some((original, plan)) = instead_of.zip(plans.first()) {
            let selected = Descriptor::new(&plan.stored.media_type, digest.clone(), size as u64);
            let _ = progress.send(Progress::aux(json!({
                "ManifestPushedInsteadOfIndex": true,
                "OriginalIndex": original,
                "SelectedManifest": selected,
            })));
        }
        let media_type = match (&whole, plans.first()) {
            (Some((_, media_type)), _) => media_type.clone(),
            (None, Some(plan)) => plan.stored.media_type.clone(),
            (None, None) => media_type::OCI_MANIFEST.to_owned(),
        };
        let (images, name) = (self.clone(), key(&reference.with_digest(digest.clone())));
        blocking(move || images.note_pushed(&name, &going, &plans, whole, form.is_none())).await?;
        say("", format!("{tag}: digest: {digest} size: {size}"));
        Ok(Pushed { tag, digest, size: size as u64, media_type })
    }

    /// Makes the name by its digest lead to what was pushed: an image, or an index with its bytes and type. `keeps`: the
    /// images' manifests are these from now on. Where an image has gone meanwhile, so has what was pushed of it.
    fn note_pushed(
        &self,
        name: &str,
        going: &[(ImageRecord, Option<StoredManifest>)],
        plans: &[Plan],
        index: Option<(Vec<u8>, String)>,
        keeps: bool,
    ) -> Result<()> {
        let _gate = self.gate();
        // The blob before the row that names it.
        let index = match index {
            Some((bytes, media_type)) => Some((self.store().blobs().put(&bytes)?, media_type)),
            None => None,
        };
        self.store().write(|tx| {
            // Another form is for this once.
            for ((image, _), plan) in going.iter().zip(plans).filter(|_| keeps) {
                let mut before = None;
                change(tx, &image.id, |row| before = row.manifest.replace(plan.stored.clone()))?;
                if let Some(old) = before.filter(|old| *old != plan.stored) {
                    manifest_left(tx, &old.digest)?;
                }
            }
            let Some((digest, media_type)) = &index else {
                return going.iter().try_for_each(|(image, _)| {
                    let here: Option<Row> = tx.get(IMAGES, image.id.as_str())?;
                    here.map_or(Ok(()), |_| point(tx, name, &image.id))
                });
            };
            let known: Option<IndexRow> = tx.get(INDEXES, digest.as_str())?;
            if known.is_some() {
                return lead(tx, name, digest);
            }
            // One that was made for this push, or whose last name has gone meanwhile.
            for ((image, _), plan) in going.iter().zip(plans) {
                let here: Option<Row> = tx.get(IMAGES, image.id.as_str())?;
                if here.is_some() {
                    let (manifest, platform) = (plan.stored.digest.clone(), platform_of(&image.config));
                    let member = Member { manifest, image: image.id.clone(), platform };
                    join(tx, digest, media_type, member, &[], &[&name.to_owned()])?;
                }
            }
            Ok(())
        })
    }

    /// What is to go (moby, `getPushDescriptor`): the index with all that it lists, if all of that is here, else one image.
    fn going(&self, reference: &Reference, platform: Option<&str>) -> Result<Going> {
        let id = self.by_name(reference)?.ok_or_else(|| ImageError::NotTagged(reference.familiar_name()))?;
        let one = |image, instead_of| {
            let images = vec![(image, None)];
            Going { images, attestations: Vec::new(), index: None, instead_of }
        };
        if platform.is_some() {
            return Ok(one(self.resolve_for(&reference.to_string(), platform)?, None));
        }
        let Some((digest, row)) = self.index_of_name(&key(reference))? else {
            return Ok(one(self.get(&id)?, None));
        };
        let index = self.whole_index(digest, &row)?;
        let about = |entry: &&IndexEntry| entry.image.is_none() && entry.about.is_some();
        let attestations: Vec<Whole> = index
            .manifests
            .iter()
            .filter(about)
            .filter_map(|entry| self.whole_attestation(&entry.descriptor))
            .collect();
        let images = index.manifests.iter().filter(|entry| entry.image.is_some()).count();
        if images + attestations.len() == index.manifests.len() {
            let going = |entry: &IndexEntry| {
                let of = &entry.descriptor;
                let stored = StoredManifest { digest: of.digest.clone(), media_type: of.media_type.clone() };
                Some(self.get(entry.image.as_ref()?).map(|image| (image, Some(stored))))
            };
            let images = index.manifests.iter().filter_map(going).collect::<Result<_>>()?;
            return Ok(Going { images, attestations, index: Some(index), instead_of: None });
        }
        let only = row.members.first().filter(|_| row.members.len() == 1);
        let Some(member) = only.or_else(|| row.select(&Platform::host())) else {
            let name = reference.familiar();
            return Err(ImageError::Conflict(format!(
                "multiple matching manifests found but no specific platform requested: of the platforms of {name} not all \
                 are here; push one with --platform, or pull the others first"
            )));
        };
        let size = index.bytes.len() as u64;
        Ok(one(self.get(&member.image)?, Some(Descriptor::new(&index.media_type, index.digest, size))))
    }

    async fn push_layers(
        &self,
        repository: &Repository,
        reference: &Reference,
        image: &ImageRecord,
        plan: &Plan,
        progress: &ProgressSender,
    ) -> Result<()> {
        let slots = self.push_slots();
        let mut pushing = JoinSet::new();
        let mut begun: Vec<&Digest> = Vec::new();
        for (blob, diff_id) in plan.layers.iter().zip(&image.diff_ids) {
            if begun.contains(&&blob.digest) {
                continue;
            }
            begun.push(&blob.digest);
            let push = PushLayer {
                images: self.clone(),
                repository: repository.clone(),
                sources: self.sources(reference, diff_id)?,
                blob: blob.clone(),
                id: diff_id.short().to_owned(),
                progress: progress.clone(),
            };
            let slots = Arc::clone(&slots);
            pushing.spawn(async move {
                let _slot = slots.acquire_owned().await;
                push.run().await
            });
        }
        while let Some(done) = pushing.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Other repositories of the same registry that have an image with this layer, as far as we know.
    fn sources(&self, reference: &Reference, diff_id: &Digest) -> Result<Vec<String>> {
        let mut sources = Vec::new();
        for (_, row) in self.rows()? {
            if !row.diff_ids.contains(diff_id) {
                continue;
            }
            let names = row.digests().filter_map(|name| Reference::parse(name).ok());
            let others = names.filter(|name| name.domain() == reference.domain() && name.path() != reference.path());
            sources.extend(others.map(|name| name.path().to_owned()));
        }
        sources.sort();
        sources.dedup();
        sources.truncate(MOST_SOURCES);
        Ok(sources)
    }

    /// A blob that is no layer.
    async fn push_small(&self, repository: &Repository, id: &Digest) -> Result<()> {
        if repository.blob_exists(id).await? {
            return Ok(());
        }
        let (images, own) = (self.clone(), id.clone());
        let (file, size) = blocking(move || {
            let blobs = images.store().blobs();
            let size = blobs.size(&own).ok_or_else(|| ImageError::NotFound(own.to_string()))?;
            Ok((blobs.reader(&own)?, size))
        })
        .await?;
        Ok(repository.push_blob(id, size, tokio::fs::File::from_std(file), |_| {}).await?)
    }

    /// The manifest that its index names, or that the image came with, if what it names is here; else one that is made,
    /// the same every time.
    pub(crate) fn plan(&self, image: &ImageRecord, named: Option<StoredManifest>, form: Option<Form>) -> Result<Plan> {
        let row: Row = self.row(&image.id)?;
        let stored = named.or(row.manifest);
        let annotations = stored.as_ref().map(|stored| self.annotations_of(stored)).unwrap_or_default();
        if let Some(plan) = stored.filter(|_| form.is_none()).and_then(|stored| self.stored_plan(stored, image)) {
            return Ok(plan);
        }
        let layers = self.compressed(&image.diff_ids, form)?;
        let descriptor =
            |layer: &LayerBlob| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": {
                "mediaType": media_type::OCI_CONFIG,
                "digest": image.id,
                "size": self.store().blobs().size(&image.id).ok_or_else(|| ImageError::NotFound(image.id.to_string()))?,
            },
            "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
        });
        if !annotations.is_empty() {
            manifest["annotations"] = json!(annotations);
        }
        let bytes = serde_json::to_vec(&manifest).map_err(ImageError::Config)?;
        // No image names it before all has been pushed.
        let held = Some(self.hold(&[Digest::sha256(&bytes)]));
        let digest = self.store().blobs().put(&bytes)?;
        let stored = StoredManifest { digest, media_type: media_type::OCI_MANIFEST.into() };
        Ok(Plan { stored, bytes, layers, held })
    }

    /// The layers as blobs. Those that must be made are, as many at once as there are processors.
    fn compressed(&self, diff_ids: &[Digest], form: Option<Form>) -> Result<Vec<LayerBlob>> {
        let next = AtomicUsize::new(0);
        let made: Vec<OnceLock<wharf_snapshot::Result<LayerBlob>>> = diff_ids.iter().map(|_| OnceLock::new()).collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(diff_ids.len());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(diff_id), Some(place)) = (diff_ids.get(at), made.get(at)) else { return };
                        // Nobody else has this number.
                        let _ = place.set(self.layers().compressed(diff_id, form));
                    }
                });
            }
        });
        let all = made.into_iter().zip(diff_ids);
        all.map(|(made, id)| Ok(made.into_inner().ok_or_else(|| ImageError::NoLayer(id.clone()))??)).collect()
    }

    pub(crate) fn stored_plan(&self, stored: StoredManifest, image: &ImageRecord) -> Option<Plan> {
        let bytes = self.store().blobs().read(&stored.digest, MAX_MANIFEST).ok()?;
        let Ok(Manifest::Image(manifest)) = Manifest::parse(&bytes, &stored.media_type) else { return None };
        let blobs = self.store().blobs();
        let here = manifest.layers.iter().all(|layer| blobs.size(&layer.digest) == Some(layer.size));
        if !here || manifest.config.digest != image.id || manifest.layers.len() != image.diff_ids.len() {
            return None;
        }
        let layers = manifest.layers.into_iter();
        let layers =
            layers.map(|layer| LayerBlob { digest: layer.digest, size: layer.size, media_type: layer.media_type });
        Some(Plan { stored, bytes, layers: layers.collect(), held: None })
    }
}

/// The index of what was pushed: the one that the image came with, if each manifest that it lists has gone as it came, else
/// one of those that have.
fn index_for(
    images: &[(ImageRecord, Option<StoredManifest>)],
    plans: &[Plan],
    attestations: &[Whole],
    index: Option<ImageIndex>,
) -> (Vec<u8>, String) {
    let gone = |entry: &IndexEntry| {
        let own = &entry.descriptor.digest;
        plans.iter().any(|plan| plan.stored.digest == *own)
            || attestations.iter().any(|about| about.descriptor.digest == *own)
    };
    if let Some(whole) = index.filter(|index| index.manifests.iter().all(gone)) {
        return (whole.bytes, whole.media_type);
    }
    let entry = |((image, _), plan): (&(ImageRecord, Option<StoredManifest>), &Plan)| {
        let (stored, size) = (&plan.stored, plan.bytes.len() as u64);
        let mut entry = Descriptor::new(&stored.media_type, stored.digest.clone(), size);
        entry.platform = Some(platform_of(&image.config));
        entry
    };
    let mut entries: Vec<Descriptor> = images.iter().zip(plans).map(entry).collect();
    entries.dedup();
    (index_of(&entries).to_string().into_bytes(), media_type::OCI_INDEX.into())
}

/// One layer on its way out.
struct PushLayer {
    images: Images,
    repository: Repository,
    sources: Vec<String>,
    blob: LayerBlob,
    /// Of the messages.
    id: String,
    progress: ProgressSender,
}

impl PushLayer {
    fn say(&self, status: impl Into<String>) {
        let _ = self.progress.send(Progress::new(&self.id, status));
    }

    async fn run(self) -> Result<()> {
        if self.repository.blob_exists(&self.blob.digest).await? {
            self.say("Layer already exists");
            return Ok(());
        }
        for source in &self.sources {
            if self.repository.mount_blob(&self.blob.digest, source).await? {
                self.say(format!("Mounted from {source}"));
                return Ok(());
            }
        }
        let (images, digest) = (self.images.clone(), self.blob.digest.clone());
        let file = blocking(move || Ok(images.store().blobs().reader(&digest)?)).await?;
        let mut told = 0;
        let tell = |have: u64| {
            // It falls when something must be sent again.
            if have < told || have - told >= STEP {
                told = have;
                let _ = self.progress.send(Progress::bytes(&self.id, "Pushing", have, self.blob.size));
            }
        };
        self.repository.push_blob(&self.blob.digest, self.blob.size, tokio::fs::File::from_std(file), tell).await?;
        self.say("Pushed");
        Ok(())
    }
}
