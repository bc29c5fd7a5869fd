//! Which IDs of the host the containers' user namespaces have: what `/etc/subuid` and `/etc/subgid` give to us, or a
//! range of our own that they give to nobody (subuid(5)).

/// Users that an administrator may have given IDs to for containers: ours, and those of Docker and podman.
const OURS: &str = "wharf";
const USERS: &[&str] = &[OURS, "dockremap", "containers"];
/// What one container needs.
const LEAST: u32 = 65_536;
/// Of what was not given to us by name.
const FOR_MANY: u32 = 64 * LEAST;
/// Ranges of our own, the first best: far from people's, and from those that `useradd` gives away.
const OWN: [u32; 5] = [0x2000_0000, 0x3000_0000, 0x4000_0000, 0x5000_0000, 0x6000_0000];
const OWN_SIZE: u32 = 0x1000_0000;

/// The first ID and how many; none, which no container with a user namespace fits into, where all are somebody's.
pub(crate) fn id_range() -> (u32, u32) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    choose(&read("/etc/subuid"), &read("/etc/subgid"))
}

fn choose(subuid: &str, subgid: &str) -> (u32, u32) {
    let (uids, gids) = (parse(subuid), parse(subgid));
    for user in USERS {
        let of = |all: &[Entry]| -> Vec<(u32, u32)> {
            all.iter().filter(|entry| entry.user == *user).map(|entry| (entry.first, entry.count)).collect()
        };
        let (uids, gids) = (of(&uids), of(&gids));
        let both = uids.iter().flat_map(|uids| gids.iter().filter_map(|gids| common(*uids, *gids)));
        // What others have left there for one namespace of theirs is not enough for many of ours.
        let least = if *user == OURS { LEAST } else { FOR_MANY };
        if let Some(largest) = both.filter(|(_, count)| *count >= least).max_by_key(|(_, count)| *count) {
            return largest;
        }
    }
    let taken = |first: u32| uids.iter().chain(&gids).any(|e| common((e.first, e.count), (first, OWN_SIZE)).is_some());
    OWN.into_iter().find(|first| !taken(*first)).map_or((0, 0), |first| (first, OWN_SIZE))
}

/// A line of subuid(5): `USER:FIRST:COUNT`, the user by name or number.
#[derive(Debug)]
struct Entry {
    user: String,
    first: u32,
    count: u32,
}

fn parse(text: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut fields = line.trim().split(':');
        let (user, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { user: user.to_owned(), first, count })
    };
    text.lines().filter_map(entry).collect()
}

fn common((a, a_count): (u32, u32), (b, b_count): (u32, u32)) -> Option<(u32, u32)> {
    let first = a.max(b);
    let end = a.saturating_add(a_count).min(b.saturating_add(b_count));
    (end > first).then(|| (first, end - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_to_us_is_taken() {
        let both = "somebody:100000:65536\ndockremap:200000:65536\ncontainers:300000:8000000\n";
        assert_eq!(choose(both, both), (300_000, 8_000_000));
        // What `userns-remap` of Docker's writes: room for one container.
        assert_eq!(choose("dockremap:100000:65536", "dockremap:100000:65536"), (0x2000_0000, OWN_SIZE));
        assert_eq!(choose("wharf:200000:131072\n", "wharf:231072:131072\n"), (231_072, 100_000));
        assert_eq!(choose(&format!("{both}wharf:7:70000"), &format!("{both}wharf:7:70000")), (7, 70_000));
    }

    #[test]
    fn otherwise_what_is_given_to_nobody() {
        assert_eq!(choose("", ""), (0x2000_0000, OWN_SIZE));
        // Too few, or only of one kind.
        assert_eq!(choose("wharf:100000:1000", "wharf:100000:1000"), (0x2000_0000, OWN_SIZE));
        assert_eq!(choose("wharf:100000:65536", ""), (0x2000_0000, OWN_SIZE));
        let next = (0x3000_0000, OWN_SIZE);
        assert_eq!(choose("domain:536870912:65536", ""), next);
        assert_eq!(choose("", "domain:805306367:1"), next);
        assert_eq!(choose("domain:1:4294967294", "odd\n::\n"), (0, 0));
    }
}
