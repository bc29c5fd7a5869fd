//! Named contexts that are images in OCI layouts of the client's (`oci-layout://DIR`).

use wharf_build::NamedContext;
use wharf_image::registry::{Descriptor, Platform};

use super::{Asked, ended};
use crate::BuildKit;
use crate::content::Store;
use crate::grpc::Status;
use crate::layout::{self, Blobs, Incoming};
use crate::options::text;
use crate::proto::Timestamp;

/// What the names of images begin with that come as contexts, as long as the build goes on.
const LAYOUT: &str = "localhost/wharf-build-context-";

impl BuildKit {
    /// An image in an OCI layout of the client's: the name of its store, and a digest.
    pub(super) async fn layout(&self, asked: Asked<'_>, name: &str, place: &str) -> Result<NamedContext, Status> {
        let bad = |why: String| Status::invalid(format!("context {name}: {why}"));
        let place = place.trim_start_matches("//");
        let (store, digest) =
            place.split_once('@').ok_or_else(|| bad(format!("oci-layout://{place} has no digest")))?;
        let store = store.split(':').next().unwrap_or_default();
        let step = asked.job.progress.step(&format!("[context {name}] OCI load from client"));
        let began = Timestamp::now();
        let found = async {
            let session = self.inner.sessions.get(&asked.job.request.session).await?;
            let store = Store::new(&session, &format!("oci:{store}"))?;
            let (top, _) = store.top(digest).await?;
            Ok((store, top))
        };
        let (store, top) = ended(step, found.await, |step, (_, top): &(Store, Descriptor)| {
            step.status(&format!("resolve {}", top.digest), 0, 0, began, true);
        })?;
        let platforms = text(asked.options, "platform").split(',').filter(|one| !one.is_empty());
        let platforms: Result<Vec<_>, _> = platforms.map(Platform::parse).collect();
        let mut platforms = platforms.map_err(|e| Status::invalid(e.to_string()))?;
        platforms.push(Platform::host());
        let random = wharf_engine::names::random_id().map_err(|e| Status::unavailable(e.to_string()))?;
        let own = format!("{LAYOUT}{}", random.get(..16).unwrap_or(&random));
        let wanted = Incoming {
            blobs: Blobs::Client(store),
            top,
            name: Some(format!("{own}:latest")),
            platforms,
            spared: Box::new(|_| false),
            made: Vec::new(),
        };
        let archive = layout::archive(wanted, asked.job.over())
            .map_err(|e| Status::unavailable(format!("no layout can come: {e}")))?;
        Ok(NamedContext::Layout(own, archive))
    }
}
