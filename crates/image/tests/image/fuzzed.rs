//! The body of the fuzz target `image_config`, which is an ordinary test as well.

use wharf_image::ImageConfig;

/// Bytes as an image's configuration are refused, or say the same when they are written again.
pub(crate) fn check(data: &[u8]) -> bool {
    let config: ImageConfig = match serde_json::from_slice(data) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let written = serde_json::to_vec(&config).expect("it was JSON");
    let again: ImageConfig = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(serde_json::to_vec(&again).expect("it was JSON"), written);
    // Each is the name of a directory.
    for diff_id in &config.rootfs.diff_ids {
        assert!(diff_id.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    true
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
pub(crate) mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_are_taken_and_what_is_near_them_is_taken_or_refused() {
        let seeds = mutate::seeds("image_config");
        assert!(seeds.iter().all(|seed| super::check(seed)));
        let taken = (0..5000).filter(|number| super::check(&mutate::mutated(&seeds, *number))).count();
        assert!(taken > 100, "{taken}");
    }
}
