//! Flags of instructions, checked against those that the instruction has.

use crate::error::Mistake;
use crate::nearest;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    Bool,
    Text,
    /// May be given several times.
    List,
}

/// Flags with their values, in the order of the line.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks the words of [`crate::word::flags`].
    pub(crate) fn check(words: &[String], known: &[(&'static str, FlagKind)]) -> Result<Self, Mistake> {
        let mut flags = Self::default();
        for word in words {
            let body = word.strip_prefix("--").unwrap_or(word);
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let about = format!("--{name}");
            let Some((name, kind)) = known.iter().find(|(known, _)| *known == name).copied() else {
                let hint = nearest(name, known.iter().map(|(name, _)| *name));
                return Err(Mistake::new(format!("unknown flag: --{name}")).about(about).hint(hint));
            };
            if kind != FlagKind::List && flags.text(name).is_some() {
                return Err(Mistake::new(format!("duplicate flag specified: --{name}")).about(about));
            }
            let value = match (kind, value) {
                (FlagKind::Bool, None) => "true".to_owned(),
                (FlagKind::Bool, Some(value)) => match value.to_ascii_lowercase().as_str() {
                    "" => return Err(Mistake::new(format!("missing a value on flag: --{name}")).about(about)),
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => {
                        let text = format!("expecting boolean value for flag --{name}, not: {value}");
                        return Err(Mistake::new(text).about(about));
                    }
                },
                (_, Some(value)) => value.to_owned(),
                (_, None) => return Err(Mistake::new(format!("missing a value on flag: --{name}")).about(about)),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.list(name).pop()
    }

    /// As [`Self::text`], where an empty value is as good as none.
    pub(crate) fn some(&self, name: &str) -> Option<String> {
        self.text(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, FlagKind)] =
        &[("link", FlagKind::Bool), ("from", FlagKind::Text), ("exclude", FlagKind::List)];

    fn check(words: &[&str]) -> Result<Flags, Mistake> {
        Flags::check(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), KNOWN)
    }

    #[test]
    fn flags_are_typed() {
        let flags = check(&["--link", "--from=a=b", "--exclude=x", "--exclude=y"]).unwrap();
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.text("from").as_deref(), Some("a=b"));
        assert_eq!(flags.list("exclude"), ["x", "y"]);
        assert_eq!(check(&["--link=FALSE"]).unwrap().bool("link"), Some(false));
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (words, message, hint) in [
            (&["--form=x"][..], "unknown flag: --form", Some("from")),
            (&["--link="], "missing a value on flag: --link", None),
            (&["--link=no"], "expecting boolean value for flag --link, not: no", None),
            (&["--from"], "missing a value on flag: --from", None),
            (&["--from=a", "--from=b"], "duplicate flag specified: --from", None),
            (&["--whatever"], "unknown flag: --whatever", None),
        ] {
            let mistake = check(words).unwrap_err();
            assert_eq!((mistake.message.as_str(), mistake.hint.as_deref()), (message, hint));
        }
    }
}
