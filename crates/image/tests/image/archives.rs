use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Command;

use serde_json::{Value, json};
use wharf_archive::Reader;
use wharf_image::{ErrorKind, ImageRecord};
use wharf_reference::Digest;

use crate::{Place, has, listing, noise, tar};

fn save(place: &Place, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut bytes = Vec::new();
    place.images.save(&names, &[], &mut bytes).unwrap();
    bytes
}

fn load(place: &Place, bytes: &[u8]) -> wharf_image::Result<Vec<String>> {
    place.images.load(bytes, &[], &|_| {})
}

fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let mut all = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        all.insert(String::from_utf8(entry.path).unwrap(), content);
    }
    all
}

/// Two images that share a layer.
fn two(place: &Place) -> [Digest; 2] {
    let base = place.layer(&[("base", &noise(1, 50_000))]);
    let top = place.layer(&[("top", b"top")]);
    let one = place.image(&[base.clone(), top], "one", &["one:1", "one:2", "other.example:5000/one"]);
    let two = place.image(&[base], "two", &["two"]);
    [one.id, two.id]
}

#[test]
fn what_is_saved_is_loaded_with_the_same_ids() {
    let here = Place::new();
    let [one, two] = two(&here);
    let bytes = save(&here, &["one", "two:latest", "other.example:5000/one"]);
    assert!(bytes == save(&here, &["one", "two:latest", "other.example:5000/one"]), "the same bytes every time");
    let there = Place::new();
    let told = RefCell::new(Vec::new());
    let lines = there.images.load(bytes.as_slice(), &[], &|message| told.borrow_mut().push(message)).unwrap();
    assert_eq!(
        lines,
        [
            "Loaded image: one:1",
            "Loaded image: one:2",
            "Loaded image: other.example:5000/one:latest",
            "Loaded image: two:latest"
        ]
    );
    assert_eq!(told.borrow().iter().filter(|message| message.current == Some(0)).count(), 2, "two layers came");
    assert_eq!(there.images.resolve("one:1").unwrap().id, one);
    assert_eq!(there.images.resolve("two").unwrap().id, two);
    assert!(bytes == save(&there, &["one", "two:latest", "other.example:5000/one"]), "and the same elsewhere");
    assert!(!listing(&there.path("data")).iter().any(|name| name.starts_with("load-")));
    // A second time nothing comes.
    told.borrow_mut().clear();
    there.images.load(bytes.as_slice(), &[], &|message| told.borrow_mut().push(message)).unwrap();
    assert!(told.borrow().is_empty());
    // By ID there is no name; compressed it is as good.
    let bytes = save(&here, &[two.hex()]);
    assert_eq!(
        load(&there, &zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap(),
        [format!("Loaded image ID: {two}")]
    );
    assert_eq!(here.images.save(&["none".into()], &[], &mut Vec::new()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_archive_has_the_form_of_dockers() {
    let place = Place::new();
    let [one, _] = two(&place);
    let files = files(&save(&place, &["one:1"]));
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["Config"], format!("blobs/sha256/{}", one.hex()));
    assert_eq!(manifest[0]["RepoTags"], json!(["one:1"]));
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/library/one:1");
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1");
    for (name, content) in files.iter().filter(|(name, _)| name.starts_with("blobs/sha256/") && !name.ends_with('/')) {
        assert_eq!(format!("blobs/sha256/{}", Digest::sha256(content).hex()), *name);
    }
}

#[test]
fn a_name_that_moves_is_told() {
    let (here, there) = (Place::new(), Place::new());
    here.simple("new", &["x"]);
    let old = there.simple("old", &["x"]);
    let lines = load(&there, &save(&here, &["x"])).unwrap();
    assert_eq!(
        lines,
        [
            format!("The image x:latest already exists, renaming the old one with ID {} to empty string", old.id),
            "Loaded image: x:latest".into()
        ]
    );
}

/// The form that `docker save` had before version 25: a folder for each layer, repeated layers as links.
#[test]
fn archives_of_older_dockers_are_loaded() {
    let place = Place::new();
    let layer = tar(&[("f", b"f")]);
    let diff_id = Digest::sha256(&layer);
    let config = serde_json::to_vec(&crate::config(&[diff_id.clone(), diff_id], "old")).unwrap();
    let id = Digest::sha256(&config);
    let manifest = json!([{
        "Config": format!("{}.json", id.hex()), "RepoTags": ["old:1"], "Layers": ["aa/layer.tar", "bb/layer.tar"],
    }]);
    let dir = place.path("old");
    fs::create_dir_all(dir.join("aa")).unwrap();
    fs::create_dir_all(dir.join("bb")).unwrap();
    fs::write(dir.join("aa/layer.tar"), &layer).unwrap();
    fs::write(dir.join("aa/VERSION"), "1.0").unwrap();
    std::os::unix::fs::symlink("../aa/layer.tar", dir.join("bb/layer.tar")).unwrap();
    fs::write(dir.join(format!("{}.json", id.hex())), &config).unwrap();
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    fs::write(dir.join("repositories"), "{}").unwrap();
    let output = Command::new("tar").arg("-c").arg("-C").arg(&dir).arg(".").output().unwrap();
    assert_eq!(load(&place, &output.stdout).unwrap(), ["Loaded image: old:1"]);
    assert_eq!(place.images.resolve("old:1").unwrap().id, id);
}

/// The form that `docker save` had before 1.10: each layer is an image, and `repositories` has the names.
#[test]
fn archives_from_before_manifests_are_loaded() {
    let place = Place::new();
    let layer = tar(&[("f", b"f")]);
    let json = |id: &str, parent: &str, command: &str| {
        json!({
            "id": id, "parent": parent, "created": "2015-03-04T05:06:07Z", "docker_version": "1.9.1", "Size": 7,
            "container_config": { "Cmd": ["/bin/sh", "-c", command] }, "config": { "Cmd": ["sh"] },
            "architecture": "amd64", "os": "linux",
        })
    };
    let dir = place.path("old");
    for (id, parent, command, layer) in
        [("bb", "", "echo > f", layer.as_slice()), ("aa", "bb", "true", &[]), ("cc", "bb", "false", &[])]
    {
        fs::create_dir_all(dir.join(id)).unwrap();
        fs::write(dir.join(id).join("json"), json(id, parent, command).to_string()).unwrap();
        fs::write(dir.join(id).join("layer.tar"), layer).unwrap();
        fs::write(dir.join(id).join("VERSION"), "1.0").unwrap();
    }
    let repositories = |id: &str| json!({ "old": { "1": id, "2": id }, "r.example:5000/o": { "latest": "cc" } });
    fs::write(dir.join("repositories"), repositories("aa").to_string()).unwrap();
    let archive = || Command::new("tar").arg("-cz").arg("-C").arg(&dir).arg(".").output().unwrap().stdout;
    assert_eq!(
        load(&place, &archive()).unwrap(),
        ["Loaded image: old:1", "Loaded image: old:2", "Loaded image: r.example:5000/o:latest"]
    );
    let image = place.images.resolve("old:2").unwrap();
    let base = place.images.get(&image.parent.unwrap()).unwrap();
    assert_eq!(base.config.history[0].created_by.as_deref(), Some("/bin/sh -c echo > f"));
    assert_eq!(image.config.history.len(), 2);
    assert_eq!((&base.diff_ids[..], &image.diff_ids[..1]), (&[Digest::sha256(&layer)][..], &base.diff_ids[..]));
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert!(!image.config.more.contains_key("Size") && image.config.more["docker_version"] == "1.9.1");
    // As Docker 28.5.2 makes it of the same.
    assert_eq!(base.id.to_string(), "sha256:af996274827d36c6f9858c486bb53d954e92c7b5f1b2e455a9c23a08cab9fdcd");
    // What does not hold together is said, and leaves nothing.
    let other = Place::new();
    let fails = |text: &str| {
        let error = load(&other, &archive()).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(text), "{error}");
    };
    fs::write(dir.join("repositories"), repositories("dd").to_string()).unwrap();
    fails("invalid target ID: dd");
    fs::write(dir.join("bb/json"), json("bb", "aa", "").to_string()).unwrap();
    fails("has too many parents");
    fs::write(dir.join("bb/json"), json("bb", "../aa", "").to_string()).unwrap();
    fails("the archive has no image ../aa");
}

/// What such an archive makes others hold is bounded, in whatever order its folders come.
#[test]
fn archives_from_before_manifests_that_grow_are_refused() {
    // Folders, of each its name, its parent's and the length of its step.
    let refused = |images: &[(String, String, usize)], text: &str| {
        let place = Place::new();
        let parts: Vec<(String, Vec<u8>)> = images
            .iter()
            .flat_map(|(id, parent, length)| {
                let json = json!({
                    "parent": parent, "container_config": { "Cmd": ["x".repeat(*length)] },
                    "architecture": "amd64", "os": "linux",
                });
                [(format!("{id}/json"), json.to_string().into_bytes()), (format!("{id}/layer.tar"), Vec::new())]
            })
            .collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("repositories", b"{}")];
        entries.extend(parts.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
        let error = load(&place, &tar(&entries)).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(text), "{error}");
    };
    let name = |number: usize| format!("{number:04}");
    refused(&[(name(0), String::new(), 2 << 20)], "0000/json of the archive is larger than 1048576 bytes");
    let below = |number: usize| number.checked_sub(1).map(name).unwrap_or_default();
    let chain: Vec<_> = (0..=wharf_distribution::MAX_LAYERS).map(|number| (name(number), below(number), 1)).collect();
    refused(&chain, "has too many parents");
    // Six large steps, and many small images on them that have them all.
    let fans = |number: usize| if number < 6 { (below(number), 1_000_000) } else { (name(5), 1) };
    let fan: Vec<_> = (0..40).map(|number| (name(number), fans(number).0, fans(number).1)).collect();
    refused(&fan, "are larger than 67108864 bytes together");
}

#[test]
fn parents_and_times_come_back_with_an_archive() {
    let (here, there) = (Place::new(), Place::new());
    let base = here.simple("base", &["base"]);
    let mut config = base.config.clone();
    config.history.push(wharf_image::HistoryEntry { empty_layer: true, ..config.history[0].clone() });
    let child = here.images.create(&config, Some(&base.id), &["child".into()]).unwrap();
    // Docker refuses a parent that is more than a step behind.
    config.history.push(config.history[1].clone());
    let grandchild = here.images.create(&config, Some(&base.id), &["grandchild".into()]).unwrap();
    let lines = here.images.history("grandchild", None).unwrap();
    let ids: Vec<Option<&str>> = lines.iter().map(|line| line.id.as_deref()).collect();
    assert_eq!(ids, [Some(grandchild.id.as_str()), None, Some(base.id.as_str())]);
    let bytes = save(&here, &["child", "base", "grandchild"]);
    let manifest: Value = serde_json::from_slice(&files(&bytes)["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["Parent"], json!(base.id));
    assert!(manifest[1].get("Parent").is_none() && manifest[2].get("Parent").is_none());
    let source = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "size": here.images.layers().get(&base.diff_ids[0]).unwrap().unwrap().tar_size, "digest": base.diff_ids[0] });
    assert_eq!(manifest[0]["LayerSources"][base.diff_ids[0].as_str()], source);
    load(&there, &bytes).unwrap();
    let parent = |image: &ImageRecord| there.images.get(&image.id).unwrap().parent;
    assert_eq!((parent(&child), parent(&base), parent(&grandchild)), (Some(base.id.clone()), None, None));
    // Alone it has none.
    let manifest: Value = serde_json::from_slice(&files(&save(&here, &["child"]))["manifest.json"]).unwrap();
    assert!(manifest[0].get("Parent").is_none());
    let mut reader = Reader::new(bytes.as_slice());
    let created = "2026-01-02T03:04:05Z".parse::<jiff::Timestamp>().unwrap().as_second();
    while let Some(entry) = reader.next_entry().unwrap() {
        let name = String::from_utf8(entry.path).unwrap();
        let is_own = [&base.id, &child.id, &grandchild.id, &base.diff_ids[0]].iter().any(|id| name.ends_with(id.hex()));
        assert_eq!(entry.mtime.0, if is_own { created } else { 0 }, "{name}");
    }
}

#[test]
fn hostile_archives_leave_nothing() {
    let place = Place::new();
    fs::write(place.path("canary"), tar(&[("stolen", b"x")])).unwrap();
    let layer = tar(&[("f", b"f")]);
    let config = serde_json::to_vec(&crate::config(&[Digest::sha256(&layer)], "")).unwrap();
    let archive = |manifest: Value, config: &[u8], layer: &[u8]| {
        let manifest = manifest.to_string();
        tar(&[("manifest.json", manifest.as_bytes()), ("c", config), ("l", layer)])
    };
    let entry =
        |config: &str, layers: Value, tags: Value| json!([{ "Config": config, "Layers": layers, "RepoTags": tags }]);
    for (why, bytes) in [
        ("no archive", b"nothing".to_vec()),
        ("empty", tar(&[])),
        ("a manifest of another form", archive(json!({ "Config": 1 }), &config, &layer)),
        ("a configuration outside", archive(entry("../../canary", json!(["l"]), json!([])), &config, &layer)),
        ("a layer outside", archive(entry("c", json!(["/../../../canary"]), json!([])), &config, b"no tar")),
        ("no layer", archive(entry("c", json!(["x"]), json!([])), &config, b"no tar")),
        ("too few layers", archive(entry("c", json!([]), json!([])), &config, &layer)),
        ("another layer", archive(entry("c", json!(["l"]), json!([])), &config, &tar(&[("g", b"g")]))),
        ("a bad name", archive(entry("c", json!(["l"]), json!(["UPPER"])), &config, &layer)),
        ("no configuration", archive(entry("c", json!(["l"]), json!([])), b"[]", &layer)),
    ] {
        let error = load(&place, &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{why}: {error:?}");
    }
    let mut linked = tar(&[]);
    linked.clear();
    let manifest = entry("c", json!(["l"]), json!([])).to_string();
    let dir = place.path("links");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    std::os::unix::fs::symlink(place.path("canary"), dir.join("c")).unwrap();
    linked.extend(Command::new("tar").arg("-c").arg("-C").arg(&dir).arg(".").output().unwrap().stdout);
    assert_eq!(load(&place, &linked).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(place.images.list().unwrap().is_empty() && place.images.layers().list().unwrap().is_empty());
    assert!(!listing(&place.path("data")).iter().any(|name| name.starts_with("load-")));
}

#[test]
fn what_pull_refuses_is_not_loaded() {
    let place = Place::new();
    let layer = tar(&[("f", b"f")]);
    let good = crate::config(&[Digest::sha256(&layer)], "");
    let manifest = json!([{ "Config": "c", "Layers": ["l"], "RepoTags": ["x:1"] }]).to_string();
    let mut windows = good.clone();
    windows.os = "windows".into();
    let mut none = serde_json::to_value(&good).unwrap();
    none["rootfs"] = Value::Null;
    for (config, message) in [
        (serde_json::to_vec(&windows).unwrap(), "image operating system \"windows\" cannot be used on this platform"),
        (serde_json::to_vec(&none).unwrap(), "invalid image JSON, no RootFS key"),
    ] {
        let archive = tar(&[("manifest.json", manifest.as_bytes()), ("c", &config), ("l", &layer)]);
        let error = load(&place, &archive).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid, message));
    }
    let config = wharf_image::ContainerConfig::default();
    let error = place.images.import(layer.as_slice(), config, "", Some("windows/amd64"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(place.images.list().unwrap().is_empty() && place.images.layers().list().unwrap().is_empty());
}

#[test]
fn archives_of_bzip2_are_loaded() {
    if !has("bzip2") {
        return;
    }
    let (here, there) = (Place::new(), Place::new());
    let image = here.simple("", &["x:1"]);
    let archive = here.path("saved.tar");
    fs::write(&archive, save(&here, &["x:1"])).unwrap();
    let output = Command::new("bzip2").arg("-c").arg(&archive).output().unwrap();
    assert_eq!(load(&there, &output.stdout).unwrap(), ["Loaded image: x:1"]);
    assert_eq!(there.images.resolve("x:1").unwrap().id, image.id);
}

#[test]
fn skopeo_reads_what_is_saved_and_we_what_it_writes() {
    if !has("skopeo") {
        return;
    }
    let here = Place::new();
    let [one, _] = two(&here);
    let archive = here.path("saved.tar");
    fs::write(&archive, save(&here, &["one:1"])).unwrap();
    let skopeo = |arguments: &[String]| {
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let as_docker = format!("docker-archive:{}:one:1", archive.display());
    let as_oci = format!("oci-archive:{}:1", archive.display());
    for source in [&as_docker, &as_oci] {
        let config = skopeo(&["inspect".into(), "--config".into(), "--raw".into(), source.clone()]);
        assert_eq!(Digest::sha256(&config), one, "{source}");
        for kind in ["docker-archive", "oci-archive"] {
            let copy = here.path("copy.tar");
            let _ = fs::remove_file(&copy);
            let name = if kind == "docker-archive" { "x.example/copy:2" } else { "x.example/copy" };
            let copied = format!("{kind}:{}:{name}", copy.display());
            skopeo(&["--insecure-policy".into(), "copy".into(), "-q".into(), source.clone(), copied]);
            let there = Place::new();
            let lines = load(&there, &fs::read(&copy).unwrap()).unwrap();
            assert!(lines[0].starts_with("Loaded image: x.example/copy:"), "{lines:?}");
            let image = there.images.list().unwrap().remove(0);
            assert_eq!(image.id, one, "{source} as {kind}");
            for diff_id in &image.diff_ids {
                there.images.layers().verify(diff_id).unwrap();
            }
        }
    }
}

#[test]
fn a_list_of_more_images_than_anybody_has_is_refused_before_any_is_read() {
    let place = Place::new();
    // The first has no configuration, which would be another error.
    let entries = vec![json!({ "Config": "none.json" }); 10_001];
    let error = load(&place, &tar(&[("manifest.json", json!(entries).to_string().as_bytes())])).unwrap_err();
    assert!(error.to_string().contains("more than 10000 manifests"), "{error}");
    let error = load(&place, &tar(&[("manifest.json", json!(entries[1..]).to_string().as_bytes())])).unwrap_err();
    assert!(error.to_string().contains("no configuration none.json"), "{error}");
}
