//! `--security-opt`, `--storage-opt`, `--log-opt`, `--restart`.

use serde_json::{Map, Value, json};

use crate::failure::Outcome;

/// What the security options come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) options: Vec<String>,
    /// `systempaths=unconfined`: no path is masked, none is read-only.
    pub(crate) open_paths: bool,
}

/// Reads the security options; a seccomp profile is read here and sent as it is.
pub(crate) fn parse(texts: &[String]) -> Outcome<Security> {
    let mut security = Security::default();
    for text in texts {
        if text == "systempaths=unconfined" {
            security.open_paths = true;
            continue;
        }
        let pair = text.split_once('=').or_else(|| text.split_once(':'));
        match pair {
            None if text == "no-new-privileges" => security.options.push(text.clone()),
            None => return Err(format!("Invalid --security-opt: {text:?}").into()),
            Some(("seccomp", profile)) if profile != "unconfined" && profile != "builtin" => {
                security.options.push(format!("seccomp={}", read_profile(profile)?));
            }
            Some(_) => security.options.push(text.clone()),
        }
    }
    Ok(security)
}

fn read_profile(path: &str) -> Outcome<String> {
    let bytes = std::fs::read(path).map_err(|error| {
        let reason = wharf_report::path("open", path.as_ref(), &error);
        format!("opening seccomp profile ({path}) failed: {reason}")
    })?;
    let profile: Value = serde_json::from_slice(&bytes)
        .map_err(|error| format!("compacting json for seccomp profile ({path}) failed: {error}"))?;
    Ok(profile.to_string())
}

/// `key=value` texts that must have a value.
pub(crate) fn storage(texts: &[String]) -> Outcome<Map<String, Value>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or("invalid storage option")?;
        Ok((key.to_owned(), json!(value)))
    };
    texts.iter().map(pair).collect()
}

/// `no`, `always`, `unless-stopped`, `on-failure[:n]`.
pub(crate) fn restart(text: &str) -> Outcome<Value> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if name.is_empty() && !text.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".into());
    }
    let count: i64 = match count {
        "" => 0,
        count => count
            .parse()
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer".to_owned())?,
    };
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security() {
        let parse = |texts: &[&str]| parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let parsed = parse(&["no-new-privileges", "systempaths=unconfined", "seccomp=unconfined"]).unwrap();
        assert!(parsed.open_paths);
        assert_eq!(parsed.options, ["no-new-privileges", "seccomp=unconfined"]);
        assert!(parse(&["nonsense"]).is_err());
        assert!(parse(&["seccomp=/nonexistent"]).unwrap_err().text.starts_with("opening seccomp profile"));
    }

    #[test]
    fn policies() {
        assert_eq!(restart("on-failure:3").unwrap(), json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert!(restart("on-failure:x").is_err());
        assert!(restart(":3").is_err());
    }
}
