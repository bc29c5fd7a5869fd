//! The same input is the same image, on every host and without an option.

use std::path::Path;
use std::process::Command;

use crate::build_inputs::{context, wharf};
use crate::kit::Daemon;

const DOCKERFILE: &str = "FROM base AS made\nRUN mkdir -p /a/b && echo x > /a/b/c && ln -s c /a/b/l\nRUN rm /a/b/l; chmod 700 /a/b/c\n\
    FROM base\nARG WHO=nobody\nENV A=$WHO\nWORKDIR /srv/app\nCOPY . .\nCOPY <<EOF /made\nhere\nEOF\n\
    COPY --from=made /a /a\nCOPY --link src/main /linked/\nRUN --mount=type=bind,source=src,target=/m cp -p /m/main /own && echo y >> /a/b/c\nCMD [\"sh\"]\n";

/// Two engines with the same base image.
fn two() -> Option<(Daemon, Daemon)> {
    let (one, other) = (Daemon::start()?, Daemon::start()?);
    one.docker("tag busybox base").ok();
    let archive = one.path().join("base.tar").display().to_string();
    one.docker(&format!("save -o {archive} base")).ok();
    other.docker(&format!("load -i {archive}")).ok();
    Some((one, other))
}

fn id(d: &Daemon, dir: &Path, words: &str) -> String {
    let path = d.path().join("iid");
    let said = wharf(d, dir, &format!("build {words} --iidfile {} .", path.display()));
    assert!(said.code == 0, "{}{}", said.out, said.err);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn on_two_hosts_and_without_a_cache() {
    let Some((one, other)) = two() else { return };
    let dir = context(&one, "main", &[("Dockerfile", DOCKERFILE), ("src/main", "1"), ("src/more/deep", "2")]);
    let first = id(&one, &dir, "-t app");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for options in ["-t app", "--no-cache", "--no-cache --progress rawjson", "--provenance=false --sbom=false"] {
        for d in [&one, &other] {
            assert_eq!(id(d, &dir, options), first, "{options}");
        }
    }
    // And so are archives of it, and of its files.
    for output in ["type=oci", "type=docker", "type=tar", "type=oci,compression=zstd"] {
        let archive = |d: &Daemon| {
            let path = d.path().join("out");
            wharf(d, &dir, &format!("build --no-cache -o {output},dest={} .", path.display())).ok();
            std::fs::read(path).unwrap()
        };
        assert!(archive(&one) == archive(&other), "{output}");
    }
    // It was made now, whatever the age of what is in it.
    let made = one.docker("images --format {{.CreatedSince}} app").ok();
    assert!(made.contains("second"), "{made}");
    assert_eq!(one.docker("images -q --filter until=1h app").ok(), "");
    let said = wharf(&other, &dir, "build -q --verify app .");
    assert!(said.code == 0 && said.out.contains("byte for byte"), "{}{}", said.out, said.err);
    // What is edited is what it would be without a cache.
    std::fs::write(dir.join("src/more/deep"), "edited").unwrap();
    let edited = id(&one, &dir, "-t edited");
    assert_eq!(edited, id(&other, &dir, "--no-cache"));
    assert!(edited != first);
    // What is touched is another input, but not one that has anything made again.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    std::fs::write(dir.join("src/main"), "1").unwrap();
    assert_eq!(id(&one, &dir, ""), edited);
}

#[test]
fn of_two_checkouts() {
    let Some((one, other)) = two() else { return };
    if Command::new("git").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no git");
    }
    let origin = context(&one, "origin", &[("Dockerfile", DOCKERFILE), ("src/main", "1"), ("src/more/deep", "2")]);
    let git = |dir: &Path, words: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(dir).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(words);
        let said = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    };
    git(&origin, &["init", "-q", "-b", "main"]);
    git(&origin, &["add", "-A"]);
    git(&origin, &["commit", "-q", "-m", "1"]);
    let mut ids = Vec::new();
    for d in [&one, &other] {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let clone = d.path().join("clone");
        git(d.path(), &["clone", "-q", &origin.display().to_string(), "clone"]);
        std::fs::write(clone.join(".dockerignore"), ".git\n.dockerignore\n").unwrap();
        ids.push(id(d, &clone, "-t app"));
    }
    assert_eq!(ids[0], ids[1]);
    // Who works there finds when a file was really written, to the parts of a second, so that what compares times does its work.
    let stat = one.docker("run --rm app stat -c %y /srv/app/src/main").ok();
    let written =
        std::os::unix::fs::MetadataExt::mtime_nsec(&std::fs::metadata(one.path().join("clone/src/main")).unwrap());
    assert!(stat.contains(&format!(".{written:09} ")), "{stat}: {written}");
}
