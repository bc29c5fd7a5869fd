//! The rules of `docker rmi` and `docker image prune`, and their words.

use wharf_image::{ErrorKind, ImageRecord, Remove, Removed};
use wharf_reference::Digest;

use crate::Place;

const PLAIN: Remove = Remove { force: false, prune: true };
const FORCE: Remove = Remove { force: true, prune: true };
const CONTAINER: &str = "123456789012abcdef";

fn nobody(_: &Digest) -> Vec<(String, bool)> {
    Vec::new()
}

fn stopped(_: &Digest) -> Vec<(String, bool)> {
    vec![(CONTAINER.into(), false)]
}

fn running(_: &Digest) -> Vec<(String, bool)> {
    vec![(CONTAINER.into(), true)]
}

fn untagged(name: &str) -> Removed {
    Removed::Untagged(name.into())
}

fn deleted(id: &Digest) -> Removed {
    Removed::Deleted(id.to_string())
}

#[test]
fn the_last_name_takes_the_image_with_it() {
    let place = Place::new();
    let image = place.simple("", &["x", "y:1"]);
    assert_eq!(place.images.remove("y:1", PLAIN, &nobody).unwrap(), [untagged("y:1")]);
    assert_eq!(place.images.remove("x", PLAIN, &nobody).unwrap(), [untagged("x:latest"), deleted(&image.id)]);
    let error = place.images.remove("x", PLAIN, &nobody).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("No such image: x:latest", ErrorKind::NotFound));
    assert!(place.images.layers().contains(&image.diff_ids[0]), "until it is collected");
    let configuration = place.images.collect(&|| image.diff_ids.clone()).unwrap();
    assert!((1..1000).contains(&configuration), "which has gone with its image: {configuration}");
    assert!(place.images.layers().contains(&image.diff_ids[0]), "a container has the layer");
    assert!(place.images.collect(&Vec::new).unwrap() > 0);
    assert!(!place.images.layers().contains(&image.diff_ids[0]) && place.blobs().is_empty());
}

/// Two who come at the same moment, many times. Whatever the first is told stays true.
fn beside<T: Send>(
    place: &Place,
    first: impl Fn(&ImageRecord) -> wharf_image::Result<T> + Sync,
    second: impl Fn(&ImageRecord) -> wharf_image::Result<Vec<Removed>> + Sync,
    stays: impl Fn(&ImageRecord) -> bool,
) {
    let mut both = 0;
    for round in 0..60 {
        let image = place.simple(&round.to_string(), &["a"]);
        let barrier = std::sync::Barrier::new(2);
        let (told, gone) = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                barrier.wait();
                first(&image)
            });
            let second = scope.spawn(|| {
                barrier.wait();
                // A little later, and later: somewhere in between the image is looked at and not gone yet.
                std::thread::sleep(std::time::Duration::from_micros(round * 20));
                second(&image)
            });
            (first.join().unwrap(), second.join().unwrap())
        });
        assert!(told.is_err() || stays(&image), "round {round}: {gone:?}");
        both += u32::from(told.is_ok());
        drop(told);
        for name in ["a", "b", image.id.as_str()] {
            let _ = place.images.remove(name, FORCE, &nobody);
        }
        place.images.collect(&Vec::new).unwrap();
    }
    assert!(both > 0, "the first never came first");
    assert!(place.blobs().is_empty(), "{:?}", place.blobs());
}

#[test]
fn what_gets_a_name_while_it_is_removed_stays_or_is_not_found() {
    let place = Place::new();
    // (Some of the images have IDs that begin as the names do.)
    let named = |image: &ImageRecord| place.images.resolve("b").is_ok_and(|found| found.id == image.id);
    beside(&place, |_| place.images.tag("a", "b"), |_| place.images.remove("a", PLAIN, &nobody), named);
    beside(
        &place,
        |image| place.images.create(&image.config, None, &["b".into()]),
        |_| place.images.remove("a", PLAIN, &nobody),
        named,
    );
    beside(
        &place,
        |image| place.images.tag(image.id.as_str(), "b"),
        |_| {
            place.images.remove("a", FORCE, &stopped)?;
            place.images.prune(true, &|_| false, &|_| true)
        },
        named,
    );
}

#[test]
fn what_is_kept_or_pinned_while_it_is_removed_stays_or_is_not_found() {
    let place = Place::new();
    let there = |image: &ImageRecord| place.images.resolve(image.id.as_str()).is_ok();
    let keep = |image: &ImageRecord| {
        let mut keep = place.images.keep();
        place.images.keep_also(&mut keep, image).map(|()| keep)
    };
    beside(&place, keep, |_| place.images.remove("a", PLAIN, &nobody), there);
    beside(&place, keep, |_| place.images.prune(false, &|_| false, &|_| true), there);
    beside(
        &place,
        |image| place.images.pin(image.id.as_str(), true),
        |_| place.images.prune(false, &|_| false, &|_| true),
        there,
    );
}

#[test]
fn by_its_id_with_one_name_or_by_force() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    assert_eq!(
        place.images.remove(&image.id.hex()[..12], PLAIN, &nobody).unwrap(),
        [untagged("x:latest"), deleted(&image.id)]
    );
    let image = place.simple("", &["x", "y"]);
    let error = place.images.remove(image.id.as_str(), PLAIN, &nobody).unwrap_err();
    let short = image.id.short();
    assert_eq!(
        error.to_string(),
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        place.images.remove(image.id.as_str(), FORCE, &nobody).unwrap(),
        [untagged("x:latest"), untagged("y:latest"), deleted(&image.id)]
    );
    let image = place.simple("", &[]);
    assert_eq!(place.images.remove(image.id.hex(), PLAIN, &nobody).unwrap(), [deleted(&image.id)]);
}

#[test]
fn containers_keep_their_images() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let short = image.id.short();
    let message = |text: &str, options, users: &dyn Fn(&Digest) -> Vec<(String, bool)>| {
        place.images.remove(text, options, users).unwrap_err().to_string()
    };
    assert_eq!(
        message("x", PLAIN, &stopped),
        format!(
            "conflict: unable to remove repository reference \"x\" (must force) - container 123456789012 is using its \
             referenced image {short}"
        )
    );
    assert_eq!(
        message(short, PLAIN, &stopped),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 123456789012"
        )
    );
    for options in [PLAIN, FORCE] {
        assert_eq!(
            message(short, options, &running),
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container \
                 123456789012"
            )
        );
    }
    assert_eq!(place.images.resolve("x").unwrap().id, image.id);
    // One of two names goes; the last one only by force, and then the image stays without.
    place.images.tag("x", "y").unwrap();
    assert_eq!(place.images.remove("y", PLAIN, &running).unwrap(), [untagged("y:latest")]);
    assert_eq!(place.images.remove("x", FORCE, &running).unwrap(), [untagged("x:latest")]);
    assert!(place.images.get(&image.id).unwrap().tags.is_empty());
    assert_eq!(place.images.remove(image.id.hex(), FORCE, &stopped).unwrap(), [deleted(&image.id)]);
}

#[test]
fn parents_go_with_their_last_child() {
    let place = Place::new();
    let base = place.simple("base", &[]);
    let child = |comment: &str, tag: &str| {
        place.images.create(&crate::config(&base.diff_ids, comment), Some(&base.id), &[tag.into()]).unwrap()
    };
    let (one, two) = (child("one", "one"), child("two", "two"));
    let error = place.images.remove(base.id.hex(), FORCE, &nobody).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("conflict: unable to delete {} (cannot be forced) - image has dependent child images", base.id.short())
    );
    assert_eq!(place.images.remove("one", PLAIN, &nobody).unwrap(), [untagged("one:latest"), deleted(&one.id)]);
    let kept = Remove { force: false, prune: false };
    let third = child("three", "three");
    assert_eq!(place.images.remove("three", kept, &nobody).unwrap(), [untagged("three:latest"), deleted(&third.id)]);
    assert_eq!(
        place.images.remove("two", PLAIN, &nobody).unwrap(),
        [untagged("two:latest"), deleted(&two.id), deleted(&base.id)]
    );
}

#[test]
fn pruning_takes_what_nobody_uses() {
    let place = Place::new();
    let (named, dangling, used) =
        (place.simple("named", &["x"]), place.simple("dangling", &[]), place.simple("used", &[]));
    let in_use = |id: &Digest| *id == used.id;
    let all = |_: &wharf_image::ImageSummary| true;
    assert!(place.images.prune(true, &in_use, &|_| false).unwrap().is_empty());
    assert_eq!(place.images.prune(true, &in_use, &all).unwrap(), [deleted(&dangling.id)]);
    assert_eq!(place.images.prune(false, &in_use, &all).unwrap(), [untagged("x:latest"), deleted(&named.id)]);
    assert_eq!(place.images.list().unwrap().len(), 1);
    // A step on the way to an image that somebody uses is no garbage.
    let step = place.simple("step", &[]);
    let child = place.images.create(&crate::config(&step.diff_ids, "child"), Some(&step.id), &["c".into()]).unwrap();
    assert!(place.images.prune(true, &in_use, &all).unwrap().is_empty());
    assert_eq!(
        place.images.prune(false, &in_use, &all).unwrap(),
        [untagged("c:latest"), deleted(&child.id), deleted(&step.id)]
    );
}

#[test]
fn what_is_pinned_is_not_pruned_and_goes_when_it_is_asked_for() {
    let place = Place::new();
    let (pinned, other) = (place.simple("pinned", &["pinned"]), place.simple("other", &["other"]));
    assert_eq!(place.images.pin("pinned", true).unwrap(), pinned.id);
    assert!(place.images.resolve("pinned").unwrap().pinned && !place.images.resolve("other").unwrap().pinned);
    let prune = || place.images.prune(false, &|_| false, &|_| true).unwrap();
    assert_eq!(prune(), [untagged("other:latest"), deleted(&other.id)]);
    // The step that a named image stands on, too.
    let config = crate::config(&pinned.diff_ids, "child");
    let child = place.images.create(&config, Some(&pinned.id), &["child".to_owned()]).unwrap();
    let removed = place.images.remove("child", Remove { force: false, prune: true }, &|_| Vec::new()).unwrap();
    assert_eq!(removed, [untagged("child:latest"), deleted(&child.id)]);
    assert!(prune().is_empty());
    place.images.pin(pinned.id.as_str(), false).unwrap();
    assert_eq!(prune(), [untagged("pinned:latest"), deleted(&pinned.id)]);
    assert!(place.images.pin("pinned", true).is_err());
}

#[test]
fn a_passing_name_goes_without_its_image() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let passing = wharf_image::passing_name("1");
    place.images.tag("x", &passing).unwrap();
    place.images.remove("x", PLAIN, &nobody).unwrap();
    assert_eq!(place.images.remove(&passing, PLAIN, &running).unwrap(), []);
    assert!(place.images.get(&image.id).unwrap().tags.is_empty());
    // One that a killed process has left.
    place.images.tag(image.id.as_str(), &passing).unwrap();
    place.images.tag(image.id.as_str(), "y").unwrap();
    place.images.forget_passing().unwrap();
    assert_eq!(place.images.get(&image.id).unwrap().tags, ["y:latest"]);
}
