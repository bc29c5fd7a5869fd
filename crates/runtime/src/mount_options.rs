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

/// Words of mount(8) for file systems, which a bind of one that is mounted already cannot change, and which runc passes
/// over there too; and those that only fstab(5) has a meaning for.
const OF_FILE_SYSTEMS: &[&str] = &[
    "_netdev", "auto", "dirsync", "group", "iversion", "lazytime", "mand", "noacl", "noauto", "nofail", "nogroup",
    "noowner", "nouser", "nousers", "owner", "remount", "sync", "user", "users",
];

/// What podman has done with a volume already, and passes on with its bind (podman-run(1), `--volume`).
const OF_VOLUMES: &[&str] = &["copy", "nocopy"];

/// An option list, sorted by what each word is about. Of words that contradict each other the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) bind: bool,
    pub(crate) recursive: bool,
    pub(crate) set: Attributes,
    pub(crate) clear: Attributes,
    /// Attributes of everything below, too (`rro`, …).
    pub(crate) recursive_set: Attributes,
    pub(crate) recursive_clear: Attributes,
    /// A flag is among the words, be it one that says what holds anyway: a bind keeps its source's only without any.
    pub(crate) flagged: bool,
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

/// How access times are kept, by the words so far.
#[derive(Default)]
struct AccessTimes {
    mode: Option<Attributes>,
    not_of_directories: bool,
}

/// The kernel's default, which has no bit.
const RELATIME: Attributes = Attributes::NONE;

impl AccessTimes {
    /// False for a word that is about something else. As with mount(8) a word that takes another one back says nothing of
    /// what a bind's source has.
    fn add(&mut self, word: &str) -> bool {
        let (mode, is) = match word {
            "noatime" => (Attributes::NOATIME, true),
            "atime" => (Attributes::NOATIME, false),
            "strictatime" => (Attributes::STRICTATIME, true),
            "nostrictatime" => (Attributes::STRICTATIME, false),
            "relatime" => (RELATIME, true),
            "norelatime" => (RELATIME, false),
            "nodiratime" | "diratime" => {
                self.not_of_directories = word == "nodiratime";
                return true;
            }
            _ => return false,
        };
        if is {
            self.mode = Some(mode);
        } else if self.mode == Some(mode) {
            self.mode = None;
        }
        true
    }

    /// All of it is one field: whoever sets a part of it sets the rest to the kernel's default.
    fn apply(&self, options: &mut Options) {
        if self.mode.is_none() && !self.not_of_directories {
            return;
        }
        options.clear |= Attributes::ACCESS_TIMES;
        options.set |= self.mode.unwrap_or(RELATIME);
        if self.not_of_directories {
            options.set |= Attributes::NODIRATIME;
        }
    }
}

impl Options {
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        let mut times = AccessTimes::default();
        for word in words {
            if times.add(word) {
                options.flagged = true;
            } else {
                options.add(word);
            }
        }
        times.apply(&mut options);
        options
    }

    fn add(&mut self, word: &str) {
        if let Some((set, attribute)) = attribute(word) {
            self.flagged = true;
            change(&mut self.set, &mut self.clear, set, attribute);
            return;
        }
        if let Some((set, attribute)) = word.strip_prefix('r').and_then(attribute) {
            change(&mut self.recursive_set, &mut self.recursive_clear, set, attribute);
            return;
        }
        if let Some((mode, cleared)) = recursive_access_time(word) {
            self.recursive_set = self.recursive_set.without(cleared) | mode;
            self.recursive_clear |= cleared;
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
            "" | "defaults" => {}
            // What holds anyway, or has no meaning any more.
            "async" | "loud" | "nolazytime" | "nomand" | "noiversion" | "acl" | "silent" => self.flagged = true,
            other => {
                self.flagged |= OF_FILE_SYSTEMS.contains(&other);
                self.data.push(match other.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                });
            }
        }
    }

    /// A word that nobody knows what to do with on a bind: no file system is made that could read it.
    pub(crate) fn unknown_of_bind(&self) -> Option<&str> {
        let of_fstab = |key: &str| key == "comment" || key.starts_with("x-") || key.starts_with("X-");
        let known = |key: &str| OF_FILE_SYSTEMS.contains(&key) || OF_VOLUMES.contains(&key) || of_fstab(key);
        self.data.iter().map(|(key, _)| key.as_str()).find(|key| !known(key))
    }
}

/// The last word counts.
fn change(set: &mut Attributes, clear: &mut Attributes, is_set: bool, attribute: Attributes) {
    if is_set {
        *clear = clear.without(attribute);
        *set |= attribute;
    } else {
        *set = set.without(attribute);
        *clear |= attribute;
    }
}

/// What is set and what is cleared before. There is no way to take one mode away without giving another: that is
/// the kernel's default.
fn recursive_access_time(word: &str) -> Option<(Attributes, Attributes)> {
    Some(match word {
        "rnoatime" => (Attributes::NOATIME, Attributes::ATIME_MODE),
        "rstrictatime" => (Attributes::STRICTATIME, Attributes::ATIME_MODE),
        "rrelatime" | "ratime" | "rnostrictatime" => (RELATIME, Attributes::ATIME_MODE),
        "rnorelatime" => (Attributes::NONE, Attributes::NONE),
        "rnodiratime" => (Attributes::NODIRATIME, Attributes::NONE),
        "rdiratime" => (Attributes::NONE, Attributes::NODIRATIME),
        _ => return None,
    })
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
        "nosymfollow" => (true, Attributes::NOSYMFOLLOW),
        "symfollow" => (false, Attributes::NOSYMFOLLOW),
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
        assert!(options.flagged && !Options::parse("rbind,rprivate,rro,defaults".split(',')).flagged);
    }

    #[test]
    fn of_contradictions_the_last_word_counts() {
        let parse = |words: &str| Options::parse(words.split(','));
        for (words, set, clear) in [
            ("ro,rw", Attributes::NONE, Attributes::RDONLY),
            ("rw,ro", Attributes::RDONLY, Attributes::NONE),
            ("noatime,strictatime", Attributes::STRICTATIME, Attributes::ACCESS_TIMES),
            ("strictatime,noatime", Attributes::NOATIME, Attributes::ACCESS_TIMES),
            ("noatime,relatime", RELATIME, Attributes::ACCESS_TIMES),
            ("noatime,nodiratime", Attributes::NOATIME | Attributes::NODIRATIME, Attributes::ACCESS_TIMES),
            ("noatime,atime", Attributes::NONE, Attributes::NONE),
            ("atime", Attributes::NONE, Attributes::NONE),
            ("nodiratime,diratime", Attributes::NONE, Attributes::NONE),
        ] {
            let options = parse(words);
            assert_eq!((options.set, options.clear), (set, clear), "{words}");
        }
        for (words, set, clear) in [
            ("rro,rrw", Attributes::NONE, Attributes::RDONLY),
            ("ratime", RELATIME, Attributes::ATIME_MODE),
            ("rrelatime,rnoatime", Attributes::NOATIME, Attributes::ATIME_MODE),
            ("rnoatime,rstrictatime", Attributes::STRICTATIME, Attributes::ATIME_MODE),
            ("rnodiratime,rdiratime", Attributes::NONE, Attributes::NODIRATIME),
        ] {
            let options = parse(words);
            assert_eq!((options.recursive_set, options.recursive_clear), (set, clear), "{words}");
        }
    }

    #[test]
    fn a_bind_has_no_words_of_its_own() {
        let unknown = |words: &str| Options::parse(words.split(',')).unknown_of_bind().map(str::to_owned);
        assert_eq!(unknown("rbind,rprivate,sync,async,mand,noexec,acl,silent,x-mount.mkdir,nofail,defaults,"), None);
        assert_eq!(unknown("rbind,nocopy,copy"), None);
        for (words, word) in [("bind,frobnicate", "frobnicate"), ("bind,size=5", "size"), ("bind,RO", "RO"), ("z", "z")]
        {
            assert_eq!(unknown(words).as_deref(), Some(word));
        }
    }
}
