//! Completions in the shells themselves, and manual pages as man(1) formats them.

use std::process::{Command, Output};

use crate::kit::{Daemon, WHARF};

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {program} on this machine");
    }
    there
}

fn words(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn shells_complete_commands_flags_and_names() {
    let Some(daemon) = Daemon::start() else { return };
    daemon.docker("create --name completed busybox true").ok();
    // A program of the name that the scripts ask.
    let bin = daemon.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(WHARF, bin.join("wharf")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let script = |shell: &str| {
        let said = daemon.wharf(&format!("completion {shell}")).ok();
        let file = daemon.path().join(format!("completion.{shell}"));
        std::fs::write(&file, said).unwrap();
        file.display().to_string()
    };
    let run = |shell: &str, text: &str| {
        let mut command = Command::new(shell);
        // No start-up files of whoever runs this.
        match shell {
            "bash" => command.args(["--norc", "--noprofile"]),
            "zsh" => command.arg("-f"),
            _ => command.arg("--no-config"),
        };
        command.env("PATH", &path).env("HOME", daemon.path());
        command.env("DOCKER_HOST", format!("unix://{}", daemon.socket().display()));
        words(&command.args(["-c", text]).output().unwrap())
    };
    let lines =
        [("container r", "restart"), ("run --secr", "--secret"), ("rm comp", "completed"), ("rm --dry", "--dry-run")];
    if has("bash") {
        let file = script("bash");
        for (line, want) in lines {
            let found = run(
                "bash",
                &format!(
                    "source {file}; COMP_WORDS=(wharf {line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                 compopt() {{ :; }}; _wharf; printf '%s\\n' \"${{COMPREPLY[@]}}\""
                ),
            );
            assert!(found.iter().any(|word| word == want), "bash: {line}: {found:?}");
        }
    }
    if has("zsh") {
        let file = script("zsh");
        for (line, want) in lines {
            let found = run(
                "zsh",
                &format!(
                    "compdef() {{ : }}; compadd() {{ shift; print -l -- ${{(P)1}} }}; _files() {{ : }}; source {file}; \
                 words=(wharf {line}); CURRENT=${{#words}}; _wharf"
                ),
            );
            assert!(found.iter().any(|word| word == want), "zsh: {line}: {found:?}");
        }
    }
    if has("fish") {
        let file = script("fish");
        for (line, want) in lines {
            let found = run("fish", &format!("source {file}; complete -C 'wharf {line}'"));
            assert!(found.iter().any(|word| word == want), "fish: {line}: {found:?}");
        }
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
