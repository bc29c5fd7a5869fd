//! OCI layouts as archives, with layers as registries have them: they become layers and blobs while they are read.

use std::io::Write as _;

use serde_json::{Value, json};
use wharf_image::ErrorKind;
use wharf_reference::Digest;

use crate::registry::{CONFIG, INDEX, LAYER, MANIFEST, descriptor};
use crate::{Place, config, listing, noise, tar};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn path(content: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::sha256(content).hex())
}

/// A layout of one image; `blobs` are its layers, and what lies about beside them. A Docker archive too, if `docker`.
fn layout(diff_ids: &[Digest], layers: &[Value], blobs: &[&[u8]], docker: bool) -> (Digest, Vec<u8>) {
    let own = serde_json::to_vec(&config(diff_ids, "")).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &own), "layers": layers });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/x:1" });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string();
    let names: Vec<String> =
        layers.iter().map(|l| l["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/")).collect();
    let old = json!([{ "Config": path(&own), "RepoTags": ["x:1"], "Layers": names }]).to_string();
    let paths: Vec<String> = blobs.iter().map(|blob| path(blob)).collect();
    let mut files: Vec<(&str, &[u8])> = paths.iter().map(String::as_str).zip(blobs.iter().copied()).collect();
    let (manifest_path, own_path) = (path(&manifest), path(&own));
    files.extend([(manifest_path.as_str(), manifest.as_slice()), (&own_path, &own), ("index.json", index.as_bytes())]);
    if docker {
        files.push(("manifest.json", old.as_bytes()));
    }
    (Digest::sha256(&manifest), tar(&files))
}

fn is_empty(place: &Place) -> bool {
    place.images.list().unwrap().is_empty()
        && place.images.layers().list().unwrap().is_empty()
        && place.blobs().is_empty()
        && listing(&place.path("data/ingest")).is_empty()
        && listing(&place.path("data/layers")).is_empty()
        && !listing(&place.path("data")).iter().any(|name| name.starts_with("load-"))
}

#[test]
fn compressed_layers_are_kept_as_they_are() {
    for docker in [false, true] {
        let place = Place::new();
        let plain = [tar(&[("a", &noise(1, 400_000))]), tar(&[("b", &noise(2, 300_000))])];
        let packed = [gzip(&plain[0]), zstd::encode_all(plain[1].as_slice(), 1).unwrap()];
        let diff_ids = [Digest::sha256(&plain[0]), Digest::sha256(&plain[1])];
        let types =
            ["application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+zstd"];
        let layers = [descriptor(types[0], &packed[0]), descriptor(types[1], &packed[1])];
        // Compressed, and nothing to do with the image.
        let aside = gzip(b"some notes");
        let (manifest, archive) = layout(&diff_ids, &layers, &[&packed[0], &aside, &packed[1]], docker);
        for _ in 0..2 {
            assert_eq!(place.images.load(archive.as_slice(), &[], &|_| {}).unwrap(), ["Loaded image: x:1"]);
            for diff_id in &diff_ids {
                place.images.layers().verify(diff_id).unwrap();
            }
            let blobs = place.blobs();
            assert!(blobs.contains(&manifest.hex().to_owned()), "the manifest is kept for a push");
            assert!(packed.iter().all(|blob| blobs.contains(&Digest::sha256(blob).hex().to_owned())));
            assert!(!blobs.contains(&Digest::sha256(&aside).hex().to_owned()));
            let noted = place.images.layers().get(&diff_ids[0]).unwrap().unwrap().blobs;
            assert_eq!((noted.len(), noted[0].media_type.as_str()), (1, types[0]));
        }
    }
}

/// An old list beside the layout that names other files as the layers: what they hold was never held against the manifest.
#[test]
fn a_manifest_is_kept_for_the_layers_that_were_unpacked_and_no_others() {
    let place = Place::new();
    let (plain, other) = (tar(&[("a", b"a")]), gzip(&tar(&[("b", b"b")])));
    let packed = gzip(&plain);
    // The manifest has the other blob for the layer.
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &other);
    let (manifest, mut archive) = layout(&[Digest::sha256(&plain)], &[layer], &[&packed, &other], true);
    // And the list has the right one, in a name that is as long.
    let list = b"\"Layers\":[\"";
    let at = archive.windows(list.len()).position(|window| window == list).unwrap() + list.len();
    archive[at..at + path(&packed).len()].copy_from_slice(path(&packed).as_bytes());
    place.images.load(archive.as_slice(), &[], &|_| {}).unwrap();
    place.images.layers().verify(&Digest::sha256(&plain)).unwrap();
    let noted = place.images.layers().get(&Digest::sha256(&plain)).unwrap().unwrap().blobs;
    assert!(noted.iter().all(|blob| blob.digest != Digest::sha256(&other)), "{noted:?}");
    assert!(!place.blobs().contains(&manifest.hex().to_owned()));
}

#[test]
fn many_layers_come_side_by_side() {
    let (here, there) = (Place::new(), Place::new());
    // More than may wait in memory, small ones among large ones.
    let sizes = (0..24).map(|n| if n % 3 == 0 { 5 << 20 } else { 20_000 });
    let layers: Vec<Digest> = sizes.zip(1..).map(|(size, seed)| here.layer(&[("f", &noise(seed, size))])).collect();
    let image = here.image(&layers, "", &["many:1"]);
    let mut archive = Vec::new();
    here.images.save(&["many:1".into()], &[], &mut archive).unwrap();
    there.images.load(archive.as_slice(), &[], &|_| {}).unwrap();
    assert_eq!(there.images.resolve("many:1").unwrap().id, image.id);
    layers.iter().for_each(|diff_id| there.images.layers().verify(diff_id).unwrap());
    // Broken off anywhere, nothing of it stays.
    let other = Place::new();
    for end in [archive.len() / 3, archive.len() / 2 + 700, archive.len() - 3000] {
        let error = other.images.load(&archive[..end], &[], &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(is_empty(&other));
    }
}

#[test]
fn what_is_no_layer_is_refused_where_it_is_needed() {
    let place = Place::new();
    let good = tar(&[("f", b"f")]);
    let packed = gzip(&good);
    let mut damaged = packed.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    let bomb = gzip(&tar(&[("../../f", b"f")]));
    for (why, blob, diff_id) in [
        ("no tar", gzip(b"no tar at all, but compressed"), Digest::sha256(&good)),
        ("a damaged stream", damaged, Digest::sha256(&good)),
        ("another layer", packed.clone(), Digest::sha256(b"another")),
        ("another layer than said, which unpacks", bomb, Digest::sha256(&good)),
    ] {
        for docker in [false, true] {
            let layers = [descriptor(&format!("{LAYER}+gzip"), &blob)];
            let (_, archive) = layout(std::slice::from_ref(&diff_id), &layers, &[&blob], docker);
            let error = place.images.load(archive.as_slice(), &[], &|_| {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{why}: {error:?}");
            assert!(is_empty(&place), "{why}");
        }
    }
    // A blob under another's name.
    let own = serde_json::to_vec(&config(&[], "")).unwrap();
    let archive = tar(&[(&path(b"x"), &packed), (&path(&own), &own)]);
    assert_eq!(place.images.load(archive.as_slice(), &[], &|_| {}).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(is_empty(&place));
}

/// What is here of a broken pull, and no layer yet, lends its name to no other bytes.
#[test]
fn a_blob_that_is_here_is_compared_with_what_comes_under_its_name() {
    let place = Place::new();
    let (here, other) = (tar(&[("f", b"here")]), tar(&[("f", b"other")]));
    let (packed, wrong) = (gzip(&here), gzip(&other));
    place.store.blobs().put(&packed).unwrap();
    let (own, layer) = (Digest::sha256(&other), descriptor(&format!("{LAYER}+gzip"), &packed));
    let archive = |diff_id: &Digest, content: &[u8]| {
        let own = serde_json::to_vec(&config(std::slice::from_ref(diff_id), "")).unwrap();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &own), "layers": [layer] });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &manifest)] }).to_string();
        let (at, of, to) = (path(&packed), path(&own), path(&manifest));
        tar(&[(&at, content), (&of, &own), (&to, &manifest), ("index.json", index.as_bytes())])
    };
    // Without its magic it is put aside, and is a layer all the same.
    let mut old = other.clone();
    old[257..265].fill(0);
    old[148..156].fill(b' ');
    let sum: u32 = old[..512].iter().map(|byte| u32::from(*byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (content, diff_id) in [(wrong, own), (old.clone(), Digest::sha256(&old))] {
        let error = place.images.load(archive(&diff_id, &content).as_slice(), &[], &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(place.images.layers().list().unwrap().is_empty());
        assert_eq!(place.blobs(), [Digest::sha256(&packed).hex()], "it is not the archive's to delete");
    }
    let right = Digest::sha256(&here);
    place.images.load(archive(&right, &packed).as_slice(), &[], &|_| {}).unwrap();
    assert_eq!(place.images.layers().get(&right).unwrap().unwrap().blobs.len(), 1);
}

/// A data root that nothing of may go, and that has what its files have.
pub(crate) struct Root(pub(crate) std::path::PathBuf);

impl wharf_store::Keeper for Root {
    fn used(&self) -> u64 {
        wharf_rooted_path::disk_usage(&self.0)
    }
    fn evict(&self, _bytes: u64) {}
}

#[test]
fn what_inflates_without_end_ends_at_the_budget() {
    let plain = tar(&[("zeros", &vec![0; 64 << 20])]);
    for (packed, suffix) in [(gzip(&plain), "gzip"), (zstd::encode_all(plain.as_slice(), 1).unwrap(), "zstd")] {
        assert!(packed.len() < 1 << 20, "{suffix}");
        let layer = descriptor(&format!("{LAYER}+{suffix}"), &packed);
        let archive = layout(&[Digest::sha256(&plain)], &[layer], &[&packed], false).1;
        let place = Place::new();
        let data = place.path("data");
        let before = wharf_rooted_path::disk_usage(&data);
        place.store.budget().limit(Some(before + (8 << 20)), Root(data));
        let error = place.images.load(archive.as_slice(), &[], &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{suffix}: {error:?}");
        assert!(is_empty(&place), "{suffix}");
    }
}

#[test]
fn a_layer_that_archives_do_not_bring_is_refused() {
    let plain = tar(&[("f", b"f")]);
    for foreign in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ] {
        let place = Place::new();
        let mut layer = descriptor(foreign, &plain);
        layer["urls"] = json!(["http://127.0.0.1:1/layer"]);
        let archive = layout(&[Digest::sha256(&plain)], &[layer], &[], false).1;
        let error = place.images.load(archive.as_slice(), &[], &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(is_empty(&place), "{foreign}");
    }
}

#[test]
fn all_that_an_archive_brings_is_asked_of_the_budget_before_it_is_written() {
    let content = noise(3, 5 << 20);
    let plain = tar(&[("a", &content)]);
    let packed = gzip(&plain);
    let compressed = layout(&[Digest::sha256(&plain)], &[descriptor(LAYER, &packed)], &[&packed], false).1;
    let aside = tar(&[("whatever", &content)]);
    for (archive, what) in [(compressed, "a compressed layer"), (aside, "a part that is put aside")] {
        let place = Place::new();
        let data = place.path("data");
        let before = wharf_rooted_path::disk_usage(&data);
        place.store.budget().limit(Some(before + (4 << 20)), Root(data.clone()));
        let most = std::sync::atomic::AtomicU64::new(0);
        let error = place.images.load(archive.as_slice(), &[], &|_| {
            most.fetch_max(wharf_rooted_path::disk_usage(&data), std::sync::atomic::Ordering::Relaxed);
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{what}: {error:?}");
        assert!(format!("{error:?}").contains("OverBudget"), "{what}: {error:?}");
        assert!(most.into_inner() <= before + (4 << 20), "{what}: more was written than may be");
        assert!(is_empty(&place), "{what}");
    }
}
