//! What is in the data root: accounted for, bounded, looked after.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::kit::{Daemon, Said};
use crate::ship::Registry;

/// The same of a data root without what tells of it and of what was done: it grows when it likes.
fn du_but_books(root: &Path) -> u64 {
    let blocks = |name: &&str| {
        let found = root.join(name).metadata();
        found.map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found) * 512)
    };
    du(root) - ["events.jsonl", "wharf.redb"].iter().map(blocks).sum::<u64>()
}

/// What du(1) says of a directory.
pub(crate) fn du(path: &Path) -> u64 {
    let said = Said::from(Command::new("du").args(["-s", "-x", "-B1"]).arg(path).output().unwrap());
    said.out.split_whitespace().next().unwrap().parse().unwrap()
}

fn owners(d: &Daemon) -> Value {
    serde_json::from_str(&d.wharf("system df --owners --exact --format json").ok()).unwrap()
}

/// The first layer of an image.
pub(crate) fn layer_of(d: &Daemon, image: &str) -> String {
    let mut client = d.client();
    Said::from(client.args(["inspect", "-f", "{{index .RootFS.Layers 0}}", image]).output().unwrap()).ok()
}

#[track_caller]
fn near(what: &str, one: u64, other: u64, percent: u64) {
    assert!(one.abs_diff(other) * 100 <= one.max(other) * percent, "{what}: {one} and {other}");
}

#[test]
fn every_byte_has_an_owner_and_their_sum_is_what_du_says() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let context = d.path().join("context");
    std::fs::create_dir_all(context.join("files")).unwrap();
    for number in 0..300usize {
        std::fs::write(context.join(format!("files/{number}")), vec![7; number * 40]).unwrap();
    }
    std::fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nCOPY files /files\nRUN dd if=/dev/urandom of=/z bs=1k count=3000\n",
    )
    .unwrap();
    let name = format!("{}/app:1", registry.address);
    d.docker(&format!("build -t {name} {}", context.display())).ok();
    d.docker(&format!("push {name}")).ok();
    d.docker(&format!("rmi {name}")).ok();
    d.docker("builder prune -af").ok();
    d.docker(&format!("pull {name}")).ok();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN dd if=/dev/urandom of=/cached bs=1k count=900\n")
        .unwrap();
    d.docker(&format!("build -t gone {}", context.display())).ok();
    d.docker("rmi gone").ok();
    let script = "i=0; while [ $i -lt 3000 ]; do echo a line of the log, number $i; i=$((i+1)); done; \
                  dd if=/dev/zero of=/written bs=1k count=5000 2>/dev/null";
    let run = |name: &str, volume: &str, script: &str| {
        let mut client = d.client();
        client.args(["run", "--name", name, "-v", volume, "busybox", "sh", "-c", script]);
        Said::from(client.output().unwrap())
    };
    run("writes", "one:/v", script).ok();
    run("fills", "two:/v", "dd if=/dev/zero of=/v/f bs=1k count=8000 2>/dev/null").ok();
    std::fs::write(d.data().join("note"), vec![1; 50_000]).unwrap();

    let accounts = owners(&d);
    let of = |key: &str| accounts[key].as_u64().unwrap_or_else(|| panic!("{key} in {accounts}"));
    near("the whole data root", of("Total"), du(&d.data()), 1);
    let layers: u64 =
        ["LayersShared", "LayersUnique", "LayersOfContainers", "LayersOfCache"].iter().map(|key| of(key)).sum();
    near("layers", layers, du(&d.data().join("layers")), 1);
    near("volumes", of("Volumes"), du(&d.data().join("volumes")), 1);
    let containers: u64 = ["ContainersWritten", "ContainersLogs", "ContainersFiles"].iter().map(|key| of(key)).sum();
    near("containers", containers, du(&d.data().join("containers")), 1);
    for (key, least) in [
        ("LayersShared", 1_000_000),
        ("LayersUnique", 3_000_000),
        ("LayersOfCache", 900_000),
        ("ContainersWritten", 5_000_000),
        ("ContainersLogs", 100_000),
        ("ContainersFiles", 4096),
        ("Volumes", 8_000_000),
        ("Blobs", 4096),
        ("Database", 4096),
        ("Reserve", 1_000_000),
        ("Strangers", 50_000),
    ] {
        assert!(of(key) >= least, "{key}: {accounts}");
    }
    // Docker's own client reads the same numbers, and the table has a line for each.
    let df = d.docker("system df -v").ok();
    assert!(df.contains("writes") && df.contains("two"), "{df}");
    let table = d.wharf("system df --owners --exact").ok();
    assert!(table.contains("Volumes") && table.lines().last().unwrap().starts_with("Total"), "{table}");
    d.docker("rm -f writes fills").ok();
    d.docker("volume rm one two").ok();
    std::fs::remove_file(d.data().join("note")).unwrap();
}

#[test]
fn what_a_prune_says_to_have_freed_is_free() {
    let Some(d) = Daemon::start() else { return };
    d.import("one", 3_000_000).ok();
    d.import("two", 2_000_000).ok();
    d.wharf("image pin one").ok();
    d.docker("run -d --name uses busybox true").ok();
    let before = du_but_books(&d.data());
    let said = d.post("/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", "", true).unwrap().1;
    let said: Value = serde_json::from_str(&said).unwrap();
    near("images", said["SpaceReclaimed"].as_u64().unwrap(), before - du_but_books(&d.data()), 1);
    assert_eq!(d.docker("images --format {{.Repository}}").ok().lines().collect::<Vec<_>>().len(), 2);
    assert_eq!(d.wharf("images --filter pinned=true --format {{.Repository}}:{{.Pinned}}").ok(), "one:true");
    assert_eq!(d.wharf("image inspect one --format {{.Pinned}}").ok(), "true");
    d.eventually("it has ended", || d.docker("inspect -f {{.State.Status}} uses").out.trim() == "exited");
    let before = du_but_books(&d.data());
    let said: Value = serde_json::from_str(&d.post("/containers/prune", "", true).unwrap().1).unwrap();
    near("containers", said["SpaceReclaimed"].as_u64().unwrap(), before - du_but_books(&d.data()), 1);
    d.wharf("image unpin one").ok();
    // By labels, age and last use.
    let filtered = |filter: &str| d.docker(&format!("image prune -af --filter {filter}")).ok();
    for filter in ["until=1h", "label=none", "unused-for=1h"] {
        assert!(filtered(filter).contains("reclaimed space: 0B"), "{filter}");
    }
    assert!(filtered("label!=none").contains("untagged: one:latest"));
    assert_eq!(d.docker("images -q").ok(), "");
}

#[test]
fn a_byte_budget_takes_what_nobody_needs_and_nothing_else() {
    const MAX: u64 = 64 << 20;
    let Some(d) = Daemon::start_given(&["--storage-max-bytes", "64m"]) else { return };
    d.import("pinned", 8 << 20).ok();
    d.wharf("image pin pinned").ok();
    let context = d.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1k count=6000\n")
        .unwrap();
    d.docker(&format!("build -t built {}", context.display())).ok();
    d.docker("run --name uses built true").ok();
    for number in 0..8 {
        d.import(&format!("image{number}"), 8 << 20).ok();
        assert!(du(&d.data()) <= MAX, "{} bytes", du(&d.data()));
    }
    let names = d.docker("images --format {{.Repository}}").ok();
    for kept in ["pinned", "built", "image7"] {
        assert!(names.lines().any(|name| name == kept), "{kept} in {names}");
    }
    assert!(names.lines().filter(|name| name.starts_with("image")).count() < 6, "{names}");
    assert_eq!(d.docker("run --rm built echo whole").ok(), "whole");
    // Nothing is left that may go.
    for name in names.lines() {
        d.wharf(&format!("image pin {name}")).ok();
    }
    let said = d.import("more", 40 << 20);
    assert!(said.code == 1 && said.err.contains("storage-max-bytes"), "{} {}", said.code, said.err);
    let missing = said.err.split("budget: ").nth(1).and_then(|text| text.split(' ').next()).unwrap();
    assert!((1..=40 << 20).contains(&missing.parse::<u64>().unwrap()), "{}", said.err);
    assert!(du(&d.data()) <= MAX);
    assert_eq!(d.docker("images --format {{.Repository}}").ok(), names, "and nothing has gone for it");
    for name in names.lines() {
        d.wharf(&format!("image unpin {name}")).ok();
    }
    d.import("more", 30 << 20).ok();
    d.docker("rm uses").ok();
    assert_eq!(d.wharf("system fsck --deep").code, 0);
}

/// Changes a bit of a layer's file, whose content begins so, on the disk: in the tree, or in the image that has it.
fn flip(data: &Path, layer: &str, path: &str, begin: &[u8]) {
    let layer = data.join("layers").join(layer.trim_start_matches("sha256:"));
    let tree = layer.join("root").join(path);
    let file = if tree.exists() { tree } else { layer.join("image") };
    let bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(begin.len()).position(|window| window == begin).expect("the content is there");
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[at] ^ 1], at as u64).unwrap();
}

#[test]
fn fsck_finds_and_repairs_while_the_daemon_goes_on() {
    let Some(mut d) = Daemon::start() else { return };
    let fsck = |d: &Daemon, words: &str| d.wharf(&format!("system fsck {words}"));
    d.docker("run -d --name runs -v kept:/v busybox sleep 1000").ok();
    d.docker("create --name stopped busybox true").ok();
    d.docker("volume create emptied").ok();
    let clean = fsck(&d, "--deep");
    assert!(clean.code == 0 && clean.out.starts_with("clean: "), "{} {}", clean.out, clean.err);

    let data = d.data();
    let stopped = d.docker("inspect -f {{.Id}} stopped").ok();
    std::fs::remove_dir_all(data.join("containers").join(&stopped)).unwrap();
    std::fs::remove_dir_all(data.join("volumes/emptied")).unwrap();
    std::fs::create_dir_all(data.join("volumes/found/_data")).unwrap();
    std::fs::write(data.join("volumes/found/_data/precious"), "data").unwrap();
    std::fs::create_dir_all(data.join("volumes/hollow/_data")).unwrap();
    std::fs::create_dir_all(data.join("containers").join("ab".repeat(32)).join("upper")).unwrap();
    std::fs::create_dir_all(data.join("build/b-0123/upper")).unwrap();
    std::fs::create_dir_all(data.join("layers").join("cd".repeat(32))).unwrap();
    std::fs::remove_file(data.join("places/etc/hosts")).unwrap();
    std::fs::write(data.join("mine"), "no file of the engine's").unwrap();

    let dry = fsck(&d, "--dry-run");
    assert_eq!(dry.code, 1);
    for what in [
        "stopped",
        "emptied",
        "volumes/found",
        "volumes/hollow",
        "containers/abab",
        "build/b-0123",
        "layers/cdcd",
        "places",
    ] {
        assert!(dry.out.lines().any(|line| line.contains(what) && line.contains("would be")), "{what} in {}", dry.out);
    }
    assert!(dry.out.contains("note: mine") && dry.out.contains("8 found"), "{}", dry.out);
    assert_eq!(fsck(&d, "--dry-run").out, dry.out);
    let wet: Value = serde_json::from_str(&fsck(&d, "--format json").out).unwrap();
    let outcomes: Vec<_> =
        wet["Findings"].as_array().unwrap().iter().map(|one| one["Outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["repaired"; 8], "{wet}");
    assert_eq!(fsck(&d, "--deep").code, 0);
    assert_eq!(std::fs::read_to_string(data.join("volumes/found/_data/precious")).unwrap(), "data");
    assert!(data.join("mine").exists());
    let volumes = d.docker("volume ls -q").ok();
    assert_eq!(volumes.lines().collect::<Vec<_>>(), ["emptied", "found", "kept"]);
    d.docker("start -a stopped").ok();
    assert_eq!(d.sh("-v found:/v", "cat /v/precious").ok(), "data");
    assert_eq!(d.docker("exec runs echo still").ok(), "still");

    // A layer that is not what it was, of a container and of an image alone.
    d.import("alone", 100_000).ok();
    let layer = layer_of(&d, "alone");
    let content = std::fs::read(d.path().join("import/file")).unwrap();
    flip(&data, &layer, "file", &content[..64]);
    let below = layer_of(&d, "busybox");
    flip(&data, &below, "etc/passwd", b"root:x:0:0:root");
    assert_eq!(fsck(&d, "").code, 0, "only a deep look reads layers");
    let deep = fsck(&d, "--deep");
    assert!(deep.code == 1 && deep.out.contains("NOT repaired: left, as container"), "{}", deep.out);
    assert!(deep.out.contains("image alone:latest"), "{}", deep.out);
    assert_eq!(d.docker("images -q alone").ok(), "");
    flip(&data, &below, "etc/passwd", b"soot:x:0:0:root");
    d.kill();
    d.launch();
    assert_eq!(d.docker("exec runs echo still").ok(), "still");
    d.docker("rm -f runs stopped").ok();
    let last = fsck(&d, "--deep");
    assert_eq!(last.code, 0, "{}", last.out);
    assert!(data.metadata().unwrap().size() > 0);
}
