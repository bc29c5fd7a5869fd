//! Images of several platforms, through the daemon: listed, run, saved and pushed, with other tools at the other end.

use std::process::Command;

use serde_json::Value;

use crate::kit::{Daemon, Said};
use crate::ship::Registry;

/// A platform that no test runs on, whose programs this host cannot start.
const OTHER: &str = "linux/s390x";

/// Has `REGISTRY/app:1` for this host and another platform in the registry, and nothing of it here.
fn shelve(d: &Daemon, at: &str) -> String {
    let tar = d.path().join("busybox.tar");
    let name = format!("{at}/app");
    d.wharf(&format!("import {} {name}:own", tar.display())).ok();
    d.wharf(&format!("import --platform {OTHER} {} {name}:other", tar.display())).ok();
    for tag in ["own", "other"] {
        d.docker(&format!("push -q {name}:{tag}")).ok();
    }
    d.wharf(&format!("manifest create {name}:1 {name}:own {name}:other")).ok();
    d.wharf(&format!("manifest push --purge {name}:1")).ok();
    d.docker(&format!("rmi {name}:own {name}:other")).ok();
    format!("{name}:1")
}

fn json(said: Said) -> Value {
    serde_json::from_str(&said.ok()).unwrap()
}

#[test]
fn a_foreign_platform_lies_beside_the_host_s() {
    let Some(mut d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let name = shelve(&d, &registry.address);
    d.wharf(&format!("pull -q {name}")).ok();
    let own = d.docker(&format!("images -q --no-trunc {name}")).ok();
    d.wharf(&format!("pull -q --platform {OTHER} {name}")).ok();
    assert_eq!(d.docker(&format!("images -q --no-trunc {name}")).ok(), own, "the name means this host's");
    assert_eq!(d.docker("images -q").ok().lines().count(), 2, "one line for each name");
    assert_eq!(d.docker(&format!("run --rm {name} echo runs")).ok(), "runs");

    let shown = d.get("/v1.51/images/json?manifests=1");
    let line = shown.as_array().unwrap().iter().find(|one| one["RepoTags"][0] == name.as_str()).unwrap();
    let manifests = line["Manifests"].as_array().unwrap();
    assert_eq!(line["Descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(manifests.len(), 2, "{manifests:#?}");
    // As the list was pushed.
    for (manifest, architecture) in manifests.iter().zip(["s390x".to_owned(), wharf_architecture()]) {
        assert_eq!((&manifest["Available"], &manifest["Kind"]), (&Value::Bool(true), &Value::from("image")));
        assert_eq!(manifest["ImageData"]["Platform"]["architecture"], architecture.as_str());
        assert!(
            manifest["Size"]["Total"].as_u64().unwrap() > manifest["ImageData"]["Size"]["Unpacked"].as_u64().unwrap()
        );
    }
    let total: u64 = manifests.iter().map(|manifest| manifest["Size"]["Total"].as_u64().unwrap()).sum();
    assert_eq!(line["Size"], total);
    let inspected = d.get(&format!("/v1.51/images/{name}/json?manifests=1"));
    assert_eq!((&inspected["Id"], &inspected["Manifests"]), (&Value::from(own.clone()), &line["Manifests"]));
    let other = json(d.wharf(&format!("image inspect --platform {OTHER} {name}")));
    assert_eq!(
        (&other[0]["Architecture"], &other[0]["RepoTags"][0]),
        (&Value::from("s390x"), &Value::from(name.clone()))
    );
    assert_ne!(other[0]["Id"], own.as_str());
    let conflict = d.get(
        &format!("/v1.51/images/{name}/json?manifests=1&platform={{\"os\":\"linux\",\"architecture\":\"s390x\"}}")
            .replace('"', "%22"),
    );
    assert_eq!(conflict["message"], "conflicting options: manifests and platform options cannot both be set");
    assert!(d.wharf(&format!("history --platform {OTHER} {name}")).ok().contains("Imported from -"));
    let none = d.wharf(&format!("history --platform linux/riscv64 {name}"));
    assert!(
        none.code == 1 && none.err.contains("does not provide the specified platform (linux/riscv64)"),
        "{}",
        none.err
    );
    let tree = d.wharf("images --tree").ok();
    let at = tree.lines().position(|line| line.starts_with(&name)).unwrap();
    let below: Vec<&str> = tree.lines().skip(at + 1).take(2).collect();
    assert!(below[0].starts_with(&format!("├─ {OTHER}")) && below[1].starts_with("└─ linux/"), "{tree}");
    let alone = d.wharf("images --tree -q");
    assert_eq!((alone.code, alone.err.trim()), (1, "--quiet is not yet supported with --tree"));

    // A container of the other platform is its own image's, and keeps the name.
    d.wharf(&format!("create --name foreign --platform {OTHER} {name} true")).ok();
    assert_eq!(d.docker("inspect -f {{.Image}} foreign").ok(), other[0]["Id"].as_str().unwrap());
    assert_eq!(d.docker("ps -a --format {{.Image}}").ok(), name);
    let kept = d.wharf(&format!("rmi {name}"));
    assert!(kept.code == 1 && kept.err.contains("(must force) - container "), "{}", kept.err);
    let kept = d.wharf(&format!("rmi --platform {OTHER} {name}"));
    assert!(kept.code == 1 && kept.err.contains("image is being used by stopped container"), "{}", kept.err);
    d.docker("rm foreign").ok();
    let missing = d.wharf(&format!("create --pull never --platform linux/riscv64 {name} true"));
    assert!(missing.code != 0 && missing.err.contains("does not provide the specified platform"), "{}", missing.err);
    d.kill();
    d.launch();
    d.wharf("system fsck").ok();
    let gone = d.wharf(&format!("rmi --platform {OTHER} {name}")).ok();
    assert_eq!(gone, format!("Deleted: {}", other[0]["Id"].as_str().unwrap()));
    assert_eq!(d.docker(&format!("run --rm {name} echo runs")).ok(), "runs");
    d.docker(&format!("rmi {name}")).ok();
    d.wharf("system fsck").ok();
}

fn wharf_architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

#[test]
fn archives_and_registries_have_all_platforms() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let name = shelve(&d, &registry.address);
    d.wharf(&format!("pull -q {name}")).ok();
    d.wharf(&format!("pull -q --platform {OTHER} {name}")).ok();
    let archive = d.path().join("both.tar");
    d.wharf(&format!("save -o {} {name}", archive.display())).ok();
    let own = format!("linux/{}", wharf_architecture());
    let single = d.path().join("single.tar");
    d.wharf(&format!("save -o {} --platform {OTHER} {name}", single.display())).ok();
    let twice = d.path().join("twice.tar");
    d.wharf(&format!("save -o {} --platform {OTHER} --platform {own} {name}", twice.display())).ok();
    let none = d.wharf(&format!("save -o {} --platform linux/riscv64 {name}", d.path().join("no").display()));
    assert!(none.code == 1 && none.err.contains("does not provide the specified platform"), "{}", none.err);
    // To another repository, and back from there.
    let copy = format!("{}/copy:1", registry.address);
    d.docker(&format!("tag {name} {copy}")).ok();
    d.docker(&format!("push -q {copy}")).ok();
    d.wharf(&format!("push -q --platform {OTHER} {copy}")).ok();
    let remote = json(d.wharf(&format!("manifest inspect {copy}")));
    assert!(remote.get("layers").is_some(), "the one platform's manifest is what was pushed last: {remote}");
    d.docker(&format!("push -q {copy}")).ok();
    let remote = json(d.wharf(&format!("manifest inspect {copy}")));
    assert_eq!(remote["manifests"].as_array().unwrap().len(), 2);
    d.docker(&format!("rmi {name} {copy}")).ok();

    let architectures = || -> Vec<bool> {
        [&own, OTHER].map(|platform| d.wharf(&format!("image inspect --platform {platform} {name}")).code == 0).to_vec()
    };
    for (file, options, here) in [
        (&archive, "", [true, true]),
        (&single, "", [false, true]),
        (&twice, "", [true, true]),
        (&archive, "--platform linux/s390x", [false, true]),
        (&archive, &*format!("--platform {OTHER} --platform {own}"), [true, true]),
    ] {
        let said = d.wharf(&format!("load {options} -i {}", file.display())).ok();
        assert_eq!(said, format!("Loaded image: {name}"), "{options}");
        assert_eq!(architectures(), here, "{} {options}", file.display());
        d.docker(&format!("rmi {name}")).ok();
    }
    let none = d.wharf(&format!("load --platform linux/riscv64 -i {}", archive.display()));
    assert!(none.code == 1 && none.err.contains("requested platform(s) (linux/riscv64) not found"), "{}", none.err);
    // Others read it: all of the platforms, and the host's where they know one alone.
    if Command::new("skopeo").arg("--version").output().is_ok() {
        let mut inspect = Command::new("skopeo");
        inspect.args(["inspect", "--raw", &format!("oci-archive:{}:1", archive.display())]);
        let raw = json(inspect.output().unwrap().into());
        assert_eq!(raw["manifests"].as_array().unwrap().len(), 2);
        let to = format!("oci:{}:all", d.path().join("layout").display());
        let mut all = Command::new("skopeo");
        all.args(["copy", "--all", &format!("oci-archive:{}:1", archive.display()), &to]);
        Said::from(all.output().unwrap()).ok();
        // And the other way round.
        let tar = d.path().join("layout.tar");
        let tarred = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(d.path().join("layout")).arg(".").status();
        assert!(tarred.unwrap().success());
        let said = d.wharf(&format!("load -i {}", tar.display())).ok();
        assert_eq!(said.lines().filter(|line| line.starts_with("Loaded image ID: sha256:")).count(), 2, "{said}");
    } else {
        println!("skipped: there is no skopeo on this machine");
    }
}
