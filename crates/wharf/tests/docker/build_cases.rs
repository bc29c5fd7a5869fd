//! What Dockerfiles mean, case by case. What each makes is written down as BuildKit 0.25 makes it, and in a few cases as the
//! Dockerfile reference says it: an image's configuration and history, the files that are new or changed, those that must
//! not be there, or what is wrong.
//!
//! A case is a line of JSON in `build_cases/`: `dockerfile`, `files` (`->` begins a link's target, a name that ends with a
//! slash is a directory, a pair is content and mode), `args` and `env` of `build`; then `error`, or `output` and `code` of a
//! call that makes nothing, or `config` (what is not named is the base's), `history`, `made` and `gone`. A first line without
//! a Dockerfile has files that all cases have but those that are `alone`.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::kit::{Daemon, Said, WHARF};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    name: String,
    #[serde(default)]
    dockerfile: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, Content>,
    #[serde(default)]
    alone: bool,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    error: Option<String>,
    output: Option<String>,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    history: Vec<String>,
    /// Kind, mode and owner, and what a file contains or where a link leads.
    #[serde(default)]
    made: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    gone: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    WithMode(String, u32),
    Mode(u32),
}

/// What all cases are based on, as the image `bb`.
const BASE: &str = r#"FROM busybox
RUN mkdir -p /home /opt /var/data /usr/share/sub /proc /sys /dev && chmod 1777 /tmp && chmod 700 /root && \
    echo old > /opt/old && ln -s /var/data /lnk && ln -s ../var/data /etc/rel && echo x > /usr/share/sub/f && \
    printf 'root:x:0:0:root:/root:/bin/sh\nuser1:x:1000:1000::/home/user1:/bin/sh\nbin:x:2:2:bin:/bin:/bin/sh\n' \
    > /etc/passwd && printf 'root:x:0:\nuser1:x:1000:\ngrp1:x:2000:user1\nbin:x:2:\n' > /etc/group
ENV PATH=/bin:/usr/bin
CMD ["sh"]
"#;
/// One with triggers, and one whose trigger needs a stage of the build.
const TRIGGERS: &str = "FROM bb\nONBUILD RUN echo trig > /t\nONBUILD ENV x=y\nONBUILD COPY a /aa\nONBUILD ARG zz=1\n";
const NEEDY_TRIGGER: &str = "FROM bb\nONBUILD COPY --from=st /f /g\n";

fn wharf(d: &Daemon, dir: &Path, case: &Case, words: &[&str]) -> Said {
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(words).current_dir(dir);
    command.env("DOCKER_CONFIG", d.path().join("config")).envs(&case.env);
    command.stdin(Stdio::null()).output().unwrap().into()
}

fn put(dir: &Path, name: &str, content: &Content) {
    let path = dir.join(name);
    let (text, mode) = match content {
        Content::Mode(mode) => {
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            return;
        }
        Content::Text(text) => (text, None),
        Content::WithMode(text, mode) => (text, Some(*mode)),
    };
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if let Some(target) = text.strip_prefix("->") {
        std::os::unix::fs::symlink(target, path).unwrap();
        return;
    }
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode.unwrap_or(0o644))).unwrap();
}

/// A file as the cases write it down.
fn shown(path: &Path) -> Vec<String> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return vec!["nothing".into()] };
    let (owner, mode) = (format!("{}:{}", found.uid(), found.gid()), found.mode() & 0o7777);
    if found.is_symlink() {
        return vec![format!("l {owner}"), std::fs::read_link(path).unwrap().to_string_lossy().into_owned()];
    }
    match found.file_type() {
        kind if kind.is_dir() => vec![format!("d {mode:o} {owner}")],
        kind if kind.is_fifo() => vec![format!("p {mode:o} {owner}")],
        _ => {
            let content = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
            vec![format!("f {mode:o} {owner}"), content]
        }
    }
}

/// What is not as the case says.
fn differences(d: &Daemon, shared: &BTreeMap<String, Content>, case: &Case) -> Vec<String> {
    let dir = d.path().join("case");
    std::fs::create_dir(&dir).unwrap();
    shared.iter().filter(|_| !case.alone).for_each(|(name, content)| put(&dir, name, content));
    case.files.iter().for_each(|(name, content)| put(&dir, name, content));
    std::fs::write(dir.join("Dockerfile"), case.dockerfile.as_ref().unwrap()).unwrap();
    let out = d.path().join("made");
    std::fs::create_dir(&out).unwrap();
    let found = compare(d, case, &dir, &out);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::remove_dir_all(&out).unwrap();
    found.into_iter().map(|what| format!("{}: {what}", case.name)).collect()
}

fn compare(d: &Daemon, case: &Case, dir: &Path, out: &Path) -> Vec<String> {
    let args = case.args.iter().map(String::as_str);
    if let Some(output) = &case.output {
        let said = wharf(d, dir, case, &["build"].into_iter().chain(args).chain(["."]).collect::<Vec<_>>());
        let same = said.out.trim() == output.trim() && said.code == case.code;
        return if same { Vec::new() } else { vec![format!("{} {}{}", said.code, said.out, said.err)] };
    }
    let words = ["build", "-t", "case", "-o", "type=tar,dest=../made/made.tar"];
    let said = wharf(d, dir, case, &words.into_iter().chain(args).chain(["."]).collect::<Vec<_>>());
    if let Some(error) = &case.error {
        let told = said.code != 0 && said.err.contains(error);
        return if told { Vec::new() } else { vec![format!("not {error:?}: {} {}{}", said.code, said.out, said.err)] };
    }
    if said.code != 0 {
        return vec![format!("{}{}", said.out, said.err)];
    }
    let mut found = Vec::new();
    let about = d.get("/images/case/json");
    for (key, value) in about["Config"].as_object().unwrap() {
        let usual = match key.as_str() {
            "Env" => serde_json::json!(["PATH=/bin:/usr/bin"]),
            "Cmd" => serde_json::json!(["sh"]),
            "WorkingDir" if !case.config.contains_key(key) && value == "/" => continue,
            _ => Value::Null,
        };
        let wanted = case.config.get(key).unwrap_or(&usual);
        let nothing = |value: &Value| match value {
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            Value::String(text) => text.is_empty(),
            other => matches!(other, Value::Null | Value::Bool(_)),
        };
        if value != wanted && !(nothing(value) && nothing(wanted)) {
            found.push(format!("{key}: {value} and not {wanted}"));
        }
    }
    let missing = |(key, value): (&String, &Value)| !value.is_null() && about["Config"].get(key).is_none();
    found.extend(case.config.iter().filter(|pair| missing(*pair)).map(|(key, _)| format!("no {key}")));
    let history = d.get("/images/case/history");
    let mut lines: Vec<&str> =
        history.as_array().unwrap().iter().map(|one| one["CreatedBy"].as_str().unwrap()).collect();
    lines.truncate(case.history.len());
    lines.reverse();
    if lines != case.history {
        found.push(format!("history: {lines:#?} and not {:#?}", case.history));
    }
    let untar = Command::new("tar").args(["-xpf", "made.tar", "--numeric-owner"]).current_dir(out).status().unwrap();
    assert!(untar.success());
    for (path, wanted) in &case.made {
        let made = shown(&out.join(path));
        if made != *wanted {
            found.push(format!("/{path}: {made:?} and not {wanted:?}"));
        }
    }
    found.extend(case.gone.iter().filter(|path| out.join(path).is_symlink() || out.join(path).exists()).cloned());
    found
}

/// Runs all cases of a file; each is a line.
fn run(lines: &str) {
    let Some(d) = Daemon::start() else { return };
    let build = |name: &str, text: &str| {
        let dir = d.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("Dockerfile"), text).unwrap();
        d.wharf(&format!("build -q -t {name} {}", dir.display())).ok();
    };
    build("bb", BASE);
    build("onb", TRIGGERS);
    build("onbfrom", NEEDY_TRIGGER);
    let cases = lines.lines().map(|line| serde_json::from_str::<Case>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    let mut cases = cases.peekable();
    let shared = cases.next_if(|case| case.dockerfile.is_none()).map(|case| case.files).unwrap_or_default();
    let wrong: Vec<String> = cases.flat_map(|case| differences(&d, &shared, &case)).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn lines_and_heredocs() {
    run(include_str!("build_cases/lines.jsonl"));
}

#[test]
fn variables() {
    run(include_str!("build_cases/variables.jsonl"));
}

#[test]
fn instructions() {
    run(include_str!("build_cases/instructions.jsonl"));
}

#[test]
fn copies() {
    run(include_str!("build_cases/copies.jsonl"));
}

#[test]
fn mounts() {
    run(include_str!("build_cases/mounts.jsonl"));
}

#[test]
fn ignore_files() {
    run(include_str!("build_cases/ignore.jsonl"));
}

#[test]
fn checks_and_outlines() {
    run(include_str!("build_cases/checks.jsonl"));
}
