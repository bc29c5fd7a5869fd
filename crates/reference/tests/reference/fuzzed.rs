//! The body of the fuzz target `reference_text`, which is an ordinary test as well.

use wharf_reference::{Digest, Reference};

/// A text is refused with words, or is a name that means the same however it is written again.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Reference::parse(text) {
        Ok(reference) => {
            for again in [reference.familiar(), reference.to_string()] {
                let parsed = Reference::parse(&again).unwrap_or_else(|error| panic!("{text:?}: {again:?}: {error}"));
                assert_eq!(parsed, reference, "{text:?} became {again:?}");
            }
            // It is part of keys, paths of requests and lines of terminals.
            let name = reference.name();
            assert!(!name.contains("..") && !name.contains(char::is_control) && !name.contains('@'), "{name:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Digest::parse(text) {
        Ok(digest) => {
            assert_eq!(digest.as_str(), text);
            // It is the name of a file.
            assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()), "{text:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_are_taken_and_what_is_near_them_means_one_thing_or_nothing() {
        let seeds = mutate::seeds("reference_text");
        for seed in &seeds {
            let text = std::str::from_utf8(seed).unwrap();
            assert!(super::Reference::parse(text).is_ok() || super::Digest::parse(text).is_ok(), "{text}");
        }
        let mut taken = 0;
        for number in 0..20_000 {
            let data = mutate::mutated(&seeds, number);
            super::check(&data);
            taken += u32::from(std::str::from_utf8(&data).is_ok_and(|text| super::Reference::parse(text).is_ok()));
        }
        assert!(taken > 500, "{taken}");
    }
}
