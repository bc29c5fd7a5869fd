//! Platforms in a query: each a JSON object of OCI's form (moby, `httputils.DecodePlatform`).

use serde::Deserialize;

use crate::http::ApiError;
use crate::query::Query;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// All that a key names, as `linux/arm64`.
///
/// # Errors
/// 400 with Docker's words.
pub(crate) fn all(query: &Query, key: &str) -> Result<Vec<String>, ApiError> {
    query.all(key).iter().filter(|text| !text.is_empty()).map(|text| decode(text)).collect()
}

/// The one that a key names.
///
/// # Errors
/// As [`all`], and when there are several.
pub(crate) fn one(query: &Query, key: &str) -> Result<Option<String>, ApiError> {
    let mut all = all(query, key)?;
    match all.len() {
        0 | 1 => Ok(all.pop()),
        _ => Err(ApiError::bad("only one platform can be given")),
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    let asked: Asked =
        serde_json::from_str(text).map_err(|e| ApiError::bad(format!("failed to parse platform: {e}")))?;
    if asked.os.is_empty() || asked.architecture.is_empty() {
        return Err(ApiError::bad("both OS and Architecture must be provided"));
    }
    let variant = if asked.variant.is_empty() { String::new() } else { format!("/{}", asked.variant) };
    Ok(format!("{}/{}{variant}", asked.os, asked.architecture))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_json() {
        let asked = |text: &str| one(&Query::parse(text), "platform");
        assert_eq!(asked("").unwrap(), None);
        let arm = asked(r#"platform={"os":"linux","architecture":"arm","variant":"v7"}"#).unwrap();
        assert_eq!(arm.as_deref(), Some("linux/arm/v7"));
        for bad in ["platform=linux/arm64", r#"platform={"os":"linux"}"#, r#"platform=[]"#] {
            assert!(asked(bad).is_err(), "{bad}");
        }
        let two = Query::parse(r#"p={"os":"a","architecture":"b"}&p={"os":"c","architecture":"d"}"#);
        assert_eq!(all(&two, "p").unwrap(), ["a/b", "c/d"]);
        assert!(one(&two, "p").is_err());
    }
}
