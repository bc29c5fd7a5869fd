//! Completions in the shells themselves, and manual pages as man(1) formats them.

use std::process::Command;

use crate::kit::{Daemon, WHARF};
use crate::terminal::Session;

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {program} on this machine");
    }
    there
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
        let said = Command::new(WHARF).args(["completion", shell]).output().unwrap();
        let file = d.path().join(format!("completion.{shell}"));
        std::fs::write(&file, said.stdout).unwrap();
        file.display().to_string()
    };
    let bin = std::path::Path::new(WHARF).parent().unwrap().display().to_string();
    let begin = format!("export PATH={bin}:$PATH DOCKER_HOST={host}; cd {}", d.path().display());
    for (shell, words, load) in [
        ("bash", &["--norc", "--noprofile", "-i"][..], format!("source {}", script("bash"))),
        ("zsh", &["-f", "-i"], format!("autoload -Uz compinit; compinit -D; source {}", script("zsh"))),
        ("fish", &["--no-config", "-i"], format!("source {}", script("fish"))),
    ] {
        if !has(shell) {
            continue;
        }
        let mut session = Session::of(Command::new(shell).env("TERM", "dumb").env("PS1", "> "), words);
        let begin = if shell == "fish" {
            format!("set -gx PATH {bin} $PATH; set -gx DOCKER_HOST {host}; cd {}", d.path().display())
        } else {
            begin.clone()
        };
        session.type_in(&format!("{begin}; {load}; echo re''ady\n"));
        session.wait_for("ready");
        for (typed, completed) in [
            ("stop ", "stop alpha"),
            ("container resta", "container restart"),
            ("run --secr", "run --secret"),
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

#[test]
fn manual_pages_are_written_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man1");
    let said = Command::new(WHARF).args(["docs", "man", "--out"]).arg(&out).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains(" pages in "));
    assert_eq!(Command::new(WHARF).args(["docs", "man"]).output().unwrap().status.code(), Some(1));
    let run = std::fs::read_to_string(out.join("wharf-run.1")).unwrap();
    assert!(run.contains(".SH SYNOPSIS\n.B \"wharf run [OPTIONS] IMAGE [COMMAND] [ARG...]\"\n"), "{run}");
    if !has("groff") {
        return;
    }
    for page in std::fs::read_dir(&out).unwrap().flatten() {
        let mut groff = Command::new("groff");
        groff.current_dir(dir.path()).args(["-s", "-man", "-Tutf8", "-ww", "-z"]).arg(page.path());
        let said = groff.output().unwrap();
        let warnings = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && warnings.is_empty(), "{}: {warnings}", page.path().display());
    }
}
