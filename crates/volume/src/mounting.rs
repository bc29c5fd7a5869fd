//! Volumes that are something else's content: the options `type`, `o` and `device` of the driver `local`, which are
//! mount(2)'s.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::{Lookup, Result, VolumeError};

/// What a mount of the driver `local` is asked to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    device: String,
    kind: String,
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    data: String,
}

/// Refuses what the driver does not know, with Docker's words.
///
/// # Errors
/// `Options`.
pub(crate) fn check(name: &str, options: &BTreeMap<String, String>) -> Result<()> {
    let bad = |why: String| Err(VolumeError::Options { name: name.to_owned(), why });
    for key in options.keys() {
        let needs: &[&str] = match key.as_str() {
            "type" => &["device"],
            "device" => &["type"],
            "o" => &["device", "type"],
            "size" if options.len() > 1 => {
                return bad("a size is for volumes without other options: a tmpfs has its own (o=size=…)".into());
            }
            "size" => match crate::limit::parse(&options[key]) {
                Ok(_) => &[],
                Err(why) => return bad(why),
            },
            other => return bad(format!("invalid option: \"{other}\"")),
        };
        if let Some(missing) = needs.iter().find(|need| !options.contains_key(**need)) {
            return bad(format!("missing required option: \"{missing}\""));
        }
    }
    Ok(())
}

impl Wanted {
    /// `None` for a volume that is a directory of its own.
    pub(crate) fn of(options: &BTreeMap<String, String>) -> Option<Self> {
        let device = options.get("device")?.clone();
        let mut wanted = Self {
            device,
            kind: options.get("type").cloned().unwrap_or_default(),
            flags: MountFlags::empty(),
            propagation: None,
            data: String::new(),
        };
        let mut data = Vec::new();
        for option in options.get("o").map_or("", String::as_str).split(',').filter(|option| !option.is_empty()) {
            if let Some((flag, set)) = flag(option) {
                wanted.flags.set(flag, set);
            } else if let Some(propagation) = propagation(option) {
                wanted.propagation = Some(propagation);
            } else {
                data.push(option);
            }
        }
        wanted.data = data.join(",");
        Some(wanted)
    }

    /// The same with the address of the host that it names, as the kernel looks up no names: in the option `addr` of NFS and
    /// CIFS, else in what CIFS mounts.
    ///
    /// # Errors
    /// `Mount`, with Docker's words, when there is no such host.
    pub(crate) fn at_address(mut self, path: &Path, lookup: &Lookup) -> Result<Self> {
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs") {
            return Ok(self);
        }
        let found = |host: &str| {
            lookup.address(host).map(|address| address.to_string()).map_err(|why| VolumeError::Mount {
                path: path.to_owned(),
                what: "error resolving passed in network volume address".into(),
                source: io::Error::other(why),
            })
        };
        let mut options: Vec<String> = self.data.split(',').map(str::to_owned).collect();
        if let Some(option) = options.iter_mut().find(|option| option.starts_with("addr=")) {
            *option = format!("addr={}", found(&option["addr=".len()..])?);
            self.data = options.join(",");
        } else if let ("cifs", Some((host, share))) =
            (self.kind.as_str(), self.device.strip_prefix("//").and_then(|rest| rest.split_once('/')))
        {
            self.device = format!("//{}/{share}", found(host)?);
        }
        Ok(self)
    }

    /// Mounts it on `path`.
    ///
    /// # Errors
    /// `Mount`, with the words of mount(2).
    pub(crate) fn mount(&self, path: &Path) -> Result<()> {
        self.try_mount(path).map_err(|errno| VolumeError::Mount {
            path: path.to_owned(),
            what: format!(
                "mount {}:{}, flags: {:#x}{}",
                self.device,
                path.display(),
                self.flags.bits(),
                if self.data.is_empty() { String::new() } else { format!(", data: {}", masked(&self.data)) }
            ),
            source: io::Error::from(errno),
        })
    }

    fn try_mount(&self, path: &Path) -> rustix::io::Result<()> {
        let data = CString::new(self.data.as_str()).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount(self.device.as_str(), path, self.kind.as_str(), self.flags, Some(data.as_c_str()))?;
        let done = (|| {
            // The kernel takes the flags of a bind mount in a second step only.
            let bind = MountFlags::BIND | MountFlags::REC;
            if self.flags.contains(MountFlags::BIND) && !(self.flags - bind).is_empty() {
                rustix::mount::mount_remount(path, self.flags - MountFlags::REC, "")?;
            }
            self.propagation.map_or(Ok(()), |propagation| rustix::mount::mount_change(path, propagation))
        })();
        if done.is_err() {
            let _ = unmount(path);
        }
        done
    }
}

/// Options as they may be shown and logged.
fn masked(data: &str) -> String {
    let shown = |option: &str| match option.split_once('=') {
        Some((key @ ("password" | "pass" | "password2"), _)) => format!("{key}=********"),
        _ => option.to_owned(),
    };
    data.split(',').map(shown).collect::<Vec<_>>().join(",")
}

/// mount(8)'s options that are flags, and whether they set or clear them.
fn flag(option: &str) -> Option<(MountFlags, bool)> {
    Some(match option {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND | MountFlags::REC, true),
        "defaults" => (MountFlags::empty(), true),
        _ => return None,
    })
}

fn propagation(option: &str) -> Option<MountPropagationFlags> {
    let recursive = |flags: MountPropagationFlags| flags | MountPropagationFlags::REC;
    Some(match option {
        "private" => MountPropagationFlags::PRIVATE,
        "rprivate" => recursive(MountPropagationFlags::PRIVATE),
        "shared" => MountPropagationFlags::SHARED,
        "rshared" => recursive(MountPropagationFlags::SHARED),
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "rslave" => recursive(MountPropagationFlags::DOWNSTREAM),
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        "runbindable" => recursive(MountPropagationFlags::UNBINDABLE),
        _ => return None,
    })
}

/// Whether something is mounted on `path` (proc(5), `mountinfo`).
pub(crate) fn is_mounted(path: &Path) -> bool {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Blanks in a path are written as octal numbers.
    let own = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    all.lines().any(|line| line.split(' ').nth(4) == Some(own.as_str()))
}

/// Takes away what is mounted on `path`; who still uses it keeps it.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_flags_or_data() {
        let wanted =
            Wanted::of(&options(&[("type", "nfs"), ("o", "addr=1.2.3.4,rw,nosuid,ro"), ("device", ":/x")])).unwrap();
        assert_eq!((wanted.device.as_str(), wanted.kind.as_str()), (":/x", "nfs"));
        assert_eq!((wanted.flags, wanted.data.as_str()), (MountFlags::RDONLY | MountFlags::NOSUID, "addr=1.2.3.4"));
        assert_eq!(Wanted::of(&BTreeMap::new()), None);
        assert_eq!(masked("username=u,password=p,addr=1.2.3.4"), "username=u,password=********,addr=1.2.3.4");
    }

    #[test]
    fn names_of_hosts_become_addresses() {
        let lookup = Lookup::new(|host| match host {
            "store" => Ok(vec!["fd00::1".parse().unwrap(), "10.0.0.9".parse().unwrap()]),
            "six" => Ok(vec!["fd00::1".parse().unwrap()]),
            other => Err(format!("lookup {other}: no such host")),
        });
        let at = |kind: &str, o: &str, device: &str| {
            let wanted = Wanted::of(&options(&[("type", kind), ("o", o), ("device", device)])).unwrap();
            wanted.at_address(Path::new("/v"), &lookup).map(|wanted| (wanted.data, wanted.device))
        };
        let said = |kind, o, device| at(kind, o, device).unwrap();
        let pair = |data: &str, device: &str| (data.to_owned(), device.to_owned());
        assert_eq!(said("nfs", "addr=store,ro,vers=4", ":/x"), pair("addr=10.0.0.9,vers=4", ":/x"));
        assert_eq!(said("nfs4", "hard,addr=six", ":/x"), pair("hard,addr=fd00::1", ":/x"));
        assert_eq!(said("nfs", "addr=1.2.3.4", ":/x"), pair("addr=1.2.3.4", ":/x"));
        assert_eq!(said("cifs", "username=u", "//store/a/b"), pair("username=u", "//10.0.0.9/a/b"));
        assert_eq!(said("cifs", "addr=store", "//store/a"), pair("addr=10.0.0.9", "//store/a"));
        assert_eq!(said("tmpfs", "addr=nosuch", "tmpfs"), pair("addr=nosuch", "tmpfs"));
        let error = wharf_error(&at("nfs", "addr=nosuch", ":/x").unwrap_err());
        assert!(error.contains("error resolving passed in network volume address"), "{error}");
        assert!(error.ends_with("lookup nosuch: no such host"), "{error}");
        let none = Wanted::of(&options(&[("type", "nfs"), ("o", "addr=a"), ("device", ":/x")])).unwrap();
        none.at_address(Path::new("/v"), &Lookup::default()).unwrap_err();
    }

    fn wharf_error(error: &VolumeError) -> String {
        let source = std::error::Error::source(error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn what_is_missing_is_named() {
        let said = |pairs| check("v", &options(pairs)).unwrap_err().to_string();
        assert_eq!(said(&[("type", "tmpfs")]), "create v: missing required option: \"device\"");
        assert_eq!(said(&[("device", "/x")]), "create v: missing required option: \"type\"");
        assert_eq!(said(&[("foo", "bar")]), "create v: invalid option: \"foo\"");
        assert_eq!(said(&[("size", "much")]), "create v: invalid size: 'much'");
        assert!(said(&[("size", "1g"), ("type", "tmpfs"), ("device", "tmpfs")]).contains("without other options"));
        assert!(check("v", &options(&[("size", "1g")])).is_ok());
        assert!(check("v", &options(&[("type", "none"), ("o", "bind"), ("device", "/x")])).is_ok());
    }
}
