//! `--attest`: what is stated about an image that was built: where it comes from, and what software is in it.

mod packages;
mod provenance;
mod sbom;

pub(crate) use provenance::Material;
use serde_json::Value;
use wharf_image::ImageRecord;

use crate::builder::Shared;
use crate::builder::Told;
use crate::error::{BuildError, Result};
use crate::finish::Built;
use crate::gathered::Gathered;
use crate::request::BuildRequest;

/// How much is told of where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// With arguments, secrets' names, steps and the Dockerfile itself.
    pub(crate) max: bool,
    pub(crate) builder_id: String,
    /// As whoever asks says.
    pub(crate) reproducible: bool,
    /// In the form of SLSA v0.2, for who reads no other.
    pub(crate) by_slsa_02: bool,
    /// Without the values of arguments.
    pub(crate) masked: bool,
}

/// Where an image comes from, as it is remembered with the build: all of it, but no values of arguments, for one may be a
/// password.
pub(crate) fn to_remember(request: &BuildRequest, gathered: &Gathered, built: &Built, told: &Told) -> Value {
    let provenance = Provenance { max: true, masked: true, ..Provenance::default() };
    provenance::by_slsa_02(&provenance.predicate(request, gathered, built, told))
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attestations {
    provenance: Option<Provenance>,
    sbom: bool,
}

impl Attestations {
    /// Reads `type=provenance[,mode=min|max][,version=v1|v0.2][,builder-id=ID][,reproducible=true][,disabled=true]` and
    /// `type=sbom[,disabled=true]`.
    ///
    /// # Errors
    /// For what is none, for two of a kind, and for what we do not make.
    pub(crate) fn of(texts: &[String]) -> Result<Self> {
        let (mut all, mut seen) = (Self::default(), Vec::new());
        for text in texts {
            let bad = |why: String| BuildError::invalid(format!("invalid attestation {text:?}: {why}"));
            let (mut kind, mut disabled, mut provenance) = ("", false, Provenance::default());
            for field in text.split(',') {
                let (key, value) = field.split_once('=').ok_or_else(|| bad("expected key=value".into()))?;
                let on = || match value {
                    "true" | "1" => Ok(true),
                    "false" | "0" => Ok(false),
                    _ => Err(bad(format!("{key} is true or false"))),
                };
                match (key, value) {
                    ("type", _) => kind = value,
                    ("disabled", _) => disabled = on()?,
                    ("mode", "min" | "max") => provenance.max = value == "max",
                    ("version", "v1" | "v0.2") => provenance.by_slsa_02 = value == "v0.2",
                    ("builder-id", _) => value.clone_into(&mut provenance.builder_id),
                    ("reproducible", _) => provenance.reproducible = on()?,
                    // As it is in any case.
                    ("inline-only", _) => drop(on()?),
                    ("generator", _) => {
                        return Err(bad(
                            "the list of software is made by this engine; it runs no other generator".into()
                        ));
                    }
                    _ => return Err(bad(format!("unexpected {field:?}"))),
                }
            }
            if seen.contains(&kind) {
                return Err(bad("there is another one of its type".into()));
            }
            seen.push(kind);
            match kind {
                "provenance" => all.provenance = Some(provenance).filter(|_| !disabled),
                "sbom" => all.sbom = !disabled,
                "" => return Err(bad("it has no type".into())),
                other => return Err(bad(format!("unknown type {other:?}: there are provenance and sbom"))),
            }
        }
        Ok(all)
    }

    pub(crate) fn any(&self) -> bool {
        self.provenance.is_some() || self.sbom
    }

    /// What is stated about an image: of each kind its URI and the predicate.
    ///
    /// # Errors
    /// When the image's files cannot be read.
    pub(crate) fn about(
        &self,
        shared: &Shared,
        request: &BuildRequest,
        gathered: &Gathered,
        built: &Built,
        image: &ImageRecord,
        told: &Told,
    ) -> Result<Vec<(String, Value)>> {
        let mut all = Vec::new();
        if self.sbom {
            told.output.text("Listing the software in the image\n")?;
            let view = shared.layers.view(&image.diff_ids, None)?;
            let found = packages::find(&view, &told.cancel)?;
            all.push((sbom::KIND.to_owned(), sbom::document(image, &found)));
        }
        if let Some(provenance) = &self.provenance {
            let predicate = provenance.predicate(request, gathered, built, told);
            all.push(match provenance.by_slsa_02 {
                true => (provenance::KIND_02.to_owned(), provenance::by_slsa_02(&predicate)),
                false => (provenance::KIND.to_owned(), predicate),
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Attestations> {
        Attestations::of(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn kinds_are_told_apart() {
        let all = of(&["type=provenance,mode=max,version=v1,builder-id=x,reproducible=true", "type=sbom"]).unwrap();
        let provenance = Provenance { max: true, builder_id: "x".into(), reproducible: true, ..Provenance::default() };
        assert_eq!(all, Attestations { provenance: Some(provenance), sbom: true });
        assert!(!of(&["type=provenance,disabled=true", "type=sbom,disabled=true"]).unwrap().any());
        assert!(!of(&[]).unwrap().any() && of(&["type=provenance"]).unwrap().any());
        for bad in [
            &["provenance"][..],
            &["mode=max"],
            &["type=x"],
            &["type=sbom,generator=syft"],
            &["type=provenance,version=v2"],
            &["type=provenance,mode=most"],
            &["type=sbom", "type=sbom"],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
