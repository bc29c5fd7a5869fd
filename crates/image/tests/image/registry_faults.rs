//! Registries that give what they should not.

use std::fs;

use std::io::Write as _;

use serde_json::{Value, json};
use wharf_distribution::{Client, ClientOptions};
use wharf_image::ErrorKind;
use wharf_reference::Digest;

use crate::registry::{CONFIG, INDEX, LAYER, MANIFEST, Shelf, client, descriptor, pull, push, put};
use crate::{Place, config, listing, noise, tar};

/// Pulls an image of one layer that `change` has spoiled, and gives back what went wrong.
async fn spoiled(change: impl FnOnce(&mut Value, &mut wharf_image::ImageConfig)) -> wharf_image::ImageError {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("bad:1");
    let layer = tar(&[("f", b"f")]);
    let mut own = config(&[Digest::sha256(&layer)], "");
    let mut manifest = json!({ "schemaVersion": 2, "layers": [descriptor(LAYER, &layer)] });
    change(&mut manifest, &mut own);
    let own = serde_json::to_vec(&own).unwrap();
    if manifest["config"].is_null() {
        manifest["config"] = descriptor(CONFIG, &own);
    }
    put(&client().repository(&name, None), "1", MANIFEST, &manifest, &[&own, &layer]).await;
    let error = pull(&place.images, &name, None).await.0.unwrap_err();
    assert!(place.images.list().unwrap().is_empty() && place.images.layers().list().unwrap().is_empty());
    // A blob that can never become the layer is not kept for the next time.
    assert!(place.blobs().is_empty() && listing(&place.path("data/ingest")).is_empty());
    error
}

/// What a pull that failed has brought is there for the next, until somebody wants the room back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_pull_has_brought_can_be_pruned() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let name = shelf.name("app:1");
    let (good, gone) = (here.layer(&[("good", &noise(1, 400_000))]), here.layer(&[("gone", &noise(2, 400_000))]));
    here.image(&[good.clone(), gone.clone()], "", &[&name.familiar()]);
    push(&here.images, &name).await.0.unwrap();
    let store = shelf.dir.path().join("data/blobs/sha256");
    let blob = here.images.layers().get(&gone).unwrap().unwrap().blobs[0].digest.clone();
    fs::remove_file(store.join(blob.hex())).unwrap();
    pull(&there.images, &name, None).await.0.unwrap_err();
    let ingest = there.path("data/ingest");
    assert!(!ingest.join(format!("partial-{}", blob.hex())).exists(), "nothing is kept of what was refused");
    // The other layer may have come before the failure, or a part of it, or is still being put down.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        there.images.prune(true, &|_| false, &|_| true).unwrap();
        there.images.collect(&Vec::new).unwrap();
        let layers = there.images.layers().list().unwrap();
        let trees = listing(&there.path("data/layers"));
        if layers.is_empty() && trees.is_empty() && there.blobs().is_empty() && listing(&ingest).is_empty() {
            break;
        }
        let left = (there.blobs(), listing(&ingest));
        assert!(std::time::Instant::now() < deadline, "{layers:?} {trees:?} {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_no_image_for_us_is_refused_before_it_is_fetched() {
    for foreign in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.in-toto+json",
    ] {
        let error = spoiled(|manifest, _| manifest["layers"][0]["mediaType"] = foreign.into()).await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("does not unpack"), "{error}");
    }
    let error = spoiled(|_, config| config.os = "windows".into()).await;
    assert_eq!(error.to_string(), "image operating system \"windows\" cannot be used on this platform");
    let error = spoiled(|_, config| config.rootfs.diff_ids.clear()).await;
    assert!(error.to_string().contains("differ in their layers"), "{error}");
    let error = spoiled(|_, config| config.rootfs.diff_ids[0] = Digest::sha256(b"another")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("wrong diff id"), "{error}");
}

#[tokio::test]
async fn what_inflates_without_end_ends_at_the_budget() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("bomb:1");
    let plain = tar(&[("zeros", &vec![0; 64 << 20])]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let own = serde_json::to_vec(&config(&[Digest::sha256(&plain)], "")).unwrap();
    let layer = descriptor(&format!("{LAYER}+gzip"), &packed);
    let manifest = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": [layer] });
    put(&client().repository(&name, None), "1", MANIFEST, &manifest, &[&own, &packed]).await;
    let data = place.path("data");
    place.store.budget().limit(Some(wharf_rooted_path::disk_usage(&data) + (8 << 20)), crate::layouts::Root(data));
    let error = pull(&place.images, &name, None).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
    assert!(place.images.layers().list().unwrap().is_empty() && listing(&place.path("data/layers")).is_empty());
}

#[tokio::test]
async fn artifacts_are_no_images() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("chart:1");
    let manifest = json!({ "schemaVersion": 2, "layers": [], "config": descriptor("application/vnd.cncf.helm.config.v1+json", b"{}") });
    put(&client().repository(&name, None), "1", MANIFEST, &manifest, &[b"{}"]).await;
    let error = pull(&place.images, &name, None).await.0.unwrap_err();
    assert!(error.to_string().contains("application/vnd.cncf.helm.config.v1+json"), "{error}");
    // An index that fits, and leads nowhere.
    let mut entry = descriptor(MANIFEST, b"{}");
    entry["platform"] = json!({ "os": "linux", "architecture": wharf_distribution::Platform::host().architecture });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] });
    put(&client().repository(&name, None), "2", INDEX, &index, &[]).await;
    let error = pull(&place.images, &shelf.name("chart:2"), None).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// A client that asks one registry's mirror first.
fn mirrored(dir: &std::path::Path, home: &Shelf, mirror: &Shelf) -> Client {
    let own = dir.join(home.address.to_string());
    fs::create_dir_all(&own).unwrap();
    let text = format!("server = 'http://{}'\n[host.'http://{}']\n", home.address, mirror.address);
    fs::write(own.join("hosts.toml"), text).unwrap();
    Client::new(ClientOptions { certs_dirs: vec![dir.to_owned()], ..ClientOptions::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mirror_gives_wrong_comes_from_the_registry() {
    let (home, mirror, here, certs) = (Shelf::new(), Shelf::new(), Place::new(), tempfile::tempdir().unwrap());
    let layer = here.layer(&[("a", &noise(1, 500_000))]);
    let image = here.image(std::slice::from_ref(&layer), "", &[]);
    for shelf in [&home, &mirror] {
        here.images.tag(image.id.as_str(), &shelf.name("app:1").familiar()).unwrap();
        push(&here.images, &shelf.name("app:1")).await.0.unwrap();
    }
    let client = mirrored(certs.path(), &home, &mirror);
    let pull = async |place: &Place| {
        let (progress, _told) = tokio::sync::mpsc::unbounded_channel();
        place.images.pull(&home.name("app:1"), None, None, &client, progress).await
    };
    let blob = here.images.layers().get(&layer).unwrap().unwrap().blobs[0].digest.clone();
    let at = |shelf: &Shelf, digest: &Digest| shelf.dir.path().join("data/blobs/sha256").join(digest.hex());
    let right = fs::read(at(&home, &blob)).unwrap();
    let flipped = |at: usize| {
        let mut bytes = right.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The stream's own checksum, its middle, its begin; and the configuration.
    for wrong in [flipped(right.len() - 1), flipped(right.len() / 2), flipped(0), vec![0; right.len()]] {
        fs::write(at(&mirror, &blob), wrong).unwrap();
        let there = Place::new();
        assert_eq!(pull(&there).await.unwrap().id, image.id);
        there.images.layers().verify(&layer).unwrap();
        assert!(listing(&there.path("data/ingest")).is_empty());
    }
    let config = fs::read(at(&home, &image.id)).unwrap();
    fs::write(at(&mirror, &image.id), vec![b' '; config.len()]).unwrap();
    assert_eq!(pull(&Place::new()).await.unwrap().id, image.id);
    // When nobody gives the right one, who gave the wrong one is named.
    fs::remove_file(at(&home, &blob)).unwrap();
    let there = Place::new();
    let error = pull(&there).await.unwrap_err();
    assert!(error.to_string().contains(&mirror.address.to_string()), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(there.images.list().unwrap().is_empty() && there.images.layers().list().unwrap().is_empty());
    fs::remove_file(at(&home, &image.id)).unwrap();
    let error = pull(&there).await.unwrap_err();
    assert!(error.to_string().contains(&mirror.address.to_string()), "{error}");
}

/// Of what its name says, no host has another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_not_blamed_for_what_is_right_and_no_layer() {
    let (home, mirror, place, certs) = (Shelf::new(), Shelf::new(), Place::new(), tempfile::tempdir().unwrap());
    let layer = tar(&[("f", b"f")]);
    let own = serde_json::to_vec(&config(&[Digest::sha256(b"another")], "")).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "layers": [descriptor(LAYER, &layer)], "config": descriptor(CONFIG, &own) });
    for shelf in [&home, &mirror] {
        let repository = client().repository(&shelf.name("bad:1"), None);
        put(&repository, "1", MANIFEST, &manifest, &[&own, &layer]).await;
    }
    fs::remove_file(home.dir.path().join("data/blobs/sha256").join(Digest::sha256(&layer).hex())).unwrap();
    let (progress, _told) = tokio::sync::mpsc::unbounded_channel();
    let client = mirrored(certs.path(), &home, &mirror);
    let error = place.images.pull(&home.name("bad:1"), None, None, &client, progress).await.unwrap_err();
    assert!(error.to_string().starts_with("wrong diff id"), "the registry is not even asked: {error}");
    assert!(place.blobs().is_empty() && listing(&place.path("data/ingest")).is_empty());
}

/// A pull that fails takes away what it has brought, and not what somebody else has counted on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hopeless_blob_stays_for_who_holds_it() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("bad:1");
    let layer = tar(&[("f", b"f")]);
    let own = serde_json::to_vec(&config(&[Digest::sha256(b"another")], "")).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "layers": [descriptor(LAYER, &layer)], "config": descriptor(CONFIG, &own) });
    put(&client().repository(&name, None), "1", MANIFEST, &manifest, &[&own, &layer]).await;
    let blob = Digest::sha256(&layer);
    let held = place.images.layers().hold(std::slice::from_ref(&blob));
    place.store.blobs().put(&layer).unwrap();
    pull(&place.images, &name, None).await.0.unwrap_err();
    assert!(place.blobs().contains(&blob.hex().to_owned()), "as a load holds what it has brought");
    drop(held);
    pull(&place.images, &name, None).await.0.unwrap_err();
    assert!(!place.blobs().contains(&blob.hex().to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_is_not_what_its_name_says_is_not_kept() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let name = shelf.name("app:1");
    let (good, bad) = (here.layer(&[("good", &noise(1, 500_000))]), here.layer(&[("bad", &noise(2, 500_000))]));
    let image = here.image(&[good, bad.clone()], "", &[&name.familiar()]);
    push(&here.images, &name).await.0.unwrap();
    let store = shelf.dir.path().join("data/blobs/sha256");
    let blob = store.join(here.images.layers().get(&bad).unwrap().unwrap().blobs[0].digest.hex());
    let right = fs::read(&blob).unwrap();
    let mut wrong = right.clone();
    let last = wrong.len() - 1;
    // The checksum of the stream within, so that all of it is unpacked first.
    wrong[last] ^= 1;
    for content in [wrong, right[..right.len() - 1].to_vec(), [right.clone(), b"x".to_vec()].concat()] {
        fs::write(&blob, content).unwrap();
        let error = pull(&there.images, &name, None).await.0.unwrap_err();
        assert!(there.images.list().unwrap().is_empty(), "{error}");
        assert!(!there.images.layers().contains(&bad));
        assert!(
            !listing(&there.path("data/blobs/sha256")).contains(&blob.file_name().unwrap().to_str().unwrap().into())
        );
    }
    fs::write(&blob, &right).unwrap();
    assert_eq!(pull(&there.images, &name, None).await.0.unwrap().id, image.id);
    assert!(listing(&there.path("data/ingest")).is_empty());
    // A configuration that was changed.
    let other = Place::new();
    let config = store.join(image.id.hex());
    let text = fs::read_to_string(&config).unwrap().replace("test", "tesu");
    fs::write(&config, text).unwrap();
    let error = pull(&other.images, &name, None).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(other.images.layers().list().unwrap().is_empty(), "no layer is fetched for it");
}
