use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use wharf_image::Remove;

use crate::{Place, listing};

#[test]
fn what_several_images_have_stays_until_the_last_is_gone() {
    let place = Place::new();
    let (shared, own) = (place.layer(&[("s", b"s")]), place.layer(&[("o", b"o")]));
    place.image(&[shared.clone(), own.clone()], "one", &["one"]);
    place.image(std::slice::from_ref(&shared), "two", &["two"]);
    place.images.layers().compressed(&own, None).unwrap();
    let remove = |name: &str| place.images.remove(name, Remove::default(), &|_| Vec::new()).unwrap();
    remove("one");
    assert!(place.images.collect(&Vec::new).unwrap() > 0);
    assert!(place.images.layers().contains(&shared) && !place.images.layers().contains(&own));
    assert_eq!(place.blobs().len(), 1, "the other's configuration");
    remove("two");
    place.images.collect(&Vec::new).unwrap();
    assert!(place.images.layers().list().unwrap().is_empty() && place.blobs().is_empty());
    assert!(listing(&place.path("data/layers")).is_empty());
}

#[test]
fn what_belongs_to_nobody_is_spared_for_a_while() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let orphan = place.layer(&[("orphan", b"of a pull that failed")]);
    let store = place.path("data");
    let blob = store.join("blobs/sha256").join("ab".repeat(32));
    fs::write(&blob, "of a push that was cut off").unwrap();
    let partial = store.join("ingest").join(format!("partial-{}", "cd".repeat(32)));
    fs::write(&partial, "half a blob").unwrap();
    assert_eq!(place.images.collect(&Vec::new).unwrap(), 0);
    assert!(place.images.layers().contains(&orphan) && blob.exists() && partial.exists());
    let days = |count: u64| SystemTime::now() - Duration::from_secs(count * 24 * 3600);
    File::options().write(true).open(&blob).unwrap().set_modified(days(2)).unwrap();
    File::options().write(true).open(&partial).unwrap().set_modified(days(8)).unwrap();
    assert!(place.images.collect(&Vec::new).unwrap() > 0);
    assert!(!blob.exists() && !partial.exists());
    assert_eq!(place.images.resolve("x").unwrap().id, image.id);
    // Whoever asks for images to be pruned wants all of it back, but for what somebody holds.
    let held = place.images.layers().import(&mut crate::tar(&[("held", b"h")]).as_slice(), None).unwrap();
    fs::write(&blob, "of another push").unwrap();
    fs::write(&partial, "half of another blob").unwrap();
    let other = store.join("ingest").join(format!("partial-{}", "ef".repeat(32)));
    let busy = File::create(&other).unwrap();
    rustix::fs::flock(&busy, rustix::fs::FlockOperation::LockExclusive).unwrap();
    place.images.prune(true, &|_| false, &|_| true).unwrap();
    assert!(place.images.collect(&Vec::new).unwrap() > 0);
    assert!(!place.images.layers().contains(&orphan) && !blob.exists() && !partial.exists());
    assert!(place.images.layers().contains(&held.diff_id) && other.exists());
    assert!(place.images.layers().verify(&image.diff_ids[0]).is_ok());
}
