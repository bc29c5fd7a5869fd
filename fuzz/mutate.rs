//! Inputs near the seeds, for the ordinary tests, which have no libFuzzer: the same for the same number.

use std::path::Path;

/// What JSON and its readers look at.
const WORDS: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "4096",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "1e400",
    "\"\"",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\u0000",
    "\u{fffd}",
    "/",
    "..",
    "SCMP_ACT_NOTIFY",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_ARCH_X32",
    "socket",
    "0-4294967295",
];

/// The seeds of a target, by name.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("seed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("seed")).collect()
}

/// An input by chance.
pub(crate) fn mutated(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    // Xorshift (Marsaglia 2003).
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound.max(1) as u64) as usize
    };
    let mut data = seeds[below(seeds.len())].clone();
    for _ in 0..=below(6) {
        let at = below(data.len() + 1);
        let end = (at + below(16)).min(data.len());
        match below(6) {
            0 => data.splice(at..end, []).for_each(drop),
            1 => data.splice(at..end, WORDS[below(WORDS.len())].bytes()).for_each(drop),
            2 => data.insert(at, below(256) as u8),
            3 if at < data.len() => data[at] ^= 1 << below(8),
            4 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len() + 1);
                let to = (from + below(64)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied()).for_each(drop);
            }
            // A number or word in place of another, so that JSON stays JSON.
            _ => {
                let starts: Vec<usize> =
                    (0..data.len()).filter(|i| data[*i] == b':' || data[*i] == b',' || data[*i] == b'[').collect();
                if let Some(start) = starts.get(below(starts.len())).map(|start| start + 1) {
                    let length = data[start..].iter().position(|b| b",]}".contains(b)).unwrap_or(0);
                    data.splice(start..start + length, WORDS[below(WORDS.len())].bytes()).for_each(drop);
                }
            }
        }
    }
    data
}
