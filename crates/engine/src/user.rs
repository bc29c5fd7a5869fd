//! Who a process is: `--user`, looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files are the image's, so they are hostile: read inside the root, regular files only, bounded.

use rustix::fs::FileType;
use rustix::io::Errno;
use wharf_rooted_path::RootDir;

use crate::error::{EngineError, Result};

/// More than this is no user database but an attack on our memory.
const MAX_DATABASE: u64 = 1 << 20;

/// The IDs of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks up `user` (`""`, `name`, `uid`, either with `:group`) and the groups of `--group-add`.
///
/// # Errors
/// `InvalidParameter` with Docker's words when a name is in neither file.
pub fn lookup(root: &RootDir, user: &str, group_add: &[String]) -> Result<Identity> {
    lookup_in(&[root], user, group_add)
}

/// As [`lookup`] in several trees that lie on top of each other, the topmost first.
///
/// # Errors
/// As [`lookup`].
pub fn lookup_in(roots: &[&RootDir], user: &str, group_add: &[String]) -> Result<Identity> {
    let (passwd, group) = (read(roots, "etc/passwd")?, read(roots, "etc/group")?);
    resolve(&String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group), user, group_add)
}

/// The topmost of the file; empty when none has it. One that cannot be used is an error: whoever is in it would
/// otherwise get fewer groups than he has, or another's.
fn read(roots: &[&RootDir], path: &str) -> Result<Vec<u8>> {
    for root in roots {
        match root.read_small(path, MAX_DATABASE) {
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.is_not_found() || error.errno == Errno::NOTDIR => {}
            // Overlayfs's mark of a file that was removed, and with it those below.
            Err(_) if is_whiteout(root, path) => return Ok(Vec::new()),
            Err(error) => {
                let reason = wharf_report::chain(&error);
                return Err(EngineError::invalid(format!("cannot use the container's /{path}: {reason}")));
            }
        }
    }
    Ok(Vec::new())
}

fn is_whiteout(root: &RootDir, path: &str) -> bool {
    root.metadata(path, false)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0)
}

fn resolve(passwd: &str, group: &str, user: &str, group_add: &[String]) -> Result<Identity> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = parse_id(name);
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && (fields[0] == name || (number.is_some() && parse_id(fields[2]) == number)));
    let (login, uid, gid, home) = match &entry {
        Some(fields) => (
            Some(fields[0]),
            parse_id(fields[2])
                .ok_or_else(|| EngineError::invalid(format!("the image's passwd entry of {name} has no number")))?,
            parse_id(fields[3]).unwrap_or(0),
            fields[5].to_owned(),
        ),
        None => match number {
            Some(uid) => (None, uid, 0, "/".to_owned()),
            None if name.parse::<i64>().is_ok() => {
                return Err(EngineError::invalid("uids and gids must be in range 0-2147483647"));
            }
            None => {
                return Err(EngineError::invalid(format!(
                    "unable to find user {name}: no matching entries in passwd file"
                )));
            }
        },
    };
    let mut more = Vec::new();
    let gid = match wanted_group {
        Some(text) => find_group(group, text)?,
        None => {
            if let Some(login) = login {
                for fields in group.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
                    if fields.len() >= 4 && fields[3].split(',').any(|member| member == login) {
                        more.extend(parse_id(fields[2]));
                    }
                }
            }
            gid
        }
    };
    for text in group_add {
        more.push(find_group(group, text)?);
    }
    // A process that drops its primary group must not gain by it (CVE-2022-36109).
    let mut groups = vec![gid];
    groups.append(&mut more);
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|g| seen.insert(*g));
    let home = if home.is_empty() { "/".into() } else { home };
    Ok(Identity { uid, gid, groups, home })
}

fn find_group(group: &str, text: &str) -> Result<u32> {
    let by_name = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 3 && fields[0] == text)
        .and_then(|fields| parse_id(fields[2]));
    by_name
        .or_else(|| parse_id(text))
        .ok_or_else(|| EngineError::invalid(format!("unable to find group {text}: no matching entries in group file")))
}

/// Decimal digits only and in range: an ID that overflows must never wrap to root (CVE-2024-40635).
fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse::<u32>().ok()).flatten().filter(|id| *id <= i32::MAX.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\nbroken:x\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nextra:x:50:web,other\n";

    #[test]
    fn names_and_numbers() {
        let root = resolve(PASSWD, GROUP, "", &[]).unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        let web = resolve(PASSWD, GROUP, "web", &[]).unwrap();
        assert_eq!((web.uid, web.gid, web.groups.clone()), (33, 33, vec![33, 50]));
        assert_eq!(resolve(PASSWD, GROUP, "33", &[]).unwrap(), web);
        let other = resolve(PASSWD, GROUP, "1234:www", &["extra".into()]).unwrap();
        assert_eq!((other.uid, other.gid, other.groups), (1234, 33, vec![33, 50]));
    }

    #[test]
    fn what_is_not_there_or_overflows_is_refused() {
        for bad in ["nobody", "4294967296", "-1", "web:nogroup", "2147483648"] {
            assert!(resolve(PASSWD, GROUP, bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        assert_eq!(lookup(&root, "7", &[]).unwrap().uid, 7);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let group = dir.path().join("etc/group");
        std::fs::write(&group, vec![b'\n'; MAX_DATABASE as usize + 1]).unwrap();
        let error = lookup(&root, "7", &[]).unwrap_err().message;
        assert!(error.starts_with("cannot use the container's /etc/group: "), "{error}");
        std::fs::remove_file(&group).unwrap();
        std::fs::create_dir(&group).unwrap();
        assert!(lookup(&root, "7", &[]).is_err());
    }
}
