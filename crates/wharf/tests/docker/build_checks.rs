//! What is found in a Dockerfile is told whatever becomes of the build, and what is not to come from a cache does not.

use serde_json::Value;

use crate::build_inputs::{context, files, wharf};
use crate::kit::{Daemon, Said};
use crate::plugins::{directory, plugins};

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {} {}", said.out, said.err))
}

fn rules(found: &Value) -> Vec<&str> {
    found["warnings"].as_array().into_iter().flatten().map(|one| one["ruleName"].as_str().unwrap()).collect()
}

#[test]
fn what_is_found_is_told_with_what_is_wrong() {
    let Some(d) = Daemon::start() else { return };
    let wrong = "FROM scratch AS Bad\nMAINTAINER me\nBADCMD\n";
    let later = "FROM scratch as base\nCOPY --from=later / /\nFROM scratch AS later\nCOPY --from=base / /\n";
    let strict = "#check=skip=all\nFROM scratch as base\ncopy Dockerfile .\n";
    let ignored = "# check=skip=all;experimental=CopyIgnoredFile\nFROM scratch\nCOPY Dockerfile .\n";
    let dir = context(
        &d,
        "main",
        &[
            ("Dockerfile", wrong),
            ("Later", later),
            ("Strict", strict),
            ("Ignored", ignored),
            (".dockerignore", "Dockerfile\n"),
        ],
    );
    let plugins = plugins();
    let faces = || std::iter::once(None).chain(plugins.iter().map(Some));
    let ask = |plugins: Option<&crate::plugins::Plugins>, words: &str| match plugins {
        Some(plugins) => plugins.buildx(&d, &dir, &format!("build {words} .")),
        None => wharf(&d, &dir, &format!("build {words} .")),
    };
    for face in faces() {
        // Its first release knows no such calls.
        if face.is_some_and(|plugins| plugins.release == "trixie") {
            continue;
        }
        let said = ask(face, "--call=check,format=json");
        let found = json(&said);
        assert_eq!(rules(&found), ["StageNameCasing", "MaintainerDeprecated"], "{found:#}");
        assert_eq!(found["buildError"]["message"], "dockerfile parse error on line 3: unknown instruction: BADCMD");
        assert_eq!(found["buildError"]["location"]["ranges"][0]["start"]["line"], 3);
        assert_eq!(found["sources"][0]["filename"].as_str().unwrap().rsplit('/').next(), Some("Dockerfile"));
        assert!(found["warnings"][0]["description"].as_str().unwrap().contains("lowercase"));
        let said = ask(face, "--check");
        let count = "Check complete, 2 warnings have been found!\n";
        assert!(said.code == 1 && said.out.starts_with(count), "{} {}", said.out, said.err);
        assert!(said.err.contains("3 | >>> BADCMD"), "{}", said.err);
        // An error of the graph of stages has its lines, too.
        let said = ask(face, "-f Later");
        assert!(said.code == 1 && said.err.contains("it needs to be defined before"), "{}", said.err);
        if face.is_some() {
            assert!(said.err.contains("2 | >>> COPY --from=later / /"), "{}", said.err);
            assert!(said.err.contains("FromAsCasing"), "{}", said.err);
        }
        let said = ask(face, "--check -f Strict --build-arg BUILDKIT_DOCKERFILE_CHECK=error=true");
        let violated = "lint violation found for rules: FromAsCasing, ConsistentInstructionCasing";
        assert!(said.code == 1 && said.err.contains(violated), "{} {}", said.out, said.err);
        assert_eq!(rules(&json(&ask(face, "--call=check,format=json -f Ignored"))), ["CopyIgnoredFile"]);
    }
    // And of a build that fails.
    for plugins in plugins {
        let name = format!("failing-{}", plugins.release);
        let dir =
            directory(&d, &name, &[("Dockerfile", "FROM busybox as x\nRUN <<END\n  false\n  true\nEND\nRUN false\n")]);
        let said = plugins.buildx(&d, &dir, "build .");
        assert!(said.code != 0 && said.err.contains("FromAsCasing"), "{}", said.err);
        assert!(said.err.contains("RUN <<END (false...)"), "{}", said.err);
    }
}

#[test]
fn a_build_without_a_cache_begins_with_empty_mounts() {
    let Some(d) = Daemon::start() else { return };
    let text = |what: &str| {
        format!(
            "FROM busybox AS one\nRUN --mount=type=cache,target=/c echo {what} > /what && echo x >> /c/f\n\
             RUN --mount=type=cache,target=/c wc -l < /c/f > /lines\n"
        )
    };
    let dir = context(&d, "main", &[("Dockerfile", &text("a"))]);
    let lines = |words: &str| {
        wharf(&d, &dir, &format!("build -t app {words} .")).ok();
        d.docker("run --rm app cat /lines").ok()
    };
    assert_eq!(lines(""), "1");
    files(&dir, &[("Dockerfile", &text("b"))]);
    assert_eq!(lines(""), "2");
    assert_eq!(lines("--no-cache"), "1", "both steps of the build have the new one");
    files(&dir, &[("Dockerfile", &text("c"))]);
    assert_eq!(lines(""), "2");
    assert_eq!(lines("--no-cache-filter one"), "1");
    // A verification leaves them as they are.
    files(&dir, &[("Dockerfile", &text("d"))]);
    assert_eq!(lines(""), "2");
    wharf(&d, &dir, "build --verify app .");
    files(&dir, &[("Dockerfile", &text("e"))]);
    assert_eq!(lines(""), "4");
}

#[test]
fn an_archive_goes_through_links_that_it_says_nothing_about() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox AS made\nRUN mkdir -p /r/lib /r/new/deep && echo f > /r/lib/f && echo n > /r/new/deep/n && \\\n\
                tar -C /r -cf /t.tar lib/f new/deep/n\nFROM scratch AS out\nCOPY --from=made /t.tar /\n";
    let dir = context(&d, "main", &[("Make", text)]);
    wharf(&d, &dir, "build -f Make -o . .").ok();
    let text = "FROM busybox\nRUN mkdir -p /usr/lib && rm -rf /lib && ln -s usr/lib /lib\nADD t.tar /\n";
    files(&dir, &[("Dockerfile", text)]);
    let id = wharf(&d, &dir, "build -q -t app .").ok();
    assert_eq!(d.docker("run --rm app cat /usr/lib/f /lib/f").ok(), "f\nf");
    assert_eq!(d.docker("run --rm app readlink /lib").ok(), "usr/lib");
    // Directories that only lead to something have no time of their own.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(wharf(&d, &dir, "build -q --no-cache .").ok(), id);
}

#[test]
fn a_build_with_secrets_removes_files_of_layers_below() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox\nRUN --mount=type=secret,id=s test -s /run/secrets/s && rm /bin/busybox.old 2> /dev/null; \
                echo a > /a && mkdir -p /dir/deep && echo b > /dir/deep/b\n\
                RUN --mount=type=secret,id=s rm /a && rm -r /dir && mkdir /dir\n";
    let dir = context(&d, "main", &[("Dockerfile", text), ("secret", "not-to-be-found")]);
    wharf(&d, &dir, "build -t app --secret id=s,src=secret .").ok();
    assert_eq!(d.docker("run --rm app sh -c ls\u{20}/dir").code, 0);
    // And one that is in the name of what is left is found all the same.
    let text = "FROM busybox\nRUN --mount=type=secret,id=s touch /$(cat /run/secrets/s)\n";
    files(&dir, &[("Dockerfile", text)]);
    let said = wharf(&d, &dir, "build --secret id=s,src=secret .");
    assert!(said.code != 0 && said.err.contains("the secret s is in the image's"), "{}", said.err);
}

#[test]
fn attributes_and_caches_are_the_same_by_both_faces() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo x > /x\n"), ("f", "content")]);
    let set = std::process::Command::new("python3")
        .args(["-c", "import os,sys; os.setxattr(sys.argv[1], 'user.kept', b'abc')"])
        .arg(dir.join("f"))
        .status();
    let carries = set.is_ok_and(|status| status.success());
    let id = wharf(&d, &dir, "build -q --no-cache .").ok();
    wharf(&d, &dir, "build -q --cache-to type=local,dest=cache,mode=max .").ok();
    for plugins in plugins() {
        let said = plugins.buildx(&d, &dir, "build -q -t same --cache-from type=local,src=cache .");
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(d.docker("inspect -f {{.Id}} same").ok(), id, "{carries}");
    }
    // A damaged one is no reason not to build.
    let blobs = dir.join("cache/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap() {
        std::fs::write(blob.unwrap().path(), "damaged").unwrap();
    }
    wharf(&d, &dir, "builder prune -af").ok();
    let said = wharf(&d, &dir, "build -q --cache-from type=local,src=cache .");
    assert!(said.code == 0 && said.err.contains("WARNING: the cache cache is not used"), "{} {}", said.out, said.err);
    // What a prune of the cache takes after its image has gone leaves no row.
    d.docker("rmi -f same").ok();
    wharf(&d, &dir, "builder prune -af").ok();
    assert_eq!(d.wharf("system fsck").code, 0);
}

#[test]
fn what_is_made_upon_a_stage_that_nobody_needs_is_not_needed() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox AS base\nRUN echo 1 > /b\nFROM base AS mid\nRUN echo 2 > /m\n\
                FROM mid AS upper\nRUN echo 3 > /u\n\
                FROM busybox AS app\nCOPY --from=mid /m /m\nCOPY --from=upper /u /u\nCMD cat /m /u\n";
    let dir = context(&d, "main", &[("Dockerfile", text)]);
    let kept = d.path().join("kept");
    let first =
        wharf(&d, &dir, &format!("build -q -t app --cache-to type=local,dest={},mode=min .", kept.display())).ok();
    for plugins in std::iter::once(None).chain(plugins().iter().map(Some)) {
        d.docker("rmi -f app").ok();
        d.docker("builder prune -af").ok();
        let words = format!("build -q -t app --cache-from type=local,src={} .", kept.display());
        let said = match plugins {
            None => wharf(&d, &dir, &words),
            Some(plugins) => plugins.buildx(&d, &dir, &format!("{words} --load")),
        };
        assert_eq!(said.ok(), first);
        assert_eq!(d.docker("run --rm app").ok(), "2\n3");
        // Where a stage upon it is wanted, it is made after all.
        let words = "build -q --no-cache-filter upper -t app .";
        let said = match plugins {
            None => wharf(&d, &dir, words),
            Some(plugins) => plugins.buildx(&d, &dir, &format!("{words} --load")),
        };
        assert_eq!(said.ok(), first);
    }
}

#[test]
fn a_link_that_is_named_leads_on_from_inside_of_what_is_named_too() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox\nCOPY other/f1 /z\nCOPY sub /x\nCOPY sub/dl /y\nCOPY s?b/dl/f2 /w\n";
    let dir = context(&d, "main", &[("Dockerfile", text), ("other/f1", "1"), ("other/f2", "2"), ("sub/own", "")]);
    std::os::unix::fs::symlink("../other", dir.join("sub/dl")).unwrap();
    wharf(&d, &dir, "build -q -t app .").ok();
    assert_eq!(d.docker("run --rm app ls /y").ok(), "f1\nf2");
    assert_eq!(d.docker("run --rm app cat /w").ok(), "2");
    assert_eq!(d.docker("run --rm app readlink /x/dl").ok(), "../other");
}

/// What a stage has made itself has another time than what it has copied, also where its layers come from a cache.
#[test]
fn an_image_upon_layers_of_an_imported_cache_is_the_same() {
    let Some(d) = Daemon::start() else { return };
    let text = |to: &str| {
        format!(
            "FROM busybox AS one\nCOPY a /new/d/\nWORKDIR /new/w\nRUN echo 1 >/new/x\nCOPY --link a /new/l/\n\
             FROM busybox\nCOPY --from=one /new {to}\n"
        )
    };
    let dir = context(&d, "main", &[("Dockerfile", &text("/to")), ("a", "a")]);
    let clean = || {
        d.docker("builder prune -af").ok();
        d.docker("image prune -f").ok();
    };
    // What is made is newer than what it is made of.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    wharf(&d, &dir, "build -q --cache-to type=local,dest=../kept,mode=max .").ok();
    std::fs::write(dir.join("Dockerfile"), text("/other")).unwrap();
    let wanted = wharf(&d, &dir, "build -q .").ok();
    clean();
    assert_eq!(wharf(&d, &dir, "build -q .").ok(), wanted);
    clean();
    std::fs::write(dir.join("Dockerfile"), text("/to")).unwrap();
    wharf(&d, &dir, "build -q --cache-from type=local,src=../kept .").ok();
    std::fs::write(dir.join("Dockerfile"), text("/other")).unwrap();
    assert_eq!(wharf(&d, &dir, "build -q .").ok(), wanted);
    assert_eq!(wharf(&d, &dir, "build -q --no-cache .").ok(), wanted);
}
