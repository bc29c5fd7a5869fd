//! `--attest`, `--provenance` and `--sbom`: what the engine is to state about the image.

use crate::failure::Outcome;
use crate::parse::{Matches, commas};

/// Refuses what is no attestation.
pub(super) fn check(text: &str) -> Result<(), String> {
    let fields = commas(text);
    if fields.iter().any(|field| !field.contains('=')) || !fields.iter().any(|field| field.starts_with("type=")) {
        return Err(format!("invalid attestation {text:?}: expected type=KIND and key=value"));
    }
    Ok(())
}

/// All that are asked for, in the long form.
pub(super) fn of(matches: &Matches) -> Outcome<Vec<String>> {
    let mut all: Vec<String> = matches.all("attest").to_vec();
    for kind in ["provenance", "sbom"] {
        if matches.changed(kind) {
            all.push(long(kind, matches.text(kind))?);
        }
    }
    Ok(all)
}

/// `true`, `false` or parameters (buildx, `CanonicalizeAttest`).
fn long(kind: &str, value: &str) -> Result<String, String> {
    match value {
        "" | "true" | "1" => Ok(format!("type={kind}")),
        "false" | "0" => Ok(format!("type={kind},disabled=true")),
        value if value.contains('=') => Ok(format!("type={kind},{value}")),
        other => Err(format!("invalid value {other:?} for --{kind}: true, false or key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        assert_eq!(long("sbom", "true").unwrap(), "type=sbom");
        assert_eq!(long("provenance", "mode=max").unwrap(), "type=provenance,mode=max");
        assert_eq!(long("provenance", "false").unwrap(), "type=provenance,disabled=true");
        assert!(long("sbom", "maybe").is_err());
        assert!(check("type=sbom").is_ok() && check("sbom").is_err() && check("mode=max").is_err());
    }
}
