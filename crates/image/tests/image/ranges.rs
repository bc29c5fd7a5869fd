//! Large layers, of which ranges come at once, and which go on where a kill has left them.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use wharf_image::ImageRecord;
use wharf_reference::Digest;

use crate::crash::{NAME, ROOT};
use crate::registry::{CONFIG, LAYER, MANIFEST, Shelf, Way, client, descriptor, pull, put};
use crate::{Place, config, images, listing, noise, store, tar};

const SIZE: usize = 40 << 20;

/// An image of one large plain layer in a registry; gives the layer.
async fn large(shelf: &Shelf) -> Vec<u8> {
    let layer = tar(&[("big", &noise(20, SIZE))]);
    let own = serde_json::to_vec(&config(&[Digest::sha256(&layer)], "large")).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": [descriptor(LAYER, &layer)] });
    put(&client().repository(&shelf.name("large:1"), None), "1", MANIFEST, &manifest, &[&own, &layer]).await;
    layer
}

fn is_right(place: &Place, image: &ImageRecord, layer: &[u8]) {
    assert_eq!(image.diff_ids, [Digest::sha256(layer)]);
    place.images.layers().verify(&image.diff_ids[0]).unwrap();
    assert!(listing(&place.path("data/ingest")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_layer_comes_in_ranges_at_once() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let layer = large(&shelf).await;
    let way = Way::to(shelf.address, 40 << 20);
    let image = pull(&place.images, &way.name("large:1"), None).await.0.unwrap();
    is_right(&place, &image, &layer);
    let (size, digest) = (layer.len() as u64, Digest::sha256(&layer));
    let ranges = way.ranges(&digest, size);
    assert!(way.most() > 2 && ranges.len() > 2, "{} connections, {ranges:?}", way.most());
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "each byte was asked for once: {ranges:?}");
    assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, size));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_one_download_at_once_gets_one() {
    let (shelf, dir) = (Shelf::new(), tempfile::tempdir().unwrap());
    let layer = large(&shelf).await;
    let way = Way::to(shelf.address, 40 << 20);
    let store = store(&dir.path().join("data"));
    let layers = wharf_snapshot::Layers::open(store.clone()).unwrap();
    let images = wharf_image::Images::open_with(store, layers, Some(1), None).unwrap();
    let image = pull(&images, &way.name("large:1"), None).await.0.unwrap();
    assert_eq!(image.diff_ids, [Digest::sha256(&layer)]);
    // One that was just used may not be back when the next request begins.
    assert!(way.most() <= 2, "{} connections", way.most());
}

/// What is on the disk at the moment of a kill is never asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_layer_costs_no_byte_that_was_here() {
    let shelf = Shelf::new();
    let layer = large(&shelf).await;
    let (size, digest) = (layer.len() as u64, Digest::sha256(&layer));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let mut here = 0;
    for nth in 1..=3 {
        let way = Way::to(shelf.address, 6 << 20);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(ROOT, &root)
            .env(NAME, way.name("large:1").familiar())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // Each time a quarter more.
        while way.count.load(Ordering::Relaxed) < size / 4 {
            assert!(Instant::now() < deadline, "nothing comes");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let asked: u64 = way.ranges(&digest, size).iter().map(|range| range.end - range.start).sum();
        assert!(asked <= size - here, "{asked} bytes were asked for, and {here} were here");
        let now = store(&root).blobs().parts(&digest, size, 1).unwrap().count();
        assert!(now > here, "{nth}: {here} bytes, then {now}");
        here = now;
    }
    let missing = store(&root).blobs().parts(&digest, size, 1).unwrap().missing();
    assert!(missing.len() > 1, "several parts are half there: {missing:?}");
    let store = store(&root);
    let place = Place { images: images(&store), store, dir };
    let way = Way::to(shelf.address, 0);
    let image = pull(&place.images, &way.name("large:1"), None).await.0.unwrap();
    is_right(&place, &image, &layer);
    let asked: Vec<u64> = way.ranges(&digest, size).into_iter().flatten_bounds().collect();
    let left: Vec<u64> = missing.into_iter().flatten_bounds().collect();
    assert_eq!(asked, left, "what was missing, and nothing else");
}

/// The bounds of ranges, without those where one begins as another ends.
trait FlattenBounds {
    fn flatten_bounds(self) -> impl Iterator<Item = u64>;
}

impl<I: Iterator<Item = std::ops::Range<u64>>> FlattenBounds for I {
    fn flatten_bounds(self) -> impl Iterator<Item = u64> {
        let mut bounds: Vec<u64> = Vec::new();
        for range in self {
            match bounds.last() {
                Some(last) if *last == range.start => *bounds.last_mut().unwrap() = range.end,
                _ => bounds.extend([range.start, range.end]),
            }
        }
        bounds.into_iter()
    }
}

/// A host that lost its power has counted bytes that are not on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_here_and_is_damaged_is_fetched_again() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let layer = large(&shelf).await;
    let blobs = store(&place.path("other")).blobs().clone();
    let mut writer = blobs.parts(&Digest::sha256(&layer), layer.len() as u64, 8 << 20).unwrap();
    writer.write(0, &[7; 4096]).unwrap();
    drop(writer);
    let name = format!("ingest/partial-{}", Digest::sha256(&layer).hex());
    std::fs::rename(place.path("other").join(&name), place.path("data").join(&name)).unwrap();
    let image = pull(&place.images, &shelf.name("large:1"), None).await.0.unwrap();
    is_right(&place, &image, &layer);
}
