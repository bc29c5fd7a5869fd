//! What images are called, made of and removed by, held against what Docker's daemon 20.10 says of the same commands.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::kit::{Daemon, Said};

fn ids_out(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        match word.trim_end().strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 => out.push_str(&word.replace(hex, "ID")),
            _ => out.push_str(word),
        }
    }
    out
}

/// Standard output and error without IDs, and the exit code.
fn said(said: Said) -> (i32, String) {
    (said.code, ids_out(format!("{}{}", said.out, said.err).trim()))
}

/// A container that was made has its image, whoever removes that at the same moment.
#[test]
fn an_image_that_gets_a_container_while_it_is_removed_stays() {
    let Some(d) = Daemon::start() else { return };
    let (mut made, mut gone) = (0, 0);
    for round in 0..30u64 {
        d.docker(&format!("import {}/busybox.tar victim", d.path().display())).ok();
        let (created, removed) = std::thread::scope(|scope| {
            let (d, body) = (&d, r#"{"Image":"victim","Cmd":["true"]}"#);
            let creating = scope.spawn(move || {
                // About when the client, a program that must start first, has its request with the daemon.
                std::thread::sleep(std::time::Duration::from_millis(5 + round * 2));
                d.post(&format!("/containers/create?name=c{round}"), body, true).unwrap()
            });
            let removed = match round % 2 {
                0 => d.docker("rmi victim").code == 0,
                _ => d.docker("image prune -af").ok().contains("untagged: victim"),
            };
            (creating.join().unwrap(), removed)
        });
        gone += u32::from(removed);
        if created.0 == 201 {
            made += 1;
            d.docker(&format!("start -a c{round}")).ok();
            let image = d.get(&format!("/containers/c{round}/json"))["Image"].as_str().unwrap().to_owned();
            d.docker(&format!("image inspect {image}")).ok();
            d.docker(&format!("rm c{round}")).ok();
        } else {
            assert!(removed, "{created:?}");
        }
        let _ = d.docker("rmi victim");
    }
    println!("{made} containers made, {gone} images removed");
}

#[test]
fn an_import_is_changed_as_asked() {
    let Some(d) = Daemon::start() else { return };
    let tar = d.path().join("busybox.tar").display().to_string();
    let import = |changes: &[&str], rest: &[&str]| -> Said {
        let mut command = d.client();
        command.arg("import");
        for change in changes {
            command.args(["-c", change]);
        }
        command.args(rest).output().unwrap().into()
    };
    let changes = [
        "ENV A=1 B=2",
        "CMD [\"sh\",\"-c\",\"echo hi\"]",
        "EXPOSE 80 81/udp",
        "USER root",
        "WORKDIR tmp",
        "VOLUME /data",
        "LABEL a=b c=\"d e\"",
        "STOPSIGNAL SIGINT",
        "HEALTHCHECK --interval=5s CMD true",
        "ONBUILD RUN true",
        "ONBUILD NONSENSE later",
        "ENTRYPOINT [\"env\"]",
    ];
    import(&changes, &["-m", "made here", &tar, "own:1"]).ok();
    let config = &d.get("/v1.51/images/own:1/json")["Config"];
    let wanted = serde_json::json!({
        "Env": ["A=1", "B=2"], "Cmd": ["sh", "-c", "echo hi"], "ExposedPorts": {"80/tcp": {}, "81/udp": {}},
        "User": "root", "WorkingDir": "/tmp", "Volumes": {"/data": {}}, "Labels": {"a": "b", "c": "d e"},
        "StopSignal": "SIGINT", "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000u64},
        "OnBuild": ["RUN true", "NONSENSE later"], "Entrypoint": ["env"],
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    assert_eq!(d.docker("history --format {{.Comment}} own:1").ok(), "made here");
    for (change, text) in [
        ("RUN true", "RUN is not a valid change command"),
        ("SHELL [\"sh\"]", "SHELL is not a valid change command"),
        ("NONSENSE x", "NONSENSE is not a valid change command"),
        ("", "file with no instructions"),
    ] {
        let no = import(&[change], &[&tar, "own:no"]);
        assert_eq!(said(no), (1, format!("Error response from daemon: {text}")), "{change}");
    }
    let digest = format!("own@sha256:{}", "a".repeat(64));
    assert_eq!(
        said(import(&[], &[&tar, &digest])),
        (1, "Error response from daemon: cannot import digest reference".into())
    );
    let bad = import(&[], &["http://127.0.0.1:1/x.tar?key=secret", "own:no"]);
    assert_eq!(
        said(bad),
        (1, "Error response from daemon: Get \"http://127.0.0.1:1/x.tar\": dial tcp 127.0.0.1:1: connect: connection refused".into())
    );
    // From a server.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, content) = (listener.local_addr().unwrap(), std::fs::read(&tar).unwrap());
    let serving = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let read = client.read(&mut head).unwrap();
        assert!(head[..read].starts_with(b"GET /root.tar "));
        write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).unwrap();
        client.write_all(&content).unwrap();
    });
    let url = format!("http://{address}/root.tar");
    let came = import(&["LABEL from=server"], &[&url, "own:server"]).ok();
    assert_eq!(ids_out(&came), format!("Downloading from {url}\nsha256:ID"));
    serving.join().unwrap();
    assert_eq!(d.docker("run --rm own:server echo runs").ok(), "runs");
    assert_eq!(d.docker("images -q own:no").ok(), "");
}

#[test]
fn a_commit_joins_the_container_s_configuration_with_the_changes() {
    let Some(d) = Daemon::start() else { return };
    // Docker's client gives several variables in any order.
    d.docker("run --name box -e FOO=bar -l own=1 busybox touch /new").ok();
    let commit = |options: &[&str], name: &str| -> Said {
        let mut command = d.client();
        command.arg("commit").args(options).args(["box", name]).output().unwrap().into()
    };
    commit(&["-a", "Me <me@x>", "-m", "a message"], "made:1").ok();
    let format = "{{.Author}}|{{.Comment}}|{{json .Config.Cmd}}|{{json .Config.Labels}}";
    let mut inspect = d.client();
    let shown = Said::from(inspect.args(["inspect", "-f", format, "made:1"]).output().unwrap()).ok();
    assert_eq!(shown, "Me <me@x>|a message|[\"touch\",\"/new\"]|{\"own\":\"1\"}");
    commit(&["-c", "ENV X=1 FOO=other", "-c", "CMD [\"ls\"]", "-c", "LABEL z=1", "-c", "EXPOSE 80"], "made:2").ok();
    let mut inspect = d.client();
    let format = "{{json .Config.Env}}|{{json .Config.Cmd}}|{{json .Config.Labels}}|{{json .Config.ExposedPorts}}";
    let shown = Said::from(inspect.args(["inspect", "-f", format, "made:2"]).output().unwrap()).ok();
    assert_eq!(shown, "[\"FOO=other\",\"X=1\"]|[\"ls\"]|{\"own\":\"1\",\"z\":\"1\"}|{\"80/tcp\":{}}");
    for (change, text) in [
        ("FROM x", "FROM is not a valid change command"),
        ("COPY a b", "COPY is not a valid change command"),
        ("", "file with no instructions"),
    ] {
        assert_eq!(said(commit(&["-c", change], "made:no")), (1, format!("Error response from daemon: {text}")));
    }
    // One that runs goes on running, paused for the moment or not; a paused one stays so.
    d.docker("run -d --name runs busybox sleep 100").ok();
    let state = || d.docker("inspect -f {{.State.Status}} runs").ok();
    for options in ["", "--pause=false "] {
        d.docker(&format!("commit {options}runs made:runs")).ok();
        assert_eq!(state(), "running");
    }
    d.wharf("commit --no-pause runs made:runs").ok();
    d.docker("pause runs").ok();
    d.docker("commit runs made:runs").ok();
    assert_eq!(state(), "paused");
    d.docker("rm -f runs box").ok();
    assert_eq!(d.docker("run --rm made:1 ls /new").ok(), "/new");
}

#[test]
fn removals_have_docker_s_conflicts_and_codes() {
    let Some(d) = Daemon::start() else { return };
    let id = d.docker("images -q busybox").ok();
    for name in ["busybox:two", "other:1"] {
        d.docker(&format!("tag busybox {name}")).ok();
    }
    assert_eq!(said(d.docker("rmi nosuch")), (1, "Error response from daemon: No such image: nosuch:latest".into()));
    let forced = d.docker("rmi -f nosuch");
    assert_eq!((forced.code, forced.err.trim()), (0, "Error response from daemon: No such image: nosuch:latest"));
    // What can be removed is, whatever is said of the others.
    let some = d.docker("rmi nosuch busybox:two none:1");
    assert_eq!((some.code, some.out.trim()), (1, "Untagged: busybox:two"));
    let lines: Vec<&str> = some.err.trim().lines().collect();
    assert_eq!(
        lines,
        [
            "Error response from daemon: No such image: nosuch:latest",
            "Error response from daemon: No such image: none:1"
        ]
    );
    let several = d.docker(&format!("rmi {id}"));
    let text =
        format!("conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories");
    assert_eq!(said(several), (1, format!("Error response from daemon: {text}")));
    let run = d.docker("run -d --name runs busybox sleep 100").ok();
    let short = &run[..12];
    let text = format!(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {short}"
    );
    for words in [format!("rmi {id}"), format!("rmi -f {id}")] {
        assert_eq!(said(d.docker(&words)), (1, format!("Error response from daemon: {text}")), "{words}");
    }
    assert_eq!(said(d.docker("rmi other:1")), (0, "Untagged: other:1".into()));
    let reference = d.docker("rmi busybox");
    let text = format!(
        "conflict: unable to remove repository reference \"busybox\" (must force) - container {short} is using its \
         referenced image {id}"
    );
    assert_eq!(said(reference), (1, format!("Error response from daemon: {text}")));
    d.docker("stop -t 0 runs").ok();
    let stopped = d.docker(&format!("rmi {id}"));
    let text =
        format!("conflict: unable to delete {id} (must be forced) - image is being used by stopped container {short}");
    assert_eq!(said(stopped), (1, format!("Error response from daemon: {text}")));
    // Parents without a name go with their last child, unless they are wanted.
    d.docker("commit runs child:1").ok();
    d.docker("rm runs").ok();
    assert_eq!(said(d.docker("rmi busybox")), (0, "Untagged: busybox:latest".into()));
    assert_eq!(d.docker("images -aq").ok().lines().count(), 2);
    assert_eq!(said(d.docker("rmi --no-prune child:1")), (0, "Untagged: child:1\nDeleted: sha256:ID".into()));
    assert_eq!(d.docker("images -aq").ok(), id);
    let pruned = d.docker("image prune -f").ok();
    assert!(
        pruned.starts_with("Deleted Images:\ndeleted: sha256:") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(d.docker("images -aq").ok(), "");
}

#[test]
fn prunes_know_times_as_docker_does() {
    let Some(d) = Daemon::start() else { return };
    let none = "Total reclaimed space: 0B";
    let bad = |text: &str| (1, format!("Error response from daemon: {text}"));
    for (filters, wanted) in [
        ("--filter until=10m", (0, none.to_owned())),
        ("--filter until=2020-01-01", (0, none.to_owned())),
        ("--filter until=2020-01-01T00:00:00+05:00", (0, none.to_owned())),
        ("--filter until=1577836800.5", (0, none.to_owned())),
        ("--filter until=1x", bad("failed to parse value as time or duration: \"1x\"")),
        ("--filter until=2020-13-01", bad("parsing time \"2020-13-01\": month out of range")),
        ("--filter until=10m --filter until=20m", bad("more than one until filter specified")),
        ("--filter nonsense=1", bad("invalid filter 'nonsense'")),
        ("--filter label!=a", (0, none.to_owned())),
    ] {
        assert_eq!(said(d.docker(&format!("image prune -f {filters}"))), wanted, "{filters}");
    }
    assert_eq!(said(d.docker("images -f dangling=maybe")), bad("invalid filter 'dangling=[maybe]'"));
    let id = d.docker("images -q busybox").ok();
    d.wharf("image pin busybox").ok();
    // An hour from now: all are older.
    assert_eq!(said(d.docker("image prune -af --filter until=-1h")), (0, none.to_owned()), "it is pinned");
    assert_eq!(d.docker("images -q -f until=-1h").ok(), id);
    assert_eq!(d.docker("images -q -f until=1h").ok(), "");
    d.wharf("image unpin busybox").ok();
    assert!(
        d.docker("image prune -af --filter until=-1h").ok().starts_with("Deleted Images:\nuntagged: busybox:latest\n")
    );
}

#[test]
fn images_of_one_second_have_an_order() {
    let Some(d) = Daemon::start() else { return };
    let build = |name: &str| {
        let dir = d.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("Dockerfile"), format!("FROM busybox\nENV NAME={name}\n")).unwrap();
        d.docker(&format!("build -q -t {name} {}", dir.display())).ok();
    };
    let names = ["one", "two", "three", "four"];
    names.into_iter().for_each(build);
    let created = |name: &str| d.docker(&format!("inspect -f {{{{.Created}}}} {name}")).ok();
    let times = names.map(created);
    let whole = times.iter().filter(|time| !time.contains('.')).count();
    // One by chance has no fraction of a second; not all.
    assert!(whole <= 1, "{times:?}");
    let list = |filter: &str| {
        let all = d.docker(&format!("images --format {{{{.Repository}}}} {filter}")).ok();
        all.lines().filter(|name| *name != "busybox").map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(""), ["four", "three", "two", "one"]);
    assert_eq!(list("-f since=two"), ["four", "three"]);
    assert_eq!(list("-f before=two"), ["one"]);
    assert_eq!(list("-f since=one -f before=four"), ["three", "two"]);
    // Made of the cache it is the same image, and a time that was asked for is the one that it has.
    d.docker(&format!("build -q -t again {}", d.path().join("one").display())).ok();
    assert_eq!(d.docker("images -q again").ok(), d.docker("images -q one").ok());
    d.docker(&format!("build -q -t dated --build-arg SOURCE_DATE_EPOCH=1700000000 {}", d.path().join("one").display()))
        .ok();
    assert_eq!(created("dated"), "2023-11-14T22:13:20Z");
}

#[test]
fn an_export_has_what_every_container_has() {
    let Some(d) = Daemon::start() else { return };
    d.docker("create --name box busybox true").ok();
    let archive = d.path().join("box.tar");
    d.docker(&format!("export -o {} box", archive.display())).ok();
    let list = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in [".dockerenv", "bin/busybox", "dev/", "etc/hosts", "etc/passwd", "etc/resolv.conf", "proc/", "sys/"] {
        assert!(names.lines().any(|line| line.trim_start_matches("./") == name), "{name}: {names}");
    }
    // An image made of it has nothing that is the engine's.
    d.docker("commit box made").ok();
    let none = d.docker("push -a localhost:1/none");
    assert_eq!(none.out.trim(), "The push refers to repository [localhost:1/none]");
    assert_eq!((none.code, none.err.trim()), (1, "An image does not exist locally with the tag: localhost:1/none"));
    let lost = d.docker(&format!("export -o {} box", d.path().join("no/such.tar").display()));
    assert!(lost.code == 1 && lost.err.contains("failed to export container"), "{}", lost.err);
}

#[test]
fn a_load_of_what_is_here_is_no_new_name() {
    let Some(d) = Daemon::start() else { return };
    d.docker("tag busybox kept:1").ok();
    let named = || d.docker("inspect kept:1 --format {{.Metadata.LastTagTime}}").ok();
    let before = named();
    let archive = d.path().join("kept.tar");
    d.docker(&format!("save kept:1 -o {}", archive.display())).ok();
    d.docker(&format!("load -qi {}", archive.display())).ok();
    assert_eq!(named(), before);
}

#[test]
fn what_the_classic_builder_has_made_is_a_child_of_its_base() {
    let Some(d) = Daemon::start() else { return };
    let dir = d.path().join("context");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\nLABEL a=1\nRUN echo x > /x\n").unwrap();
    d.docker(&format!("build -t child {}", dir.display())).ok();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\n").unwrap();
    d.docker(&format!("build -t same {}", dir.display())).ok();
    let parent = |name: &str| d.docker(&format!("inspect -f {{{{.Parent}}}} {name}")).ok().trim().to_owned();
    let base = d.docker("inspect -f {{.Id}} busybox").ok().trim().to_owned();
    assert_eq!((parent("child"), parent(&base)), (base.clone(), String::new()));
    // An image is not its own parent.
    assert_ne!(parent("same"), d.docker("inspect -f {{.Id}} same").ok().trim());
    // By its ID nobody removes it; its names go, and it goes itself with its last child.
    let text = format!(
        "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
        &base["sha256:".len()..][..12]
    );
    d.docker("rmi same").ok();
    for words in [format!("rmi {base}"), format!("rmi -f {base}")] {
        assert_eq!(said(d.docker(&words)), (1, format!("Error response from daemon: {text}")), "{words}");
    }
    assert_eq!(said(d.docker("rmi busybox")), (0, "Untagged: busybox:latest".into()));
    assert_eq!(d.docker("images -q").ok().lines().count(), 1);
    assert!(d.docker("rmi child").ok().ends_with(&format!("Deleted: {base}")));
    // As BuildKit's builds, ours have none.
    d.import("busybox", 1).ok();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\nLABEL a=1\n").unwrap();
    for words in [format!("build -t own {}", dir.display()), format!("build --compress -t own {}", dir.display())] {
        d.wharf(&words).ok();
        assert_eq!(parent("own"), "", "{words}");
    }
}
