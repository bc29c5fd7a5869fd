//! Which IDs a user has: its own, and those that `/etc/subuid` and `/etc/subgid` give to it (subuid(5)).

use std::path::Path;

/// Ranges of a user namespace: the first ID there, the first on the host, and how many.
type Ranges = Vec<[u32; 3]>;

/// The IDs of a user's namespace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uids: Ranges,
    pub(super) gids: Ranges,
    /// Why there is one of each only.
    pub(super) alone: Option<String>,
}

impl Ids {
    /// Those of the user `uid` with the group `gid`.
    pub(super) fn of(uid: u32, gid: u32) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = name_of(&read("/etc/passwd"), uid);
        let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
        let missing = ["newuidmap", "newgidmap"].into_iter().find(|program| !is_program(program));
        Self::choose((uid, gid), name.as_deref(), (&uids, &gids), missing)
    }

    fn choose(
        (uid, gid): (u32, u32),
        name: Option<&str>,
        (subuid, subgid): (&str, &str),
        missing: Option<&str>,
    ) -> Self {
        let (uids, gids) = (given(subuid, uid, name), given(subgid, uid, name));
        let who = name.map_or_else(|| uid.to_string(), str::to_owned);
        let why = if uids.is_empty() {
            Some(format!("/etc/subuid gives no IDs to {who} (usermod --add-subuids 100000-165535 {who})"))
        } else if gids.is_empty() {
            Some(format!("/etc/subgid gives no IDs to {who} (usermod --add-subgids 100000-165535 {who})"))
        } else {
            missing.map(|program| format!("the program `{program}` (package uidmap) is not there"))
        };
        match why {
            None => Self { uids: ranges(uid, &uids), gids: ranges(gid, &gids), alone: None },
            alone => Self { uids: ranges(uid, &[]), gids: ranges(gid, &[]), alone },
        }
    }
}

/// Root there is `own`; whoever else is there is of those that were given.
fn ranges(own: u32, given: &[(u32, u32)]) -> Ranges {
    let mut ranges = vec![[0, own, 1]];
    let mut next = 1_u32;
    for (first, count) in given {
        // The last ID is nobody's (user_namespaces(7)).
        let count = (*count).min((u32::MAX - 1).saturating_sub(next));
        if count > 0 {
            ranges.push([next, *first, count]);
            next += count;
        }
    }
    ranges
}

/// Lines `USER:FIRST:COUNT` of a user, by name or number.
fn given(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let line = |line: &str| -> Option<(u32, u32)> {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(user) == name || user == number).then_some(range)
    };
    text.lines().filter_map(line).filter(|(_, count)| *count > 0).collect()
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own = lines.find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    own.first().map(|name| (*name).to_owned())
}

/// Whether a program is where programs are looked for.
pub(super) fn is_program(name: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is =
        |dir: &Path| dir.join(name).metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).any(|dir| is(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_what_is_given_by_name_and_by_number() {
        let subuid = "other:1:2\nme:100000:65536\n1000:300000:10\nme:0:0\nbroken\n";
        let ids = Ids::choose((1000, 100), Some("me"), (subuid, "me:200000:65536"), None);
        assert_eq!(ids.uids, [[0, 1000, 1], [1, 100_000, 65_536], [65_537, 300_000, 10]]);
        assert_eq!((ids.gids, ids.alone), (vec![[0, 100, 1], [1, 200_000, 65_536]], None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let line = "me:100000:65536";
        for (subuid, subgid, missing, word) in [
            ("", line, None, "/etc/subuid gives no IDs to me"),
            (line, "", None, "/etc/subgid gives no IDs to me"),
            (line, line, Some("newuidmap"), "`newuidmap` (package uidmap)"),
        ] {
            let ids = Ids::choose((1000, 100), Some("me"), (subuid, subgid), missing);
            assert_eq!((ids.uids, ids.gids), (vec![[0, 1000, 1]], vec![[0, 100, 1]]));
            assert!(ids.alone.is_some_and(|why| why.contains(word)), "{word}");
        }
    }
}
