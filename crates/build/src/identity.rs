//! Users and groups by name, looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's, so they are hostile: read inside the root, regular files only, bounded.

use rustix::io::Errno;
use wharf_rooted_path::RootDir;

use crate::error::{BuildError, Result};

/// More than this is no user database but an attack on our memory.
const MAX_DATABASE: u64 = 1 << 20;

/// The two files of an image.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

/// The IDs of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one first.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// One user of the database.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Reads the files below `root`; a missing one is empty.
    ///
    /// # Errors
    /// For one that cannot be used: whoever is in it would otherwise get fewer groups than he has, or another's.
    pub(crate) fn of(root: &RootDir) -> Result<Self> {
        let read = |path: &str| match root.read_small(path, MAX_DATABASE) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.is_not_found() || error.errno == Errno::NOTDIR => Ok(String::new()),
            Err(error) => {
                let reason = wharf_report::chain(&error);
                Err(BuildError::invalid(format!("cannot use the image's /{path}: {reason}")))
            }
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Who a process is for `USER user[:group]`.
    ///
    /// # Errors
    /// With Docker's words when a name is in neither file.
    pub(crate) fn identity(&self, text: &str) -> Result<Identity> {
        let (name, group) = split(text);
        let name = if name.is_empty() { "0" } else { name };
        let user = self.user(name);
        let number = parse_id(name);
        let (uid, gid) = match (&user, number) {
            (Some(user), _) => (user.uid, user.gid),
            (None, Some(uid)) => (uid, 0),
            (None, None) => {
                let message = format!("unable to find user {name}: no matching entries in passwd file");
                return Err(BuildError::invalid(message));
            }
        };
        let home = user.as_ref().map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
        let (gid, groups) = match group {
            Some(group) => (self.group(group)?, Vec::new()),
            None => (gid, user.map(|user| self.groups_of(user.name)).unwrap_or_default()),
        };
        // A process that drops its primary group must not gain by it (CVE-2022-36109).
        let groups = std::iter::once(gid).chain(groups.into_iter().filter(|group| *group != gid)).collect();
        Ok(Identity { uid, gid, groups, home })
    }

    /// The owner for `--chown=user[:group]`: without a group it is the user's number, as Docker has it.
    ///
    /// # Errors
    /// When a name is in neither file.
    pub(crate) fn owner(&self, text: &str) -> Result<(u32, u32)> {
        let (name, group) = split(text);
        let fail = |what: &str, name: &str| {
            BuildError::invalid(format!(
                "unable to convert uid/gid chown string to host mapping: can't find {what} {name}"
            ))
        };
        let (uid, primary) = match (parse_id(name), self.user(name)) {
            (Some(uid), _) => (uid, uid),
            (None, Some(user)) => (user.uid, user.gid),
            (None, None) if name.is_empty() => (0, 0),
            (None, None) => return Err(fail("uid for user", name)),
        };
        let gid = match group {
            // As of a variable without a value.
            None if text.ends_with(':') => 0,
            None => primary,
            Some(group) => match parse_id(group) {
                Some(gid) => gid,
                None => self.group(group).map_err(|_| fail("gid for group", group))?,
            },
        };
        Ok((uid, gid))
    }

    /// As [`Self::owner`], where names that are in neither file are root, and its group or the user's: BuildKit takes them so
    /// without a word. Those names come with it. What is a number is never taken for a name.
    ///
    /// # Errors
    /// For a number that is out of range.
    pub(crate) fn owner_or_root(&self, text: &str) -> Result<((u32, u32), Vec<String>)> {
        let owner = self.owner(text);
        let is_name = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let (name, group) = split(text);
        if owner.is_ok() || !(is_name(name) || group.is_some_and(is_name)) {
            return Ok((owner?, Vec::new()));
        }
        let mut unknown = Vec::new();
        let (uid, primary) = match self.owner(name) {
            Err(_) if is_name(name) => {
                unknown.push(name.to_owned());
                (0, 0)
            }
            owner => owner?,
        };
        let gid = match group {
            None => primary,
            Some(group) if is_name(group) => self.group(group).unwrap_or_else(|_| {
                unknown.push(group.to_owned());
                primary
            }),
            Some(group) => self.owner(&format!("0:{group}"))?.1,
        };
        Ok(((uid, gid), unknown))
    }

    fn user<'a>(&'a self, name: &str) -> Option<User<'a>> {
        let number = parse_id(name);
        let mut users = self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            Some(User { name, uid: parse_id(uid)?, gid: parse_id(gid)?, home })
        });
        users.find(|user| user.name == name || Some(user.uid) == number)
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members, ..] = fields.as_slice() else { return None };
            Some((*name, parse_id(gid)?, *members))
        })
    }

    fn group(&self, text: &str) -> Result<u32> {
        let named = self.groups().find(|(name, ..)| *name == text).map(|(_, gid, _)| gid);
        named.or_else(|| parse_id(text)).ok_or_else(|| {
            BuildError::invalid(format!("unable to find group {text}: no matching entries in group file"))
        })
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let mut groups: Vec<u32> = Vec::new();
        for (_, gid, members) in self.groups() {
            if members.split(',').any(|member| member == user) && !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        groups
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    }
}

/// Decimal digits only and in range: an ID that overflows must never wrap to root (CVE-2024-40635).
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse::<u32>().ok()).flatten().filter(|id| i32::try_from(*id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\nbroken:x\n".into(),
            group: "root:x:0:\nwww:x:34:\nextra:x:50:web,other\nextra2:x:50:web\n".into(),
        }
    }

    #[test]
    fn users_by_name_and_number() {
        let accounts = accounts();
        let web = accounts.identity("web").unwrap();
        assert_eq!((web.uid, web.gid, web.groups.as_slice(), web.home.as_str()), (33, 34, &[34, 50][..], "/var/www"));
        assert_eq!(accounts.identity("33").unwrap(), web);
        assert_eq!(accounts.identity("").unwrap().home, "/root");
        let other = accounts.identity("1234:www").unwrap();
        assert_eq!((other.uid, other.gid, other.groups.as_slice(), other.home.as_str()), (1234, 34, &[34][..], "/"));
        for bad in ["nobody", "4294967296", "-1", "web:nogroup", "2147483648", "+1"] {
            assert!(accounts.identity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn owners_by_name_and_number() {
        let accounts = accounts();
        for (text, owner) in [
            ("web", (33, 34)),
            ("web:root", (33, 0)),
            ("5", (5, 5)),
            ("5:6", (5, 6)),
            (":www", (0, 34)),
            ("5:", (5, 0)),
            ("web:", (33, 0)),
        ] {
            assert_eq!(accounts.owner(text).unwrap(), owner, "{text}");
        }
        for bad in ["nobody", "web:nogroup", "99999999999", "web:-1"] {
            assert!(accounts.owner(bad).is_err(), "{bad}");
        }
        for (text, owner, unknown) in [
            ("nobody", (0, 0), &["nobody"][..]),
            ("web:nogroup", (33, 34), &["nogroup"]),
            ("7:none", (7, 7), &["none"]),
            ("nobody:9", (0, 9), &["nobody"]),
            ("web:www", (33, 34), &[]),
        ] {
            let (found, missing) = accounts.owner_or_root(text).unwrap();
            assert!(found == owner && missing == unknown, "{text}: {found:?} {missing:?}");
        }
        for bad in ["99999999999", "-1", "web:-1", "nobody:99999999999", "1:2:3"] {
            assert!(accounts.owner_or_root(bad).is_err(), "{bad}");
        }
    }
}
