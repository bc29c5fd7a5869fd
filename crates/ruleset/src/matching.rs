//! Whether what is in registers is what a rule wants.

use wharf_netlink::nft::{ElementEntry, StoredSet};

use crate::registers::{Bytes, Truth, all};

/// `NFT_CMP_*`.
pub(crate) fn compare(operator: u32, bytes: &[Option<u8>], value: &[u8]) -> Truth {
    let equal = || {
        if bytes.iter().zip(value).any(|(byte, wanted)| byte.is_some_and(|byte| byte != *wanted)) {
            return Truth::No;
        }
        if bytes.iter().all(Option::is_some) { Truth::Yes } else { Truth::Unknown }
    };
    match operator {
        0 => equal(),
        1 => equal().not(),
        _ => {
            let Some(bytes) = all(bytes) else { return Truth::Unknown };
            let order = bytes.as_slice().cmp(value);
            match operator {
                2 => Truth::of(order.is_lt()),
                3 => Truth::of(order.is_le()),
                4 => Truth::of(order.is_gt()),
                5 => Truth::of(order.is_ge()),
                _ => Truth::Unknown,
            }
        }
    }
}

pub(crate) fn within(bytes: &[Option<u8>], low: &[u8], high: &[u8]) -> Truth {
    match all(bytes) {
        Some(bytes) => Truth::of(bytes.as_slice() >= low && bytes.as_slice() <= high),
        // One value alone is a comparison.
        None if low == high => compare(0, bytes, low),
        None => Truth::Unknown,
    }
}

/// Elements that may be the one that is meant; whether it is for sure that it is the first of them, or that there is none.
pub(crate) fn find<'a>(set: &'a StoredSet, key: &Bytes) -> (Vec<&'a ElementEntry>, Truth) {
    let plain_interval = set.is_interval && set.fields.len() == 1 && set.elements.iter().all(|e| e.key_end.is_none());
    let (mut found, truth) = if plain_interval { interval(set, key) } else { each(set, key) };
    if truth != Truth::Yes {
        let rest = set.elements.iter().filter(|element| element.is_catch_all);
        found.extend(rest);
        if truth == Truth::No && !found.is_empty() {
            return (found, Truth::Yes);
        }
    }
    (found, truth)
}

fn each<'a>(set: &'a StoredSet, key: &Bytes) -> (Vec<&'a ElementEntry>, Truth) {
    let mut possible = Vec::new();
    for element in set.elements.iter().filter(|element| !element.is_catch_all) {
        let truth = match &element.key_end {
            None => compare(0, key, &element.key),
            Some(end) => {
                let mut at = 0;
                set.fields.iter().fold(Truth::Yes, |truth, length| {
                    let range = at..at + length;
                    at += length.next_multiple_of(4);
                    let part = |bytes: &'a [u8]| bytes.get(range.clone()).unwrap_or_default();
                    let value = key.get(range.clone()).unwrap_or_default();
                    truth.and(within(value, part(&element.key), part(end)))
                })
            }
        };
        match truth {
            Truth::Yes => return (vec![element], Truth::Yes),
            Truth::Unknown => possible.push(element),
            Truth::No => {}
        }
    }
    let truth = if possible.is_empty() { Truth::No } else { Truth::Unknown };
    (possible, truth)
}

/// Elements of a plain interval set are where ranges begin and where they have ended.
fn interval<'a>(set: &'a StoredSet, key: &Bytes) -> (Vec<&'a ElementEntry>, Truth) {
    let begins = || set.elements.iter().filter(|element| !element.ends_interval && !element.is_catch_all);
    let Some(value) = all(key) else {
        let possible: Vec<_> = begins().collect();
        let truth = if possible.is_empty() { Truth::No } else { Truth::Unknown };
        return (possible, truth);
    };
    let last = set.elements.iter().filter(|e| !e.is_catch_all && e.key <= value);
    // Of a range that begins where another has ended the begin counts.
    match last.max_by(|a, b| a.key.cmp(&b.key).then(b.ends_interval.cmp(&a.ends_interval))) {
        Some(element) if !element.ends_interval => (vec![element], Truth::Yes),
        _ => (Vec::new(), Truth::No),
    }
}

#[cfg(test)]
mod tests {
    use wharf_netlink::nft::Family;

    use super::*;
    use crate::registers::known;

    fn set(is_interval: bool, fields: &[usize], elements: Vec<ElementEntry>) -> StoredSet {
        StoredSet {
            family: Family::Ip,
            table: "t".into(),
            name: "s".into(),
            is_anonymous: false,
            is_interval,
            key_length: fields.iter().sum(),
            fields: fields.into(),
            elements,
        }
    }

    fn element(key: &[u8]) -> ElementEntry {
        ElementEntry { key: key.into(), ..ElementEntry::default() }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(compare(0, &[Some(1), None], &[1, 2]), Truth::Unknown);
        assert_eq!(compare(0, &[Some(2), None], &[1, 2]), Truth::No);
        assert_eq!(compare(1, &[Some(2), None], &[1, 2]), Truth::Yes);
        assert_eq!(compare(2, &known(&[0, 80]), &[1, 0]), Truth::Yes);
        assert_eq!(compare(5, &known(&[0, 80]), &[1, 0]), Truth::No);
        assert_eq!(within(&[None], &[1], &[3]), Truth::Unknown);
        let ports = set(false, &[2], vec![element(&[0, 80]), element(&[1, 187])]);
        assert_eq!(find(&ports, &known(&[1, 187])), (vec![&ports.elements[1]], Truth::Yes));
        assert_eq!(find(&ports, &known(&[0, 22])).1, Truth::No);
        assert_eq!(find(&ports, &vec![None, Some(80)]).1, Truth::Unknown);
        assert_eq!(find(&ports, &vec![None, Some(81)]).1, Truth::No);
    }

    #[test]
    fn ranges_begin_and_end() {
        let end = |key: &[u8]| ElementEntry { ends_interval: true, ..element(key) };
        let ranges = set(true, &[1], vec![end(&[0]), element(&[10]), end(&[20]), element(&[20]), end(&[30])]);
        for (value, wanted) in [(0, false), (9, false), (10, true), (19, true), (20, true), (29, true), (30, false)] {
            assert_eq!(find(&ranges, &known(&[value])).1, Truth::of(wanted), "{value}");
        }
        let pair = ElementEntry { key_end: Some(vec![9, 0, 0, 0, 0, 90, 0, 0]), ..element(&[6, 0, 0, 0, 0, 80, 0, 0]) };
        let pairs = set(true, &[1, 2], vec![pair]);
        let key = |protocol: u8, port: u8| known(&[protocol, 0, 0, 0, 0, port, 0, 0]);
        assert_eq!(find(&pairs, &key(6, 85)).1, Truth::Yes);
        assert_eq!(find(&pairs, &key(6, 91)).1, Truth::No);
        assert_eq!(find(&pairs, &key(17, 85)).1, Truth::No);
        let rest = set(false, &[1], vec![ElementEntry { is_catch_all: true, ..element(&[]) }]);
        assert_eq!(find(&rest, &known(&[7])).1, Truth::Yes);
    }
}
