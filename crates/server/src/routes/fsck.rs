//! `POST /system/fsck`: finds and repairs what does not fit in the data root. Beside Docker's API.

use wharf_engine::EngineError;
use wharf_engine::fsck::Fsck;

use super::{Call, Result, blocking};
use crate::http::ok;

/// `dry-run`: change nothing. `deep`: read each layer whole.
pub(super) async fn fsck(call: Call) -> Result {
    let fsck = Fsck::new(call.query.flag("dry-run"), call.query.flag("deep"));
    let mut fsck = call.api.engine.fsck(fsck).await?;
    let builder = call.api.builder;
    let fsck = blocking(move || {
        builder.fsck(&mut fsck).map_err(|e| EngineError::system(e.to_string()))?;
        Ok(fsck)
    })
    .await?;
    Ok(ok(&fsck.report()))
}
