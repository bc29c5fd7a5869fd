//! `docker cp`, `diff` and `export` while the container moves what they look at: CVE-2018-15664, CVE-2019-14271,
//! CVE-2026-41567, CVE-2026-41568, CVE-2026-42306; and what a client writes that believes a container.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::canary::{Canary, SECRET, exec, say, wharf};
use crate::kit::Daemon;
use crate::{image, swapper};

const ROUNDS: usize = 30;

#[test]
fn copies_while_a_directory_is_swapped_for_a_link_stay_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let swapping = swapper::start(&d, "vol", canary.dir());
    let file = d.path().join("file");
    fs::write(&file, "from outside").unwrap();
    let tree = d.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "from outside").unwrap();
    let (file, tree) = (file.to_string_lossy().into_owned(), tree.to_string_lossy().into_owned());
    let (mut into, mut out) = (0, 0);
    for round in 0..ROUNDS {
        // In, by Docker's client and by ours.
        for target in ["swapper:/vol/place/file", "swapper:/vol/place/", "swapper:/vol/place/sub"] {
            let source = if round % 2 == 0 { &file } else { &tree };
            into += usize::from(say(&d, &["cp", source, target]).code == 0);
            wharf(&d, &["cp", source, target]);
        }
        // Out.
        let copied = d.path().join("copied");
        for source in ["swapper:/vol/place/file", "swapper:/vol/place/.", "swapper:/vol/link/file"] {
            let _ = fs::remove_dir_all(&copied);
            let _ = fs::remove_file(&copied);
            out += usize::from(say(&d, &["cp", "-L", source, &copied.to_string_lossy()]).code == 0);
            let found = Command::new("grep").args(["-r", SECRET]).arg(&copied).output().unwrap();
            assert!(found.stdout.is_empty(), "a file of the host's came out");
        }
        if round % 10 == 0 {
            let archive = wharf(&d, &["cp", "swapper:/vol", "-"]);
            assert!(!archive.out.contains(SECRET));
        }
    }
    drop(swapping);
    canary.assert_untouched();
    // Some went through, or nothing was tried.
    assert!(into > 0 && out > 0, "{into} {out}");
}

/// The container's own layer, which the daemon looks at from the host.
#[test]
fn differences_and_sizes_while_a_directory_is_swapped_stay_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let program = d.path().join("swap");
    swapper::program(&program);
    let script =
        format!("mkdir /s; cd /s; mkdir place; ln -s {} link; touch ready; exec /swap", canary.dir().display());
    let bind = format!("{}:/swap:ro", program.display());
    say(&d, &["run", "-d", "--name", "swaps", "-v", &bind, "busybox", "sh", "-c", &script]).ok();
    d.eventually("it swaps", || exec(&d, "swaps", "test -e /s/ready").code == 0);
    for _ in 0..ROUNDS {
        let said = d.docker("diff swaps");
        assert!(!said.out.contains("/file") && !said.out.contains("/sub"), "names of the host's files: {}", said.out);
        d.docker("ps -s");
        let archive = d.client().args(["export", "swaps"]).output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&archive).contains(SECRET));
    }
    let committed = d.docker("commit swaps committed");
    if committed.code == 0 {
        let all = say(&d, &["run", "--rm", "committed", "sh", "-c", "cat /s/*/file; true"]);
        assert!(!all.out.contains(SECRET));
    }
    canary.assert_untouched();
}

/// Programs, libraries and modules that a helper on the host could be made to run from the container's tree.
#[test]
fn nothing_of_the_container_s_tree_is_run_on_the_host() {
    let Some(d) = Daemon::start() else { return };
    let mark = d.path().join("was-run");
    let tree = |root: &Path| {
        for name in
            ["xz", "unxz", "gzip", "gunzip", "unpigz", "bzip2", "zstd", "tar", "git", "ps", "mount", "newuidmap"]
        {
            for dir in ["bin", "usr/bin", "usr/local/bin", "sbin"] {
                fs::create_dir_all(root.join(dir)).unwrap();
                let path = root.join(dir).join(name);
                let _ = fs::remove_file(&path);
                fs::write(&path, format!("#!/bin/sh\necho x > {}\n", mark.display())).unwrap();
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
        fs::write(root.join("etc/nsswitch.conf"), "passwd: evil\ngroup: evil\nhosts: evil\n").unwrap();
        fs::create_dir_all(root.join("lib/x86_64-linux-gnu")).unwrap();
        fs::write(root.join("lib/x86_64-linux-gnu/libnss_evil.so.2"), "no library").unwrap();
        fs::write(root.join("content"), "x").unwrap();
    };
    image::load(&d, "evil", tree, |_| {}).ok();
    say(&d, &["run", "-d", "--name", "evil", "evil", "sleep", "1000"]).ok();
    let file = d.path().join("content");
    fs::write(&file, "in").unwrap();
    say(&d, &["cp", &file.to_string_lossy(), "evil:/in"]).ok();
    say(&d, &["cp", "evil:/content", &d.path().join("out").to_string_lossy()]).ok();
    d.docker("top evil").ok();
    d.docker("commit evil evil2").ok();
    say(&d, &["exec", "-u", "web", "evil", "true"]).ok();
    // Archives that are unpacked: in a build, on top of such a tree.
    let context = d.path().join("context");
    fs::create_dir(&context).unwrap();
    for (name, flag) in [("a.tar.gz", "-z"), ("a.tar.xz", "-J"), ("a.tar.bz2", "-j")] {
        let made = Command::new("tar")
            .arg("-C")
            .arg(d.path())
            .arg(flag)
            .arg("-cf")
            .arg(context.join(name))
            .arg("content")
            .status();
        assert!(made.unwrap().success());
    }
    let steps = "FROM evil\nADD a.tar.gz /gz/\nADD a.tar.xz /xz/\nADD a.tar.bz2 /bz2/\nRUN cat /gz/content /xz/content /bz2/content\n";
    fs::write(context.join("Dockerfile"), steps).unwrap();
    assert!(say(&d, &["build", &context.to_string_lossy()]).ok().contains("ininin"));
    assert!(!mark.exists(), "a program of the container's was run on the host");
}

/// Our client takes no archive's word for where its files belong.
#[test]
fn a_client_writes_where_it_was_told_to() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let tree = |root: &Path| {
        fs::create_dir_all(root.join("out/dir")).unwrap();
        image::link(root, "out/link", canary.dir());
        image::link(root, "out/up", Path::new("../.."));
        fs::write(root.join("out/file"), "x").unwrap();
    };
    image::load(&d, "plants", tree, |_| {}).ok();
    say(&d, &["run", "-d", "--name", "plants", "plants", "sleep", "1000"]).ok();
    let target = d.path().join("target");
    fs::create_dir(&target).unwrap();
    wharf(&d, &["cp", "plants:/out", &target.to_string_lossy()]).ok();
    // What the first copy has planted is where the second one has a directory.
    exec(&d, "plants", "cd /out; rm link up; mkdir link up; echo evil > link/file; echo evil > up/evil; mkdir link/sub; echo evil > link/sub/file").ok();
    wharf(&d, &["cp", "plants:/out", &target.to_string_lossy()]);
    canary.assert_untouched();
    assert!(!d.path().join("evil").exists() && !target.join("evil").exists());
    // The other way: what is copied in goes where the container sees it.
    exec(
        &d,
        "plants",
        &format!(
            "ln -s {} /abs; ln -s ../../../../../../../../../..{} /rel",
            canary.dir().display(),
            canary.dir().display()
        ),
    )
    .ok();
    let file = d.path().join("new");
    fs::write(&file, "x").unwrap();
    for place in ["/abs", "/rel", "/abs/", "/rel/new", "/abs/file"] {
        say(&d, &["cp", &file.to_string_lossy(), &format!("plants:{place}")]);
    }
    canary.assert_untouched();
}
