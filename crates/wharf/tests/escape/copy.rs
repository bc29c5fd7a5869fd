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

/// Volumes of a container that does not run, while another that has them swaps what is in them.
#[test]
fn copies_into_the_volumes_of_a_stopped_container_stay_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let swapping = swapper::start(&d, "vol", canary.dir());
    // A mount whose place is in the volume, too: where it goes the other container decides.
    say(&d, &["create", "--name", "still", "-v", "vol:/vol", "-v", "deep:/vol/place/deep", "busybox", "true"]).ok();
    let file = d.path().join("file");
    fs::write(&file, "from outside").unwrap();
    let file = file.to_string_lossy().into_owned();
    let (mut into, mut out) = (0, 0);
    for _ in 0..ROUNDS {
        for target in ["still:/vol/place/file", "still:/vol/place/", "still:/vol/link/sub", "still:/vol/place/deep/"] {
            into += usize::from(say(&d, &["cp", &file, target]).code == 0);
        }
        let copied = d.path().join("copied");
        for source in ["still:/vol/place/file", "still:/vol/place/.", "still:/vol/link/file"] {
            let _ = fs::remove_dir_all(&copied);
            let _ = fs::remove_file(&copied);
            out += usize::from(say(&d, &["cp", "-L", source, &copied.to_string_lossy()]).code == 0);
            let found = Command::new("grep").args(["-r", SECRET]).arg(&copied).output().unwrap();
            assert!(found.stdout.is_empty(), "a file of the host's came out");
        }
    }
    drop(swapping);
    canary.assert_untouched();
    assert!(into > 0 && out > 0, "{into} {out}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*d.data().to_string_lossy()), "a mount stays on the host");
}

/// Places for mounts, and directories on the way, that an image has as links out of the container.
#[test]
fn volumes_on_links_are_put_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let tree = |root: &Path| {
        image::link(root, "abs", canary.dir());
        image::link(root, "up", Path::new("../../../../../../../.."));
        image::link(root, "proc1", Path::new("/proc/1/root"));
    };
    image::load(&d, "links", tree, |_| {}).ok();
    let file = d.path().join("new");
    fs::write(&file, "x").unwrap();
    let words =
        ["create", "--name", "links", "-v", "va:/up/over", "-v", "vb:/abs/sub", "-v", "vc:/proc1/etc", "links", "true"];
    say(&d, &words).ok();
    let mut errors = String::new();
    for place in ["/up/over/", &*format!("/up{}/", canary.dir().display()), "/abs/sub/", "/proc1/etc/", "/abs/file"] {
        errors += &say(&d, &["cp", &file.to_string_lossy(), &format!("links:{place}")]).err;
    }
    canary.assert_untouched();
    for volume in ["va", "vb", "vc"] {
        assert!(d.data().join("volumes").join(volume).join("_data/new").exists(), "{volume}: {errors}");
    }
    assert!(!Path::new("/etc/new").exists());
}

/// What is copied has the owners that the container sees, in its own files and in what is mounted there, before the first
/// start, while it runs and afterwards.
#[test]
fn copies_belong_to_the_container_s_users() {
    let Some(d) = Daemon::start() else { return };
    let bind = d.path().join("bind");
    fs::create_dir(&bind).unwrap();
    let mapped = format!("{}:/mapped:idmap", bind.display());
    let words = ["create", "--name", "own", "--userns", "auto", "-v", "vol:/new/vol", "-v", &mapped, "busybox"];
    wharf(&d, &[&words[..], &["sleep", "1000"]].concat()).ok();
    let own = d.path().join("own");
    fs::create_dir(&own).unwrap();
    let (root, user) = (own.join("root"), own.join("user"));
    for (path, uid) in [(&root, 0), (&user, 33)] {
        fs::write(path, "x").unwrap();
        std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    }
    let copy = |name: &str| {
        for dir in ["/etc", "/new/vol", "/mapped"] {
            for file in [&root, &user] {
                let base = file.file_name().unwrap().to_string_lossy();
                say(&d, &["cp", &file.to_string_lossy(), &format!("own:{dir}/{name}-{base}")]).ok();
            }
        }
    };
    let owners = |name: &str| {
        let files = format!("/etc/{name}-root /new/vol/{name}-root /mapped/{name}-root");
        let theirs = format!("/etc/{name}-user /new/vol/{name}-user /mapped/{name}-user");
        let said = exec(&d, "own", &format!("stat -c %u:%g /new /etc {files} {theirs} | tr '\\n' ' '")).ok();
        assert_eq!(said.trim(), "0:0 0:0 0:0 0:0 0:0 33:33 33:33 33:33", "{name}");
    };
    copy("before");
    say(&d, &["start", "own"]).ok();
    owners("before");
    copy("running");
    owners("running");
    say(&d, &["kill", "own"]).ok();
    say(&d, &["wait", "own"]).ok();
    copy("after");
    // Out, and on the disk, they are as in the container.
    let archive = own.join("archive");
    for path in ["own:/etc/after-user", "own:/new/vol/after-user"] {
        fs::write(&archive, d.client().args(["cp", path, "-"]).output().unwrap().stdout).unwrap();
        let listed = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains(" 33/33 "), "{path}");
    }
    let on_disk = std::os::unix::fs::MetadataExt::uid;
    assert_eq!(on_disk(&fs::metadata(d.data().join("volumes/vol/_data/after-user")).unwrap()), 33);
    assert_eq!(on_disk(&fs::metadata(bind.join("before-root")).unwrap()), 0);
    say(&d, &["start", "own"]).ok();
    owners("after");
}
