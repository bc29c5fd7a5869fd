//! `dry-run=1`, which is Wharf's: what a request would do, and nothing is done.
//!
//! Of prunes the answer has the same fields, and `DryRun`. `after=containers` takes the stopped containers for gone that
//! a prune by the same `until` and labels removes, `after=containers,images` (for the build cache) the images too: so
//! `system prune` can say what its later steps come to.

use std::collections::BTreeSet;

use hyper::StatusCode;
use wharf_engine::{CreateRequest, Engine, RemoveOptions};
use wharf_reference::Digest;

use super::{Call, Result, blocking, containers, images};
use crate::filters::Filters;
use crate::http::{ApiError, json_answer, ok};

pub(super) fn is_asked(call: &Call) -> bool {
    call.query.flag("dry-run")
}

/// `POST /containers/create?dry-run=1`.
pub(super) async fn create(
    engine: &Engine,
    name: Option<&str>,
    platform: Option<&str>,
    request: CreateRequest,
) -> Result {
    Ok(json_answer(StatusCode::OK, &engine.plan_creation(name, platform, request).await?))
}

/// `DELETE /containers/ID?dry-run=1`.
pub(super) async fn remove(engine: &Engine, id: &str, options: RemoveOptions) -> Result {
    Ok(ok(&engine.plan_removal(id, options).await?))
}

/// What `after` names.
fn after(call: &Call, what: &str) -> std::result::Result<bool, ApiError> {
    let asked = call.query.text("after");
    if let Some(other) = asked.split(',').find(|word| !matches!(*word, "" | "containers" | "images")) {
        return Err(ApiError::bad(format!("invalid value \"{other}\" for parameter after: give containers, images")));
    }
    Ok(asked.split(',').any(|word| word == what))
}

/// IDs of the containers that are taken for gone.
pub(super) fn gone(call: &Call, filters: &Filters) -> std::result::Result<BTreeSet<String>, ApiError> {
    // Nothing that is really removed goes by what somebody else is said to have removed.
    if !is_asked(call) || !after(call, "containers")? {
        return Ok(BTreeSet::new());
    }
    let choose = containers::prunable(filters)?;
    let ended = call.api.engine.list().into_iter().filter(|record| !record.state.status.is_active());
    Ok(ended.filter(|record| choose(record)).map(|record| record.id.clone()).collect())
}

/// The layers that images and containers need, whatever becomes of the build cache.
pub(super) async fn layers_beside_cache(
    call: &Call,
    filters: &Filters,
) -> std::result::Result<BTreeSet<Digest>, ApiError> {
    let gone = gone(call, filters)?;
    let (engine, pruned) = (call.api.engine.clone(), after(call, "images")?);
    let (dangling_only, choose) = (!call.query.flag("all"), images::prunable(filters)?);
    blocking(move || {
        let mut layers = engine.container_layers(&gone);
        match pruned {
            true => layers.extend(engine.plan_image_prune(dangling_only, &choose, &gone)?.layers()),
            false => {
                let summaries = engine.images().summaries().map_err(wharf_engine::EngineError::from)?;
                layers.extend(summaries.into_iter().flat_map(|image| image.diff_ids));
            }
        }
        Ok(layers)
    })
    .await
}
