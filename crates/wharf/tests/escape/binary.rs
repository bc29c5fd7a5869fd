//! Our own program and its fds in a container's reach: CVE-2019-5736, CVE-2016-9962, CVE-2024-21626.

use std::path::Path;

use serde_json::json;

use crate::bundle::on_terminal;
use crate::canary::{Canary, SECRET, exec, say, wharf};
use crate::image;
use crate::kit::{Daemon, Said, WHARF};

/// What a hostile process looks for: programs, directories and fds that are not the container's, and what they lead
/// to. It may trace whom it likes.
const SCAN: &str = r#"
touch /tmp/ready
while :; do
    for p in /proc/[0-9]*; do
        exe=$(readlink $p/exe) || continue
        case "$exe" in ''|/bin/busybox) ;; *)
            # The runtime's own program, before it has become the user's.
            [ "$exe" = / ] || echo "exe $exe"
            echo x >> $p/exe && echo "written $exe" ;;
        esac
        for dir in cwd root; do
            to=$(readlink $p/$dir)
            case "$to" in ''|/|/tmp) ;; *) echo "$dir $to" ;; esac
            [ -e $p/$dir/CANARY ] && cat $p/$dir/CANARY
        done
        for fd in $p/fd/*; do
            to=$(readlink $fd) || continue
            # Its streams and its connection to the monitor.
            case "$to" in ''|/dev/null|pipe:*|socket:*|/tmp/seen|/proc*|/bin/busybox) ;;
                *) echo "fd $to" ;;
            esac
            [ -e $fd/CANARY ] && cat $fd/CANARY
        done
    done
done > /tmp/seen 2> /dev/null
"#;

#[test]
fn processes_on_their_way_in_show_nothing() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let before = std::fs::read(WHARF).unwrap();
    let script = SCAN.replace("CANARY", &canary.file().to_string_lossy()[1..]);
    say(&d, &["run", "-d", "--name", "hostile", "--cap-add", "SYS_PTRACE", "busybox", "sh", "-c", &script]).ok();
    d.eventually("it looks around", || exec(&d, "hostile", "test -e /tmp/ready").code == 0);
    std::thread::scope(|scope| {
        for user in ["0", "web"] {
            let d = &d;
            scope.spawn(move || {
                for round in 0..25 {
                    let word = if round % 5 == 0 { "--privileged" } else { "-i" };
                    say(d, &["exec", word, "-u", user, "-w", "/tmp", "hostile", "true"]).ok();
                }
            });
        }
    });
    assert_eq!(exec(&d, "hostile", "cat /tmp/seen").ok(), "");
    assert_eq!(std::fs::read(WHARF).unwrap(), before, "the program was written to");
    canary.assert_untouched();
}

/// What a hostile process takes over: whoever comes, stopped at the first moment at which it is there, so that it can be
/// looked at in peace. What it may do is what could be done through it (ptrace(2)).
const CATCH: &str = r#"
own=
touch /tmp/ready
while :; do
    kill -STOP -1 2> /dev/null
    for p in /proc/[0-9]*; do
        all=
        while read -r key value more; do
            case "$key" in State:) state=$value ;; CapPrm:|CapEff:|CapBnd:|Seccomp:) all="$all $value" ;; esac
        done < $p/status
        [ $p = /proc/$$ ] && own=$all
        # Who has ended is nobody's any more.
        case "$state" in Z|X) ;; *) [ "$all" = "$own" ] || [ -z "$all" ] || echo "${p##*/}$all" ;; esac
    done
    kill -CONT -1 2> /dev/null
done > /tmp/caught 2> /dev/null
"#;

/// What the client says to `words` where all that comes is stopped again and again: on a busy machine somebody may well come
/// to his next step too late, and is then called off, as
/// [`who_stops_all_that_comes_holds_no_first_process_for_ever`] wants it.
fn say_to_who_stops(d: &Daemon, words: &[&str]) -> String {
    for _ in 0..5 {
        let said = say(d, words);
        // An exec says it where its output would be, as Docker's.
        if !matches!(said.code, 125 | 126) || !format!("{}{}", said.out, said.err).contains("to its next step") {
            return said.ok();
        }
    }
    panic!("{words:?}: called off five times");
}

#[test]
fn a_process_on_its_way_in_may_do_no_more_than_the_container() {
    let Some(d) = Daemon::start() else { return };
    for (name, more) in [("caught", &[][..]), ("gaining", &["--security-opt", "no-new-privileges"][..])] {
        let words = ["run", "-d", "--name", name, "--cap-add", "SYS_PTRACE"];
        say(&d, &[&words[..], more, &["busybox", "sh", "-c", CATCH]].concat()).ok();
        d.eventually("it is on the watch", || exec(&d, name, "test -e /tmp/ready").code == 0);
        let limits = |said: &str| said.lines().filter(|line| line.starts_with("Cap")).count();
        for round in 0..30 {
            let words: &[&str] = if round % 2 == 0 { &["exec"] } else { &["exec", "-u", "web", "-w", "/tmp"] };
            let seen = say_to_who_stops(&d, &[words, &[name, "cat", "/proc/self/status"]].concat());
            assert!(limits(&seen) == 5, "{seen}");
        }
        assert_caught_no_more(&d, name);
    }
}

/// A program that is not root has fewer capabilities, and its process before it the container's at most.
fn assert_caught_no_more(d: &Daemon, name: &str) {
    let caught = say_to_who_stops(d, &["exec", name, "cat", "/tmp/caught"]);
    let own = "while read -r k v; do case $k in CapPrm:|Seccomp:) echo $v;; esac; done < /proc/1/status";
    let own = say_to_who_stops(d, &["exec", name, "sh", "-c", own]);
    let own: Vec<String> = own.lines().map(str::to_owned).collect();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    for line in caught.lines() {
        let [_, permitted, effective, bounding, filter] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        for set in [permitted, effective, bounding] {
            assert_eq!(number(set) & !number(&own[0]), 0, "{name}: {line}, the container has {}", own[0]);
        }
        assert_eq!(filter, own[1], "{name}: {line}");
    }
}

/// Whether a procfs can be made for a PID namespace from outside (Linux 6.17): before that a first process that joins one
/// is what it says in README.
fn has_procfs_from_outside() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(17))
}

#[test]
fn a_first_process_that_joins_a_container_may_do_no_more_than_that() {
    let Some(d) = Daemon::start() else { return };
    if !has_procfs_from_outside() {
        return eprintln!("skipped: a procfs is mounted from inside before Linux 6.17");
    }
    let words = ["run", "-d", "--name", "caught", "--cap-add", "SYS_PTRACE", "busybox", "sh", "-c", CATCH];
    say(&d, &words).ok();
    d.eventually("it is on the watch", || exec(&d, "caught", "test -e /tmp/ready").code == 0);
    // Its first process is a number there like all others, and its procfs says so.
    let script = "cat /proc/1/cmdline | head -c 2; echo; cat /proc/self/status";
    for round in 0..20 {
        let user: &[&str] = if round % 2 == 0 { &[] } else { &["-u", "web", "-w", "/tmp", "-i"] };
        let joins = &["--pid", "container:caught", "busybox", "sh", "-c", script];
        let seen = say(&d, &[&["run", "--rm"], user, joins].concat()).ok();
        assert!(seen.starts_with("sh\n") && seen.contains("\nSeccomp:\t2"), "{seen}");
        // Where it is to be the only process, too: who makes it is one more.
        let alone = ["--pids-limit", "1", "--pid", "container:caught", "busybox", "cat", "/proc/self/status"];
        let seen = say_to_who_stops(&d, &[&["run", "--rm"], user, &alone].concat());
        assert!(seen.contains("\nSeccomp:\t2"), "{seen}");
    }
    assert_caught_no_more(&d, "caught");
}

/// Whoever comes is stopped, and nobody lets him go on.
const STOP: &str = "echo ready; while :; do for p in /proc/[0-9]*; do p=${p#/proc/}; \
                    [ $p -gt 1 ] && kill -STOP $p; done; done 2> /dev/null";

/// Whether somebody in the namespace of `container`'s processes is stopped before it has become its program.
fn is_stopped_on_its_way(container: &str) -> bool {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let there = namespace(container).unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_stopped = stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with("T "));
        let program = || std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        is_stopped && namespace(&pid).as_ref() == Some(&there) && !program().ends_with("busybox")
    })
}

#[test]
fn who_stops_all_that_comes_holds_no_first_process_for_ever() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "stops", "busybox", "sh", "-c", STOP]).ok();
    d.eventually("it is on the watch", || say(&d, &["logs", "stops"]).out == "ready\n");
    let pid = d.get("/containers/stops/json")["State"]["Pid"].to_string();
    // Runs in a thread of its own: what hangs must not hang the test.
    let ask = |words: &[&str]| {
        let (tell, told) = std::sync::mpsc::channel();
        let mut client = d.client();
        client.args(words);
        std::thread::spawn(move || tell.send(Said::from(client.output().unwrap())));
        told
    };
    let patience = std::time::Duration::from_secs(60);
    let mut number = 0;
    // One that is faster than those there is not the one that is looked for.
    let mut held = || loop {
        number += 1;
        let name = format!("joins-{number}");
        let told = ask(&["run", "-d", "--name", &name, "--pid", "container:stops", "busybox", "sleep", "1000"]);
        let mut answer = None;
        d.eventually("it runs or is stopped", || {
            answer = told.try_recv().ok();
            answer.is_some() || is_stopped_on_its_way(&pid)
        });
        match answer {
            None => return (name, told),
            Some(said) => drop(said.ok()),
        }
    };
    for end in [&["stop"][..], &["rm", "-f"]] {
        let (name, told) = held();
        ask(&[end, &[&name]].concat()).recv_timeout(patience).expect("is not held up").ok();
        let said = told.recv_timeout(patience).expect("has an answer");
        assert!(said.code == 125 && said.err.contains("it was called off"), "{end:?}: {}", said.err);
        let left = say(&d, &["ps", "-aq", "--filter", &format!("name={name}$")]).ok();
        assert_eq!(left.is_empty(), end[0] == "rm", "{left}");
        assert!(!is_stopped_on_its_way(&pid), "{end:?}: it has ended");
    }
    let (name, told) = held();
    // Nobody else waits for it.
    assert_eq!(d.sh("", "echo else").ok(), "else");
    let said = told.recv_timeout(patience).expect("has an answer");
    assert!(said.code == 125 && said.err.contains("did not come to its next step within 10 s"), "{}", said.err);
    assert!(!is_stopped_on_its_way(&pid), "it has ended");
    say(&d, &["rm", &name]).ok();
    say(&d, &["rm", "-f", "stops"]).ok();
}

/// An image or a request that has the runtime itself run once more, inside.
#[test]
fn running_the_runtime_s_own_program_gains_nothing() {
    let Some(d) = Daemon::start() else { return };
    let before = std::fs::read(WHARF).unwrap();
    let loaded = image::load(
        &d,
        "reexec",
        |root| {
            image::link(root, "bin/again", Path::new("/proc/self/exe"));
            std::fs::write(root.join("bin/script"), "#!/proc/self/exe\n").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(root.join("bin/script"), mode).unwrap();
        },
        |_| {},
    );
    loaded.ok();
    // It waits for the program that is the runtime's, and writes to it by whatever way there is.
    let writer = "while :; do for p in /proc/[0-9]*; do [ \"$(readlink $p/exe)\" = /bin/busybox ] || \
                  { : >> $p/exe; cp /bin/busybox $p/exe; dd if=/bin/busybox of=$p/exe conv=notrunc; }; done; done 2>/dev/null";
    let words = ["run", "-d", "--name", "waits", "--cap-add", "SYS_PTRACE", "reexec", "sh", "-c", writer];
    say(&d, &words).ok();
    for program in ["/proc/self/exe", "again", "script"] {
        for options in [&["run", "--rm", "reexec"][..], &["run", "--rm", "--init", "reexec"], &["exec", "waits"]] {
            // Whether it says how it is called or cannot be found: nothing of the host's comes of it.
            let said = say(&d, &[options, &[program, "version"]].concat());
            assert!(!said.out.contains("Server:"), "{program}: {}", said.out);
        }
    }
    assert_eq!(std::fs::read(WHARF).unwrap(), before, "the program was written to");
}

/// 0, 1 and 2, and what `ls` itself opens: the directory.
const FDS: &str = "ls /proc/self/fd | tr '\\n' ' '";

#[test]
fn a_program_has_the_standard_streams_and_no_other_fd() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    let waiting = say(&d, &["run", "-d", "--init", "--name", "init", "busybox", "sleep", "1000"]);
    waiting.ok();
    for words in [
        &["run", "--rm", "busybox"][..],
        &["run", "--rm", "--init", "busybox"],
        &["run", "--rm", "-i", "busybox"],
        &["run", "--rm", "-u", "web", "busybox"],
        &["run", "--rm", "--privileged", "busybox"],
        &["run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host", "busybox"],
        &["exec", "idle"],
        &["exec", "-i", "idle"],
        &["exec", "--privileged", "idle"],
        &["exec", "-u", "web", "init"],
    ] {
        let said = say(&d, &[words, &["sh", "-c", FDS]].concat()).ok();
        assert_eq!(said.trim(), "0 1 2 3", "{words:?}");
    }
    let own = wharf(&d, &["run", "--rm", "--userns", "auto", "busybox", "sh", "-c", FDS]).ok();
    assert_eq!(own.trim(), "0 1 2 3");
    // With a terminal, for which a script of util-linux stands in.
    for words in ["run --rm -t busybox", "exec -t idle"] {
        let client = d.client();
        let line = format!(
            "{} {} {words} sh -c \"{FDS}\"",
            client.get_program().to_string_lossy(),
            client.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        );
        let said = on_terminal(&line);
        let shown = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(shown.trim(), "0 1 2 3", "{words}");
    }
    // The init, and what it has started.
    for (process, more) in [(1, ""), (2, "")] {
        let look =
            format!("for fd in $(ls /proc/{process}/fd); do [ $fd -lt 3 ] || readlink /proc/{process}/fd/$fd; done");
        let seen = say(&d, &["exec", "--privileged", "init", "sh", "-c", &look]).ok();
        assert_eq!(seen, more, "process {process} with an init");
    }
    // A probe, and a step of a build.
    let probe = format!("{FDS} > /tmp/probe");
    say(
        &d,
        &[
            "run",
            "-d",
            "--name",
            "probed",
            "--health-interval",
            "1s",
            "--health-cmd",
            &probe,
            "busybox",
            "sleep",
            "1000",
        ],
    )
    .ok();
    d.eventually("it is probed", || exec(&d, "probed", "cat /tmp/probe").out.trim() == "0 1 2 3");
    let context = d.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM busybox\nRUN echo fds: $({FDS})\n")).unwrap();
    let built = say(&d, &["build", &context.to_string_lossy()]).ok();
    assert!(built.contains("\nfds: 0 1 2 3\n"), "{built}");
}

#[test]
fn a_working_directory_is_inside_of_the_root() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let up = format!("../../../../../../../..{}", canary.file().display());
    let look = format!("pwd -P; cat {up} 2>/dev/null; cat {} 2>/dev/null; true", canary.file().display());
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    for number in 3..16 {
        let fd = format!("/proc/self/fd/{number}");
        let name = format!("link{number}");
        let linked = |root: &Path| image::link(root, "work", Path::new(&fd));
        image::load(&d, &name, linked, |config| config["config"]["WorkingDir"] = json!("/work")).ok();
        for words in [
            &["run", "--rm", "-w", &fd, "busybox"][..],
            &["run", "--rm", "--init", "-w", &fd, "busybox"],
            &["run", "--rm", &name],
            &["exec", "-w", &fd, "idle"],
            &["exec", "--privileged", "-w", &fd, "idle"],
        ] {
            let said = say(&d, &[words, &["sh", "-c", &look]].concat());
            // Older clients show an exec's failure as its output.
            let all = said.out + &said.err;
            assert!(said.code != 0 && !all.contains(SECRET), "{words:?}: {all}");
            assert!(all.contains("chdir to cwd") || all.contains("make the working directory"), "{words:?}: {all}");
        }
    }
    for fd in ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root/tmp", "/proc/self/fd"] {
        for words in [&["run", "--rm", "-w", fd, "busybox"][..], &["exec", "-w", fd, "idle"]] {
            let said = say(&d, &[words, &["sh", "-c", &look]].concat());
            assert!(!said.out.contains(SECRET), "{words:?}: {}", said.out);
        }
    }
    canary.assert_untouched();
}
