//! What goes when the data root has as many bytes as it may take: what a build remembers and images that nobody uses, in
//! the order of their last use.

use wharf_build::Builder;
use wharf_engine::{Engine, PATIENCE};
use wharf_reference::Digest;
use wharf_store::Keeper;

/// The data root of a daemon.
pub(crate) struct DataRoot {
    engine: Engine,
    builder: Builder,
}

/// Something that may go.
enum Candidate {
    /// A remembered step.
    Step(String),
    Image(Digest),
}

impl DataRoot {
    pub(crate) fn new(engine: Engine, builder: Builder) -> Self {
        Self { engine, builder }
    }

    /// What may go, the one that was used last at the end.
    fn candidates(&self) -> Vec<(i64, Candidate)> {
        let steps = self.builder.records().unwrap_or_default();
        let steps = steps.into_iter().filter(|(_, record)| record.layer.is_some());
        let steps = steps.map(|(key, record)| (record.last_used, Candidate::Step(key)));
        let images = self.engine.images().summaries().unwrap_or_default();
        let unused = |image: &wharf_image::ImageSummary| !image.pinned && self.engine.users(&image.id).is_empty();
        let images = images.into_iter().filter(unused).map(|image| (image.used, Candidate::Image(image.id)));
        let mut all: Vec<_> = steps.chain(images).collect();
        all.sort_by_key(|(used, _)| *used);
        all
    }
}

impl Keeper for DataRoot {
    fn used(&self) -> u64 {
        // Of layers on their way in each byte was asked for. A root that cannot be read refuses the write by itself.
        self.engine.disk_usage(PATIENCE).map_or(0, |usage| usage.accounts.total() - usage.accounts.unpacking)
    }

    fn evict(&self, bytes: u64) {
        let before = self.used();
        let mut freed = 0;
        // Before anything that somebody may want: what is nobody's.
        let collect = |freed: &mut u64| match self.engine.collect_all() {
            Ok(bytes) => *freed += bytes,
            Err(error) => tracing::warn!("cannot free what nothing needs: {error}"),
        };
        collect(&mut freed);
        for (_, candidate) in self.candidates() {
            if freed >= bytes {
                // What each of them says to have freed is near the truth; this is the truth.
                freed = before.saturating_sub(self.used());
                if freed >= bytes {
                    break;
                }
            }
            match candidate {
                Candidate::Step(key) => match self.builder.prune(&|own, _| own == key, false) {
                    Ok(pruned) => freed += pruned.freed,
                    Err(error) => tracing::warn!("cannot forget a step of a build: {error}"),
                },
                Candidate::Image(id) => match self.engine.evict_image(&id) {
                    Ok(bytes) => freed += bytes,
                    Err(error) => tracing::warn!("cannot evict image {id}: {error}"),
                },
            }
        }
        if freed < bytes {
            collect(&mut freed);
        }
        tracing::info!("the byte budget wanted {bytes} bytes: {freed} are free again");
    }
}
