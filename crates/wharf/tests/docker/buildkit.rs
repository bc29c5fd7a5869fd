//! BuildKit's protocol, spoken by buildx and by Docker 20.10's client.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::kit::{Daemon, Said};
use crate::plugins::{directory, plugins};

#[test]
fn buildx_builds_and_is_told_of_each_step() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let name = format!("plain-{}", plugins.release);
        let text = format!("FROM busybox\nARG to=/a\ncopy a $to\nRUN cat /a && echo {name} >&2\nENV x=y\n");
        let dir = directory(&d, &name, &[("Dockerfile", &text), ("a", "hello\n"), (".dockerignore", "b")]);
        let first = plugins.buildx(&d, &dir, &format!("build -t {name} --iidfile id --metadata-file meta ."));
        assert_eq!(first.code, 0, "{}", first.err);
        for line in [
            "[internal] load build definition from Dockerfile",
            "[internal] load .dockerignore",
            "[1/3] FROM docker.io/library/busybox:latest",
            "[2/3] COPY a /a",
            "[3/3] RUN cat /a",
            " hello\n",
            "exporting to image",
            &format!("naming to docker.io/library/{name}"),
        ] {
            assert!(first.err.contains(line), "{line}: {}", first.err);
        }
        let id = d.docker(&format!("inspect -f {{{{.Id}}}} {name}")).ok();
        assert_eq!(std::fs::read_to_string(dir.join("id")).unwrap(), id);
        let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta")).unwrap()).unwrap();
        assert_eq!(meta["containerimage.config.digest"], id.as_str());
        assert_eq!(meta["image.name"], format!("docker.io/library/{name}"));
        let again = plugins.buildx(&d, &dir, "build .");
        assert_eq!(again.err.matches("CACHED").count(), 2, "{}", again.err);
        assert_eq!(plugins.buildx(&d, &dir, "build -q .").ok(), id);
        // The same as by the classic builder, so each finds the other's steps.
        assert_eq!(d.docker(&format!("build -q {}", dir.display())).ok(), id);
        std::fs::write(dir.join("a"), format!("changed {name}\n")).unwrap();
        let changed = plugins.buildx(&d, &dir, "build .");
        assert!(
            changed.err.contains(&format!(" changed {name}\n")) && !changed.err.contains("CACHED"),
            "{}",
            changed.err
        );
        // A time that was set, as that of what comes out of an archive, does not tell whether it is another file.
        for text in ["first\n", "other\n"] {
            let file = std::fs::File::create(dir.join("a")).unwrap();
            std::io::Write::write_all(&mut &file, text.as_bytes()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
            assert_eq!(plugins.buildx(&d, &dir, &format!("build -t {name} .")).code, 0);
            assert_eq!(d.docker(&format!("run --rm {name} cat /a")).ok(), text.trim_end());
        }
    }
}

#[test]
fn what_fails_is_shown_as_buildkit_does() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let files = [
            ("Dockerfile", "FROM busybox\nRUN echo said; \\\n  exit 3\nENV x=1\n"),
            ("Unknown", "FROM busybox\nRUNN echo\n"),
            ("Missing", "FROM busybox\nCOPY nope /\n"),
        ];
        let dir = directory(&d, &format!("fails-{}", plugins.release), &files);
        let failed = |words: &str| {
            let said = plugins.buildx(&d, &dir, words);
            assert_eq!(said.code, 1, "{}", said.err);
            said.err
        };
        let said = failed("build .");
        let process = "process \"/bin/sh -c echo said;   exit 3\" did not complete successfully: exit code: 3";
        for part in [
            &format!("ERROR: {process}"),
            " > [2/2] RUN echo said;",
            "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo said; \\\n   3 | >>>   exit 3\n",
            &format!("failed to solve: {process}"),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = failed("build -f Unknown .");
        let unknown = "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)";
        assert!(said.contains(unknown) && said.contains("   2 | >>> RUNN echo\n"), "{said}");
        assert!(failed("build -f Missing .").contains("   2 | >>> COPY nope /\n"));
        let said = failed("build -f nothing .");
        assert!(said.contains("failed to read dockerfile: open nothing: no such file or directory"), "{said}");
        assert_eq!(d.docker("images -q --filter dangling=true").ok(), "");
    }
}

#[test]
fn contexts_secrets_and_outputs_go_over_the_session() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        // Values of secrets are in no key of a step.
        let own = &plugins.release;
        let text = format!(
            "FROM busybox AS base\nRUN --mount=type=secret,id=tok,env=TOK : {own}; echo $TOK | wc -c > /length\nRUN \
             --mount=type=secret,id=tok cat /run/secrets/tok | wc -c >> /length\nFROM base AS out\nCOPY --from=named n \
             /n\nCOPY *.txt /txt/\nCOPY . /all\nFROM scratch AS files\nCOPY --from=out /txt /txt\nCOPY --from=out /length /n /\n"
        );
        let files = [
            ("Dockerfile", text.as_str()),
            ("a.txt", "t"),
            ("ü b.txt", "u"),
            ("modules/x", "x"),
            ("modules/keep", "k"),
            (".dockerignore", "modules\n!modules/keep\n*.id\n"),
            ("named/n", "named\n"),
        ];
        let dir = directory(&d, &format!("session-{}", plugins.release), &files);
        let large: Vec<u8> = (0..9_000_000u32).flat_map(u32::to_le_bytes).take(9_000_000).collect();
        std::fs::write(dir.join("large.txt"), &large).unwrap();
        std::os::unix::fs::symlink("a.txt", dir.join("link")).unwrap();
        let build = |words: &str| {
            let mut command = plugins.buildx_command(&d, &dir);
            command
                .args(["build", "--secret", "id=tok,env=TOK", "--build-context", "named=named"])
                .env("TOK", "abcdef");
            Said::from(command.args(words.split_whitespace()).output().unwrap())
        };
        let name = format!("session-{}", plugins.release);
        let built = build(&format!("--target out -t {name} ."));
        assert_eq!(built.code, 0, "{}", built.err);
        let look = "cat /length /n; ls /all /all/modules; ls -l /all/link | wc -l; wc -c /txt/large.txt";
        let mut command = d.client();
        let said = Said::from(command.args(["run", "--rm", &name, "sh", "-c", look]).output().unwrap()).ok();
        let listed: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(listed[..3], ["7", "6", "named"], "{said}");
        assert!(
            listed.contains(&"keep") && !listed.contains(&"x") && said.contains("9000000 /txt/large.txt"),
            "{said}"
        );
        let hosts = "FROM busybox\nRUN grep gate /etc/hosts\n";
        std::fs::write(dir.join("Hosts"), hosts).unwrap();
        let said = plugins.buildx(&d, &dir, "build --no-cache -f Hosts --add-host gate:host-gateway .");
        assert!(said.code == 0 && said.err.contains("\tgate\n"), "{}", said.err);
        // Without it there is no such secret, and it is in nothing that is kept.
        let without = plugins.buildx(&d, &dir, "build --build-context named=named --target base --no-cache .");
        assert_eq!(without.code, 0, "{}", without.err);
        let images = d.docker("images -aq").ok();
        let said = build("-o out .");
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(std::fs::read(dir.join("out/txt/large.txt")).unwrap(), large);
        assert_eq!(std::fs::read_to_string(dir.join("out/txt/ü b.txt")).unwrap(), "u");
        assert_eq!(build("-o type=tar,dest=out.tar .").code, 0);
        let listed = Command::new("tar").arg("-tf").arg(dir.join("out.tar")).output().unwrap();
        assert!(Said::from(listed).ok().contains("txt/a.txt"));
        assert_eq!(d.docker("images -aq").ok(), images, "an image for files alone does not stay");
        assert_eq!(build("-o type=cacheonly .").code, 0);
        assert_eq!(d.docker("images -aq").ok(), images);
    }
}

#[test]
fn archives_and_dockerfiles_of_the_standard_input_are_built() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let dir = directory(
            &d,
            &format!("input-{}", plugins.release),
            &[("Dockerfile", "FROM busybox\nCOPY a /\n"), ("a", "a")],
        );
        let archive = Command::new("tar").arg("-C").arg(&dir).args(["-c", "."]).output().unwrap().stdout;
        let build = |input: &[u8], words: &[&str]| {
            let mut command = plugins.buildx_command(&d, &dir);
            command
                .args(["build", "-q"])
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            Said::from(child.wait_with_output().unwrap()).ok()
        };
        let id = plugins.buildx(&d, &dir, "build -q .").ok();
        assert_eq!(build(&archive, &["-"]), id);
        // One of the web is read before the context.
        let images = d.docker("images -aq").ok();
        let port = crate::build_inputs::serve(dir.clone());
        let said = plugins.buildx(&d, &dir, &format!("build -q -f http://127.0.0.1:{port}/Dockerfile ."));
        assert_eq!(said.ok(), id);
        let missing = plugins.buildx(&d, &dir, &format!("build -q -f http://127.0.0.1:{port}/nope ."));
        assert!(missing.code == 1 && missing.err.contains("404"), "{}", missing.err);
        assert_eq!(d.docker("images -aq").ok(), images);
        assert_eq!(build(b"FROM busybox\nCOPY a /\n", &["-f-", "."]), id);
        assert!(build(b"FROM busybox\nRUN true\n", &["-"]).starts_with("sha256:"));
    }
}

#[test]
fn a_client_that_has_gone_ends_its_build() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let dir = directory(
            &d,
            &format!("gone-{}", plugins.release),
            &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4321\n")],
        );
        for signal in ["-KILL", "-INT"] {
            let mut command = plugins.buildx_command(&d, &dir);
            let mut child = command.args(["build", "."]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut said = Vec::new();
            let mut stderr = child.stderr.take().unwrap();
            let mut bytes = [0; 4096];
            while !String::from_utf8_lossy(&said).contains(" begun\n") {
                let count = stderr.read(&mut bytes).unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&said));
                said.extend_from_slice(&bytes[..count]);
            }
            let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            assert!(killed.success());
            std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
            child.wait().unwrap();
            let builds = d.path().join("run/build");
            d.eventually("the command has ended", || std::fs::read_dir(&builds).map_or(0, Iterator::count) == 0);
        }
    }
}

/// Asks the agent for its keys, and writes how long the answer is. busybox has nothing that speaks with a socket.
const ASK: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path, getenv("SSH_AUTH_SOCK"), sizeof to.sun_path - 1);
  int agent = socket(AF_UNIX, SOCK_STREAM, 0);
  char answer[64];
  if (connect(agent, (struct sockaddr *)&to, sizeof to) || write(agent, "\0\0\0\1\13", 5) != 5) return 1;
  ssize_t all = 0, count;
  while (all < 9 && (count = read(agent, answer + all, sizeof answer - all)) > 0) all += count;
  printf("%zd %d\n", all, answer[4]);
}
"#;

#[test]
fn commands_ask_the_agent_of_a_session() {
    let Some(d) = Daemon::start() else { return };
    let socket = d.path().join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(1..) = stream.read(&mut bytes) {
                    // It has no keys: draft-ietf-sshm-ssh-agent, 3.5.
                    let _ = stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]);
                }
            });
        }
    });
    let source = d.path().join("ask.c");
    std::fs::write(&source, ASK).unwrap();
    let compiled = Command::new("cc").args(["-static", "-o"]).arg(d.path().join("ask")).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no compiler");
        return;
    }
    for plugins in plugins() {
        let text = format!("FROM busybox\nCOPY ask /ask\nRUN --mount=type=ssh : {}; /ask > /said\n", plugins.release);
        let dir = directory(&d, &format!("agent-{}", plugins.release), &[("Dockerfile", &text)]);
        std::fs::copy(d.path().join("ask"), dir.join("ask")).unwrap();
        let name = format!("agent-{}", plugins.release);
        let said = plugins.buildx(&d, &dir, &format!("build --ssh default={} -t {name} .", socket.display()));
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(d.docker(&format!("run --rm {name} cat /said")).ok(), "9 12");
    }
}

#[test]
fn a_dockerfile_is_asked_about_without_a_build() {
    let Some(d) = Daemon::start() else { return };
    let text = "# base is for all\nFROM busybox AS base\nARG X=1\nRUN --mount=type=secret,id=s,required true\nFROM base as out\n";
    for plugins in plugins() {
        let dir = directory(&d, &format!("call-{}", plugins.release), &[("Dockerfile", text)]);
        // What 0.13 has of this is experimental, and of other options.
        if !plugins.buildx(&d, &dir, "build --help").out.contains("--call") {
            continue;
        }
        let said = plugins.buildx(&d, &dir, "build --check .");
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(
            said.out.contains("WARNING: FromAsCasing") && said.out.contains("   5 | >>> FROM base as out"),
            "{}",
            said.out
        );
        let said = plugins.buildx(&d, &dir, "build --call targets .").ok();
        assert!(said.contains("base") && said.contains("is for all") && said.contains("out (default)"), "{said}");
        let said = plugins.buildx(&d, &dir, "build --call outline,format=json .").ok();
        let outline: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&outline["args"][0]["name"], &outline["secrets"][0]["required"]), (&"X".into(), &true.into()));
        assert_eq!(d.docker("images -aq --filter dangling=true").ok(), "");
    }
}

#[test]
fn docker_s_own_client_of_20_10_builds() {
    let Some(d) = Daemon::start() else { return };
    let docker = ["/usr/bin/docker", "/usr/local/bin/docker"].into_iter().find(|path| {
        let version = Command::new(path).arg("--version").output();
        version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(" 20.10."))
    });
    let Some(docker) = docker else {
        eprintln!("skipped: there is no Docker 20.10's client (Debian 12's docker.io)");
        return;
    };
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY a /a\nRUN cat /a\n"),
        ("a", "hello\n"),
        ("Bad", "FROM busybox\nRUN exit 4\n"),
    ];
    let dir = directory(&d, "old", &files);
    let run = |words: &str, input: Option<&[u8]>| {
        let mut command = Command::new(docker);
        command.current_dir(&dir).env("DOCKER_BUILDKIT", "1").env("DOCKER_CONFIG", d.path().join("config-old"));
        command.env("DOCKER_HOST", format!("unix://{}", d.socket().display()));
        command.args(words.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.unwrap_or_default()).unwrap();
        Said::from(child.wait_with_output().unwrap())
    };
    let built = run("build --progress plain -t old .", None);
    assert_eq!(built.code, 0, "{}", built.err);
    assert!(built.err.contains("[3/3] RUN cat /a") && built.err.contains(" hello\n"), "{}", built.err);
    let id = d.docker("inspect -f {{.Id}} old").ok();
    assert_eq!(run("build -q .", None).ok(), id);
    let archive = Command::new("tar").arg("-C").arg(&dir).args(["-c", "."]).output().unwrap().stdout;
    assert_eq!(run("build -q -", Some(&archive)).ok(), id);
    let failed = run("build -f Bad .", None);
    assert!(failed.code == 1 && failed.err.contains("did not complete successfully: exit code: 4"), "{}", failed.err);
    assert_eq!(run("build -o out .", None).code, 0);
    assert_eq!(std::fs::read_to_string(dir.join("out/a")).unwrap(), "hello\n");
}

/// dockerode and bollard have sessions of their own, and send the context with the request.
#[test]
fn a_context_comes_with_the_request_where_the_session_has_none() {
    let Some(d) = Daemon::start() else { return };
    let connect = || std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
    let mut session = connect();
    let head = "POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: \
                mine\r\nX-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.Auth/Credentials\r\n\r\n";
    session.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    session.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    let dir = directory(&d, "with", &[("Dockerfile", "FROM busybox\nCOPY a /a\n"), ("a", "a")]);
    let archive = Command::new("tar").arg("-C").arg(&dir).args(["-c", "."]).output().unwrap().stdout;
    let build = |query: &str| {
        let mut stream = connect();
        let length = archive.len();
        let head = format!(
            "POST /build?version=2&{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&archive).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let said = build("session=mine&t=with:1");
    let id = d.docker("inspect -f {{.Id}} with:1").ok();
    assert!(said.contains("moby.buildkit.trace") && said.contains(&format!("{{\"ID\":\"{id}\"}}")), "{said}");
    assert!(build("session=mine").contains(&id), "a session may have several builds");
    let alone = build("t=alone:1");
    assert!(alone.starts_with("HTTP/1.1 200 ") && d.docker("inspect alone:1").code == 0, "it needs none: {alone}");
    assert!(build("remote=upload-request").starts_with("HTTP/1.1 400 "), "one that comes in two requests does");
    // One that has gone is no session.
    drop(session);
    let mut builds = 0;
    d.eventually("the session has gone", || {
        // A build's name is taken for some seconds after its end.
        builds += 1;
        build(&format!("session=mine&buildid=other{builds}")).contains("no active session")
    });
}

#[test]
fn a_client_that_does_not_answer_holds_nobody_else_up() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let text = format!(
            "FROM busybox\nRUN --mount=type=secret,id=tok wc -c < /run/secrets/tok > /{0}\nFROM busybox AS leak\nRUN \
             --mount=type=secret,id=tok cp /run/secrets/tok /{0}\n",
            plugins.release
        );
        let files = [("Dockerfile", text.as_str()), ("tok", "a secret of some length")];
        let dir = directory(&d, &format!("silent-{}", plugins.release), &files);
        let fifo = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let build = |secret: &str, target: &str| {
            let mut command = plugins.buildx_command(&d, &dir);
            command.args(["build", "--secret", &format!("id=tok,src={secret}"), "-t", "told", "--target", target, "."]);
            command
        };
        // It reads the secret when it is asked for it, and nobody writes.
        let mut silent = build("fifo", "0").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut open = None;
        d.eventually("the client is asked for its secret", || {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            open = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).ok();
            open.is_some()
        });
        let said: Said = build("tok", "0").output().unwrap().into();
        assert_eq!(said.code, 0, "{}", said.err);
        silent.kill().unwrap();
        silent.wait().unwrap();
        // What a session gave is looked for in the image, as what came with a request.
        d.docker("rmi told").ok();
        let said: Said = build("tok", "leak").output().unwrap().into();
        assert!(said.code != 0 && said.err.contains("the secret tok is in the image's file"), "{}", said.err);
        assert_ne!(d.docker("inspect told").code, 0);
    }
}

#[test]
fn an_export_that_is_called_off_leaves_no_image() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let text = format!("FROM busybox\nRUN echo {} > /a\n", plugins.release);
        let dir = directory(&d, &format!("off-{}", plugins.release), &[("Dockerfile", &text)]);
        let fifo = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let mut reader = std::fs::File::from(rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).unwrap());
        let mut command = plugins.buildx_command(&d, &dir);
        command.args(["build", "-o", "type=tar,dest=fifo", "."]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The files are more than a pipe takes: the client is in the middle of them.
        d.eventually("the export has begun", || reader.read(&mut [0; 512]).is_ok_and(|count| count > 0));
        assert_ne!(d.docker("images -aq --filter dangling=true").ok(), "");
        child.kill().unwrap();
        child.wait().unwrap();
        d.eventually("the image is gone", || d.docker("images -aq --filter dangling=true").ok().is_empty());
    }
}
