//! RUN: commands in containers.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use wharf_build::{BuildEvent, BuildRequest, CACHE_MOUNT, ErrorKind, Limits, Ulimit};

use crate::Test;
use crate::bench::{Bench, args, request};

pub(crate) const TESTS: &[Test] = &[
    ("runs::a_command_makes_a_layer", a_command_makes_a_layer),
    ("runs::nothing_of_the_mounts_stays", nothing_of_the_mounts_stays),
    ("runs::a_command_is_found_again", a_command_is_found_again),
    ("runs::a_failing_command_says_how_and_where", a_failing_command_says_how_and_where),
    ("runs::environment_user_and_directory", environment_user_and_directory),
    ("runs::shells_and_heredocs", shells_and_heredocs),
    ("runs::a_command_is_confined", a_command_is_confined),
    ("runs::binds", binds),
    ("runs::caches_tmpfs_and_secrets", caches_tmpfs_and_secrets),
    ("runs::networks", networks),
    ("runs::removals_are_kept", removals_are_kept),
    ("runs::a_cancelled_build_leaves_nothing", a_cancelled_build_leaves_nothing),
    ("runs::a_dropped_build_leaves_nothing", a_dropped_build_leaves_nothing),
    ("runs::the_same_step_of_two_builds_runs_once", the_same_step_of_two_builds_runs_once),
    ("runs::a_step_that_fails_fails_for_all_who_want_it", a_step_that_fails_fails_for_all_who_want_it),
    ("runs::a_step_goes_on_for_those_who_still_want_it", a_step_goes_on_for_those_who_still_want_it),
    ("runs::a_build_that_has_failed_waits_for_nobody_s_step", a_build_that_has_failed_waits_for_nobody_s_step),
    ("runs::a_client_that_does_not_read_keeps_nobody_waiting", a_client_that_does_not_read_keeps_nobody_waiting),
    ("runs::what_is_refused", what_is_refused),
];

/// Builds `FROM busybox` and these instructions.
fn build(bench: &Bench, rest: &str) -> (wharf_image::ImageRecord, String) {
    bench.build(&[("Dockerfile", &format!("FROM busybox\n{rest}\n"))])
}

fn a_command_makes_a_layer(bench: &Bench) {
    let (image, text) = build(bench, "RUN echo hello && echo over >&2; echo x > /made && mkdir -p /a/b\nRUN true\n");
    assert!(text.contains("hello\n") && text.contains("over\n") && text.contains(" ---> Running in "), "{text}");
    assert_eq!(bench.read(&image, "made"), "x\n");
    assert!(bench.exists(&image, "a/b"));
    let last = &image.config.history[image.config.history.len() - 2..];
    let line = last[0].created_by.as_deref().unwrap();
    assert_eq!(line, "RUN /bin/sh -c echo hello && echo over >&2; echo x > /made && mkdir -p /a/b # buildkit");
    // What changes nothing is no layer.
    assert_eq!((last[0].empty_layer, last[1].empty_layer), (false, true));
    assert_eq!(bench.layer_names(&image), ["a", "a/b", "made"]);
}

fn nothing_of_the_mounts_stays(bench: &Bench) {
    // This base has neither /proc nor /dev nor /sys nor /etc/hosts.
    let (image, _) = build(
        bench,
        "WORKDIR /etc\nRUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/new/tmpfs \
         cat /etc/hosts /etc/resolv.conf /proc/self/status > /dev/null && touch /var/cache/x/f && echo y > /etc/own\n",
    );
    assert_eq!(bench.layer_names(&image), ["etc", "etc/own"]);
    for path in ["proc", "dev", "sys", "etc/hosts", "etc/resolv.conf", "new", "var/cache"] {
        assert!(!bench.exists(&image, path), "{path}");
    }
    let plain = bench.images.resolve("busybox").unwrap();
    let time = |image| bench.view(image).metadata("etc", false).unwrap().st_mode;
    assert_eq!(time(&image), time(&plain));
}

fn a_command_is_found_again(bench: &Bench) {
    let dockerfile = "FROM busybox\nARG V=1\nRUN cat /proc/sys/kernel/random/uuid > /id\nLABEL x=y\n";
    let files = [("Dockerfile", dockerfile)];
    let (first, _) = bench.build(&files);
    let (again, text) = bench.build(&files);
    assert_eq!((bench.read(&first, "id"), &first.id), (bench.read(&again, "id"), &again.id));
    assert!(!text.contains("Running in") && text.contains("Using cache"));
    // An argument that is declared counts, though the command does not name it; a proxy does not.
    let with = |pairs: &[(&str, &str)]| {
        bench.done(bench.build_with(BuildRequest { build_args: args(pairs), ..request(&files) }))
    };
    assert!(with(&[("V", "2")]).1.contains("Running in"));
    assert!(!with(&[("http_proxy", "http://x")]).1.contains("Running in"));
    let (fresh, _) = bench.done(bench.build_with(BuildRequest { no_cache: true, ..request(&files) }));
    assert_ne!(bench.read(&fresh, "id"), bench.read(&again, "id"));
    // What changes the configuration only does not make a command run again; what it depends on does.
    let before = dockerfile.replace("ARG V=1\n", "ARG V=1\nLABEL a=b\nCMD x\n");
    assert!(!bench.build(&[("Dockerfile", &before)]).1.contains("Running in"));
    for line in ["ENV A=b", "USER web", "WORKDIR /tmp", "SHELL [\"/bin/sh\", \"-ec\"]"] {
        let after = dockerfile.replace("RUN cat", &format!("{line}\nRUN true || cat"));
        bench.build(&[("Dockerfile", &after)]);
    }
    let shell = dockerfile.replace("RUN cat", "ENV A=b\nRUN cat");
    assert!(bench.build(&[("Dockerfile", &shell)]).1.contains("Running in"));
}

fn a_failing_command_says_how_and_where(bench: &Bench) {
    let files = [("sub/My.Dockerfile", "FROM busybox\n\nRUN echo before && \\\n    exit 7\nRUN echo never\n")];
    let outcome = bench.build_with(BuildRequest { dockerfile: "sub/My.Dockerfile".into(), ..request(&files) });
    let error = outcome.result.unwrap_err();
    assert_eq!((error.kind, error.exit_code), (ErrorKind::Command, Some(7)));
    assert_eq!(
        error.to_string(),
        "The command '/bin/sh -c echo before &&     exit 7' returned a non-zero code: 7\n  \
         sub/My.Dockerfile:3: RUN echo before &&     exit 7"
    );
    let (said, lines) = outcome.text.split_once("sub/My.Dockerfile:3\n").unwrap();
    assert!(said.contains("before\n") && !said.contains("never"));
    assert!(lines.contains("\n   4 | >>>     exit 7\n   5 |     RUN echo never\n"), "{lines}");
    let error = bench.try_build(&[("Dockerfile", "FROM busybox\nRUN [\"/no/such/program\"]\n")]).result.unwrap_err();
    // What did not come to run has no exit code.
    assert_eq!((error.kind, error.exit_code), (ErrorKind::Command, None), "{error}");
    assert!(error.message.contains("/no/such/program"), "{error}");
    let error = bench.try_build(&[("Dockerfile", "FROM scratch\nRUN x\n")]).result.unwrap_err();
    assert!(error.message.contains("/bin/sh"), "{error}");
    // What ran before it failed is not run again.
    let dockerfile = "FROM busybox\nRUN echo first\nRUN false\n";
    assert!(bench.try_build(&[("Dockerfile", dockerfile)]).text.contains("\nfirst\n"));
    assert!(!bench.try_build(&[("Dockerfile", dockerfile)]).text.contains("\nfirst\n"));
}

fn environment_user_and_directory(bench: &Bench) {
    let dockerfile = "FROM busybox\nARG A=1\nARG B\nENV E=\"a b\"\nWORKDIR /srv\nRUN env > /env && pwd > pwd && id > id\n\
                      WORKDIR /home/web/own\nRUN chmod 777 . \nUSER web\nRUN id > /tmp/id; pwd > here; echo $HOME > home\nUSER 5:6\nRUN id > /tmp/id2\n";
    let build_args = args(&[("B", "given"), ("HTTPS_PROXY", "http://p")]);
    let (image, _) =
        bench.done(bench.build_with(BuildRequest { build_args, ..request(&[("Dockerfile", dockerfile)]) }));
    let env = bench.read(&image, "env");
    for line in ["A=1\n", "B=given\n", "E=a b\n", "PATH=/bin\n", "HOME=/root\n", "HTTPS_PROXY=http://p\n"] {
        assert!(env.contains(line), "{line} in {env}");
    }
    assert_eq!(bench.read(&image, "srv/pwd"), "/srv\n");
    assert!(bench.read(&image, "srv/id").starts_with("uid=0(root) gid=0(root)"));
    let id = bench.read(&image, "tmp/id");
    assert!(id.starts_with("uid=1000(web) gid=1001(web)") && id.contains("2000(extra)"), "{id}");
    assert_eq!(
        (bench.read(&image, "home/web/own/here"), bench.read(&image, "home/web/own/home")),
        ("/home/web/own\n".into(), "/home/web\n".into())
    );
    assert!(bench.read(&image, "tmp/id2").starts_with("uid=5 gid=6"));
    let line = image.config.history.iter().filter_map(|h| h.created_by.as_deref()).find(|l| l.contains("env > /env"));
    assert!(line.unwrap().starts_with("RUN |2 A=1 B=given /bin/sh -c env"), "{line:?}");
    assert!(!image.config.config.env.unwrap().iter().any(|pair| pair.starts_with("A=")));
    let error = bench.try_build(&[("Dockerfile", "FROM busybox\nUSER nobody\nRUN x\n")]).result.unwrap_err();
    assert!(error.message.contains("unable to find user nobody"));
}

fn shells_and_heredocs(bench: &Bench) {
    let (image, _) = build(
        bench,
        "RUN <<EOF\necho one > /one\necho two > /two\nEOF\nRUN cat <<A > /both && cat <<B >> /both\nfirst $PATH\nA\nsecond\nB\n\
         RUN <<PROGRAM\n#!/bin/busybox sh\necho \"$0\" > /program\nPROGRAM\nRUN [\"/bin/sh\", \"-c\", \"echo $0 > /exec\", \"zero\"]\n\
         SHELL [\"/bin/sh\", \"-xec\"]\nRUN echo shell > /shell\n",
    );
    for (path, text) in [
        ("one", "one\n"),
        ("two", "two\n"),
        ("both", "first /bin\nsecond\n"),
        ("program", "/dev/pipes/PROGRAM\n"),
        ("exec", "zero\n"),
        ("shell", "shell\n"),
    ] {
        assert_eq!(bench.read(&image, path), text, "{path}");
    }
}

fn a_command_is_confined(bench: &Bench) {
    let dockerfile = "FROM busybox\nRUN cat /proc/self/status > /status; hostname > /hostname; ls /proc > /procs; \
                      mount -t tmpfs x /tmp 2> /refused; cat /proc/keys > /keys 2>&1; head -c 1 /dev/sda > /disk 2>&1; \
                      echo 1 > /proc/sys/kernel/panic; ls -a / > /root-names; true\n";
    let limits = Limits {
        memory: Some(64 << 20),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 99, hard: 100 }],
        ..Limits::default()
    };
    let (image, _) = bench.done(bench.build_with(BuildRequest { limits, ..request(&[("Dockerfile", dockerfile)]) }));
    let status = bench.read(&image, "status");
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((line("Seccomp:"), line("CapAmb:")), ("2".into(), "0000000000000000".into()));
    assert_eq!(line("CapInh:"), "0000000000000000");
    let bounding = u64::from_str_radix(&line("CapBnd:"), 16).unwrap();
    assert_eq!(bounding & !0xa804_25fb, 0, "{bounding:x}");
    assert_eq!(bench.read(&image, "hostname"), "buildkitsandbox\n");
    assert!(
        bench.read(&image, "refused").contains("ermission denied")
            || bench.read(&image, "refused").contains("not permitted")
    );
    assert_eq!(bench.read(&image, "keys"), "");
    assert!(!bench.read(&image, "procs").contains(&std::process::id().to_string()));
    // Too much memory is an error that says so.
    let greedy = "FROM busybox\nRUN dd if=/dev/zero of=/dev/shm/x bs=1M count=60 && dd if=/dev/zero of=/dev/null bs=200M count=1\n";
    let limits = Limits { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..Limits::default() };
    let error = bench.build_with(BuildRequest { limits, ..request(&[("Dockerfile", greedy)]) }).result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Command, "{error}");
}

fn binds(bench: &Bench) {
    let dockerfile = "FROM busybox AS made\nRUN echo stage > /file && mkdir /d && echo deep > /d/x\nFROM busybox\n\
                      RUN --mount=target=/ctx,source=dir cat /ctx/x > /context; touch /ctx/no || echo read-only > /ro\n\
                      RUN --mount=type=bind,from=made,source=/d,target=/m cat /m/x > /stage\n\
                      RUN --mount=from=made,source=/file,target=/etc/one.conf cat /etc/one.conf > /one\n\
                      RUN --mount=from=busybox,target=/image ls /image/bin/busybox > /image-has\n\
                      RUN --mount=target=/ctx,rw echo changed > /ctx/dir/x && cat /ctx/dir/x > /changed\n\
                      RUN --mount=target=/ctx cat /ctx/dir/x > /still\n";
    let files = |text| [("Dockerfile", dockerfile), ("dir/x", text), ("other", "o")];
    let (image, _) = bench.build(&files("from the context\n"));
    for (path, text) in [
        ("context", "from the context\n"),
        ("ro", "read-only\n"),
        ("stage", "deep\n"),
        ("one", "stage\n"),
        ("image-has", "/image/bin/busybox\n"),
        ("changed", "changed\n"),
        ("still", "from the context\n"),
    ] {
        assert_eq!(bench.read(&image, path), text, "{path}");
    }
    for path in ["ctx", "m", "etc/one.conf", "image"] {
        assert!(!bench.exists(&image, path), "{path}");
    }
    // What is mounted counts.
    let (_, text) = bench.build(&files("changed\n"));
    assert!(text.contains("Running in"));
    let (_, text) = bench.build(&files("changed\n"));
    assert!(!text.contains("Running in"));
    // A link of the context leads into the context.
    let evil = [("Dockerfile", "FROM busybox\nRUN --mount=target=/m,source=up ls /m\n"), ("up -> ../../../../etc", "")];
    assert!(bench.try_build(&evil).result.unwrap_err().message.contains("file not found in build context"));
}

fn caches_tmpfs_and_secrets(bench: &Bench) {
    let run = |number: &str| {
        let dockerfile = format!(
            "FROM busybox\nARG N={number}\nRUN --mount=type=cache,target=/c,id=test,mode=0700,uid=5 \
             echo {number} >> /c/log && cat /c/log > /log && stat -c '%a %u' /c > /stat\n"
        );
        let (image, _) = bench.build(&[("Dockerfile", &dockerfile)]);
        (bench.read(&image, "log"), bench.read(&image, "stat"), bench.exists(&image, "c"))
    };
    assert_eq!(run("1"), ("1\n".into(), "700 5\n".into(), false));
    assert_eq!(run("2").0, "1\n2\n");
    bench.builder.prune(&|id, _| id.starts_with(CACHE_MOUNT), true).unwrap();
    assert_eq!(run("3").0, "3\n");

    let filled = "FROM busybox AS seed\nRUN mkdir /seed && echo s > /seed/s\nFROM busybox\n\
                  RUN --mount=type=cache,target=/c,from=seed,source=/seed cat /c/s > /s && echo t > /c/s\n\
                  RUN --mount=type=tmpfs,target=/t,size=1m dd if=/dev/zero of=/t/x bs=1k count=4096 2> /full || true\n";
    let (image, _) = bench.build(&[("Dockerfile", filled)]);
    assert_eq!(bench.read(&image, "s"), "s\n");
    assert!(bench.read(&image, "full").contains("No space left"));

    let secret = "FROM busybox\nRUN --mount=type=secret,id=token,required cat /run/secrets/token > /copy && stat -c %a /run/secrets/token > /mode\n\
                  RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN > /env\nRUN --mount=type=secret,id=none ls /run/secrets/none > /none 2>&1 || true\n";
    let secrets = [("token".to_owned(), b"s3cret".to_vec())].into();
    let with = BuildRequest { secrets, ..request(&[("Dockerfile", secret)]) };
    let (image, text) = bench.done(bench.build_with(with));
    assert_eq!((bench.read(&image, "copy"), bench.read(&image, "mode")), ("s3cret".into(), "400\n".into()));
    assert_eq!(bench.read(&image, "env"), "s3cret\n");
    assert!(text.contains("[Warning] secret none was not given\n") && !bench.exists(&image, "run"));
    let without = BuildRequest { no_cache: true, ..request(&[("Dockerfile", secret)]) };
    let error = bench.build_with(without).result.unwrap_err();
    assert!(error.message.contains("secret token: not found"), "{error}");
    // What is in a cache that a stage fills is as new there as it really is, directories too.
    let filled = "FROM busybox AS base\nRUN mkdir -p /data/x\nFROM busybox\n\
                  RUN --mount=type=cache,target=/cc,from=base,source=/data echo time=$(stat -c %Y /cc/x)\n";
    let (_, text) = bench.build(&[("Dockerfile", filled)]);
    let time = text.lines().find_map(|line| line.strip_prefix("time=")?.parse::<i64>().ok()).unwrap();
    assert!(time > 1_700_000_000, "{text}");
}

fn networks(bench: &Bench) {
    let (image, _) = build(
        bench,
        "RUN --network=none ls /sys/class/net > /none\nRUN ls /sys/class/net > /default; cat /etc/hosts > /hosts\n",
    );
    assert_eq!(bench.read(&image, "none"), "lo\n");
    assert!(bench.read(&image, "hosts").contains("127.0.0.1\tlocalhost"));
    let host = "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /ns\n";
    let error = bench.try_build(&[("Dockerfile", host)]).result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains("network.host is not allowed"));
    let allowed = BuildRequest { network: "host".into(), ..request(&[("Dockerfile", host)]) };
    let (image, _) = bench.done(bench.build_with(allowed));
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bench.read(&image, "ns").trim(), own.to_string_lossy());
    let extra = BuildRequest {
        extra_hosts: vec!["other:10.1.2.3".into()],
        ..request(&[("Dockerfile", "FROM busybox\nRUN cat /etc/hosts > /h\n")])
    };
    let (image, _) = bench.done(bench.build_with(extra));
    assert!(bench.read(&image, "h").contains("10.1.2.3\tother\n"));
}

fn removals_are_kept(bench: &Bench) {
    let (image, _) = build(
        bench,
        "RUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a && rm -r /home\nRUN rm -r /d && mkdir /d && touch /d/c\n",
    );
    assert!(bench.exists(&image, "d/c") && !bench.exists(&image, "d/a") && !bench.exists(&image, "d/b"));
    assert!(!bench.exists(&image, "home"));
}

/// Starts a build of a command that does not end, waits until it runs, and gives up on it.
fn give_up(bench: &Bench, by_dropping: bool) {
    let dockerfile =
        "FROM busybox\nCOPY Dockerfile /\nRUN echo running; trap '' TERM INT HUP; while true; do sleep 1; done\n";
    let began = Instant::now();
    bench.runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let builder = bench.builder.clone();
        let asked = request(&[("Dockerfile", dockerfile)]);
        let building = tokio::spawn(async move { builder.build(asked, sender).await });
        loop {
            match receiver.recv().await.expect("the command runs") {
                BuildEvent::Stream(text) if text.contains("running\n") => break,
                _ => {}
            }
        }
        if by_dropping {
            building.abort();
            assert!(building.await.unwrap_err().is_cancelled());
        } else {
            drop(receiver);
            assert_eq!(building.await.unwrap().unwrap_err().kind, ErrorKind::Cancelled);
        }
    });
    // The work of a dropped build ends a moment later.
    while std::fs::read_dir(bench.exec.path().join("build")).is_ok_and(|mut dir| dir.next().is_some()) {
        assert!(began.elapsed() < Duration::from_secs(20), "the command is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    while std::fs::read_dir(bench.data.path().join("build")).unwrap().count() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the build is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(8));
}

fn a_cancelled_build_leaves_nothing(bench: &Bench) {
    give_up(bench, false);
}

fn a_dropped_build_leaves_nothing(bench: &Bench) {
    give_up(bench, true);
}

fn the_same_step_of_two_builds_runs_once(bench: &Bench) {
    let files = [("Dockerfile", "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n")];
    let ids: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.build(&files).0.id)).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

/// Lines of the kernel's random numbers: who has the same has heard the same run.
fn runs_heard(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.len() == 36 && line.matches('-').count() == 4).collect()
}

fn a_step_that_fails_fails_for_all_who_want_it(bench: &Bench) {
    let files = [("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid; sleep 1; echo last; exit 3\n")];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.try_build(&files))).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    for outcome in &outcomes {
        let error = outcome.result.as_ref().unwrap_err();
        assert_eq!((error.kind, error.exit_code), (ErrorKind::Command, Some(3)), "{error}");
        assert_eq!(error.place.as_deref().map(|place| &place[..13]), Some("Dockerfile:2:"));
        assert_eq!(runs_heard(&outcome.text), runs_heard(&outcomes[0].text), "{}", outcome.text);
        assert_eq!((runs_heard(&outcome.text).len(), outcome.text.matches("last\n").count()), (1, 1));
    }
    // It is not remembered.
    assert_ne!(runs_heard(&bench.try_build(&files).text), runs_heard(&outcomes[0].text));
}

type Building = tokio::task::JoinHandle<Result<wharf_reference::Digest, wharf_build::BuildError>>;

/// Begins a build; who is told of it need not read.
fn begin(bench: &Bench, dockerfile: &str) -> (Building, Receiver<BuildEvent>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let (builder, asked) = (bench.builder.clone(), request(&[("Dockerfile", dockerfile)]));
    (bench.runtime.spawn(async move { builder.build(asked, sender).await }), receiver)
}

/// Waits for the random number of a run.
async fn run_heard(receiver: &mut Receiver<BuildEvent>) -> String {
    loop {
        if let BuildEvent::Stream(text) = receiver.recv().await.expect("the command runs")
            && let [id] = runs_heard(&text)[..]
        {
            return id.to_owned();
        }
    }
}

async fn rest_of(receiver: &mut Receiver<BuildEvent>) -> String {
    let mut all = String::new();
    while let Some(event) = receiver.recv().await {
        if let BuildEvent::Stream(text) = event {
            all.push_str(&text);
        }
    }
    all
}

fn a_build_that_has_failed_waits_for_nobody_s_step(bench: &Bench) {
    let slow = "FROM busybox AS slow\nRUN cat /proc/sys/kernel/random/uuid > /id; cat /id; sleep 6\n";
    let fails = "FROM busybox AS fails\nRUN sleep 2; exit 3\n";
    let both = format!("{slow}{fails}FROM busybox\nCOPY --from=slow /id /\nCOPY --from=fails /bin/sh /\n");
    bench.runtime.block_on(async {
        let (first, mut of_first) = begin(bench, &both);
        let heard = run_heard(&mut of_first).await;
        let (second, mut of_second) = begin(bench, slow);
        assert_eq!(run_heard(&mut of_second).await, heard);
        rest_of(&mut of_first).await;
        let error = first.await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.exit_code), (ErrorKind::Command, Some(3)), "{error}");
        assert!(!second.is_finished());
        rest_of(&mut of_second).await;
        let image = bench.images.resolve(second.await.unwrap().unwrap().as_str()).unwrap();
        assert_eq!(bench.read(&image, "id").trim_end(), heard);
    });
}

fn a_client_that_does_not_read_keeps_nobody_waiting(bench: &Bench) {
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id; cat /id; sleep 1; seq 200000; exit 3\n";
    bench.runtime.block_on(async {
        let (first, mut of_first) = begin(bench, dockerfile);
        let heard = run_heard(&mut of_first).await;
        let (second, mut of_second) = begin(bench, dockerfile);
        assert_eq!(run_heard(&mut of_second).await, heard);
        let wanted: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
        assert!(rest_of(&mut of_second).await.contains(&wanted));
        assert_eq!(second.await.unwrap().unwrap_err().exit_code, Some(3));
        // Who reads again misses nothing.
        assert!(!first.is_finished());
        assert!(rest_of(&mut of_first).await.contains(&wanted));
        assert_eq!(first.await.unwrap().unwrap_err().exit_code, Some(3));
    });
}

fn a_step_goes_on_for_those_who_still_want_it(bench: &Bench) {
    let dockerfile = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id; cat /id; sleep 3\n";
    let begin = || begin(bench, dockerfile);
    let (id, heard) = bench.runtime.block_on(async {
        let (first, mut of_first) = begin();
        let heard = run_heard(&mut of_first).await;
        let (second, mut of_second) = begin();
        let (third, mut of_third) = begin();
        assert_eq!([run_heard(&mut of_second).await, run_heard(&mut of_third).await], [heard.clone(), heard.clone()]);
        // One is dropped, one has nobody who listens.
        first.abort();
        drop(of_third);
        assert_eq!(third.await.unwrap().unwrap_err().kind, ErrorKind::Cancelled);
        while of_second.recv().await.is_some() {}
        (second.await.unwrap().unwrap(), heard)
    });
    let image = bench.images.resolve(id.as_str()).unwrap();
    assert_eq!(bench.read(&image, "id").trim_end(), heard);
}

fn what_is_refused(bench: &Bench) {
    for (instruction, kind, message) in [
        ("RUN --security=insecure true", ErrorKind::Denied, "security.insecure is not allowed"),
        ("RUN --device=vendor.com/class=x true", ErrorKind::Invalid, "RUN --device is not supported"),
        ("RUN --mount=type=ssh,required true", ErrorKind::Invalid, "gives no SSH agent default"),
        ("RUN --mount=type=cache,target=/ true", ErrorKind::Invalid, "invalid mount target"),
        ("RUN --mount=type=bind true", ErrorKind::Invalid, "bind mount needs a target"),
        ("RUN --mount=target=/m,source=nope true", ErrorKind::Invalid, "file not found in build context"),
        ("RUN []", ErrorKind::Invalid, "RUN needs a command"),
    ] {
        let error = bench
            .try_build(&[("Dockerfile", &format!("FROM busybox\n{instruction}\n"))])
            .result
            .expect_err(instruction);
        assert!(error.kind == kind && error.message.contains(message), "{instruction}: {error}");
    }
}
