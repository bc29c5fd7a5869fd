//! `GET /images/NAME/attestations`, since API 1.55.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use wharf_distribution::Descriptor;
use wharf_image::Statement;

use super::{Call, Result, blocking};
use crate::http::{ApiError, ok};
use crate::platform;

/// `AttestationStatement`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attested {
    descriptor: Descriptor,
    predicate_type: String,
    /// As it came; only when it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<Box<RawValue>>,
}

pub(super) async fn list(call: Call, name: &str) -> Result {
    if call.version < (1, 55) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "page not found"));
    }
    if call.query.all("platform").len() > 1 {
        return Err(ApiError::bad("only one platform value is currently supported"));
    }
    let asked = platform::one(&call.query, "platform")?;
    let (types, whole) = (call.query.all("type"), call.query.flag("statement"));
    let (engine, name) = (call.api.engine, name.to_owned());
    let all = blocking(move || {
        let images = engine.images();
        let wanted = |statement: &Statement| types.is_empty() || types.contains(&statement.predicate_type);
        let one = |statement: Statement| {
            let text = if whole { Some(images.statement(&statement)?) } else { None };
            Ok(Attested {
                statement: text.map(document).transpose()?,
                descriptor: statement.descriptor,
                predicate_type: statement.predicate_type,
            })
        };
        images
            .attestations(&name, asked.as_deref())?
            .into_iter()
            .filter(wanted)
            .map(one)
            .collect::<std::result::Result<Vec<_>, ApiError>>()
    })
    .await?;
    Ok(ok(&all))
}

fn document(bytes: Vec<u8>) -> std::result::Result<Box<RawValue>, ApiError> {
    let text = String::from_utf8(bytes).map_err(|e| e.to_string());
    let parsed = text.and_then(|text| RawValue::from_string(text).map_err(|e| e.to_string()));
    parsed.map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the statement is no JSON: {e}")))
}
