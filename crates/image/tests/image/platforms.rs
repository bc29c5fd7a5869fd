//! Images of several platforms under one name: pulled, saved, loaded, pushed and removed, all of them or one.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharf_distribution::{Platform, Repository};
use wharf_image::{ErrorKind, ImageRecord, Images, Remove, Removed};
use wharf_reference::{Digest, Reference};
use wharf_store::Table;
use wharf_store::fsck::{Fsck, Problem};

use crate::registry::{CONFIG, INDEX, LAYER, MANIFEST, Shelf, client, descriptor, pull, put};
use crate::{Place, config, tar};

/// This host's architecture, and two others.
pub(crate) fn architectures() -> [String; 3] {
    let own = Platform::host().architecture;
    let others = ["s390x", "riscv64", "ppc64le"].into_iter().filter(|one| *one != own).map(str::to_owned);
    let mut all = std::iter::once(own.clone()).chain(others);
    [(); 3].map(|()| all.next().unwrap())
}

/// Puts an index of three platforms in a registry, and gives its digest and the images' IDs.
pub(crate) async fn shelve(repository: &Repository, tag: &str, salt: &str) -> (Digest, Vec<Digest>) {
    let (mut entries, mut ids) = (Vec::new(), Vec::new());
    for architecture in architectures() {
        let layer = tar(&[("arch", format!("{architecture}{salt}").as_bytes())]);
        let mut own = config(&[Digest::sha256(&layer)], salt);
        own.architecture.clone_from(&architecture);
        let own = serde_json::to_vec(&own).unwrap();
        let manifest =
            json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": [descriptor(LAYER, &layer)] });
        put(repository, "", MANIFEST, &manifest, &[&own, &layer]).await;
        let mut entry = descriptor(MANIFEST, &serde_json::to_vec(&manifest).unwrap());
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
        ids.push(Digest::sha256(&own));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    (put(repository, tag, INDEX, &index, &[]).await, ids)
}

pub(crate) async fn pull_all(images: &Images, name: &Reference) -> Vec<ImageRecord> {
    let mut all = Vec::new();
    for architecture in architectures() {
        all.push(pull(images, name, Some(&format!("linux/{architecture}"))).await.0.unwrap());
    }
    all
}

pub(crate) fn for_each(images: &Images, name: &str) -> Vec<Option<Digest>> {
    let one = |architecture: String| images.resolve_for(name, Some(&format!("linux/{architecture}"))).ok();
    architectures().map(one).map(|found| found.map(|image| image.id)).to_vec()
}

pub(crate) fn some(ids: &[Digest]) -> Vec<Option<Digest>> {
    ids.iter().cloned().map(Some).collect()
}

#[track_caller]
pub(crate) fn clean(place: &Place) {
    let mut fsck = Fsck::new(false, true);
    place.images.fsck(&mut fsck, &|_| None).unwrap();
    assert!(fsck.findings().is_empty(), "{:#?}", fsck.findings());
}

pub(crate) fn remove(place: &Place, name: &str) -> Vec<Removed> {
    place.images.remove(name, Remove { force: false, prune: true }, &|_| Vec::new()).unwrap()
}

#[tokio::test]
async fn a_name_has_the_images_of_all_its_platforms() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (index, ids) = shelve(&client().repository(&name, None), "1", "").await;
    // Another one's first: it is what the name means until this host's is there.
    let other = pull(&place.images, &name, Some(&format!("linux/{}", architectures()[1]))).await.0.unwrap();
    assert_eq!(place.images.resolve(&name.familiar()).unwrap().id, other.id);
    let all = pull_all(&place.images, &name).await;
    assert_eq!(all.iter().map(|image| image.id.clone()).collect::<Vec<_>>(), ids);
    let text = name.familiar();
    assert_eq!(place.images.resolve(&text).unwrap().id, ids[0]);
    assert_eq!(for_each(&place.images, &text), some(&ids));
    let (_, lines) = pull(&place.images, &name, Some(&format!("linux/{}", architectures()[2]))).await;
    assert_eq!(lines.last().unwrap(), &format!("Status: Image is up to date for {text}"));
    for image in &all {
        assert_eq!((&image.tags, image.repo_digests.len()), (&vec![text.clone()], 1), "all have its names");
        assert!(place.images.means(&text, &image.id));
    }
    let error = place.images.resolve_for(&text, Some("linux/mips64le")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().ends_with("does not provide the specified platform (linux/mips64le)"), "{error}");
    let shown = place.images.index(&text).unwrap().unwrap();
    assert_eq!((&shown.digest, shown.manifests.len()), (&index, 3));
    assert_eq!(shown.manifests.iter().map(|entry| entry.image.clone()).collect::<Vec<_>>(), some(&ids));
    let summaries = place.images.summaries().unwrap();
    assert_eq!(summaries.iter().filter(|image| image.part).count(), 2, "one line is shown");
    assert!(summaries.iter().all(|image| image.tags == [text.clone()]), "{summaries:#?}");

    // Another name has all of them; an ID only itself.
    place.images.tag(&text, "copy:1").unwrap();
    place.images.tag(ids[1].as_str(), "single").unwrap();
    assert_eq!(for_each(&place.images, "copy:1"), some(&ids));
    assert_eq!(for_each(&place.images, "single"), [None, Some(ids[1].clone()), None]);
    clean(&place);
    let data = place.path("data");
    let Place { dir, store, images } = place;
    drop((images, store));
    let opened = crate::store(&data);
    let store = Place { images: crate::images(&opened), store: opened, dir };
    assert_eq!(for_each(&store.images, "copy:1"), some(&ids));
    // The last name takes those that have none of their own.
    remove(&store, "copy:1");
    assert_eq!(for_each(&store.images, &text), some(&ids));
    let gone = remove(&store, &text);
    let deleted = gone.iter().filter(|one| matches!(one, Removed::Deleted(_))).count();
    assert_eq!((deleted, gone.len()), (2, 4), "{gone:?}");
    assert_eq!(store.images.resolve("single").unwrap().id, ids[1]);
    clean(&store);
    remove(&store, "single");
    store.images.collect(&Vec::new).unwrap();
    assert!(store.blobs().is_empty() && store.images.summaries().unwrap().is_empty(), "{:?}", store.blobs());
}

#[tokio::test]
async fn one_platform_goes_and_the_others_stay() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (_, ids) = shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&place.images, &name).await;
    let (text, platforms) = (name.familiar(), architectures().map(|one| format!("linux/{one}")));
    let remove_one = |platform: &str, users: &dyn Fn(&Digest) -> Vec<(String, bool)>| {
        place.images.remove_platforms(&text, &[platform.to_owned()], Remove { force: false, prune: true }, users)
    };
    let used = |id: &Digest| if *id == ids[2] { vec![("c".repeat(64), false)] } else { Vec::new() };
    assert_eq!(remove_one(&platforms[2], &used).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(remove_one("linux/mips64le", &used).unwrap_err().kind(), ErrorKind::NotFound);
    // The one that the name means: then it means another.
    assert_eq!(remove_one(&platforms[0], &used).unwrap(), [Removed::Deleted(ids[0].to_string())]);
    let left = place.images.resolve(&text).unwrap().id;
    assert!(ids[1..].contains(&left));
    assert_eq!(for_each(&place.images, &text)[0], None);
    clean(&place);
    // A container of another platform keeps the name, and with force only what it needs.
    let error = place.images.remove(&text, Remove::default(), &used).unwrap_err();
    assert!(error.to_string().contains("must force"), "{error}");
    let runs = |id: &Digest| if *id == ids[2] { vec![("c".repeat(64), true)] } else { Vec::new() };
    place.images.remove(&text, Remove { force: true, prune: true }, &runs).unwrap();
    let rest = place.images.summaries().unwrap();
    assert_eq!(rest.iter().map(|image| &image.id).collect::<Vec<_>>(), [&ids[2]]);
    assert!(!rest[0].part);
    clean(&place);
    place.images.prune(true, &|_| false, &|_| true).unwrap();
    place.images.collect(&Vec::new).unwrap();
    assert!(place.blobs().is_empty(), "{:?}", place.blobs());
    // By its ID an image goes with those that only its name kept.
    pull_all(&place.images, &name).await;
    remove(&place, ids[0].as_str());
    assert!(place.images.summaries().unwrap().is_empty());
    // Or alone, if it is the other one.
    pull_all(&place.images, &name).await;
    remove(&place, ids[1].as_str());
    assert_eq!(for_each(&place.images, &text), [Some(ids[0].clone()), None, Some(ids[2].clone())]);
    clean(&place);
}

#[tokio::test]
async fn a_name_that_moves_leaves_its_platforms_to_be_pruned() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let repository = client().repository(&name, None);
    let (_, before) = shelve(&repository, "1", "").await;
    pull_all(&place.images, &name).await;
    let (_, after) = shelve(&repository, "1", "new").await;
    pull_all(&place.images, &name).await;
    assert_eq!(for_each(&place.images, &name.familiar()), some(&after));
    clean(&place);
    // One that is used or pinned keeps them all.
    place.images.pin(before[1].as_str(), true).unwrap();
    assert!(place.images.prune(true, &|_| false, &|_| true).unwrap().is_empty());
    place.images.pin(before[1].as_str(), false).unwrap();
    assert!(place.images.prune(true, &|id| *id == before[2], &|_| true).unwrap().is_empty());
    let pruned = place.images.prune(true, &|_| false, &|_| true).unwrap();
    assert_eq!(pruned.iter().filter(|one| matches!(one, Removed::Deleted(_))).count(), 3, "{pruned:?}");
    assert_eq!(for_each(&place.images, &name.familiar()), some(&after));
    // Made anew here, the name means that image alone.
    place.simple("own", &[&name.familiar()]);
    assert_eq!(for_each(&place.images, &name.familiar())[1..], [None, None]);
    place.images.prune(true, &|_| false, &|_| true).unwrap();
    assert_eq!(place.images.summaries().unwrap().len(), 1);
    place.images.collect(&Vec::new).unwrap();
    clean(&place);
}

/// Names and bytes of an archive's files.
fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = wharf_archive::Reader::new(bytes);
    let mut all = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
        all.insert(String::from_utf8(entry.path).unwrap(), content);
    }
    all
}

#[tokio::test]
async fn an_archive_has_all_platforms_or_those_that_are_asked_for() {
    let (shelf, here) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (_, ids) = shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&here.images, &name).await;
    let (text, platforms) = (name.familiar(), architectures().map(|one| format!("linux/{one}")));
    let save = |platforms: &[String]| {
        let mut bytes = Vec::new();
        here.images.save(std::slice::from_ref(&text), platforms, &mut bytes).map(|()| bytes)
    };
    let whole = save(&[]).unwrap();
    let listed: Value = serde_json::from_slice(&files(&whole)["index.json"]).unwrap();
    assert_eq!(
        (&listed["manifests"][0]["mediaType"], listed["manifests"].as_array().unwrap().len()),
        (&json!(INDEX), 1)
    );
    let load = |bytes: &[u8], platforms: &[String]| {
        let there = Place::new();
        let lines = there.images.load(bytes, platforms, &|_| {});
        lines.map(|lines| (for_each(&there.images, &text), lines, there))
    };
    let (found, lines, there) = load(&whole, &[]).unwrap();
    assert_eq!((found, lines), (some(&ids), vec![format!("Loaded image: {text}")]));
    clean(&there);
    // Once more there is nothing new.
    assert_eq!(there.images.load(whole.as_slice(), &[], &|_| {}).unwrap().len(), 1);
    assert_eq!(there.images.summaries().unwrap().len(), 3);
    let (found, _, there) = load(&whole, &[platforms[2].clone(), platforms[1].clone()]).unwrap();
    assert_eq!(found, [None, Some(ids[1].clone()), Some(ids[2].clone())]);
    clean(&there);
    let error = load(&whole, &["linux/mips64le".into()]).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("requested platform(s) (linux/mips64le) not found"), "{error}");
    // Two of them, one of them, and one that is not here.
    let (found, ..) = load(&save(&platforms[..2]).unwrap(), &[]).unwrap();
    assert_eq!(found, [Some(ids[0].clone()), Some(ids[1].clone()), None]);
    let one = save(&platforms[1..2]).unwrap();
    let listed: Value = serde_json::from_slice(&files(&one)["index.json"]).unwrap();
    assert_eq!(listed["manifests"][0]["mediaType"], MANIFEST);
    assert_eq!(load(&one, &[]).unwrap().0, [None, Some(ids[1].clone()), None]);
    assert_eq!(save(&["linux/mips64le".into()]).unwrap_err().kind(), ErrorKind::NotFound);
    // What another tool wrote may list platforms that it left out.
    let mut parts = files(&whole);
    let index = listed_blob(&parts, 0);
    let third: Value = serde_json::from_slice(&parts[&index]).unwrap();
    let manifest = third["manifests"][2]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    parts.remove(&manifest).unwrap();
    let (found, ..) = load(&packed(&parts), &[]).unwrap();
    assert_eq!(found.iter().flatten().count(), 2);
    for at in 0..2 {
        let manifest = third["manifests"][at]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        parts.remove(&manifest).unwrap();
    }
    assert_eq!(load(&packed(&parts), &[]).map(drop).unwrap_err().kind(), ErrorKind::Invalid);
}

/// Where the archive has what `index.json` lists.
fn listed_blob(parts: &BTreeMap<String, Vec<u8>>, at: usize) -> String {
    let index: Value = serde_json::from_slice(&parts["index.json"]).unwrap();
    index["manifests"][at]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/")
}

fn packed(parts: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = parts
        .iter()
        .filter(|(name, _)| !name.trim_end_matches('/').ends_with("sha256") && *name != "blobs" && *name != "blobs/")
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    tar(&files)
}

#[tokio::test]
async fn an_image_that_came_by_several_manifests_leaves_none_of_them() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = |tag: &str| shelf.name(&format!("app:{tag}"));
    let repository = client().repository(&name("1"), None);
    let layer = tar(&[("file", b"same")]);
    let own = serde_json::to_vec(&config(&[Digest::sha256(&layer)], "")).unwrap();
    let mut digests = Vec::new();
    for tag in ["1", "2", ""] {
        let manifest = json!({
            "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": [descriptor(LAYER, &layer)],
            "annotations": { "tag": tag },
        });
        digests.push(put(&repository, tag, MANIFEST, &manifest, &[&own, &layer]).await);
        if tag.is_empty() {
            let entry = descriptor(MANIFEST, &serde_json::to_vec(&manifest).unwrap());
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
            digests.push(put(&repository, "3", INDEX, &index, &[]).await);
        }
    }
    let here = |digest: &Digest| place.blobs().contains(&digest.hex().to_owned());
    for tags in [["1", "2", "3"], ["3", "2", "1"]] {
        for tag in tags {
            pull(&place.images, &name(tag), None).await.0.unwrap();
        }
        place.images.collect(&Vec::new).unwrap();
        for digest in &digests {
            assert!(here(digest), "{tags:?}: a name by digest has lost its manifest: {digest}");
        }
        clean(&place);
        // Each goes with its name.
        remove(&place, &name("2").familiar());
        remove(&place, &name(tags[0]).familiar());
        assert_eq!(place.images.list().unwrap().len(), 1);
        remove(&place, &name(tags[2]).familiar());
        place.images.collect(&Vec::new).unwrap();
        assert!(place.blobs().is_empty(), "{tags:?}: {:?}", place.blobs());
    }
}

#[tokio::test]
async fn a_lost_index_is_found_and_forgotten() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (index, ids) = shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&place.images, &name).await;
    std::fs::write(place.path("data/blobs/sha256").join(index.hex()), b"damaged").unwrap();
    let problems = |dry_run: bool| {
        let mut fsck = Fsck::new(dry_run, false);
        place.images.fsck(&mut fsck, &|_| None).unwrap();
        fsck.findings().iter().map(|one| one.problem).collect::<Vec<_>>()
    };
    assert_eq!(problems(true), [Problem::Damaged, Problem::Missing]);
    assert_eq!(problems(false), [Problem::Damaged, Problem::Missing]);
    assert!(problems(false).is_empty());
    assert_eq!(place.images.resolve(&name.familiar()).unwrap().id, ids[0]);
    assert_eq!(for_each(&place.images, &name.familiar()), [Some(ids[0].clone()), None, None]);
    pull_all(&place.images, &name).await;
    assert_eq!(for_each(&place.images, &name.familiar()), some(&ids));
    clean(&place);
}

#[tokio::test]
async fn a_platform_that_is_lost_leaves_the_name_to_the_others() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (_, ids) = shelve(&client().repository(&name, None), "1", "").await;
    let all = pull_all(&place.images, &name).await;
    let text = name.familiar();
    assert_eq!(place.images.resolve(&text).unwrap().id, ids[0]);
    let layer = &all[0].diff_ids[0];
    std::fs::remove_dir_all(place.path("data/layers").join(layer.hex())).unwrap();
    for blob in place.images.layers().get(layer).unwrap().unwrap().blobs {
        std::fs::remove_file(place.path("data/blobs/sha256").join(blob.digest.hex())).unwrap();
    }
    place.images.fsck(&mut Fsck::new(false, false), &|_| None).unwrap();
    assert_eq!(for_each(&place.images, &text), [None, Some(ids[1].clone()), Some(ids[2].clone())]);
    assert!(ids[1..].contains(&place.images.resolve(&text).unwrap().id));
    clean(&place);
}

#[tokio::test]
async fn a_name_that_an_older_version_moved_is_none_of_the_index() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&place.images, &name).await;
    let (text, names, images) = (name.familiar(), Table::new("image-name"), Table::new("image"));
    let (before, other) = (place.images.resolve(&text).unwrap(), place.simple("other", &[]));
    // As a version did that knows of no index.
    place
        .store
        .write(|tx| {
            tx.put(names, &text, &other.id)?;
            for (id, own) in [(&before.id, false), (&other.id, true)] {
                let mut row: Value = tx.get(images, id.as_str())?.unwrap();
                let list = row["names"].as_array_mut().unwrap();
                list.retain(|name| *name != json!(text));
                list.extend(own.then(|| json!(text)));
                tx.put(images, id.as_str(), &row)?;
            }
            Ok::<_, wharf_store::StoreError>(())
        })
        .unwrap();
    place.images.fsck(&mut Fsck::new(false, false), &|_| None).unwrap();
    assert_eq!(place.images.resolve(&text).unwrap().id, other.id);
    assert!(place.images.index(&text).unwrap().is_none());
    clean(&place);
}

#[tokio::test]
async fn pruning_takes_the_platforms_that_are_chosen_and_no_others() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (_, ids) = shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&place.images, &name).await;
    let (text, gone) = (name.familiar(), |at: usize| Removed::Deleted(ids[at].to_string()));
    let prune = |dangling: bool, wanted: &[&Digest]| {
        place.images.prune(dangling, &|_| false, &|image| wanted.contains(&&image.id)).unwrap()
    };
    assert!(prune(true, &[&ids[0], &ids[1], &ids[2]]).is_empty());
    // The one that the name means: it means another then.
    assert_eq!(prune(false, &[&ids[0]]), [gone(0)]);
    assert_eq!(for_each(&place.images, &text), [None, Some(ids[1].clone()), Some(ids[2].clone())]);
    clean(&place);
    assert_eq!(prune(false, &[&ids[1]]), [gone(1)]);
    assert_eq!(place.images.resolve(&text).unwrap().id, ids[2]);
    clean(&place);
    let last = prune(false, &[&ids[2]]);
    assert!(last.contains(&Removed::Untagged(text)) && last.last() == Some(&gone(2)), "{last:?}");
    place.images.collect(&Vec::new).unwrap();
    assert!(place.blobs().is_empty(), "{:?}", place.blobs());
}
