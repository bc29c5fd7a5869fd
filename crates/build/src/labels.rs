//! The labels that a build's request gives its image: each is told as a step after the last (moby, `buildLabelOptions`).

use std::sync::atomic::Ordering;

use wharf_reference::Digest;

use crate::error::Result;
use crate::session::Common;
use crate::state::State;

impl Common<'_> {
    /// Tells of each label; `before` is the image without them, `after` the one that has them all.
    pub(crate) fn tell_labels(&self, before: &State, after: &State) -> Result<()> {
        let (steps, labels) = (self.steps.load(Ordering::Relaxed), &self.options.labels);
        let mut shown = before.clone();
        shown.image.created.clone_from(&after.image.created);
        for (number, (name, value)) in (steps + 1 - labels.len()..).zip(labels) {
            shown.image.config.labels.get_or_insert_default().insert(name.clone(), value.clone());
            let id = Digest::sha256(&shown.config_bytes());
            self.output.text(format!("Step {number}/{steps} : LABEL {name}={value}\n ---> {}\n", id.short()))?;
        }
        Ok(())
    }
}
