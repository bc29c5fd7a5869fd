//! Archives from before Docker 1.10: a folder for each layer with its `json` and `layer.tar`, and `repositories` with the
//! names. Each layer is an image there, and becomes one, as with Docker (moby's `image/tarexport` and `image/v1`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wharf_distribution::MAX_LAYERS;
use wharf_reference::{Digest, Reference};

use crate::config::{HistoryEntry, RootFs};
use crate::create::{With, check_config};
use crate::load::Loading;
use crate::names::tag_of;
use crate::{ImageError, Result};

/// The file of the names: `{"NAME": {"TAG": "ID"}}`.
pub(crate) const NAMES: &str = "repositories";

/// Bytes of an image's `json`: those of Docker have some thousands.
const MAX_JSON: usize = 1 << 20;
/// Bytes of all configurations that are made of an archive. Each has the steps of its parents again, so that they are much larger
/// than what they are made of.
const MAX_ALL: usize = 64 << 20;

/// What counts of an image's `json`; the rest becomes its configuration.
#[derive(Deserialize)]
struct Old {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<OldCommand>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OldCommand {
    #[serde(default)]
    cmd: Option<Vec<String>>,
}

/// Which image one stands on: all that is kept of those that wait for it.
#[derive(Deserialize)]
struct Below {
    #[serde(default)]
    parent: Option<String>,
}

/// An image that has been made of one. What its parents have in front of its own layer and step is theirs: with a copy in each,
/// a chain would be as large as its square.
struct Made {
    id: Digest,
    parent: Option<String>,
    diff_id: Digest,
    step: HistoryEntry,
    /// With those of its parents.
    layers: usize,
}

/// All images of an archive, by the names of their folders.
#[derive(Default)]
struct Chain {
    made: BTreeMap<String, Made>,
    /// Bytes of all configurations that were made.
    bytes: usize,
}

impl Chain {
    /// The layers and the steps of an image, base first; none of no image.
    fn below(&self, parent: Option<&str>) -> (RootFs, Vec<HistoryEntry>) {
        let (mut rootfs, mut history) = (RootFs::default(), Vec::new());
        let mut next = parent.and_then(|id| self.made.get(id));
        while let Some(image) = next {
            rootfs.diff_ids.push(image.diff_id.clone());
            history.push(image.step.clone());
            next = image.parent.as_deref().and_then(|id| self.made.get(id));
        }
        rootfs.diff_ids.reverse();
        history.reverse();
        (rootfs, history)
    }
}

impl Loading<'_> {
    /// All images of such an archive.
    pub(crate) fn old(&mut self) -> Result<()> {
        let invalid = |what: String| ImageError::Invalid(format!("invalid archive: {what}"));
        let bytes = self.intake.small(NAMES)?.unwrap_or_default();
        let names: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("{NAMES} is damaged: {e}")))?;
        let mut chain = Chain::default();
        // Docker makes what no name leads to, too: somebody may have saved it by its ID.
        for id in self.intake.folders_with("json")? {
            self.old_chain(id, &mut chain)?;
        }
        for (name, tags) in names {
            for (tag, old) in tags {
                let image =
                    chain.made.get(&old).ok_or_else(|| invalid(format!("invalid target ID: {old}")))?.id.clone();
                let tag: Reference = tag_of(&format!("{name}:{tag}"))?;
                self.tell_renamed(&tag, &image)?;
                self.images.tag(image.as_str(), &tag.familiar())?;
                self.lines.push(format!("Loaded image: {}", tag.familiar()));
            }
        }
        Ok(())
    }

    /// Makes an image and, before it, those that it stands on.
    fn old_chain(&mut self, id: String, chain: &mut Chain) -> Result<()> {
        let (mut waiting, mut seen, mut next) = (Vec::new(), BTreeSet::new(), Some(id));
        while let Some(id) = next.filter(|id| !chain.made.contains_key(id)) {
            if !seen.insert(id.clone()) || seen.len() > MAX_LAYERS {
                return Err(too_many_parents(&id));
            }
            let below: Below = serde_json::from_slice(&self.old_json(&id)?).map_err(ImageError::Config)?;
            next = below.parent.filter(|parent| !parent.is_empty());
            waiting.push(id);
        }
        // What is said of each is read again, for all of it together may be large.
        while let Some(id) = waiting.pop() {
            let image = self.old_image(&id, chain)?;
            chain.made.insert(id, image);
        }
        Ok(())
    }

    /// What the archive says of an image.
    fn old_json(&self, id: &str) -> Result<Vec<u8>> {
        // It is a name of a folder, and no path.
        let json = if id.contains('/') { None } else { self.intake.small(&format!("{id}/json"))? };
        let json = json.ok_or_else(|| ImageError::Invalid(format!("the archive has no image {id}")))?;
        if json.len() > MAX_JSON {
            let text = format!("{id}/json of the archive is larger than {MAX_JSON} bytes");
            return Err(ImageError::Invalid(text));
        }
        Ok(json)
    }

    fn old_image(&mut self, id: &str, chain: &mut Chain) -> Result<Made> {
        let json = self.old_json(id)?;
        let old: Old = serde_json::from_slice(&json).map_err(ImageError::Config)?;
        let mut config: BTreeMap<String, Value> = serde_json::from_slice(&json).map_err(ImageError::Config)?;
        for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
            config.remove(key);
        }
        let above = old.parent.as_deref().and_then(|parent| chain.made.get(parent));
        let layers = above.map_or(0, |above| above.layers) + 1;
        if layers > MAX_LAYERS {
            return Err(too_many_parents(id));
        }
        let above = above.map(|above| above.id.clone());
        let (mut rootfs, mut history) = chain.below(old.parent.as_deref());
        let diff_id = self.old_layer(&format!("{id}/layer.tar"))?;
        rootfs.diff_ids.push(diff_id.clone());
        let _held = self.images.hold(&rootfs.diff_ids);
        let words = old.container_config.and_then(|config| config.cmd).unwrap_or_default().join(" ");
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let step = HistoryEntry {
            created: old.created,
            created_by: some(Some(words)),
            author: some(old.author),
            comment: some(old.comment),
            empty_layer: false,
        };
        history.push(step.clone());
        config.insert("rootfs".into(), json!(rootfs));
        config.insert("history".into(), json!(history));
        let config: Map<String, Value> = config.into_iter().collect();
        let bytes = go_escaped(&Value::Object(config).to_string()).into_bytes();
        chain.bytes = chain.bytes.saturating_add(bytes.len());
        if chain.bytes > MAX_ALL {
            let text = format!("the configurations of the archive's images are larger than {MAX_ALL} bytes together");
            return Err(ImageError::Invalid(text));
        }
        check_config(&bytes, &serde_json::from_slice(&bytes).map_err(ImageError::Config)?)?;
        let image = self.images.store_image(&bytes, With { parent: above.as_ref(), ..With::default() })?;
        self.count += 1;
        Ok(Made { id: image.id, parent: old.parent, diff_id, step, layers })
    }

    /// The layer at a place. What has no magic of a tar was put aside: the tars of those days, and empty files.
    fn old_layer(&mut self, path: &str) -> Result<Digest> {
        if let Some(diff_id) = self.intake.layer_at(path)? {
            return Ok(diff_id);
        }
        self.intake.import(path)
    }
}

fn too_many_parents(id: &str) -> ImageError {
    ImageError::Invalid(format!("the image {id} of the archive has too many parents"))
}

/// As Go writes strings, so that the image has the ID that Docker gives it.
fn go_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (before, from) = rest.split_at(at);
        escaped.push_str(before);
        let mut after = from.chars();
        escaped.extend(after.next().map(|c| format!("\\u{:04x}", u32::from(c))));
        rest = after.as_str();
    }
    escaped.push_str(rest);
    escaped
}
