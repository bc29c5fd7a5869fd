//! Builds: contexts, mounts and steps that reach for the host. CVE-2024-23651, CVE-2024-23652, CVE-2024-23653,
//! CVE-2024-1753, CVE-2024-9407, CVE-2019-13139.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::canary::{Canary, SECRET, say, wharf};
use crate::kit::{Daemon, Said};

fn context(d: &Daemon, dockerfile: &str) -> PathBuf {
    let dir = d.path().join("context");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    fs::write(dir.join("own"), "own").unwrap();
    dir
}

fn build(d: &Daemon, dir: &std::path::Path) -> Said {
    say(d, &["build", "--no-cache", &dir.to_string_lossy()])
}

#[test]
fn a_context_s_links_lead_to_nothing_of_the_host_s() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    for copy in [
        "COPY link/file /x",
        "COPY link /x",
        "COPY link/ /x/",
        "COPY filelink /x",
        "COPY rel/file /x",
        "COPY ../canary/file /x",
        "COPY /../canary/file /x",
        "COPY own/../../canary/file /x",
        "COPY l* /x/",
        "ADD link/file /x",
        "ADD filelink /x",
        "RUN --mount=type=bind,source=link,target=/x true",
        "RUN --mount=type=bind,source=../canary,target=/x true",
        "RUN --mount=type=bind,source=link/sub,target=/x,rw echo x > /x/file",
        "RUN --mount=type=bind,from=busybox,source=../../../../../../..,target=/x cat /x/etc/shadow /x/file",
    ] {
        let dir = context(&d, &format!("FROM busybox\n{copy}\nRUN find /x -type f -exec cat {{}} + ; true\n"));
        symlink(canary.dir(), dir.join("link")).unwrap();
        symlink(canary.file(), dir.join("filelink")).unwrap();
        symlink("../canary", dir.join("rel")).unwrap();
        for said in [build(&d, &dir), wharf(&d, &["build", "--no-cache", &dir.to_string_lossy()])] {
            assert!(!said.out.contains(SECRET) && !said.err.contains(SECRET), "{copy}: {}", said.out);
        }
        canary.assert_untouched();
    }
}

/// A context as an archive of anybody's making.
#[test]
fn an_archive_s_entries_lead_to_nothing_of_the_host_s() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let dir = context(&d, "FROM busybox\nCOPY . /x\nRUN find /x -type f -exec cat {} + ; true\n");
    symlink(canary.dir(), dir.join("a-link")).unwrap();
    let archive = d.path().join("context.tar");
    let pack = |more: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-P").arg("-cf").arg(&archive).arg("-C").arg(&dir).args(["Dockerfile", "own", "a-link"]).args(more);
        assert!(command.status().unwrap().success());
        let mut client = d.client();
        client.args(["build", "--no-cache", "-"]).stdin(fs::File::open(&archive).unwrap());
        Said::from(client.output().unwrap())
    };
    let target = canary.dir().to_string_lossy().into_owned();
    for more in [
        // Through the link that came before, up and away, and by its whole name.
        &["--transform", "s,^own$,a-link/file,", "own"][..],
        &["--transform", "s,^own$,a-link/new,", "own"],
        &["--transform", "s,^own$,../../canary/new,", "own"],
        &["--transform", &format!("s,^own$,{target}/new,"), "own"],
        &["--transform", "s,^own$,a-link/.wh.file,", "own"],
        &["--transform", "s,^own$,.wh...,", "own"],
    ] {
        let said = pack(more);
        assert!(!said.out.contains(SECRET), "{more:?}: {}", said.out);
        canary.assert_untouched();
    }
}

#[test]
fn the_dockerfile_is_the_context_s() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let dir = context(&d, "FROM busybox\n");
    symlink(canary.file(), dir.join("linked")).unwrap();
    symlink(canary.dir(), dir.join("dir")).unwrap();
    // As a client that hides nothing would ask for it.
    let archive = d.path().join("context.tar");
    assert!(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&dir).arg(".").status().unwrap().success());
    let bytes = fs::read(&archive).unwrap();
    for name in ["../canary/file", "linked", "dir/file", &canary.file().to_string_lossy(), "/etc/passwd", "..", ".", ""]
    {
        let (status, text) = post_archive(&d, &format!("/build?dockerfile={}", name.replace('/', "%2F")), &bytes);
        assert!(!text.contains(SECRET) && !text.contains("root:x"), "{name}: {status} {text}");
        assert!(name.is_empty() || status != 200 || text.contains("errorDetail"), "{name}: {status} {text}");
    }
    // A list of what is left out that is a link, too.
    symlink(canary.file(), dir.join(".dockerignore")).unwrap();
    let said = build(&d, &dir);
    assert!(!said.err.contains(SECRET) && !said.out.contains(SECRET));
    canary.assert_untouched();
}

/// Sends an archive, and answers with the status and the body.
fn post_archive(d: &Daemon, path: &str, body: &[u8]) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
    let head = "Host: d\r\nConnection: close\r\nContent-Type: application/x-tar";
    write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    let _ = stream.write_all(body);
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    (text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0), text)
}

/// Places for mounts that a step makes on links, and what is removed of them afterwards.
#[test]
fn places_for_a_step_s_mounts_are_made_and_removed_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let link = canary.dir().display();
    for step in [
        "RUN --mount=type=tmpfs,target=/link/new touch /link/new/x",
        "RUN --mount=type=cache,target=/link/sub rm -rf /link/sub/*",
        "RUN --mount=type=cache,target=/link/deep/er touch /link/deep/er/x",
        "RUN --mount=type=bind,target=/link rm -rf /link/*; true",
        "RUN --mount=type=bind,target=/link/file,source=own true",
        // The place is swapped for a link while the step runs: what is cleaned up is not what it leads to.
        &format!("RUN --mount=type=tmpfs,target=/place/x rm -rf /place2; mv /place /place2; ln -s {link} /place; true"),
        &format!("RUN --mount=type=cache,target=/place/sub mv /place /gone; ln -s {link} /place; true"),
        "WORKDIR /link/made",
        "COPY own /link/file",
        "COPY own /link/sub/new",
        "ADD own /link/",
    ] {
        let dir = context(&d, &format!("FROM busybox\nRUN ln -s {link} /link\n{step}\nRUN true\n"));
        build(&d, &dir);
        canary.assert_untouched();
        assert!(canary.file().exists());
    }
}

/// A cache's content is a container's: the next step that mounts it, or a part of it, is led nowhere.
#[test]
fn a_cache_leads_no_mount_out() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let link = canary.dir().display();
    let steps = format!(
        "FROM busybox\n\
         RUN --mount=type=cache,id=shared,target=/c ln -s {link} /c/link; ln -s / /c/root; ln -s ../../../../../.. /c/up\n\
         RUN --mount=type=cache,id=shared,target=/c cat /c/link/file /c/root{link}/file /c/up{link}/file; true\n\
         RUN --mount=type=cache,id=shared,target=/c --mount=type=tmpfs,target=/c/link/sub touch /c/link/sub/x; true\n\
         RUN --mount=type=cache,id=../../../../canary,target=/d echo x > /d/new; true\n\
         RUN --mount=type=cache,id={link},target=/d echo x > /d/new; true\n\
         RUN --mount=type=cache,from=busybox,source=/../../..{link},id=filled,target=/e cat /e/file; true\n"
    );
    let said = build(&d, &context(&d, &steps));
    assert!(!said.out.contains(SECRET), "{}", said.out);
    canary.assert_untouched();
    assert!(d.docker("builder prune -af").code == 0 || wharf(&d, &["builder", "prune", "-af"]).code == 0);
    canary.assert_untouched();
}

#[test]
fn a_step_has_no_privileges_to_ask_for() {
    let Some(d) = Daemon::start() else { return };
    for step in ["RUN --security=insecure id", "RUN --network=host cat /proc/net/dev", "RUN --device=x id"] {
        let said = build(&d, &context(&d, &format!("# syntax=docker/dockerfile:1-labs\nFROM busybox\n{step}\n")));
        let word = step.split([' ', '=']).nth(1).unwrap().trim_start_matches("--");
        let all = said.out.clone() + &said.err;
        assert!(said.code != 0 && all.contains(word), "{step}: {all}");
    }
    let step = "RUN grep CapEff /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo refused; cat /proc/self/cgroup | grep -v ':/$'; true\n";
    let said = build(&d, &context(&d, &format!("FROM busybox\n{step}"))).ok();
    assert!(
        said.contains("CapEff:\t00000000a80425fb\n") && said.contains("\nrefused\n") && !said.contains(":/wharf"),
        "{said}"
    );
}

/// Words of a request that would be options of a program.
#[test]
fn a_remote_context_is_no_option() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let mark = d.path().join("was-run");
    for remote in [
        format!("git://--upload-pack=touch {}", mark.display()),
        format!("https://127.0.0.1:1/x.git#--upload-pack=touch {};", mark.display()),
        format!("ext::sh -c touch% {}", mark.display()),
        format!("file://{}", canary.file().display()),
        canary.file().to_string_lossy().into_owned(),
        "-u".to_owned(),
    ] {
        let encoded: String = remote.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, text) = d.post(&format!("/build?remote={encoded}"), "", true).unwrap();
        assert!((status != 200 || text.contains("errorDetail")) && !text.contains(SECRET), "{remote}: {status} {text}");
    }
    assert!(!mark.exists());
    canary.assert_untouched();
}
