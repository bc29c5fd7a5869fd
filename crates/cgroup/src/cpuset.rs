//! Lists of CPUs and memory nodes.

use std::collections::BTreeSet;

/// No kernel has so many CPUs or nodes; a longer list is an attack on our memory.
const MAX: u32 = 8192;

/// `0-2,7` as its numbers: CPUs or memory nodes (cpuset(7), "List format").
///
/// As strict as moby's `parsers.ParseUintListMaximum`: digits, `,` and `-` alone, ranges that go up, and numbers of at
/// most 8192. `None` for anything else, and so for what the kernel takes beyond that, as white space and `0-31:1/2`.
pub fn cpuset_numbers(text: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|n| digits && *n <= MAX)
    };
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_strictly() {
        assert_eq!(cpuset_numbers("0-2,7"), Some([0, 1, 2, 7].into()));
        assert_eq!(cpuset_numbers("7,0-2,1-1"), cpuset_numbers("0-2,7"));
        for bad in ["", "x", "0\n1", "0 1", "1-", "-1", "2-1", "1-2-3", "0,", "9999", "+1", "0-4294967296", "0-31:1/2"]
        {
            assert_eq!(cpuset_numbers(bad), None, "{bad:?}");
        }
    }
}
