//! `GET /images/NAME/compare?with=NAME`, of our own: what of two images differs.

use serde_json::{Value, json};
use wharf_image::LayerDifference;

use super::{Call, Result, blocking};
use crate::http::{ApiError, ok};

pub(super) async fn images(call: Call, name: &str) -> Result {
    let with = call.query.get("with").map(str::to_owned).ok_or_else(|| ApiError::bad("missing with: another image"))?;
    let (engine, name) = (call.api.engine, name.to_owned());
    let found = blocking(move || {
        let images = engine.images();
        Ok(images.compare(&images.resolve(&name)?, &images.resolve(&with)?)?)
    })
    .await?;
    let layers: Vec<Value> = found.layers.iter().map(layer).collect();
    Ok(ok(&json!({ "Same": found.is_same(), "Config": found.config, "Layers": layers })))
}

fn layer(layer: &LayerDifference) -> Value {
    let files = layer.files.iter().map(|(path, what)| json!({ "Path": path, "What": what }));
    json!({
        "Number": layer.number,
        "Step": layer.step,
        "Files": files.collect::<Vec<_>>(),
        "More": layer.more,
        "Times": layer.times,
    })
}
