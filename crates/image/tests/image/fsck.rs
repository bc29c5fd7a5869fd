//! What does not fit is found, a dry run changes nothing, and after the repair all is clean.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use wharf_image::Remove;
use wharf_reference::Digest;
use wharf_store::Table;
use wharf_store::fsck::{Finding, Fsck, Outcome, Problem};

use crate::{Place, crash, noise, open};

const NAMES: Table = Table::new("image-name");
const LEFT: Table = Table::new("layer-left");

impl Place {
    fn fsck(&self, dry_run: bool, deep: bool) -> Fsck {
        let mut fsck = Fsck::new(dry_run, deep);
        self.images.fsck(&mut fsck, &|_| None).unwrap();
        fsck
    }

    /// What a dry run finds and a repair mends, and nothing after it.
    #[track_caller]
    fn mended(&self, deep: bool) -> Vec<Finding> {
        let found = self.fsck(true, deep);
        assert!(found.findings().iter().all(|one| one.outcome == Outcome::Found), "{:#?}", found.findings());
        let again = self.fsck(true, deep);
        assert_eq!(found.findings(), again.findings(), "a dry run changes nothing");
        let mended = self.fsck(false, deep).findings().to_vec();
        assert!(mended.iter().all(|one| one.outcome == Outcome::Repaired), "{mended:#?}");
        assert_eq!(mended.len(), found.findings().len(), "{mended:#?}\n{found:#?}");
        let after = self.fsck(false, true);
        assert!(after.findings().is_empty(), "{:#?}", after.findings());
        mended
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.path("data/blobs/sha256").join(digest.hex())
    }
}

fn problems(found: &[Finding]) -> Vec<(Problem, &str)> {
    found.iter().map(|one| (one.problem, one.what.split(' ').next().unwrap())).collect()
}

#[test]
fn a_whole_store_is_clean() {
    let place = Place::new();
    let image = place.simple("", &["x", "y:2"]);
    place.images.layers().compressed(&image.diff_ids[0], None).unwrap();
    let fsck = place.fsck(false, true);
    assert!(fsck.findings().is_empty() && fsck.notes().is_empty(), "{fsck:#?}");
    assert!(fsck.bytes_read() > 0 && fsck.looked_at() > 4);
}

#[test]
fn a_damaged_blob_of_a_layer_goes_and_the_layer_stays() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let blob = place.images.layers().compressed(&image.diff_ids[0], None).unwrap();
    fs::write(place.blob(&blob.digest), "something else").unwrap();
    assert_eq!(problems(&place.mended(false)), [(Problem::Damaged, "blob")]);
    let again = place.images.layers().compressed(&image.diff_ids[0], None).unwrap();
    assert_eq!(again.digest, blob.digest, "and it can be made again");
}

#[test]
fn an_image_without_its_configuration_is_forgotten_by_all_its_names() {
    let place = Place::new();
    let (lost, kept) = (place.simple("lost", &["x", "y"]), place.simple("kept", &["z"]));
    fs::write(place.blob(&lost.id), "{}").unwrap();
    assert_eq!(problems(&place.mended(false)), [(Problem::Damaged, "blob"), (Problem::Missing, "image")]);
    assert!(place.images.resolve("x").is_err() && place.images.resolve("y").is_err());
    assert_eq!(place.images.resolve("z").unwrap().id, kept.id);
    fs::remove_file(place.blob(&kept.id)).unwrap();
    assert_eq!(problems(&place.mended(false)), [(Problem::Missing, "image")]);
    place.images.collect(&Vec::new).unwrap();
    assert!(place.images.layers().list().unwrap().is_empty(), "and nothing of them stays");
}

/// Changes a bit of a layer's file, whose content begins so, on the disk: in the tree, or in the image that has it.
fn flip(layer: &Path, begin: &[u8]) {
    let tree = layer.join("root/a");
    let path = if tree.exists() { tree } else { layer.join("image") };
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(begin.len()).position(|window| window == begin).expect("the content is there");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_layer_is_made_again_of_its_blob_and_forgotten_without_one() {
    let place = Place::new();
    let (one, two) = (place.layer(&[("a", b"one")]), place.layer(&[("b", b"two")]));
    place.image(std::slice::from_ref(&one), "one", &["one"]);
    place.image(std::slice::from_ref(&two), "two", &["two"]);
    let blob = place.images.layers().compressed(&one, None).unwrap();
    let trees = |id: &Digest| place.path("data/layers").join(id.hex());
    // Their files are gone.
    fs::remove_dir_all(trees(&one)).unwrap();
    fs::remove_dir_all(trees(&two)).unwrap();
    let mended = place.mended(false);
    let mut found = problems(&mended);
    found.sort_by_key(|(_, what)| *what);
    assert_eq!(found, [(Problem::Missing, "image"), (Problem::Missing, "layer"), (Problem::Missing, "layer")]);
    place.images.layers().verify(&one).unwrap();
    assert_eq!(place.images.layers().compressed(&one, None).unwrap(), blob, "its form is known as before");
    assert!(place.images.resolve("one").is_ok() && place.images.resolve("two").is_err());
    // Their files are others.
    flip(&trees(&one), b"one");
    assert!(place.fsck(true, false).findings().is_empty(), "which only a deep look sees");
    assert_eq!(problems(&place.mended(true)), [(Problem::Damaged, "layer")]);
    place.images.layers().verify(&one).unwrap();
    // What a container has stays as it is.
    flip(&trees(&one), b"one");
    let mut fsck = Fsck::new(false, true);
    place.images.fsck(&mut fsck, &|_| Some("web".into())).unwrap();
    assert_eq!(fsck.findings().len(), 1);
    assert_eq!(fsck.findings()[0].outcome, Outcome::Left);
    assert!(fsck.findings()[0].repair.contains("container web"), "{:?}", fsck.findings());
    // And what somebody holds.
    let held = place.images.layers().hold(std::slice::from_ref(&one));
    assert_eq!(place.fsck(false, true).findings()[0].outcome, Outcome::Left);
    drop(held);
    assert_eq!(place.mended(true).len(), 1);
}

/// Damages the layer and has it made again until it is killed. A test of its own only when the one below runs it.
#[test]
fn child() {
    let Ok(root) = std::env::var(crash::ROOT) else { return };
    let images = open(Path::new(&root));
    let id = images.layers().list().unwrap()[0].diff_id.clone();
    for _ in 0..u32::MAX {
        flip(&Path::new(&root).join("layers").join(id.hex()), b"begin");
        images.fsck(&mut Fsck::new(false, true), &|_| None).unwrap();
    }
}

#[test]
fn killed_while_a_layer_is_made_again_nothing_of_it_is_lost() {
    let place = Place::new();
    let mut content = b"begin".to_vec();
    content.extend(noise(7, 3 << 20));
    let layer = place.layer(&[("a", &content)]);
    let image = place.image(std::slice::from_ref(&layer), "", &["x"]);
    place.images.layers().compressed(&layer, None).unwrap();
    let Place { dir, store, images } = place;
    drop((store, images));
    let root = dir.path().join("data");
    for round in 0..12 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fsck::child", "--nocapture"])
            .env(crash::ROOT, &root)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let chance = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() % 150;
        std::thread::sleep(Duration::from_millis(u64::from(60 + chance)));
        assert!(child.try_wait().unwrap().is_none(), "the child has failed by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let images = open(&root);
        assert_eq!(crate::listing(&root.join("layers")), [layer.hex()], "round {round}");
        images.fsck(&mut Fsck::new(false, true), &|_| None).unwrap();
        images.layers().verify(&layer).unwrap();
        assert_eq!(images.resolve("x").unwrap().id, image.id);
    }
}

#[test]
fn a_layer_whose_files_are_gone_is_known_as_long_as_its_blob_is_here() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let blob = place.images.layers().compressed(&image.diff_ids[0], None).unwrap();
    let layers = place.path("data/layers");
    // What a kill left that came after the damaged files had been moved away.
    fs::rename(layers.join(image.diff_ids[0].hex()), layers.join("tmp-gone-7")).unwrap();
    let Place { dir, store, images } = place;
    drop((store, images));
    let images = open(&dir.path().join("data"));
    let mut fsck = Fsck::new(false, false);
    images.fsck(&mut fsck, &|_| None).unwrap();
    assert_eq!(problems(fsck.findings()), [(Problem::Missing, "layer")]);
    assert_eq!(fsck.findings()[0].outcome, Outcome::Repaired);
    images.layers().verify(&image.diff_ids[0]).unwrap();
    assert_eq!(images.layers().get(&image.diff_ids[0]).unwrap().unwrap().blobs, [blob]);
}

#[test]
fn one_blob_that_cannot_be_read_is_a_finding_among_others() {
    let place = Place::new();
    let (one, two) = (place.layer(&[("a", b"one")]), place.layer(&[("b", b"two")]));
    let one = place.image(&[one], "one", &["one"]);
    let two = place.image(&[two], "two", &["two"]);
    let of = |id: &Digest| place.images.layers().compressed(id, None).unwrap();
    let (bad, directory) = (of(&one.diff_ids[0]), of(&two.diff_ids[0]));
    assert_ne!(bad, directory);
    // The kernel gives EIO for what is at a process's address 0.
    fs::remove_file(place.blob(&bad.digest)).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", place.blob(&bad.digest)).unwrap();
    fs::remove_file(place.blob(&directory.digest)).unwrap();
    fs::create_dir(place.blob(&directory.digest)).unwrap();
    fs::write(place.blob(&directory.digest).join("f"), "x").unwrap();
    let found = place.fsck(false, true).findings().to_vec();
    assert_eq!(problems(&found), [(Problem::Unreadable, "blob"), (Problem::Damaged, "blob")], "{found:#?}");
    assert!(found[0].outcome == Outcome::Left && found[0].repair.contains("Input/output error"), "{found:#?}");
    assert_eq!(found[1].outcome, Outcome::Repaired);
    fs::remove_file(place.blob(&bad.digest)).unwrap();
    place.mended(true);
}

#[test]
fn rows_that_lead_nowhere_and_files_of_nobody_go() {
    let place = Place::new();
    let image = place.simple("", &["x"]);
    let store = &place.store;
    let nobody = Digest::sha256(b"nobody");
    store.write(|tx| tx.put(NAMES, "docker.io/library/gone:1", &nobody)).unwrap();
    store.write(|tx| tx.delete(NAMES, "docker.io/library/x:latest").map(drop)).unwrap();
    store.write(|tx| tx.put(LEFT, nobody.as_str(), &())).unwrap();
    let data = place.path("data");
    fs::create_dir_all(data.join("layers").join(nobody.hex()).join("root")).unwrap();
    fs::create_dir(data.join("load-1-1")).unwrap();
    fs::write(data.join("ingest/1-1"), "of a process that is no more").unwrap();
    fs::write(data.join("ingest").join(format!("partial-{}", nobody.hex())), "half").unwrap();
    fs::write(place.blob(&nobody), "").unwrap();
    let old = Digest::sha256(b"old");
    fs::write(place.blob(&old), b"old").unwrap();
    let day = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    fs::File::options().write(true).open(place.blob(&old)).unwrap().set_modified(day).unwrap();
    let mended = place.mended(false);
    let text = format!("{mended:#?}");
    for what in ["blob", "layers/", "gone:1", "names of image", "lease", "ingest/1-1", "load-1-1"] {
        assert!(text.contains(what), "{what} in {text}");
    }
    let notes = place.fsck(false, false).notes().to_vec();
    assert_eq!(notes.len(), 1, "what a pull may go on with has its time: {notes:?}");
    assert!(place.images.resolve("x").is_err(), "its name led elsewhere");
    assert_eq!(place.images.resolve(image.id.as_str()).unwrap().id, image.id);
    let Place { dir, store, images } = place;
    drop((store, images));
    open(&dir.path().join("data"));
}

#[test]
fn it_goes_on_beside_removals_and_imports() {
    let place = Place::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (place, stop) = (&place, &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let content = format!("{worker}-{round}");
                    let layer = place.layer(&[("f", content.as_bytes())]);
                    let name = format!("image{worker}");
                    place.image(&[layer], &content, &[&name]);
                    place.images.remove(&name, Remove::default(), &|_| Vec::new()).unwrap();
                    place.images.collect(&Vec::new).unwrap();
                    round += 1;
                }
            });
        }
        for _ in 0..20 {
            let fsck = place.fsck(false, true);
            assert!(fsck.findings().is_empty(), "{:#?}", fsck.findings());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
