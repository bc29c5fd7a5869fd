//! The body of the fuzz target `config_json`, which is an ordinary test as well.

/// Bytes as a configuration are taken or refused with words; nothing else happens.
pub(crate) fn check(data: &[u8]) {
    if let Err(said) = wharf_oci::review(data) {
        assert!(!said.is_empty());
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_are_taken_and_what_is_near_them_is_taken_or_refused() {
        let seeds = mutate::seeds("config_json");
        assert!(!seeds.is_empty());
        for seed in &seeds {
            wharf_oci::review(seed).unwrap();
        }
        let mut taken = 0;
        for number in 0..3000 {
            let data = mutate::mutated(&seeds, number);
            super::check(&data);
            taken += u32::from(wharf_oci::review(&data).is_ok());
        }
        // Mutations that are refused by the JSON parser alone would try nothing.
        assert!(taken > 50, "{taken}");
    }
}
