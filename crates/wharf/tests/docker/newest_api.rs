//! What API 1.55 and 1.56 have brought.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wharf_reference::Digest;

use crate::kit::{Daemon, Said};
use crate::ship::Registry;

#[test]
fn a_umask_is_that_of_all_processes() {
    let Some(d) = Daemon::start() else { return };
    let health = ["--health-cmd", "umask>/tmp/health", "--health-interval", "100ms"];
    let run = d.wharf(&format!("run -d --name masked --umask 0027 {} busybox sleep 1000", health.join(" ")));
    run.ok();
    assert_eq!(d.docker("exec masked sh -c umask").ok(), "0027");
    assert_eq!(d.docker("exec -u web masked sh -c umask").ok(), "0027");
    d.eventually("the probe has run", || d.docker("exec masked cat /tmp/health").out.trim() == "0027");
    assert_eq!(d.wharf("run --rm --umask 0 busybox sh -c umask").ok(), "0000");
    assert_eq!(d.docker("run --rm busybox sh -c umask").ok(), "0022");
    assert_eq!(d.get("/containers/masked/json")["HostConfig"]["Umask"], 0o027);
    assert!(d.wharf("inspect --as run masked").ok().contains("--umask 0027"));
    assert!(d.wharf("run --rm --umask 8 busybox true").err.contains("octal digits"));
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Umask":512}}"#;
    let (status, answer) = d.post("/containers/create", body, true).unwrap();
    assert!(status == 400 && answer.contains("invalid umask 0o1000"), "{answer}");
}

/// A disk of this host.
fn disk() -> Option<String> {
    let all = std::fs::read_dir("/sys/block").ok()?.flatten();
    all.map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy())).find(|path| {
        use std::os::unix::fs::FileTypeExt;
        std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
    })
}

#[test]
fn rules_for_single_devices_change_while_a_container_runs() {
    let Some(disk) = disk() else { return eprintln!("skipped: this host has no block device") };
    let Some(d) = Daemon::start() else { return };
    let run = d.docker(&format!("run -d --name limited --device-read-bps {disk}:8mb busybox sleep 1000"));
    if run.code != 0 || run.err.contains("discarded") {
        return eprintln!("skipped: this kernel limits no devices: {}", run.err);
    }
    let rules = || {
        let v1 = ["read_bps", "write_iops"].map(|rule| {
            let file = format!("/sys/fs/cgroup/blkio/blkio.throttle.{rule}_device");
            d.docker(&format!("exec limited cat {file}")).out.trim().to_owned()
        });
        v1.map(|text| text.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    if rules()[0].is_empty() {
        return eprintln!("skipped: the rules are read from v1's controller");
    }
    let update = |version: &str, body: Value| {
        let (status, answer) =
            d.post(&format!("/{version}/containers/limited/update"), &body.to_string(), true).unwrap();
        assert_eq!(status, 200, "{answer}");
        rules()
    };
    let rule = |rate: u64| json!([{ "Path": disk, "Rate": rate }]);
    assert_eq!(rules(), ["8388608", ""]);
    // Older clients send them, too, and mean nothing by it.
    assert_eq!(update("v1.54", json!({ "BlkioDeviceReadBps": [] })), ["8388608", ""]);
    assert_eq!(
        update("v1.55", json!({ "BlkioDeviceWriteIOps": rule(77), "BlkioDeviceReadBps": null })),
        ["8388608", "77"]
    );
    assert_eq!(update("v1.55", json!({ "BlkioDeviceReadBps": rule(4096) })), ["4096", "77"]);
    assert_eq!(update("v1.55", json!({ "BlkioDeviceReadBps": [] })), ["", "77"]);
    let shown = d.get("/containers/limited/json")["HostConfig"].clone();
    assert_eq!((&shown["BlkioDeviceReadBps"], &shown["BlkioDeviceWriteIOps"]), (&json!([]), &rule(77)));
    let (status, _) = d
        .post("/v1.55/containers/limited/update", r#"{"BlkioDeviceReadBps":[{"Path":"/dev/nowhere","Rate":1}]}"#, true)
        .unwrap();
    assert!(status >= 400);
    assert_eq!(rules(), ["", "77"]);
}

/// The lines of a stream.
fn lines(d: &Daemon, path: &str) -> Vec<Value> {
    let (status, body) = d.post(path, "", true).unwrap();
    assert_eq!(status, 200, "{body}");
    // Chunks have their sizes between them.
    body.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_prune_tells_of_each_thing_as_it_goes() {
    let Some(d) = Daemon::start() else { return };
    let ids: Vec<String> = (0..3).map(|_| d.docker("create -v /anonymous busybox true").ok()).collect();
    d.docker("network create idle").ok();
    d.docker("tag busybox other:1").ok();
    let whole = |path: &str, key: &str, status: &str| {
        let mut all = lines(&d, path);
        let report = all.pop().unwrap()["aux"].clone();
        let told: Vec<&str> =
            all.iter().filter(|line| line["status"] == status).map(|line| line["id"].as_str().unwrap()).collect();
        let listed = report[key].as_array().cloned().unwrap_or_default();
        let listed = listed.iter().filter_map(|one| one.as_str().or(one["Untagged"].as_str()));
        assert_eq!(told, listed.collect::<Vec<_>>(), "{path}");
        told.len()
    };
    assert_eq!(whole("/v1.56/containers/prune?stream=true", "ContainersDeleted", "deleted"), ids.len());
    assert_eq!(whole("/v1.56/volumes/prune?stream=1", "VolumesDeleted", "deleted"), ids.len());
    assert_eq!(whole("/v1.56/networks/prune?stream=1", "NetworksDeleted", "deleted"), 1);
    let images = "/v1.56/images/prune?stream=1&filters=%7B%22dangling%22:%5B%22false%22%5D%7D";
    assert_eq!(whole(images, "ImagesDeleted", "untagged"), 2);
    // There is nothing any more, and older clients know no stream.
    assert_eq!(whole("/v1.56/containers/prune?stream=true", "ContainersDeleted", "deleted"), 0);
    assert_eq!(lines(&d, "/v1.56/build/prune?stream=true").len(), 1);
    let old = lines(&d, "/v1.55/containers/prune?stream=true");
    assert_eq!(old, [json!({ "ContainersDeleted": null, "SpaceReclaimed": 0 })]);
    let (status, _) = d.post("/v1.56/containers/prune?stream=1&filters=%7B%22x%22:%5B%22y%22%5D%7D", "", true).unwrap();
    assert_eq!(status, 400);
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SBOM: &str = "https://spdx.dev/Document";

/// An OCI layout with busybox for this host, and two statements about it.
fn layout(d: &Daemon) -> PathBuf {
    let dir = d.path().join("layout");
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    std::fs::write(d.path().join("file"), "attested").unwrap();
    let tar = Command::new("tar").arg("-cC").arg(d.path()).arg("file").output().unwrap().stdout;
    let diff_id = Digest::sha256(&tar);
    // As images are pushed: such a layer stays as it is.
    let tar_file = d.path().join("layer.tar");
    std::fs::write(&tar_file, tar).unwrap();
    let layer = Command::new("gzip").arg("-nc").arg(tar_file).output().unwrap().stdout;
    let platform = d.get("/images/busybox/json");
    let platform = json!({ "os": "linux", "architecture": platform["Architecture"] });
    let config = json!({
        "os": "linux", "architecture": platform["architecture"], "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let (manifest, index) = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json");
    let config_kind = "application/vnd.oci.image.config.v1+json";
    let image = json!({
        "schemaVersion": 2, "mediaType": manifest,
        "config": blob(config_kind, config.to_string().as_bytes()),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let mut image = blob(manifest, image.to_string().as_bytes());
    image["platform"] = platform;
    let statements = [(PROVENANCE, "built"), (SBOM, "made of")].map(|(kind, words)| {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": kind, "predicate": { "words": words },
        });
        let mut statement = blob("application/vnd.in-toto+json", statement.to_string().as_bytes());
        statement["annotations"] = json!({ "in-toto.io/predicate-type": kind });
        statement
    });
    let attestation = json!({
        "schemaVersion": 2, "mediaType": manifest, "config": blob(config_kind, b"{}"), "layers": statements,
    });
    let mut attestation = blob(manifest, attestation.to_string().as_bytes());
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"],
    });
    let all = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [image, attestation] });
    let mut all = blob(index, all.to_string().as_bytes());
    all["annotations"] =
        json!({ "io.containerd.image.name": "docker.io/library/attested:1", "org.opencontainers.image.ref.name": "1" });
    let top = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [all] });
    std::fs::write(dir.join("index.json"), top.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    dir
}

fn packed(d: &Daemon, dir: &Path) -> PathBuf {
    let archive = d.path().join("layout.tar");
    let packed = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir).arg(".").status().unwrap();
    assert!(packed.success());
    archive
}

/// Both statements are told of, and the one that is asked for is there.
#[track_caller]
fn check(d: &Daemon, name: &str) {
    let all = d.get(&format!("/v1.55/images/{name}/attestations"));
    let kinds: Vec<_> = all.as_array().unwrap().iter().map(|one| one["PredicateType"].as_str().unwrap()).collect();
    assert_eq!(kinds, [PROVENANCE, SBOM], "{all}");
    assert!(all[0].get("Statement").is_none() && all[0]["Descriptor"]["digest"].is_string(), "{all}");
    let one = d.get(&format!("/v1.55/images/{name}/attestations?type={SBOM}&statement=true"));
    assert_eq!(one.as_array().unwrap().len(), 1, "{one}");
    assert_eq!(one[0]["Statement"]["predicate"]["words"], "made of", "{one}");
}

#[test]
fn attestations_come_with_their_image_and_go_with_it() {
    let Some(mut d) = Daemon::start() else { return };
    let dir = layout(&d);
    let blobs = |d: &Daemon| std::fs::read_dir(d.data().join("blobs/sha256")).unwrap().count();
    let before = blobs(&d);
    d.docker(&format!("load -q -i {}", packed(&d, &dir).display())).ok();
    check(&d, "attested:1");
    let other = "%7B%22os%22:%22linux%22,%22architecture%22:%22riscv64%22%7D";
    let message = |d: &Daemon, path: &str| d.get(path)["message"].as_str().unwrap_or_default().to_owned();
    assert!(message(&d, &format!("/v1.55/images/attested:1/attestations?platform={other}")).contains("riscv64"));
    let twice = format!("/v1.55/images/attested:1/attestations?platform={other}&platform={other}");
    assert!(message(&d, &twice).contains("only one platform value is currently supported"));
    assert!(message(&d, "/v1.55/images/nosuch/attestations").contains("No such image"));
    assert_eq!(d.get("/v1.55/images/busybox/attestations"), json!([]));
    assert_eq!(message(&d, "/v1.54/images/attested:1/attestations"), "page not found");

    // They are the image's: neither swept nor damage.
    d.docker("image prune -f").ok();
    d.stop();
    d.launch();
    d.wharf("system fsck --deep").ok();
    check(&d, "attested:1");
    d.docker("rmi attested:1").ok();
    assert_eq!(blobs(&d), before);

    // From a registry, too.
    let registry = Registry::start(&d);
    if Command::new("skopeo").arg("--version").output().is_err() {
        return eprintln!("skipped: to put attestations into a registry takes skopeo");
    }
    let name = format!("{}/attested:1", registry.address);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "-q", "--all", "--preserve-digests", "--insecure-policy", "--dest-tls-verify=false"]);
    let copied: Said =
        copy.arg(format!("oci:{}", dir.display())).arg(format!("docker://{name}")).output().unwrap().into();
    copied.ok();
    d.docker(&format!("pull -q {name}")).ok();
    check(&d, &name);
    // And on to another, as the same index.
    let (own, other) = (format!("{}/attested", registry.address), format!("{}/other:1", registry.address));
    let digest = |name: &str| {
        let shown = d.docker(&format!("image inspect {name}")).ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let all: Vec<String> = serde_json::from_value(shown[0]["RepoDigests"].clone()).unwrap();
        let repository = name.rsplit_once(':').unwrap().0;
        all.iter().find_map(|one| one.strip_prefix(&format!("{repository}@"))).unwrap().to_owned()
    };
    let came = digest(&format!("{own}:1"));
    d.docker(&format!("tag {name} {other}")).ok();
    let pushed = d.docker(&format!("push {other}")).ok();
    assert!(pushed.contains(&format!("digest: {came}")), "{pushed}");
    assert_eq!(digest(&other), came);
    d.docker(&format!("rmi {name} {other}")).ok();
    assert_eq!(blobs(&d), before);
    d.docker(&format!("pull -q {other}")).ok();
    check(&d, &other);
    d.docker(&format!("rmi {other}")).ok();
    assert_eq!(blobs(&d), before);
}
