//! Files copied into containers and out of them.

use std::os::unix::fs::symlink;

use crate::kit::Daemon;

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
