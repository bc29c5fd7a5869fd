//! The words that a shell is told of.

use crate::kit::Daemon;
use crate::terminal::Session;

#[test]
fn shells_are_told_what_may_come_next() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name runs busybox sleep 1000").ok();
    d.docker("create --name made busybox true").ok();
    for (line, words) in [
        ("run --restart un", "unless-stopped"),
        ("run --restart=un", "--restart=unless-stopped"),
        ("run --pull=", "--pull=always\n--pull=missing\n--pull=never"),
        ("container kill -s SIGU", "SIGUSR1\nSIGUSR2"),
        ("exec ", "runs"),
        ("start ", "made"),
        ("rm ", "made\nruns"),
        ("run --network h", "host"),
        ("run --cap-add NET_", "NET_ADMIN\nNET_BIND_SERVICE\nNET_BROADCAST\nNET_RAW"),
        ("run --rm -e A=b ", "busybox:latest"),
        ("run --name x busybox ", ""),
        ("exec runs ", ""),
        ("stop runs ", ""),
        ("network inspect n", "none"),
    ] {
        assert_eq!(next(&d, "__complete --", line), format!("{words}\n:4").trim_start(), "{line}");
    }
    // No blank follows, files may come, or both; docker's own scripts ask so.
    for (line, words) in [
        ("ps --filter st", "status=\n:6"),
        ("build -f ", ":0"),
        ("build ", ":0"),
        ("cp r", "runs:\n:2"),
        ("run --env-file=./x", ":0"),
    ] {
        assert_eq!(next(&d, "__completeNoDesc", line), words, "{line}");
    }
}

fn next(d: &Daemon, asked: &str, line: &str) -> String {
    let mut client = std::process::Command::new(crate::kit::WHARF);
    client.env("DOCKER_HOST", format!("unix://{}", d.socket().display())).args(asked.split(' '));
    let output = client.args(line.split(' ')).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Typed in, as people do.
#[test]
fn words_are_completed_in_real_shells() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name alpha busybox sleep 1000").ok();
    d.docker("tag busybox reg.test:5000/app:one").ok();
    std::fs::write(d.path().join("first.env"), "").unwrap();
    let host = format!("unix://{}", d.socket().display());
    let script = |shell: &str| {
        let said = std::process::Command::new(crate::kit::WHARF).args(["completion", shell]).output().unwrap();
        let file = d.path().join(format!("completion.{shell}"));
        std::fs::write(&file, said.stdout).unwrap();
        file.display().to_string()
    };
    let bin = std::path::Path::new(crate::kit::WHARF).parent().unwrap().display().to_string();
    let begin = format!("export PATH={bin}:$PATH DOCKER_HOST={host}; cd {}", d.path().display());
    for (shell, words, load) in [
        ("bash", &["--norc", "--noprofile", "-i"][..], format!("source {}", script("bash"))),
        ("zsh", &["-f", "-i"], format!("autoload -Uz compinit; compinit -D; source {}", script("zsh"))),
        ("fish", &["--no-config", "-i"], format!("source {}", script("fish"))),
    ] {
        let mut session = Session::of(std::process::Command::new(shell).env("TERM", "dumb").env("PS1", "> "), words);
        let begin = if shell == "fish" {
            format!("set -gx PATH {bin} $PATH; set -gx DOCKER_HOST {host}; cd {}", d.path().display())
        } else {
            begin.clone()
        };
        session.type_in(&format!("{begin}; {load}; echo re''ady\n"));
        session.wait_for("ready");
        for (typed, completed) in [
            ("stop ", "stop alpha"),
            ("run reg.test:50", "run reg.test:5000/app:one"),
            ("-H unix://$SOCK stop al", "stop alpha"),
            ("run --network no", "--network none"),
            ("run --pull=al", "--pull=always"),
            ("build -f fir", "-f first.env"),
            ("run --env-file fir", "--env-file first.env"),
        ] {
            // What is run says which words it got.
            let typed = typed.replace("$SOCK", &d.socket().display().to_string());
            session.type_in(&format!("wharf {typed}\t"));
            // Taken when the words are there: to the beginning of the line, and there before it: echo.
            session.type_in("\x01echo sa''id: \x05 .\n");
            session.wait_for("said: wharf ");
            let line = session.line();
            assert!(line.contains(completed), "{shell}: {typed}: {line}");
        }
        session.type_in("exit\n");
        session.code();
    }
}
