use wharf_image::ErrorKind;
use wharf_reference::Digest;

use crate::Place;

#[test]
fn an_image_is_found_by_all_its_names() {
    let place = Place::new();
    let image = place.simple("", &["debian", "localhost:5000/a/b:c"]);
    let hex = image.id.hex();
    for text in [
        "debian",
        "debian:latest",
        "docker.io/library/debian:latest",
        "localhost:5000/a/b:c",
        image.id.as_str(),
        hex,
        &hex[..12],
        &hex[..1],
        &format!("sha256:{}", &hex[..9]),
    ] {
        assert_eq!(place.images.resolve(text).unwrap().id, image.id, "{text}");
    }
    assert_eq!(image.tags, ["debian:latest", "localhost:5000/a/b:c"]);
    assert!(image.tagged.is_some() && image.repo_digests.is_empty());
}

#[test]
fn what_is_not_here_is_told_in_dockers_words() {
    let place = Place::new();
    let id = Digest::sha256(b"none");
    for (text, message) in [
        ("debian", "No such image: debian:latest".to_owned()),
        ("localhost:5000/x:1", "No such image: localhost:5000/x:1".into()),
        ("0123456789ab", "No such image: 0123456789ab:latest".into()),
        ("sha256:0123", "No such image: sha256:0123".into()),
        (id.as_str(), format!("No such image: {id}")),
        (id.hex(), format!("No such image: {id}")),
        (&format!("debian@{id}"), format!("No such image: debian@{id}")),
    ] {
        let error = place.images.resolve(text).unwrap_err();
        assert_eq!((error.to_string(), error.kind()), (message, ErrorKind::NotFound));
    }
    for (text, message) in [
        ("Debian", "invalid reference format: repository name (library/Debian) must be lowercase"),
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
    ] {
        let error = place.images.resolve(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(&message[..24]), "{error}");
    }
}

#[test]
fn a_prefix_of_two_is_of_none_and_a_name_goes_before_an_id() {
    let place = Place::new();
    let layer = place.layer(&[]);
    let mut by_first: std::collections::HashMap<String, Digest> = std::collections::HashMap::new();
    for number in 0..40 {
        let image = place.image(std::slice::from_ref(&layer), &number.to_string(), &[]);
        let first = image.id.hex()[..1].to_owned();
        if let Some(other) = by_first.insert(first.clone(), image.id.clone()) {
            let error = place.images.resolve(&first).unwrap_err();
            assert!(error.to_string().contains("multiple images"), "{error}");
            place.images.tag(other.as_str(), &first).unwrap();
            assert_eq!(place.images.resolve(&first).unwrap().id, other);
            return;
        }
    }
    unreachable!("forty IDs have sixteen first digits");
}

#[test]
fn a_name_moves_to_the_image_that_gets_it() {
    let place = Place::new();
    let (one, two) = (place.simple("one", &["x", "y"]), place.simple("two", &[]));
    place.images.tag(&two.id.hex()[..20], "x:latest").unwrap();
    assert_eq!(place.images.get(&one.id).unwrap().tags, ["y:latest"]);
    assert_eq!(place.images.get(&two.id).unwrap().tags, ["x:latest"]);
    assert!(place.images.tag("x", &format!("z@{}", one.id)).is_err());
    assert_eq!(place.images.tag("none", "z").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(place.images.tag("x", "Z").unwrap_err().kind(), ErrorKind::Invalid);
    // The same configuration is the same image, and keeps its names.
    assert_eq!(place.simple("one", &["z"]).tags, ["y:latest", "z:latest"]);
    assert_eq!(place.images.list().unwrap().len(), 2);
}

#[test]
fn an_image_needs_its_layers() {
    let place = Place::new();
    let missing = Digest::sha256(b"missing");
    let error = place.images.create(&crate::config(&[missing], ""), None, &["x".into()]).unwrap_err();
    assert!(error.to_string().contains("not here"), "{error}");
    assert!(place.images.list().unwrap().is_empty() && place.blobs().is_empty());
}

#[test]
fn history_has_a_line_for_each_step() {
    let place = Place::new();
    let (base, top) = (place.layer(&[("a", b"1")]), place.layer(&[("b", b"22")]));
    let parent = place.image(std::slice::from_ref(&base), "base", &["base"]);
    let mut config = crate::config(&[base], "base");
    config.rootfs.diff_ids.push(top);
    config.history.push(wharf_image::HistoryEntry {
        created_by: Some("ENV".into()),
        empty_layer: true,
        ..Default::default()
    });
    config.history.push(wharf_image::HistoryEntry { created_by: Some("COPY".into()), ..Default::default() });
    let image = place.images.create(&config, Some(&parent.id), &["top".into()]).unwrap();
    let lines = place.images.history("top", None).unwrap();
    let shown: Vec<(&str, u64)> = lines.iter().map(|line| (line.created_by.as_str(), line.size)).collect();
    assert_eq!(shown, [("COPY", 2), ("ENV", 0), ("test", 1)]);
    assert_eq!(image.size, 3);
    assert_eq!(
        (lines[0].id.as_deref(), lines[0].tags.as_slice()),
        (Some(image.id.as_str()), &["top:latest".into()][..])
    );
    assert_eq!(lines[1].id, None);
    assert_eq!(lines[2].id.as_deref(), Some(parent.id.as_str()), "at its own line");
}

#[test]
fn a_tar_of_a_root_becomes_an_image() {
    let place = Place::new();
    let tar = crate::tar(&[("etc/hostname", b"x")]);
    let config = wharf_image::ContainerConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &tar).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    for bytes in [&tar, &gzip, &zstd] {
        let image =
            place.images.import(bytes.as_slice(), config.clone(), "why", Some("linux/arm64"), Some("in:1")).unwrap();
        assert_eq!(image.diff_ids, [Digest::sha256(&tar)]);
        assert_eq!(
            (image.config.architecture.as_str(), image.config.config.cmd.as_deref()),
            ("arm64", Some(&["sh".into()][..]))
        );
        assert_eq!(image.config.history[0].comment.as_deref(), Some("why"));
        assert_eq!(place.images.resolve("in:1").unwrap().id, image.id);
    }
    assert!(place.images.import(&b"no tar at all, but some bytes"[..], config, "", None, None).is_err());
}
