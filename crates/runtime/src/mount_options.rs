//! Options of a mount in a configuration (runtime-spec, config, "Mounts"; mount(8)).

use wharf_sys::mount::{Attributes, Propagation};

/// Every word that [`Options`] knows; what a file system reads itself is not among them.
pub const MOUNT_OPTIONS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "idmap",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

/// An option list, sorted by what each word is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) bind: bool,
    pub(crate) recursive: bool,
    pub(crate) set: Attributes,
    pub(crate) clear: Attributes,
    /// Attributes of everything below, too (`rro`, …).
    pub(crate) recursive_set: Attributes,
    pub(crate) recursive_clear: Attributes,
    /// An id-mapped mount, and whether all below it is.
    pub(crate) id_map: Option<bool>,
    /// A tmpfs that begins with what was in its place.
    pub(crate) copy_up: bool,
    pub(crate) propagation: Option<(Propagation, bool)>,
    /// The SELinux context of a new file system (`linux.mountLabel`).
    pub(crate) label: Option<String>,
    /// What the file system itself reads: `size=64m`, `mode=1777`.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl Options {
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        if let Some((set, attribute)) = attribute(word) {
            if set {
                self.set |= attribute;
            } else {
                self.clear |= attribute;
            }
            return;
        }
        if let Some((set, attribute)) = word.strip_prefix('r').and_then(attribute) {
            if set {
                self.recursive_set |= attribute;
            } else {
                self.recursive_clear |= attribute;
            }
            return;
        }
        if let Some(propagation) = propagation(word) {
            self.propagation = Some(propagation);
            return;
        }
        match word {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => self.copy_up = true,
            // What holds anyway, or has no meaning any more.
            "defaults" | "async" | "relatime" | "norelatime" | "nostrictatime" | "rrelatime" | "rnorelatime"
            | "rnostrictatime" | "loud" | "nolazytime" | "nomand" | "noiversion" | "acl" | "silent" => {}
            other => self.data.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
}

/// A propagation, and whether all below has it too.
pub(crate) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

/// An attribute and whether the word sets or clears it.
fn attribute(word: &str) -> Option<(bool, Attributes)> {
    Some(match word {
        "ro" => (true, Attributes::RDONLY),
        "rw" => (false, Attributes::RDONLY),
        "nosuid" => (true, Attributes::NOSUID),
        "suid" => (false, Attributes::NOSUID),
        "nodev" => (true, Attributes::NODEV),
        "dev" => (false, Attributes::NODEV),
        "noexec" => (true, Attributes::NOEXEC),
        "exec" => (false, Attributes::NOEXEC),
        "noatime" => (true, Attributes::NOATIME),
        "strictatime" => (true, Attributes::STRICTATIME),
        "nodiratime" => (true, Attributes::NODIRATIME),
        "nosymfollow" => (true, Attributes::NOSYMFOLLOW),
        "symfollow" => (false, Attributes::NOSYMFOLLOW),
        "atime" => (false, Attributes::NOATIME),
        "diratime" => (false, Attributes::NODIRATIME),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_by_what_they_are_about() {
        let options = Options::parse("rbind,ro,nosuid,rslave,size=64m,rro".split(','));
        assert!(options.bind && options.recursive);
        assert_eq!(options.set, Attributes::RDONLY | Attributes::NOSUID);
        assert_eq!(options.recursive_set, Attributes::RDONLY);
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
        assert_eq!(options.data, [("size".to_owned(), Some("64m".to_owned()))]);
    }
}
