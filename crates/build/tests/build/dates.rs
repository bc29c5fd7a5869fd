//! How old what a build makes is: in archives, and here.

use std::path::Path;

use wharf_build::BuildRequest;

use crate::Test;
use crate::bench::{Bench, CHECKOUT, args, request};

pub(crate) const TESTS: &[Test] = &[
    ("dates::the_same_input_is_the_same_image", the_same_input_is_the_same_image),
    ("dates::an_edit_gives_what_a_build_without_a_cache_gives", an_edit_gives_what_a_build_without_a_cache_gives),
    ("dates::what_does_not_change_a_result_changes_no_digest", what_does_not_change_a_result_changes_no_digest),
    ("dates::a_file_of_tomorrow_is_no_harm", a_file_of_tomorrow_is_no_harm),
    ("dates::who_compares_times_finds_when_something_was_made", who_compares_times_finds_when_something_was_made),
    ("dates::a_step_keeps_its_time", a_step_keeps_its_time),
    ("dates::a_date_can_be_given", a_date_can_be_given),
];

fn the_same_input_is_the_same_image(bench: &Bench) {
    let files = [
        (
            "Dockerfile",
            "FROM busybox AS made\nRUN mkdir -p /a/b && echo x > /a/b/c && ln -s c /a/b/l && chmod 700 /bin\nRUN rm -r /a/b/l\n\
             FROM busybox\nWORKDIR /new/dir\nCOPY --chown=web . .\nCOPY <<EOF /generated\nhi\nEOF\nRUN date > /dev/null; cat /generated > copied\n\
             COPY --from=made /a /a\nCOPY --from=made /bin/ls /a/b/\nADD f /a/b/d/f\nRUN cp -p /a/b/c /c; touch /a/b/d\nCMD [\"x\"]\n",
        ),
        ("a/b", "1"),
        ("c", "2"),
        ("f", "4"),
    ];
    let (first, _) = bench.build(&files);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again = || BuildRequest { no_cache: true, ..request(&files) };
    let (second, text) = bench.done(bench.build_with(again()));
    assert!(!text.contains("Using cache"));
    assert_eq!((&first.id, &first.diff_ids), (&second.id, &second.diff_ids));
    // Its configuration is as old as what it is made of; it was made now, and again later.
    assert_eq!(first.config.created, second.config.created);
    assert!(second.created > first.created);
    assert_eq!(bench.build(&files).0.created, second.created, "found is not made");
    let age = jiff::Timestamp::now().as_second() - first.created_at().as_second();
    assert!((0..60).contains(&age), "{age}");
    // As with Docker, where its own clients say that nothing is to come from the cache. It is no other's business.
    let (third, _) = bench.done(bench.build_with(BuildRequest { classic: true, ..again() }));
    assert!(first.id != third.id && first.diff_ids == third.diff_ids);
    assert_eq!(bench.build(&files).0.id, first.id);
    let epoch = || BuildRequest { build_args: args(&[("SOURCE_DATE_EPOCH", "1000000000")]), ..again() };
    let (first, _) = bench.done(bench.build_with(epoch()));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(bench.done(bench.build_with(epoch())).0.id, first.id);
    assert_eq!(first.created, "2001-09-09T01:46:40Z");
    // The layers can be written again, for a push or a save.
    for diff_id in &first.diff_ids {
        let mut hasher = wharf_reference::Hasher::new();
        bench.layers.write_tar(diff_id, &mut hasher).unwrap();
        assert_eq!(hasher.finish(), *diff_id);
    }
}

fn an_edit_gives_what_a_build_without_a_cache_gives(bench: &Bench) {
    let dockerfile = "FROM busybox AS made\nRUN echo y > /y\nFROM busybox\nCOPY old /w/old\nRUN echo x > /w/x\nCOPY --from=made /y /w/y\n\
                      COPY new /w/new\nCOPY --from=made --link /y /z\nRUN chmod 600 /w/x\nWORKDIR /w/made\n";
    let dir = tempfile::tempdir().unwrap();
    let build = |no_cache: bool, squash: bool, seconds: u64, text: &str| {
        for (name, text, seconds) in [("old", "old", 1_000_000_000), ("new", text, seconds)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
        let context = Box::new(std::io::Cursor::new(crate::bench::tar(dir.path())));
        bench.done(bench.build_with(BuildRequest { context, no_cache, squash, ..request(&[]) }))
    };
    let far = 4_000_000_000;
    let (first, _) = build(false, false, far, "new");
    for squash in [false, true] {
        let (edited, text) = build(false, squash, far + 100, "edited");
        assert!(text.contains("Using cache"), "{text}");
        let (cold, text) = build(true, squash, far + 100, "edited");
        assert!(!text.contains("Using cache"), "{text}");
        assert_eq!((&edited.id, &edited.diff_ids), (&cold.id, &cold.diff_ids));
        assert!(edited.id != first.id);
    }
    // What is only touched comes from the cache, as it was.
    let (touched, _) = build(false, false, far + 1000, "new");
    assert_eq!(touched.id, first.id);
    assert_eq!(first.config.created.as_deref(), Some("2096-10-02T07:06:40Z"));
}

fn what_does_not_change_a_result_changes_no_digest(bench: &Bench) {
    // A step of another stage is made again, and makes the same; what takes from it comes from the cache.
    let dockerfile = "FROM busybox AS made\nCOPY s /s\nRUN head -n 1 /s > /o && mkdir /d && ln /o /d/o\nFROM made AS more\nCOPY d /e\n\
                      FROM scratch\nCOPY --from=made /o /o\nCOPY --link --from=more /d /d\nCOPY --from=more /e /e\nCOPY d /d2\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let build = |no_cache: bool, text: &str, seconds: u64| {
        for (name, text, seconds) in [("s", text, seconds), ("d/f", "f", 1_000_000_000)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_100_000_000);
        std::fs::File::open(dir.path().join("d")).unwrap().set_modified(then).unwrap();
        std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
        let context = Box::new(std::io::Cursor::new(crate::bench::tar(dir.path())));
        bench.done(bench.build_with(BuildRequest { context, no_cache, ..request(&[]) })).0
    };
    let first = build(false, "x\n# 1\n", 1_700_000_000);
    let edited = build(false, "x\n# 2\n", 4_000_000_000);
    assert_eq!(edited.diff_ids, first.diff_ids);
    let cold = build(true, "x\n# 2\n", 4_000_000_000);
    assert_eq!((&cold.id, &cold.diff_ids), (&edited.id, &edited.diff_ids));
    // The image is as old as all that went into it; a file that was copied on keeps its time.
    assert_eq!(cold.config.created.as_deref(), Some("2096-10-02T07:06:40Z"));
    let view = bench.layers.dated_view(&cold.diff_ids).unwrap();
    let time = |path: &str| {
        let stat = view.metadata(path, false).unwrap();
        view.time_of(Path::new(path), (stat.st_mtime, stat.st_mtime_nsec as u32)).0
    };
    assert_eq!((time("e/f"), time("d2/f")), (1_000_000_000, 1_000_000_000));
    assert!(time("o") < 1_000_000_000 && time("d/o") < 1_000_000_000);
}

fn a_file_of_tomorrow_is_no_harm(bench: &Bench) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "f").unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM busybox\nCOPY f /f\nRUN echo z > /z && chmod 600 /f\n")
        .unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_100_000_000);
    std::fs::File::options().write(true).open(dir.path().join("f")).unwrap().set_modified(time).unwrap();
    let build = || {
        let context = Box::new(std::io::Cursor::new(crate::bench::tar(dir.path())));
        bench.done(bench.build_with(BuildRequest { context, no_cache: true, ..request(&[]) })).0.id
    };
    let first = build();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(build(), first);
}

fn who_compares_times_finds_when_something_was_made(bench: &Bench) {
    // A source that a step makes is newer than what an earlier build has left in a cache, whatever the layer says.
    let files = |value: &str| {
        format!(
            "FROM busybox AS made\nRUN echo {value} > /source\nFROM busybox\nCOPY --from=made /source /source\nRUN echo {value} > /own\n\
             COPY <<E /here\n{value}\nE\nADD <<E /there/here\n{value}\nE\nRUN mv /there/here /there-here\n\
             RUN --mount=type=cache,target=/c for f in source own here there-here; do if [ ! -e /c/$f ] || [ \"$(find /$f -newer /c/$f)\" ]; then cp /$f /c/$f; fi; cp /c/$f /is-$f; done\n"
        )
    };
    // Also where it makes what is here already: it was made now.
    for (value, no_cache) in [("1", false), ("2", false), ("1", true), ("2", true)] {
        let again = BuildRequest { no_cache, ..request(&[("Dockerfile", &files(value))]) };
        let (image, text) = bench.done(bench.build_with(again));
        for name in ["is-source", "is-own", "is-here", "is-there-here"] {
            assert_eq!(bench.read(&image, name), format!("{value}\n"), "{text}");
        }
        let dated = bench.layers.dated_view(&image.diff_ids).unwrap();
        let base = image.config.history[0].created.as_deref().unwrap().parse::<jiff::Timestamp>().unwrap();
        for name in ["source", "own", "here", "is-own"] {
            let stat = dated.metadata(name, false).unwrap();
            let real = (stat.st_mtime, stat.st_mtime_nsec as u32);
            assert_eq!(dated.time_of(Path::new(name), real).0, base.as_second(), "{name}");
        }
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
}

fn a_step_keeps_its_time(bench: &Bench) {
    let dockerfile = "FROM busybox\nARG A=1\nENV B=2\nWORKDIR /w\nCOPY a /a\nRUN echo x > /x\nLABEL c=3\n";
    let files = [("Dockerfile", dockerfile), ("a", "x")];
    let (first, _) = bench.build(&files);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    // Touched, and nothing else.
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let touched =
        BuildRequest { context: Box::new(std::io::Cursor::new(crate::bench::tar(dir.path()))), ..request(&files) };
    let (again, text) = bench.done(bench.build_with(touched));
    assert_eq!(text.matches(" ---> Using cache").count(), 6, "{text}");
    assert_eq!((again.id, &again.created), (first.id.clone(), &first.created));
    let more = format!("{dockerfile}ENV D=4\n");
    let (longer, text) = bench.build(&[("Dockerfile", &more), ("a", "x")]);
    assert_eq!(text.matches(" ---> Using cache").count(), 6, "{text}");
    assert!(longer.created_at() > first.created_at());
    let history = first.config.history.len();
    assert_eq!(longer.config.history[..history], first.config.history[..]);
    // Labels of the request, and nothing but a base.
    for labels in [args(&[]), args(&[("k", "v")])] {
        let request = || BuildRequest { labels: labels.clone(), ..request(&[("Dockerfile", "FROM busybox\n")]) };
        let (plain, _) = bench.done(bench.build_with(request()));
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(bench.done(bench.build_with(request())).0.id, plain.id);
    }
}

fn a_date_can_be_given(bench: &Bench) {
    let files = [("Dockerfile", "FROM busybox\nCOPY a /a\n"), ("a", "x")];
    let dated = |date: &str| {
        bench.build_with(BuildRequest { build_args: args(&[("SOURCE_DATE_EPOCH", date)]), ..request(&files) })
    };
    let time = |image: &wharf_image::ImageRecord| {
        let view = bench.layers.dated_view(&image.diff_ids).unwrap();
        let real = view.metadata("a", false).unwrap().st_mtime;
        (real, view.time_of(Path::new("a"), (real, 0)).0)
    };
    let (image, text) = bench.done(dated("86400"));
    assert!(!text.contains("[Warning]"));
    assert_eq!(image.created, "1970-01-02T00:00:00Z");
    assert_eq!(time(&image), (CHECKOUT as i64, 86_400));
    let (plain, _) = bench.build(&files);
    assert_eq!(time(&plain), (CHECKOUT as i64, CHECKOUT as i64));
    assert!(dated("tomorrow").result.unwrap_err().message.contains("SOURCE_DATE_EPOCH"));
}
