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

/// An image that has been made of one.
#[derive(Clone)]
struct Made {
    id: Digest,
    rootfs: RootFs,
    history: Vec<HistoryEntry>,
}

impl Loading<'_> {
    /// All images of such an archive.
    pub(crate) fn old(&mut self) -> Result<()> {
        let invalid = |what: String| ImageError::Invalid(format!("invalid archive: {what}"));
        let bytes = self.intake.small(NAMES)?.unwrap_or_default();
        let names: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("{NAMES} is damaged: {e}")))?;
        let mut made: BTreeMap<String, Made> = BTreeMap::new();
        // Docker makes what no name leads to, too: somebody may have saved it by its ID.
        for id in self.intake.folders_with("json")? {
            self.old_chain(id, &mut made)?;
        }
        for (name, tags) in names {
            for (tag, old) in tags {
                let image = made.get(&old).ok_or_else(|| invalid(format!("invalid target ID: {old}")))?.id.clone();
                let tag: Reference = tag_of(&format!("{name}:{tag}"))?;
                self.tell_renamed(&tag, &image)?;
                self.images.tag(image.as_str(), &tag.familiar())?;
                self.lines.push(format!("Loaded image: {}", tag.familiar()));
            }
        }
        Ok(())
    }

    /// Makes an image and, before it, those that it stands on.
    fn old_chain(&mut self, id: String, made: &mut BTreeMap<String, Made>) -> Result<()> {
        let (mut waiting, mut seen, mut next) = (Vec::new(), BTreeSet::new(), Some(id));
        while let Some(id) = next.filter(|id| !made.contains_key(id)) {
            if !seen.insert(id.clone()) || seen.len() > MAX_LAYERS {
                return Err(ImageError::Invalid(format!("the image {id} of the archive has too many parents")));
            }
            // It is a name of a folder, and no path.
            let json = if id.contains('/') { None } else { self.intake.small(&format!("{id}/json"))? };
            let json = json.ok_or_else(|| ImageError::Invalid(format!("the archive has no image {id}")))?;
            let old: Old = serde_json::from_slice(&json).map_err(ImageError::Config)?;
            next = old.parent.clone().filter(|parent| !parent.is_empty());
            waiting.push((id, json, old));
        }
        while let Some((id, json, old)) = waiting.pop() {
            let parent = old.parent.as_ref().and_then(|parent| made.get(parent)).cloned();
            let image = self.old_image(&id, &json, old, parent)?;
            made.insert(id, image);
        }
        Ok(())
    }

    fn old_image(&mut self, id: &str, json: &[u8], old: Old, parent: Option<Made>) -> Result<Made> {
        let mut config: BTreeMap<String, Value> = serde_json::from_slice(json).map_err(ImageError::Config)?;
        for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
            config.remove(key);
        }
        let (above, mut rootfs, mut history) = match parent {
            Some(parent) => (Some(parent.id), parent.rootfs, parent.history),
            None => (None, RootFs::default(), Vec::new()),
        };
        let diff_id = self.old_layer(&format!("{id}/layer.tar"))?;
        let mut held = rootfs.diff_ids.clone();
        held.push(diff_id.clone());
        let _held = self.images.hold(&held);
        rootfs.diff_ids.push(diff_id);
        let words = old.container_config.and_then(|config| config.cmd).unwrap_or_default().join(" ");
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        history.push(HistoryEntry {
            created: old.created,
            created_by: some(Some(words)),
            author: some(old.author),
            comment: some(old.comment),
            empty_layer: false,
        });
        config.insert("rootfs".into(), json!(rootfs));
        config.insert("history".into(), json!(history));
        let config: Map<String, Value> = config.into_iter().collect();
        let bytes = go_escaped(&Value::Object(config).to_string()).into_bytes();
        check_config(&bytes, &serde_json::from_slice(&bytes).map_err(ImageError::Config)?)?;
        let image = self.images.store_image(&bytes, With { parent: above.as_ref(), ..With::default() })?;
        self.count += 1;
        Ok(Made { id: image.id, rootfs, history })
    }

    /// The layer at a place. What has no magic of a tar was put aside: the tars of those days, and empty files.
    fn old_layer(&mut self, path: &str) -> Result<Digest> {
        if let Some(diff_id) = self.intake.layer_at(path)? {
            return Ok(diff_id);
        }
        self.intake.import(path)
    }
}

/// As Go writes strings, so that the image has the ID that Docker gives it.
fn go_escaped(json: &str) -> String {
    let escape = |c| match c {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(c)),
        _ => c.to_string(),
    };
    json.chars().map(escape).collect()
}
