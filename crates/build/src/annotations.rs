//! `--annotation`: what manifests and indexes say beside what they name.

use std::collections::BTreeMap;

use crate::error::{BuildError, Result};
use crate::finish::Built;

/// Where one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Manifest,
    /// Where the index lists the manifest.
    Descriptor,
    Index,
}

/// All of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    /// Where, for which platform if not for all, and what.
    all: Vec<(Place, Option<String>, String, String)>,
}

impl Annotations {
    /// Reads `[TYPE[,TYPE]:]KEY=VALUE` with TYPE `manifest`, `index` or `manifest-descriptor`, the first and the last also
    /// with a platform in square brackets (buildx, `ParseAnnotations`).
    ///
    /// # Errors
    /// For what is none.
    pub(crate) fn of(texts: &[String]) -> Result<Self> {
        let mut all = Vec::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let bad = |why: &str| BuildError::invalid(format!("invalid annotation {text:?}: {why}"));
            let (name, value) = text.split_once('=').ok_or_else(|| bad("expected key=value"))?;
            let (kinds, key) = name.split_once(':').unwrap_or(("manifest", name));
            if key.is_empty() {
                return Err(bad("it has no key"));
            }
            for kind in kinds.split(',') {
                let (kind, platform) = match kind.split_once('[') {
                    Some((kind, rest)) => {
                        let platform = rest.strip_suffix(']').filter(|platform| !platform.is_empty());
                        (kind, Some(platform.ok_or_else(|| bad("expected a platform in square brackets"))?))
                    }
                    None => (kind, None),
                };
                let place = match kind {
                    "manifest" => Place::Manifest,
                    "manifest-descriptor" => Place::Descriptor,
                    "index" if platform.is_none() => Place::Index,
                    "index" => return Err(bad("an index is of all platforms")),
                    "index-descriptor" => return Err(bad("what lists an index is made by whoever writes it there")),
                    other => return Err(bad(&format!("unknown annotation type {other:?}"))),
                };
                all.push((place, platform.map(str::to_owned), key.to_owned(), value.to_owned()));
            }
        }
        Ok(Self { all })
    }

    pub(crate) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// Refuses what would be said nowhere: of an index where there is none (`alone`), or of a platform that was not built.
    ///
    /// # Errors
    /// With the first of these.
    pub(crate) fn check(&self, built: &[Built], alone: bool) -> Result<()> {
        for (place, platform, key, _) in &self.all {
            if alone && *place != Place::Manifest {
                let message = format!("the annotation {key} is for an index, and an image of one platform has none");
                return Err(BuildError::invalid(message));
            }
            if let Some(platform) = platform
                && !built.iter().any(|one| one.platform_name() == *platform)
            {
                let message = format!("the annotation {key} is for {platform}, which is not built");
                return Err(BuildError::invalid(message));
            }
        }
        Ok(())
    }

    fn of_place(&self, place: Place, platform: Option<&str>) -> BTreeMap<String, String> {
        let wanted = self
            .all
            .iter()
            .filter(|(own, of, ..)| *own == place && of.as_deref().is_none_or(|of| platform == Some(of)));
        wanted.map(|(_, _, key, value)| (key.clone(), value.clone())).collect()
    }

    /// What the manifest of a platform says.
    pub(crate) fn manifest(&self, platform: &str) -> BTreeMap<String, String> {
        self.of_place(Place::Manifest, Some(platform))
    }

    /// What an index says where it lists that.
    pub(crate) fn descriptor(&self, platform: &str) -> BTreeMap<String, String> {
        self.of_place(Place::Descriptor, Some(platform))
    }

    /// What the index says itself.
    pub(crate) fn index(&self) -> BTreeMap<String, String> {
        self.of_place(Place::Index, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Annotations> {
        Annotations::of(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_goes_where_it_is_said() {
        let all = of(&[
            "a=1=2",
            "manifest,index:b=2",
            "manifest[linux/arm64]:c=3",
            "manifest-descriptor:d=4",
            "manifest-descriptor[linux/amd64]:e=",
        ])
        .unwrap();
        assert_eq!(all.manifest("linux/amd64"), map(&[("a", "1=2"), ("b", "2")]));
        assert_eq!(all.manifest("linux/arm64"), map(&[("a", "1=2"), ("b", "2"), ("c", "3")]));
        assert_eq!(all.descriptor("linux/amd64"), map(&[("d", "4"), ("e", "")]));
        assert_eq!(all.index(), map(&[("b", "2")]));
        assert!(all.any() && !of(&[""]).unwrap().any());
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in ["a", "=1", "index:=1", "nonsense:a=1", "manifest[:a=1", "manifest[]:a=1", "index[linux/arm64]:a=1"]
        {
            assert!(of(&[bad]).is_err(), "{bad}");
        }
    }
}
