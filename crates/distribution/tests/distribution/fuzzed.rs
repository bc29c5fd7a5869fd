//! The body of the fuzz target `manifest_json`, which is an ordinary test as well.

use wharf_distribution::{Manifest, Platform};

const TYPES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Bytes are taken as one form at most, and what is taken can be used; all else is refused with words.
pub(crate) fn check(data: &[u8]) -> bool {
    let mut taken = (false, false);
    for media_type in TYPES {
        match Manifest::parse(data, media_type) {
            Ok(Manifest::Image(image)) => {
                taken.0 = true;
                // Each is asked for by its digest, and put into a file of that name.
                for descriptor in image.layers.iter().chain([&image.config]) {
                    assert!(descriptor.digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
                }
            }
            Ok(Manifest::Index(index)) => {
                taken.1 = true;
                let _ = index.select(&Platform::host());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(!(taken.0 && taken.1), "both an image and an index (CVE-2021-41190)");
    taken.0 || taken.1
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_are_taken_and_what_is_near_them_is_taken_or_refused() {
        let seeds = mutate::seeds("manifest_json");
        assert!(seeds.iter().all(|seed| super::check(seed)));
        let taken = (0..5000).filter(|number| super::check(&mutate::mutated(&seeds, *number))).count();
        assert!(taken > 100, "{taken}");
    }
}
