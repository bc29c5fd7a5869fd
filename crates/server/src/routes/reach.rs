//! `GET /networks/reach?of=PORT|CONTAINER[:PORT]`: ours.

use super::{Call, Result, blocking};
use crate::http::{ApiError, ok};

pub(super) async fn reach(call: Call) -> Result {
    let of = call.query.get("of").filter(|text| !text.is_empty());
    let of =
        of.ok_or_else(|| ApiError::bad("of is missing: a port of the host's, or a container with or without a port"))?;
    let (engine, of) = (call.api.engine.clone(), of.to_owned());
    Ok(ok(&blocking(move || Ok(engine.reach(&of)?)).await?))
}
