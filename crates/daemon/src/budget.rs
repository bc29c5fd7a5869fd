//! What goes when the data root has as many bytes as it may take: what a build remembers and images that nobody uses, in
//! the order of their last use.

use std::collections::HashSet;

use wharf_build::{Builder, KEPT_CONTEXT};
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
    /// A remembered step, or a context that is kept.
    Step(String),
    Image(Digest),
}

impl DataRoot {
    pub(crate) fn new(engine: Engine, builder: Builder) -> Self {
        Self { engine, builder }
    }

    /// What may go, the one that was used last at the end, and as many bytes as that could give at most: what they share
    /// counts for each.
    fn candidates(&self) -> (Vec<(i64, Candidate)>, u64) {
        let steps = self.builder.records().unwrap_or_default();
        let steps = steps.into_iter().filter(|(key, record)| record.layer.is_some() || key.starts_with(KEPT_CONTEXT));
        let images = self.engine.images().summaries().unwrap_or_default();
        // One that another was made of would lose its names and free nothing.
        let parents: HashSet<Digest> = images.iter().filter_map(|image| image.parent.clone()).collect();
        let unused = |image: &wharf_image::ImageSummary| {
            !image.pinned && !parents.contains(&image.id) && self.engine.users(&image.id).is_empty()
        };
        let layers = self.engine.images().layers();
        let disk = |id: &Digest| layers.get(id).ok().flatten().map_or(0, |layer| layer.disk);
        let mut most = 0u64;
        let mut all = Vec::new();
        for (key, record) in steps {
            most = most.saturating_add(record.layer.as_ref().map_or(record.size, disk));
            all.push((record.last_used, Candidate::Step(key)));
        }
        for image in images.into_iter().filter(unused) {
            most = image.diff_ids.iter().map(disk).fold(most, u64::saturating_add);
            all.push((image.used, Candidate::Image(image.id)));
        }
        all.sort_by_key(|(used, _)| *used);
        (all, most)
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
        let (candidates, most) = self.candidates();
        // A blob of each layer may be here as well, and a configuration.
        if freed.saturating_add(most.saturating_mul(2)) < bytes {
            tracing::info!("the byte budget wanted {bytes} bytes: all that may go would not be enough, so it stays");
            return;
        }
        for (_, candidate) in candidates {
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
