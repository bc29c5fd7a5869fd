//! `--secret`: files in a container whose content is in nothing that is persisted, told or shown.

use std::path::Path;
use std::process::Command;

use crate::kit::{Daemon, Said, WHARF};

const CONTENT: &str = "tr0ub4dor-and-3";

/// Our own client, with the secret in a file and in its environment.
fn wharf(daemon: &Daemon, words: &[&str]) -> Said {
    let file = daemon.path().join("secret");
    std::fs::write(&file, format!("{CONTENT}-file")).unwrap();
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", daemon.socket().display()));
    command.env("DOCKER_CONFIG", daemon.path().join("config")).env("TOKEN", format!("{CONTENT}-variable"));
    let words = words.iter().map(|word| word.replace("FILE", &file.display().to_string()));
    command.args(words).stdin(std::process::Stdio::null()).output().unwrap().into()
}

/// Files below a directory that have the content in them.
fn files_with_content(dir: &Path) -> Vec<String> {
    let found = Command::new("grep").args(["-rlF", "--binary-files=text", CONTENT]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_secret_is_a_file_that_nobody_is_told_of() {
    let Some(mut daemon) = Daemon::start() else { return };
    let secrets = daemon.path().join("run/secrets");
    let flags = [
        "--secret",
        "id=file,src=FILE,mode=0440,uid=33,gid=33",
        "--secret",
        "id=TOKEN,env=TOKEN,target=sub/token",
        "--secret",
        "id=other,env=TOKEN,target=/etc/app/key,mode=0400",
    ];
    let run = |name: &str, more: &[&str], command: &[&str]| {
        wharf(&daemon, &[&["run", "--name", name][..], more, &flags, &["busybox"], command].concat())
    };
    let script = "stat -c '%a %u %g %n' /run/secrets /run/secrets/file /run/secrets/sub/token /etc/app/key
                  cat /run/secrets/file; echo; cat /run/secrets/sub/token; echo; cat /etc/app/key; echo
                  grep -E ' (/run/secrets|/etc/app/key) ' /proc/mounts | cut -d' ' -f2-4
                  for path in /run/secrets/file /run/secrets/new /etc/app/key; do echo x > $path; done
                  env; cat /proc/1/cmdline";
    let said = run("first", &["--rm"], &["sh", "-c", script]);
    for line in [
        "755 0 0 /run/secrets",
        "440 33 33 /run/secrets/file",
        "444 0 0 /run/secrets/sub/token",
        "400 0 0 /etc/app/key",
        "tr0ub4dor-and-3-file",
        "/run/secrets tmpfs ro,nosuid,nodev,noexec",
        "/etc/app/key tmpfs ro,nosuid,nodev,noexec",
    ] {
        assert!(said.out.contains(line), "{line}\n{}\n{}", said.out, said.err);
    }
    assert_eq!(said.out.matches("tr0ub4dor-and-3-variable").count(), 2, "{}", said.out);
    assert_eq!(said.err.matches("Read-only file system").count(), 3, "{}", said.err);
    // With the container goes the secret.
    assert_eq!(files_with_content(&daemon.path().join("run")), Vec::<String>::new());

    // With a user namespace of its own the owners are its own, too.
    let said = run(
        "userns",
        &["--rm", "--userns", "auto"],
        &["sh", "-c", "id -u; cat /etc/app/key; echo; stat -c %u /run/secrets/file"],
    );
    assert_eq!(said.ok(), "0\ntr0ub4dor-and-3-variable\n33");

    run("kept", &["-d", "--log-driver", "json-file"], &["sleep", "1000"]).ok();
    let read = |daemon: &Daemon| daemon.docker("exec kept cat /run/secrets/file").ok();
    // Another start, a monitor's own, and one under another daemon.
    daemon.docker("restart -t 0 kept").ok();
    assert_eq!(read(&daemon), "tr0ub4dor-and-3-file");
    daemon.kill();
    daemon.launch();
    assert_eq!(read(&daemon), "tr0ub4dor-and-3-file");
    daemon.docker("stop -t 0 kept").ok();
    daemon.stop();
    daemon.launch();
    daemon.docker("start kept").ok();
    assert_eq!(read(&daemon), "tr0ub4dor-and-3-file");
    assert_eq!(daemon.docker("cp kept:/run/secrets/file -").ok().matches(CONTENT).count(), 1);

    // Nothing has it but the files in memory.
    let commit = daemon.docker("commit kept committed");
    assert!(commit.ok().starts_with("sha256:"));
    let image = daemon.path().join("image.tar");
    daemon.docker(&format!("save -o {} committed", image.display())).ok();
    daemon.docker(&format!("export -o {} kept", daemon.path().join("export.tar").display())).ok();
    let shown = ["inspect kept", "logs kept", "diff kept", "events --since 1h --until 0s", "inspect committed"];
    for command in shown.map(|words| (words, daemon.docker(words))) {
        assert!(!(command.1.out + &command.1.err).contains(CONTENT), "{}", command.0);
    }
    let base64 = "dHIwdWI0ZG9yLWFuZC0z";
    assert!(!daemon.docker("inspect kept").ok().contains(base64));
    let as_run = daemon.wharf("inspect --as run kept").ok();
    assert!(as_run.contains("--secret id=file,mode=0440,uid=33,gid=33"), "{as_run}");
    std::fs::remove_file(daemon.path().join("secret")).unwrap();
    let outside: Vec<String> =
        files_with_content(daemon.path()).into_iter().filter(|path| !Path::new(path).starts_with(&secrets)).collect();
    assert_eq!(outside, Vec::<String>::new());
    assert_eq!(rustix::fs::stat(secrets.as_path()).unwrap().st_mode & 0o777, 0o700);
    let in_memory = Command::new("stat").args(["-f", "-c", "%T"]).arg(&secrets).output().unwrap();
    assert_eq!(Said::from(in_memory).ok(), "tmpfs");

    // A new start of the host: what was in memory is gone, and that is said.
    daemon.docker("stop -t 0 kept").ok();
    daemon.stop();
    assert!(Command::new("umount").arg(&secrets).status().unwrap().success());
    daemon.launch();
    let start = daemon.docker("start kept");
    assert!(start.code == 1 && start.err.contains("the secret file of container kept is gone"), "{}", start.err);
    daemon.docker("rm kept").ok();
}

#[test]
fn what_is_no_secret_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    for (flag, words) in [
        ("id=a,env=NOT_SET", "the environment variable NOT_SET is not set"),
        ("id=a,src=/nowhere", "open /nowhere: no such file or directory"),
        ("id=a,src=/dev/zero", "500 KiB"),
        ("src=FILE", "a secret needs an id"),
        ("id=a,env=TOKEN,target=../x", "its target may have no '..'"),
        ("id=a,env=TOKEN,target=/proc/x", "it cannot be at /proc/x"),
        ("id=a,env=TOKEN,target=/taken", "/taken is mounted where secrets are"),
    ] {
        let said = wharf(&daemon, &["run", "--rm", "-v", "/taken", "--secret", flag, "busybox", "true"]);
        assert!(said.code == 125 && said.err.contains(words) && !said.err.contains(CONTENT), "{flag}: {}", said.err);
    }
    for (body, words) in [
        (r#"{"Image":"busybox","Cmd":["true"],"SecretData":{"a":"not base64"}}"#, "it must be base64"),
        (r#"{"Image":"busybox","Cmd":["true"],"SecretData":{"a":"YQ=="}}"#, "none of HostConfig.Secrets"),
        (r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Secrets":[{"ID":"a"}]}}"#, "its content is missing"),
    ] {
        let (status, answer) = daemon.post("/containers/create", body, true).unwrap();
        assert!(status == 400 && answer.contains(words), "{answer}");
    }
    assert_eq!(daemon.docker("ps -aq").ok(), "");
    assert!(
        !daemon.path().join("run/secrets").exists()
            || files_with_content(&daemon.path().join("run/secrets")).is_empty()
    );
}

/// A start that fails ends whoever is attached to it.
#[test]
fn an_owner_that_the_container_has_not_is_refused() {
    let Some(daemon) = Daemon::start() else { return };
    let run = |more: &[&str], owner: &str| {
        let secret = format!("id=a,src=FILE,{owner}");
        wharf(&daemon, &[&["run", "--rm"][..], more, &["--secret", &secret, "busybox", "true"]].concat())
    };
    let nobody = run(&[], "uid=4294967295");
    assert!(nobody.code == 125 && nobody.err.contains("nobody's ID"), "{} {}", nobody.code, nobody.err);
    let outside = run(&["--userns", "auto"], "gid=4294967294");
    assert!(outside.code == 125 && outside.err.contains("and not 4294967294"), "{} {}", outside.code, outside.err);
    assert_eq!(daemon.docker("ps -aq").ok(), "");
}
