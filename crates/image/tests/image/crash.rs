//! `kill -9` while an image comes: the store opens, nothing is half there, and the next attempt goes on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use wharf_reference::Reference;

use crate::registry::{Shelf, Way, pull, push};
use crate::{Place, listing, noise, open};

/// Where the child works and what it pulls, and that a test is the child.
pub(crate) const ROOT: &str = "WHARF_TEST_CRASH_ROOT";
pub(crate) const NAME: &str = "WHARF_TEST_CRASH_NAME";

/// A test of its own only when the one below runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(root), Ok(name)) = (std::env::var(ROOT), std::env::var(NAME)) else { return };
    let images = open(Path::new(&root));
    pull(&images, &Reference::parse(&name).unwrap(), None).await.0.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_of_a_pull_costs_what_was_in_the_pipes() {
    const LAYERS: u64 = 3;
    const SIZE: usize = 512 << 10;
    let (shelf, here) = (Shelf::new(), Place::new());
    let layers: Vec<_> = (0..LAYERS).map(|seed| here.layer(&[("f", &noise(seed + 10, SIZE))])).collect();
    let image = here.image(&layers, "", &[&shelf.name("app:1").familiar()]);
    push(&here.images, &shelf.name("app:1")).await.0.unwrap();
    let way = Way::to(shelf.address, 2 << 20);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let (mut kills, mut too_late) = (0u64, 0);
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(ROOT, &root)
            .env(NAME, way.name("app:1").familiar())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let chance = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() % 200;
        // Longer each time: a busy machine needs a while to begin at all.
        std::thread::sleep(Duration::from_millis(200 + 60 * kills + u64::from(chance)));
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
        let images = open(&root);
        let rows = images.layers().list().unwrap();
        let mut trees: Vec<&str> = rows.iter().map(|layer| layer.diff_id.hex()).collect();
        trees.sort_unstable();
        assert_eq!(listing(&root.join("layers")), trees);
        for layer in &rows {
            images.layers().verify(&layer.diff_id).unwrap();
        }
        assert!(listing(&root.join("ingest")).iter().all(|name| name.starts_with("partial-")));
        if let (Some(status), 0) = (ended, kills) {
            // This machine was too busy to kill it in time: once more from the beginning.
            too_late += 1;
            assert!(status.success() && too_late < 10);
            drop(images);
            std::fs::remove_dir_all(&root).unwrap();
            way.count.store(0, Ordering::Relaxed);
            continue;
        }
        if let Some(status) = ended {
            assert!(status.success());
            let found = images.list().unwrap();
            assert_eq!((found.len(), &found[0].id), (1, &image.id));
            assert!(listing(&root.join("ingest")).is_empty());
            break;
        }
        kills += 1;
        assert!(kills < 60, "it does not get on");
    }
    let bytes = way.count.load(Ordering::Relaxed);
    assert!(kills > 0 && bytes < LAYERS * SIZE as u64 + kills * (1 << 20), "{bytes} bytes came, after {kills} kills");
}
