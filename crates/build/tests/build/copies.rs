//! COPY and ADD.

use std::io::Write;

use crate::Test;
use crate::bench::{Bench, CHECKOUT, context, request, tar};
use wharf_build::BuildRequest;

pub(crate) const TESTS: &[Test] = &[
    ("copies::destinations", destinations),
    ("copies::owners_and_modes", owners_and_modes),
    ("copies::a_changed_file_is_found", a_changed_file_is_found),
    ("copies::wildcards_excludes_and_parents", wildcards_excludes_and_parents),
    ("copies::heredocs", heredocs),
    ("copies::from_stages_and_images", from_stages_and_images),
    ("copies::links_lead_nowhere_else", links_lead_nowhere_else),
    ("copies::linked_layers_know_nothing_of_their_base", linked_layers_know_nothing_of_their_base),
    ("copies::archives_are_unpacked", archives_are_unpacked),
    ("copies::what_has_no_value_changes_nothing", what_has_no_value_changes_nothing),
    ("copies::two_sources_share_no_file", two_sources_share_no_file),
    ("copies::what_matches_and_leads_nowhere_is_named", what_matches_and_leads_nowhere_is_named),
    ("copies::what_is_refused", what_is_refused),
];

fn destinations(bench: &Bench) {
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox\nWORKDIR /w\nCOPY a b\nCOPY a c/\nCOPY dir d\nCOPY dir/ /tmp\nCOPY a dir/x e/\nCOPY a .\n\
             COPY link /l\nCOPY . /all\nCOPY a /var/run/a\n",
        ),
        ("a", "aa"),
        ("dir/x", "xx"),
        ("dir/deep/y", "yy"),
        ("link -> dir", ""),
        ("loose -> nowhere", ""),
    ]);
    for (path, text) in [
        ("w/b", "aa"),
        ("w/c/a", "aa"),
        ("w/d/x", "xx"),
        ("w/d/deep/y", "yy"),
        ("tmp/x", "xx"),
        ("w/e/a", "aa"),
        ("w/e/x", "xx"),
        ("w/a", "aa"),
        ("l/x", "xx"),
        ("all/dir/deep/y", "yy"),
        // Where the base's link leads.
        ("tmp/a", "aa"),
    ] {
        assert_eq!(bench.read(&image, path), text, "{path}");
    }
    // What is there keeps its attributes; links are copied as links.
    assert_eq!(bench.stat(&image, "tmp").0, 0o1777);
    assert_eq!(bench.view(&image).read_link("all/loose").unwrap(), "nowhere");
    assert_eq!(bench.view(&image).read_link("var/run").unwrap(), "/tmp");
}

fn owners_and_modes(bench: &Bench) {
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY a /default\nCOPY --chown=web a /name\nCOPY --chown=web:extra dir /n/dir\n\
             COPY --chown=5:6 --chmod=600 a /number\nCOPY --chmod=u=rwX,go= dir /symbolic\nARG OWNER=web\n\
             COPY --chown=$OWNER a /variable\nCOPY run /run.sh\n",
        ),
        ("a", "aa"),
        ("dir/x", "xx"),
        ("!run", "#!"),
    ]);
    for (path, expected) in [
        ("default", (0o644, 0, 0)),
        ("name", (0o644, 1000, 1001)),
        ("n/dir/x", (0o644, 1000, 2000)),
        ("n/dir", (0o755, 1000, 2000)),
        ("n", (0o755, 1000, 2000)),
        ("number", (0o600, 5, 6)),
        ("symbolic", (0o755, 0, 0)),
        ("symbolic/x", (0o600, 0, 0)),
        ("variable", (0o644, 1000, 1001)),
        ("run.sh", (0o755, 0, 0)),
    ] {
        assert_eq!(bench.stat(&image, path), expected, "{path}");
    }
    assert_eq!(bench.view(&image).metadata("default", false).unwrap().st_mtime, CHECKOUT as i64);
    let nobody = [("Dockerfile", "FROM busybox\nCOPY --chown=nobody a /\n"), ("a", "")];
    let refused = bench.build_with(BuildRequest { classic: true, ..request(&nobody) }).result;
    assert!(refused.unwrap_err().message.contains("can't find uid for user nobody"));
}

fn a_changed_file_is_found(bench: &Bench) {
    let dockerfile = "FROM busybox\nCOPY one /one\nCOPY two /two\nLABEL x=y\n";
    let files = |one, two| [("Dockerfile", dockerfile), ("one", one), ("two", two), ("other", "o")];
    let (first, _) = bench.build(&files("1", "2"));
    let (changed, text) = bench.build(&files("1", "changed"));
    assert_eq!(text.matches("Using cache").count(), 1, "{text}");
    assert_eq!(first.diff_ids[..2], changed.diff_ids[..2]);
    assert_eq!(bench.read(&changed, "two"), "changed");
    // A file that no step uses does not matter, and neither does a step that changes no file.
    let more = [files("1", "2").as_slice(), &[("unused", "u")]].concat();
    let (_, text) = bench.build(&more);
    assert_eq!(text.matches("Using cache").count(), 3, "{text}");
    let labelled = dockerfile.replace("COPY one", "LABEL before=z\nCOPY one");
    let (_, text) = bench.build(&[("Dockerfile", &labelled), ("one", "1"), ("two", "2")]);
    assert_eq!(text.matches("Using cache").count(), 2, "{text}");
    // Permissions count.
    let (_, text) = bench.build(&[("Dockerfile", dockerfile), ("!one", "1"), ("two", "2")]);
    assert!(!text.contains("Using cache"), "{text}");
}

fn wildcards_excludes_and_parents(bench: &Bench) {
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY *.txt maybe* /w/\nCOPY d?r/*.c /c/\nCOPY none* /none/\nCOPY --exclude=*.md --exclude=**/skip src /e/\n\
             COPY --parents src/deep/x.rs a.txt /p/\nCOPY --parents src/./deep/** /pivot/\nCOPY --parents **/*.rs /rs/\n\
             COPY --exclude=src --exclude=Dockerfile . /rest/\n",
        ),
        (".dockerignore", "hidden.txt\n.dockerignore\n"),
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("hidden.txt", "h"),
        ("dir/m.c", "m"),
        ("src/x.md", "md"),
        ("src/deep/x.rs", "rs"),
        ("src/deep/skip", "s"),
        ("src/deep/more/y.rs", "y"),
    ]);
    let names = |dir: &str| -> Vec<String> {
        let names = bench.view(&image).read_dir(dir).unwrap();
        names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names("w"), ["a.txt", "b.txt"]);
    assert_eq!(names("c"), ["m.c"]);
    assert!(!bench.exists(&image, "none"));
    assert_eq!((names("e"), names("e/deep")), (vec!["deep".to_owned()], vec!["more".into(), "x.rs".into()]));
    assert_eq!((names("p"), names("p/src/deep")), (vec!["a.txt".to_owned(), "src".into()], vec!["x.rs".into()]));
    assert_eq!(names("pivot/deep"), ["more", "skip", "x.rs"]);
    assert_eq!((names("rs/src"), names("rs/src/deep/more")), (vec!["deep".to_owned()], vec!["y.rs".into()]));
    assert_eq!(names("rest"), ["a.txt", "b.txt", "dir"]);
}

fn heredocs(bench: &Bench) {
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox\nENV WHO=you\nCOPY <<a.conf <<'b.conf' real /etc/app/\nhi $WHO\na.conf\nhi $WHO\nb.conf\n\
             COPY --chmod=755 <<-EOF /bin/script\n\t#!/bin/sh\n\techo \"it's ${WHO}\"\n\tEOF\n",
        ),
        ("real", "r"),
    ]);
    assert_eq!(bench.read(&image, "etc/app/a.conf"), "hi you\n");
    assert_eq!(bench.read(&image, "etc/app/b.conf"), "hi $WHO\n");
    assert_eq!(bench.read(&image, "etc/app/real"), "r");
    assert_eq!(bench.read(&image, "bin/script"), "#!/bin/sh\necho \"it's you\"\n");
    assert_eq!(bench.stat(&image, "bin/script").0, 0o755);
}

fn from_stages_and_images(bench: &Bench) {
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox AS make\nCOPY --chown=web dir /out\nFROM scratch\nCOPY --from=make /out /kept\n\
             COPY --from=make --chown=0:0 /out /rooted\nCOPY --from=MAKE /bin/sh /bin/busybox /bin/\nCOPY --from=busybox:latest /bin/ls /ls\n",
        ),
        ("dir/x", "xx"),
    ]);
    assert_eq!(bench.stat(&image, "kept/x"), (0o644, 1000, 1001));
    assert_eq!(bench.stat(&image, "rooted/x"), (0o644, 0, 0));
    // A source that is a link is what it leads to.
    assert_eq!(bench.stat(&image, "ls").0, 0o755);
    assert!(bench.view(&image).metadata("bin/sh", false).unwrap().st_size > 100_000);
}

fn links_lead_nowhere_else(bench: &Bench) {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "of the host").unwrap();
    let path = secret.path().to_string_lossy().into_owned();
    let up = format!("up -> ../../../../../../..{path}");
    let absolute = format!("absolute -> {path}");
    for source in ["up", "absolute", "etc/passwd", "/../../etc/passwd"] {
        let dockerfile = format!("FROM scratch\nCOPY {source} /x\n");
        let files = [("Dockerfile", dockerfile.as_str()), (&up, ""), (&absolute, ""), ("etc -> /etc", "")];
        let outcome = bench.try_build(&files);
        match outcome.result {
            Err(error) => {
                let refused = ["COPY failed", "symbolic links"].iter().any(|words| error.message.contains(words));
                assert!(refused, "{source}: {error}");
            }
            Ok(id) => {
                let image = bench.images.resolve(id.as_str()).unwrap();
                panic!("{source} gave {:?}", bench.view(&image).read_small("x", 1000));
            }
        }
    }
    // Above the context there is nothing but the context.
    let (image, _) = bench.build(&[("Dockerfile", "FROM scratch\nCOPY ../../a /x\n"), ("a", "of the context")]);
    assert_eq!(bench.view(&image).read_small("x", 1000).unwrap(), b"of the context");
    // The Dockerfile and the ignore file are read inside of the context, too.
    let outcome = bench.try_build(&[(&format!("Dockerfile -> {path}"), ""), ("a", "")]);
    assert!(outcome.result.is_err());
    // Links of a stage lead into the stage when something is copied over them.
    let (image, _) = bench.build(&[
        (
            "Dockerfile",
            "FROM busybox AS evil\nCOPY links /\nFROM evil\nCOPY a /out/file\nCOPY a /dangling\nCOPY a /up/file\n\
             WORKDIR /out/work\n",
        ),
        ("a", "inside"),
        ("links/out -> /../../../../tmp", ""),
        ("links/dangling -> ../../../var/made", ""),
        ("links/up -> ../../../etc", ""),
    ]);
    assert_eq!(bench.read(&image, "tmp/file"), "inside");
    assert_eq!(bench.read(&image, "var/made"), "inside");
    assert_eq!(bench.read(&image, "etc/file"), "inside");
    assert!(bench.exists(&image, "tmp/work"));
    assert!(!std::path::Path::new("/tmp/file").exists() && !std::path::Path::new("/etc/file").exists());
    // A context whose archive itself tries gets no further than its root.
    let mut bytes = context(&[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let evil = b"../evil";
    bytes[..10].copy_from_slice(b"../evil\0\0\0");
    assert_eq!(&bytes[..7], evil);
    let sum: u32 =
        bytes[..512].iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let outcome = bench.build_with(wharf_build::BuildRequest {
        context: Box::new(std::io::Cursor::new(bytes)),
        ..wharf_build::BuildRequest::default()
    });
    assert!(outcome.result.unwrap_err().message.contains("Cannot locate specified Dockerfile"));
    assert!(!bench.data.path().join("evil").exists() && !bench.data.path().join("build/evil").exists());
}

fn linked_layers_know_nothing_of_their_base(bench: &Bench) {
    let build = |base: &str| {
        let dockerfile = format!("FROM busybox AS other\nCOPY b /b\nFROM {base}\nCOPY --link a /dir/a\n");
        bench.build(&[("Dockerfile", &dockerfile), ("a", "aa"), ("b", "bb")])
    };
    let (one, _) = build("busybox");
    let (two, text) = build("other");
    assert!(text.contains("Using cache"), "{text}");
    assert_eq!(one.diff_ids.last(), two.diff_ids.last());
    assert_eq!((bench.read(&two, "dir/a"), bench.read(&two, "b")), ("aa".into(), "bb".into()));
    // But what comes after them does.
    for value in ["1", "2"] {
        let dockerfile =
            "FROM busybox\nCOPY b /b\nCOPY --link a /a\nRUN cat /b > /c\nCOPY --from=busybox /bin/sh /d/\n";
        let (image, text) = bench.build(&[("Dockerfile", dockerfile), ("a", "aa"), ("b", value)]);
        assert_eq!(bench.read(&image, "c"), value, "{text}");
    }
}

fn archives_are_unpacked(bench: &Bench) {
    let plain = context(&[("in/tar", "t"), ("!in/run", "r")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("a.tar", &plain);
    put("a.tgz", &gzip.finish().unwrap());
    put("a.zst", &zstd::encode_all(plain.as_slice(), 1).unwrap());
    put("text.gz", &{
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"no archive").unwrap();
        gzip.finish().unwrap()
    });
    std::fs::create_dir(dir.path().join("in")).unwrap();
    put("in/tar", b"t");
    let bare = std::process::Command::new("tar").args(["-c", "in/tar"]).current_dir(dir.path()).output().unwrap();
    put("bare.tar", &bare.stdout);
    put("root.tar", &context(&[("var/run/x", "x"), ("bin/sh/own", "y"), ("tmp", "no directory")]));
    put(
        "Dockerfile",
        b"FROM busybox\nADD root.tar /\nADD a.tar /plain\nADD a.tgz /gzip/\nADD --chown=web a.zst /zstd\nADD --chown=web bare.tar /bare/\nADD text.gz /text/\nCOPY a.tar /copied.tar\n\
          ADD --unpack=false a.tar /kept.tar\n",
    );
    let outcome = bench.build_with(wharf_build::BuildRequest {
        context: Box::new(std::io::Cursor::new(tar(dir.path()))),
        ..wharf_build::BuildRequest::default()
    });
    let (image, _) = bench.done(outcome);
    // Nothing of when it was unpacked is in the layers.
    let again = bench.build_with(wharf_build::BuildRequest {
        context: Box::new(std::io::Cursor::new(tar(dir.path()))),
        no_cache: true,
        ..wharf_build::BuildRequest::default()
    });
    assert_eq!(bench.done(again).0.diff_ids, image.diff_ids);
    // What is in the way of an archive goes.
    assert_eq!((bench.read(&image, "var/run/x"), bench.read(&image, "bin/sh/own")), ("x".into(), "y".into()));
    assert_eq!(bench.read(&image, "tmp"), "no directory");
    assert!(bench.exists(&image, "bin/busybox"));
    for place in ["plain", "gzip", "zstd"] {
        assert_eq!(bench.read(&image, &format!("{place}/in/tar")), "t", "{place}");
        assert_eq!(bench.stat(&image, &format!("{place}/in/run")).0, 0o755, "{place}");
    }
    assert_eq!(bench.stat(&image, "zstd/in/tar").1, 1000);
    // What an archive does not name is a directory on the way, and nobody's.
    assert_eq!((bench.stat(&image, "bare/in").1, bench.stat(&image, "bare/in/tar").1), (0, 1000));
    assert!(
        bench.exists(&image, "text/text.gz") && bench.exists(&image, "copied.tar") && bench.exists(&image, "kept.tar")
    );
}

fn what_has_no_value_changes_nothing(bench: &Bench) {
    let dockerfile = "FROM busybox\nARG NONE\nCOPY --chmod=${NONE} --chown=${NONE} a /x\n";
    let (image, _) = bench.build(&[("Dockerfile", dockerfile), ("a", "A")]);
    assert_eq!(bench.stat(&image, "x"), (0o644, 0, 0));
}

/// Two sources that have one file are two files afterwards: who changes one changes the other not.
fn two_sources_share_no_file(bench: &Bench) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), "f").unwrap();
    std::fs::hard_link(dir.path().join("d/f"), dir.path().join("d/g")).unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM busybox\nCOPY . d/f /x/\nRUN echo more >> /x/f\n").unwrap();
    let outcome = bench.build_with(BuildRequest {
        context: Box::new(std::io::Cursor::new(tar(dir.path()))),
        ..BuildRequest::default()
    });
    let (image, _) = bench.done(outcome);
    let texts = ["x/f", "x/d/f", "x/d/g"].map(|path| bench.read(&image, path));
    assert_eq!(texts, ["fmore\n", "f", "f"]);
    let inode = |path: &str| bench.view(&image).metadata(path, false).unwrap().st_ino;
    assert!(inode("x/d/f") == inode("x/d/g") && inode("x/f") != inode("x/d/f"));
}

fn what_matches_and_leads_nowhere_is_named(bench: &Bench) {
    // Nothing has to match, but where it is looked for has to be there.
    let (image, _) = bench.build(&[("Dockerfile", "FROM busybox\nCOPY in/*.none a /x/\n"), ("in/f", ""), ("a", "")]);
    assert!(bench.exists(&image, "x/a"));
    for (pattern, what) in [("none/*", "stat none:"), ("in/f/*", "stat in/f:"), ("in/none/x?/y", "stat in/none:")] {
        let outcome = bench.try_build(&[("Dockerfile", &format!("FROM busybox\nCOPY {pattern} /x/\n")), ("in/f", "")]);
        let said = outcome.result.unwrap_err().to_string();
        assert!(said.contains(what), "{pattern}: {said}");
    }
    let files = [("Dockerfile", "FROM busybox\nCOPY d/* /x/\n"), ("d/f", ""), ("d/dang -> nowhere", "")];
    let error = bench.build_with(request(&files)).result.unwrap_err();
    assert!(error.message.contains("stat d/dang: file does not exist"), "{error}");
}

fn what_is_refused(bench: &Bench) {
    for (instruction, message) in [
        ("COPY a b /c", "the destination must be a directory and end with a /"),
        ("COPY dir /etc/passwd", "cannot copy to non-directory: /etc/passwd"),
        ("COPY a /etc/passwd/x", "cannot copy to non-directory: /etc/passwd"),
        ("COPY --chmod=999 a /x", "invalid chmod parameter: '999'"),
        ("COPY http://localhost/x /x", "source can't be a URL for COPY"),
        ("ADD http://localhost/x /x", "downloads nothing"),
        ("ADD https://localhost/x.git#--upload-pack=x /x", "is no name of a branch"),
        ("ADD git@-oProxyCommand:x /x", "a part of it begins with a dash"),
        ("ADD ssh://-oProxyCommand=x/x /x", "a part of it begins with a dash"),
        ("ADD --checksum=sha256:00 git://localhost/x /x", "is no name of its commit"),
        ("ADD --checksum=sha256:00 a /x", "checksum requires a single HTTP(S) or git source"),
        ("COPY --exclude=[ a /x", "syntax error in pattern"),
        ("COPY --from=missing/image a /x", "No such image: missing/image"),
        ("COPY --from=busybox /nope /x", "COPY failed: file not found in image busybox: stat /nope"),
    ] {
        let dockerfile = format!("FROM busybox\n{instruction}\n");
        let files = [("Dockerfile", dockerfile.as_str()), ("a", ""), ("b", ""), ("dir/x", "")];
        let error = bench.build_with(BuildRequest { classic: true, ..request(&files) }).result;
        let error = error.expect_err(instruction);
        assert!(error.to_string().contains(message), "{instruction}: {error}");
        assert_eq!(error.place.as_deref(), Some(format!("Dockerfile:2: {instruction}").as_str()));
    }
    assert!(bench.build_with(request(&[("x", "")])).result.is_err());
}
