//! Who a user is: CVE-2024-40635, CVE-2022-36109, CVE-2026-30892, CVE-2024-9676; and text that would be more than it is:
//! CVE-2022-4318.

use std::path::Path;
use std::process::Command;

use crate::bundle::on_terminal;
use crate::canary::{Canary, SECRET, exec, say, wharf};
use crate::image;
use crate::kit::Daemon;

#[test]
fn an_id_that_overflows_is_no_root() {
    let Some(d) = Daemon::start() else { return };
    let tree = |root: &Path| {
        // Names that are numbers, and numbers that are none.
        let table = "root:x:0:0::/root:/bin/sh\n1000:x:7:7::/:/bin/sh\nbig:x:4294967296:4294967296::/:/bin/sh\n\
                     minus:x:-1:-1::/:/bin/sh\nempty:x:::::/bin/sh\nhex:x:0x0:0::/:/bin/sh\n99999999999:x:0:0::/:/bin/sh\n";
        std::fs::write(root.join("etc/passwd"), table).unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\n1000:x:9:\nbig:x:4294967296:big\n").unwrap();
    };
    image::load(&d, "users", tree, |_| {}).ok();
    say(&d, &["run", "-d", "--name", "idle", "users", "sleep", "1000"]).ok();
    for user in [
        "4294967296",
        "4294967295",
        "18446744073709551616",
        "-1",
        "-0",
        "+0",
        "0x0",
        "2147483648",
        "big",
        "minus",
        "empty",
        "hex",
        "1:4294967296",
        "1:-1",
        "1:big",
        "nobody",
        " 0",
        "0 ",
        "0\n",
        "root\0",
        "::",
        "1:2:3",
    ] {
        if user.contains('\0') {
            continue;
        }
        for words in [&["run", "--rm", "-u", user, "users"][..], &["exec", "-u", user, "idle"]] {
            let said = say(&d, &[words, &["id"]].concat());
            assert!(said.code != 0 && !said.out.contains("uid="), "{words:?}: {}", said.out);
        }
    }
    // A name goes before a number, as with Docker.
    assert!(say(&d, &["run", "--rm", "-u", "1000", "users", "id", "-u"]).ok() == "7");
    for group in ["4294967296", "-1", "big", "nosuch"] {
        let said = say(&d, &["run", "--rm", "--group-add", group, "users", "id"]);
        assert!(said.code != 0, "{group}: {}", said.out);
    }
}

/// `/etc/passwd` and `/etc/group` of an image: fifos, links, devices, directories, without an end.
#[test]
fn a_table_of_users_that_is_no_file_blocks_nobody() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let own = d.path().join("own-passwd");
    std::fs::write(&own, "web:x:0:0::/:/bin/sh\n").unwrap();
    for file in ["etc/passwd", "etc/group"] {
        let make = |kind: &str, root: &Path| {
            let path = root.join(file);
            std::fs::remove_file(&path).unwrap();
            match kind {
                "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "host" => std::os::unix::fs::symlink(&own, &path).unwrap(),
                "secret" => std::os::unix::fs::symlink(canary.file(), &path).unwrap(),
                "loop" => std::os::unix::fs::symlink("passwd", &path).unwrap(),
                "zero" => assert!(Command::new("mknod").arg(&path).args(["c", "1", "5"]).status().unwrap().success()),
                "directory" => std::fs::create_dir(&path).unwrap(),
                "fd" => std::os::unix::fs::symlink("/proc/self/fd/0", &path).unwrap(),
                _ => std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(),
            }
        };
        for kind in ["fifo", "host", "secret", "loop", "zero", "directory", "fd"] {
            let name = format!("{}-{kind}", file.replace('/', "-"));
            image::load(&d, &name, |root| make(kind, root), |_| {}).ok();
            let said = say(&d, &["run", "--rm", "-u", "web:web", &name, "id", "-u"]);
            assert_ne!(said.out.trim(), "0", "{file} {kind}");
            assert!(!said.err.contains(SECRET), "{file} {kind}: {}", said.err);
            let said = say(&d, &["run", "--rm", &name, "true"]);
            assert!(said.code == 0 || said.err.contains(&format!("/{file}")), "{file} {kind}: {}", said.err);
        }
    }
    // One that the container has changed since.
    let grow = "rm /etc/passwd; mkfifo /etc/passwd; sleep 1000";
    say(&d, &["run", "-d", "--name", "grown", "busybox", "sh", "-c", grow]).ok();
    d.eventually("it is a fifo", || say(&d, &["exec", "grown", "true"]).code != 0);
    let said = say(&d, &["exec", "-u", "web", "grown", "id", "-u"]);
    let all = said.out + &said.err;
    assert!(all.contains("/etc/passwd") && all.contains("regular file"), "{all}");
    canary.assert_untouched();
}

/// What a container makes of the files of `/etc` that the engine writes for it, when the engine writes them again.
#[test]
fn a_hosts_file_that_grows_costs_the_daemon_nothing() {
    let Some(d) = Daemon::start() else { return };
    // A hole, which takes no room until somebody writes it down.
    const SIZE: &str = "67108864";
    let hold = "cat /etc/hosts > /etc/hosts.was; truncate -s 64M /etc/hosts && echo grown; sleep 1000";
    say(&d, &["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).ok();
    let words = ["run", "-d", "--name", "grows", "--link", "db:db", "--link", "db:other", "busybox", "sh", "-c", hold];
    say(&d, &words).ok();
    say(&d, &["run", "-d", "--name", "good", "--link", "db:db", "busybox", "sleep", "1000"]).ok();
    d.eventually("it has grown", || say(&d, &["logs", "grows"]).out == "grown\n");
    let address = || say(&d, &["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db"]).ok();
    let before = address();
    say(&d, &["stop", "-t", "0", "db"]).ok();
    // Somebody else takes its address, which is not given to others until nothing of its old link is left.
    let mut number = 0;
    d.eventually("its address is taken", || {
        number += 1;
        let name = format!("takes-{number}");
        say(&d, &["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
        say(&d, &["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &name]).ok() == before
    });
    say(&d, &["start", "db"]).ok();
    assert_ne!(address(), before, "nothing was to be told of");
    let warned = || d.log().contains("cannot tell container") && d.log().contains("too large");
    assert!(warned(), "{}", d.log());
    let line = format!("{}\tdb", address());
    assert!(exec(&d, "good", "cat /etc/hosts").ok().contains(&line), "another container's is as good as ever");
    assert!(exec(&d, "good", "cat /etc/hosts").ok().contains("localhost"));
    say(&d, &["rm", "--link", "grows/other"]).ok();
    assert!(d.log().contains("cannot take other out of the hosts"), "{}", d.log());
    let size = |container: &str| exec(&d, container, "stat -c %s /etc/hosts").ok();
    assert_eq!(size("grows"), SIZE, "it is left as it is");
    assert_eq!(exec(&d, "grows", "stat -c %b /etc/hosts").ok().parse::<u64>().unwrap() / 1024, 0, "and takes nothing");
    // A start writes it anew.
    say(&d, &["restart", "-t", "0", "grows"]).ok();
    d.eventually("it has grown again", || say(&d, &["logs", "grows"]).out == "grown\ngrown\n");
    assert!(exec(&d, "grows", "cat /etc/hosts.was").ok().contains(&line));
}

/// A line feed in what becomes a line of a file, or an escape sequence in what is shown on a terminal.
#[test]
fn control_characters_add_no_lines_and_move_no_cursor() {
    let Some(d) = Daemon::start() else { return };
    for options in [
        &["--add-host", "x\ny:1.2.3.4"][..],
        &["--add-host", "x:1.2.3.4\n5.6.7.8 evil"],
        &["--hostname", "x\n1.2.3.4 evil"],
        &["--hostname", "\x1b[2J"],
        &["--domainname", "x\ny"],
        &["--dns", "1.2.3.4\noptions x"],
        &["--dns-search", "x\nnameserver 1.2.3.4"],
        &["--network-alias", "x\n1.2.3.4 evil"],
        &["--name", "x\ny"],
        &["--name", "\x1b[2J"],
        &["--cgroup-parent", "x\ny"],
        &["--volume", "x\ny:/v"],
    ] {
        let said = say(&d, &[&["create"], options, &["busybox", "true"]].concat());
        assert!(said.code != 0, "{options:?} was taken");
    }
    assert_eq!(say(&d, &["ps", "-aq"]).ok(), "");
    // Variables and labels may have them: they are no lines of anything.
    let said = say(&d, &["run", "--rm", "-e", "A=x\nB=y", "busybox", "sh", "-c", "echo \"$A\"; echo $B"]).ok();
    assert_eq!(said, "x\nB=y");
    let red = "\x1b[31mred\x1b]0;title\x07";
    let words = [
        "run",
        "-d",
        "--name",
        "loud",
        "-l",
        &format!("l={red}"),
        "-e",
        &format!("A={red}"),
        "busybox",
        "sleep",
        "1000",
        red,
    ];
    assert_eq!(say(&d, &words).code, 0);
    let loud = ["create", "--name", "quiet", "-l", &format!("l={red}"), "busybox", "echo", red];
    wharf(&d, &loud).ok();
    let tag = wharf(&d, &["tag", "busybox", "\x1b[31m"]);
    assert_ne!(tag.code, 0);
    // Whole seconds, as the client takes them.
    let soon = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 2;
    let soon = soon.to_string();
    // On a terminal nothing of it is obeyed; in a pipe it is what it is.
    for (words, shown) in [
        (&["ps", "-a", "--no-trunc", "--format", "'{{.Labels}}'"][..], true),
        (&["ps", "-a"], false),
        (&["inspect", "quiet"], true),
        (&["events", "--since", "1h", "--until", &soon], true),
        (&["run", "--rm", "busybox", "\"$(printf '\\033[31mred')\""], true),
    ] {
        let line = format!("{} -H unix://{} {}", crate::kit::WHARF, d.socket().display(), words.join(" "));
        let said = on_terminal(&line);
        let all = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(!all.contains('\x1b') && !all.contains('\x07'), "{words:?}: {all:?}");
        assert!(!shown || all.contains("[31mred"), "{words:?}: {all:?}");
    }
    // But the user's own template is, by its codes as they are and by Go's names for them; what is in the data is not.
    for template in ["\"$(printf '\\033[1m{{.Labels}}\\033[0m')\"", "'{{\"\\x1b[1m\"}}{{.Labels}}{{\"\\x1b[0m\"}}'"] {
        let socket = d.socket();
        let said =
            on_terminal(&format!("{} -H unix://{} ps -a --format {template}", crate::kit::WHARF, socket.display()));
        let all = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(all.contains("\x1b[1m") && all.contains("\x1b[0m"), "{template}: {all:?}");
        assert!(!all.contains("\x1b[31m") && !all.contains("\x1b]") && all.contains("[31mred"), "{template}: {all:?}");
    }
    let piped = wharf(&d, &["ps", "-a", "--format", "{{.Labels}}"]).ok();
    assert!(piped.contains(red), "{piped:?}");
}
