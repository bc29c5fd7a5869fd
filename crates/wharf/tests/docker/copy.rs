//! Files copied into containers and out of them.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::kit::{Daemon, Said};

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_end_of_a_path_has_a_meaning() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name from busybox sleep 100").ok();
    let script = "mkdir -p /dir/sub; echo hi >/dir/file; ln -s /dir /link; ln -s /gone /dangling";
    d.client().args(["exec", "from", "sh", "-c", script]).output().unwrap();
    let out = d.path().join("out");
    std::fs::create_dir(&out).unwrap();
    d.docker(&format!("cp from:/dir/. {}", out.display())).ok();
    assert_eq!(names(&out), ["file", "sub"]);
    d.docker(&format!("cp from:/dir {}", out.display())).ok();
    assert_eq!(names(&out.join("dir")), ["file", "sub"]);
    d.docker(&format!("cp from:/link/ {}", out.join("followed").display())).ok();
    assert_eq!(names(&out.join("followed")), ["file", "sub"]);
    let dangling = d.docker(&format!("cp from:/dangling/ {}", out.display()));
    assert!(dangling.code == 1 && dangling.err.contains("Could not find the file /dangling/"), "{}", dangling.err);
    let listed = d.client().args(["cp", "from:/dir/.", "-"]).output().unwrap();
    let archive = d.path().join("archive");
    std::fs::write(&archive, listed.stdout).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "./\n./file\n./sub/\n");
}

#[test]
fn owners_are_kept_or_the_user_s() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name root busybox sleep 100").ok();
    d.docker("run -d --name web -u web busybox sleep 100").ok();
    let file = d.path().join("file");
    std::fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(1000), Some(1001)).unwrap();
    symlink("file", d.path().join("link")).unwrap();
    let owner = |container: &str, path: &str| d.docker(&format!("exec {container} stat -c %u:%g {path}")).ok();
    let file = file.display();
    d.docker(&format!("cp {file} root:/one")).ok();
    assert_eq!(owner("root", "/one"), "1000:1001");
    d.docker(&format!("cp {file} web:/tmp/one")).ok();
    assert_eq!(owner("web", "/tmp/one"), "1000:1001");
    d.docker(&format!("cp -a {file} web:/tmp/two")).ok();
    assert_eq!(owner("web", "/tmp/two"), "33:33");
}

/// Docker's usual way to fill a volume: a container that never runs.
#[test]
fn volumes_of_a_container_that_does_not_run_are_written_to() {
    let Some(d) = Daemon::start() else { return };
    let volume = |name: &str| d.data().join("volumes").join(name).join("_data");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| format!("{path:?}: {e}"));
    let (bind, single) = (d.path().join("bind"), d.path().join("single"));
    std::fs::create_dir(&bind).unwrap();
    std::fs::write(&single, "old").unwrap();
    let tree = d.path().join("tree");
    for dir in ["data/inner", "etc"] {
        std::fs::create_dir_all(tree.join(dir)).unwrap();
    }
    std::fs::write(tree.join("file"), "new").unwrap();
    std::fs::write(tree.join("data/one"), "one").unwrap();
    std::fs::write(tree.join("data/inner/two"), "two").unwrap();
    std::fs::write(tree.join("etc/three"), "three").unwrap();
    let binds = format!("-v {}:/bind -v {}:/single", bind.display(), single.display());
    let volumes = "-v data:/data -v inner:/data/inner -v fixed:/fixed:ro";
    d.docker("volume create -o type=tmpfs -o device=tmpfs memory").ok();
    d.docker(&format!("create --name fill {volumes} {binds} -v memory:/m busybox sleep 100")).ok();
    let (tree, file) = (tree.display(), tree.join("file"));
    let file = file.display();
    for target in ["/data/file", "/data/inner/", "/bind/", "/m/"] {
        d.docker(&format!("cp {file} fill:{target}")).ok();
    }
    d.docker(&format!("cp {tree}/. fill:/")).ok();
    let all = ["data/file", "data/one", "inner/file", "inner/two"].map(|path| {
        let (name, file) = path.split_once('/').unwrap();
        read(volume(name).join(file))
    });
    assert_eq!(all, ["new", "one", "new", "two"]);
    assert_eq!((read(bind.join("file")), names(&volume("data"))), ("new".into(), words("file inner one")));
    assert!(names(&volume("data").join("inner")).is_empty() && names(&volume("memory")).is_empty());
    let refused = d.docker(&format!("cp {file} fill:/fixed/"));
    assert!(refused.code == 1 && refused.err.contains("mounted volume is marked read-only"), "{}", refused.err);
    let changes = d.docker("diff fill").ok();
    assert!(changes.contains("/etc/three") && !changes.contains("/data/") && !changes.contains("/bind/"), "{changes}");
    // Out again; the stat of a path in a volume is the volume's.
    let out = d.path().join("out");
    d.docker(&format!("cp fill:/data/. {}", out.display())).ok();
    assert_eq!((names(&out), names(&out.join("inner"))), (words("file inner one"), words("file two")));
    let listed = |words: &[&str]| {
        let archive = d.path().join("archive");
        std::fs::write(&archive, d.client().args(words).output().unwrap().stdout).unwrap();
        let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    };
    assert_eq!(listed(&["cp", "fill:/data/inner/two", "-"]), "two\n");
    let exported = listed(&["export", "fill"]);
    assert!(exported.contains("etc/three\n") && exported.contains("data/\n") && !exported.contains("data/one"));
    // It runs with what was written, and keeps it when it has ended.
    d.docker("start fill").ok();
    assert_eq!(d.docker("exec fill cat /data/file /data/inner/two /bind/file /etc/three").ok(), "newtwonewthree");
    d.docker("exec fill cp /data/one /data/run").ok();
    d.docker("kill fill").ok();
    d.docker("wait fill").ok();
    d.docker(&format!("cp fill:/data/run {}", d.path().join("came").display())).ok();
    d.docker(&format!("cp {file} fill:/data/inner/late")).ok();
    assert_eq!((read(d.path().join("came")), read(volume("inner").join("late"))), ("one".into(), "new".into()));
    // What the host does not have any more is named, and what is beside it is there.
    std::fs::remove_dir_all(&bind).unwrap();
    let gone = d.docker(&format!("cp {file} fill:/bind/file"));
    assert!(gone.code == 1 && gone.err.contains(&*bind.to_string_lossy()), "{}", gone.err);
    d.docker(&format!("cp {file} fill:/beside")).ok();
    d.docker("rm -v fill").ok();
    d.docker("volume rm data inner fixed memory").ok();
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A client that began a copy from its standard input and sends no more.
struct Stalled(std::process::Child);

impl Stalled {
    fn begin(d: &Daemon, container: &str) -> Self {
        let source = d.path().join("stalled");
        std::fs::create_dir_all(&source).unwrap();
        std::fs::write(source.join(container), "x").unwrap();
        let archive =
            std::process::Command::new("tar").arg("-C").arg(&source).args(["-c", container]).output().unwrap();
        let mut client = d.client();
        client.args(["cp", "-", &format!("{container}:/")]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        // All but its end.
        client.stdin.as_mut().unwrap().write_all(&archive.stdout[..1024]).unwrap();
        let containers = d.data().join("containers");
        let came = || {
            let mut all = std::fs::read_dir(&containers).unwrap().map(|entry| entry.unwrap().path());
            all.any(|dir| dir.join("upper").join(container).exists())
        };
        d.eventually("its first file is there", came);
        Self(client)
    }

    /// What it says when it is given up.
    fn end(mut self) -> String {
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!self.0.wait().unwrap().success(), "it says that all was copied");
        said
    }
}

#[test]
fn a_client_that_sends_nothing_more_holds_up_nobody_for_long() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name busy busybox sleep 1000").ok();
    d.docker("create --name resting busybox true").ok();
    d.docker("create --name other busybox true").ok();
    let (busy, resting) = (Stalled::begin(&d, "busy"), Stalled::begin(&d, "resting"));
    d.docker("kill busy").ok();
    let said = busy.end();
    assert!(said.contains("container busy has ended while files were copied into it"), "{said}");
    // A prune takes what it can have at once.
    d.docker("container prune -f").ok();
    assert_eq!(d.docker("ps -a --format {{.Names}}").ok(), "resting");
    d.docker("rm resting").ok();
    let said = resting.end();
    assert!(said.contains("the copy into container resting is given up: nothing has come for"), "{said}");
}

/// Docker makes it with the container.
#[test]
fn the_working_directory_is_there_before_the_first_start() {
    let Some(d) = Daemon::start() else { return };
    d.docker("create --name new -w /made/for/it busybox true").ok();
    let out = d.path().join("out");
    d.docker(&format!("cp new:/made/for/it {}", out.display())).ok();
    assert!(out.is_dir());
    d.docker("commit new with").ok();
    assert_eq!(d.docker("run --rm with stat -c %u:%g:%a /made/for/it").ok(), "0:0:755");
    let refused = d.docker("create -w /etc/passwd busybox true");
    assert!(refused.err.contains("Cannot mkdir: /etc/passwd is not a directory"), "{}", refused.err);
    let beneath = d.docker("create -w /etc/passwd/x busybox true");
    assert!(beneath.err.contains("mkdir /etc/passwd/x: ") && beneath.code != 0, "{}", beneath.err);
    // Two failed: their names and directories are given back.
    assert_eq!(d.docker("ps -aq").ok().lines().count(), 1);
}

#[test]
fn what_is_mounted_is_not_copied_over() {
    let Some(d) = Daemon::start() else { return };
    let (bound, other) = (d.path().join("bound"), d.path().join("key"));
    std::fs::write(&bound, "bound").unwrap();
    std::fs::write(&other, "other").unwrap();
    let (bound, other) = (bound.display(), other.display());
    let options = format!("--secret id=a,src={bound},target=/etc/app/key -v {bound}:/etc/app/bound");
    d.wharf(&format!("run -d --name box {options} busybox sleep 1000")).ok();
    let own = d.docker("exec box cat /etc/hosts").ok();
    for state in ["runs", "has ended"] {
        // The kernel would take the mounts away, and the container see what was copied, until its next start.
        for place in ["/etc/app/key", "/etc/app/bound", "/etc/hosts"] {
            let said = d.docker(&format!("cp {other} box:{place}"));
            let words = "device or resource busy";
            assert!(said.code == 1 && said.err.contains(words), "{state} {place}: {} {}", said.code, said.err);
        }
        d.docker(&format!("cp {other} box:/etc/app/beside")).ok();
        if state == "runs" {
            assert_eq!(d.docker("exec box cat /etc/app/key /etc/app/bound").ok(), "boundbound");
            assert_eq!(d.docker("exec box cat /etc/hosts").ok(), own);
            d.docker("kill box").ok();
        }
    }
    assert_eq!(std::fs::read_to_string(d.path().join("bound")).unwrap(), "bound");
}

/// Docker takes the directory for where things go, and nothing that is in the archive for what it is.
#[test]
fn the_directory_that_is_copied_into_stays_as_it_is() {
    let Some(d) = Daemon::start() else { return };
    let from = d.path().join("from");
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("file"), "x").unwrap();
    let mode = |path: &std::path::Path, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&from, 0o700);
    std::os::unix::fs::chown(&from, Some(1000), Some(1000)).unwrap();
    d.docker("run -d --name box busybox sleep 1000").ok();
    d.docker("exec box sh -c mkdir${IFS}-p${IFS}/t;chmod${IFS}1777${IFS}/t").ok();
    for archive in ["", "-a "] {
        d.docker(&format!("cp {archive}{}/. box:/t", from.display())).ok();
        assert_eq!(d.docker("exec box stat -c %a:%u:%g /t").ok(), "1777:0:0");
    }
    let tar = std::process::Command::new("tar").arg("-C").arg(&from).args(["-c", "."]).output().unwrap().stdout;
    std::fs::write(d.path().join("tar"), tar).unwrap();
    let tar = std::fs::File::open(d.path().join("tar")).unwrap();
    Said::from(d.client().args(["cp", "-", "box:/t"]).stdin(tar).output().unwrap()).ok();
    assert_eq!(d.docker("exec box stat -c %a:%u:%g /t").ok(), "1777:0:0");
    assert_eq!(d.docker("exec box cat /t/file").ok(), "x");
}

#[test]
fn links_out_of_the_directory_lead_to_where_they_do_in_the_container() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name box busybox sleep 1000").ok();
    let script =
        "mkdir -p /real /place; ln -s /real /place/abs; ln -s ../real /place/up; ln -s ../../../../tmp /place/out";
    Said::from(d.client().args(["exec", "box", "sh", "-c", script]).output().unwrap()).ok();
    let from = d.path().join("from");
    for dir in ["abs", "up", "out"] {
        std::fs::create_dir_all(from.join(dir)).unwrap();
        std::fs::write(from.join(dir).join(format!("by-{dir}")), "x").unwrap();
    }
    std::fs::hard_link(from.join("abs/by-abs"), from.join("abs/linked")).unwrap();
    let files = ["abs/by-abs", "abs/linked", "up/by-up", "out/by-out"];
    let tar = std::process::Command::new("tar").arg("-C").arg(&from).arg("-c").args(files).output().unwrap().stdout;
    for state in ["runs", "has ended"] {
        std::fs::write(d.path().join("tar"), &tar).unwrap();
        let tar = std::fs::File::open(d.path().join("tar")).unwrap();
        Said::from(d.client().args(["cp", "-", "box:/place"]).stdin(tar).output().unwrap()).ok();
        let seen = d.path().join("seen");
        d.docker(&format!("cp box:/real {}", seen.display())).ok();
        let mut names: Vec<String> =
            seen.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["by-abs", "by-up", "linked"], "{state}");
        std::fs::remove_dir_all(&seen).unwrap();
        // Not the host's.
        assert!(!std::path::Path::new("/tmp/by-out").exists() && !std::path::Path::new("/real").exists());
        d.docker("kill box");
    }
}
