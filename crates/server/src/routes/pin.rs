//! `POST /images/{name}/pin` and `unpin`. Beside Docker's API.

use super::{Call, Result};
use crate::http::no_content;

pub(super) async fn pin(call: Call, name: &str, pinned: bool) -> Result {
    call.api.engine.pin_image(name, pinned).await?;
    Ok(no_content())
}
