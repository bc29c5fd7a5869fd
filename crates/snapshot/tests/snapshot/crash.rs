//! `kill -9` at any moment: the store opens, nothing is half there, nothing is left over.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use wharf_snapshot::Storage;

use crate::tar::Tar;
use crate::{names, open};

/// Where the child works, and that a test is the child.
const ROOT: &str = "WHARF_TEST_CRASH_ROOT";
const ROUNDS: u32 = 12;
const MOST_ROUNDS: u32 = 60;

/// Imports, commits and removes until it is killed. A test of its own only when the one below runs it.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let root = Path::new(&root);
    let layers = open(root, form_of(root));
    let upper = root.with_extension("upper");
    let seed = std::process::id();
    for round in 0..u32::MAX {
        let content = format!("{seed} {round} ").repeat(200);
        let mut tar = Tar::default().dir("d");
        for file in 0..40 {
            tar = tar.file(&format!("d/{file}"), content.as_bytes());
        }
        let layer = layers.import(&mut tar.end().as_slice(), None).unwrap();
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::write(upper.join("f"), &content).unwrap();
        layers.commit(&upper, None, None).unwrap();
        let diff_id = layer.diff_id.clone();
        drop(layer);
        if round % 2 == 0 {
            layers.remove(&diff_id).unwrap();
        } else {
            layers.compressed(&diff_id, None).unwrap();
        }
    }
}

/// The name of a root says which form is forced there.
fn form_of(root: &Path) -> Option<Storage> {
    root.ends_with("dirs").then_some(Storage::Dirs)
}

#[test]
fn a_kill_at_any_moment_leaves_whole_trees_only() {
    kill("dirs", Storage::Dirs);
}

#[test]
fn a_kill_at_any_moment_leaves_whole_images_only() {
    kill("data", Storage::Erofs);
}

fn kill(name: &str, form: Storage) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join(name);
    if open(&root, form_of(&root)).form() != form {
        eprintln!("skipped: no images here");
        return;
    }
    let mut most = 0;
    // A busy machine needs a while to come anywhere.
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && most > 1 {
            break;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(ROOT, &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over the work; the clock's last digits are chance enough.
        let chance = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() % 120;
        std::thread::sleep(Duration::from_millis(u64::from(40 + 10 * round + chance)));
        assert!(child.try_wait().unwrap().is_none(), "the child has failed by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let layers = open(&root, form_of(&root));
        let rows: BTreeSet<String> =
            layers.list().unwrap().iter().map(|layer| layer.diff_id.hex().to_owned()).collect();
        assert_eq!(names(&root.join("layers")), rows.iter().cloned().collect::<Vec<_>>(), "round {round}");
        assert!(names(&root.join("ingest")).is_empty());
        for layer in layers.list().unwrap() {
            assert_eq!(layer.form, form);
            layers.verify(&layer.diff_id).unwrap();
            assert!(layers.view(&[layer.diff_id], None).unwrap().metadata("", true).is_ok());
        }
        most = most.max(rows.len());
    }
    assert!(most > 1, "the child never came far enough");
}
