//! Devices by name, as files of the Container Device Interface describe them.

use std::path::Path;

use serde_json::json;

use crate::kit::Daemon;

/// One file as JSON and one as YAML.
fn describe(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let marker = dir.join("hooked");
    // As vendors' hooks do: the bundle is in the state, and the root's place in the bundle.
    let script = format!(
        "state=$(cat); echo \"$state\" > {}; bundle=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); \
         grep -q '\"path\":\"rootfs\"' $bundle/config.json && echo by hook > $bundle/rootfs/hooked",
        marker.display()
    );
    let hook = json!({ "hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", script] });
    let file = json!({
        "cdiVersion": "0.7.0", "kind": "wharf.test/dev", "containerEdits": { "env": ["ALL=1"] },
        "devices": [
            { "name": "one", "containerEdits": {
                "env": ["ONE=1"],
                "deviceNodes": [{ "path": "/dev/one", "hostPath": "/dev/zero", "permissions": "r" }],
                "mounts": [{ "hostPath": dir, "containerPath": "/described", "options": ["ro", "nosuid", "rbind"] }],
                "hooks": [hook],
                "additionalGids": [77],
            } },
            { "name": "gone", "containerEdits": { "deviceNodes": [{ "path": "/dev/wharf-nosuch" }] } },
            { "name": "rdt", "containerEdits": { "intelRdt": { "closID": "x" } } },
        ],
    });
    std::fs::write(dir.join("one.json"), file.to_string()).unwrap();
    let yaml = "cdiVersion: 0.5.0\nkind: wharf.test/yaml\ndevices:\n  - name: \"0\"\n    containerEdits:\n      env:\n      - YAML=yes\n";
    std::fs::write(dir.join("two.yaml"), yaml).unwrap();
}

#[test]
fn a_container_has_what_the_files_say_of_its_devices() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("cdi");
    describe(&dir);
    let Some(d) = Daemon::start_given(&[&format!("--cdi-spec-dir={}", dir.display())]) else { return };
    let script = "echo $ALL$ONE $YAML; id -G; head -c 2 /dev/one | wc -c; cat /hooked; ls /described";
    let said = d.sh("--device wharf.test/dev=one --device wharf.test/yaml=0", script).ok();
    assert_eq!(said, "11 yes\n0 77\n2\nby hook\nhooked\none.json\ntwo.yaml");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("hooked")).unwrap()).unwrap();
    assert_eq!(state["status"], "creating");
    for (name, why) in [
        ("wharf.test/dev=x --device wharf.test/none=y", "unresolvable CDI devices wharf.test/dev=x, wharf.test/none=y"),
        (
            "wharf.test/dev=gone",
            "failed to inject devices: failed to stat CDI host device \"/dev/wharf-nosuch\": no such file or directory",
        ),
        ("wharf.test/dev=rdt", "failed to inject devices: intelRdt is not supported: resctrl is not managed here"),
    ] {
        let said = d.sh(&format!("--device {name}"), "true");
        let text = format!("Error response from daemon: CDI device injection failed: {why}");
        assert!(said.code != 0 && said.err.contains(&text), "{}: {}", said.code, said.err);
    }
    let said = d.sh("--gpus all", "true");
    let text = "could not select device driver \"\" with capabilities: [[gpu]]";
    assert!(said.code == 125 && said.err.contains(text), "{}", said.err);
    let info = d.get("/v1.51/info");
    assert_eq!(info["CDISpecDirs"], json!([dir]));
    let names: Vec<_> = info["DiscoveredDevices"].as_array().unwrap().iter().map(|device| &device["ID"]).collect();
    assert_eq!(names, ["wharf.test/dev=gone", "wharf.test/dev=one", "wharf.test/dev=rdt", "wharf.test/yaml=0"]);
    // What is there when it starts counts.
    std::fs::write(dir.join("two.yaml"), "kind: x\n").unwrap();
    let warnings = d.get("/v1.51/info")["Warnings"].to_string();
    assert!(warnings.contains("two.yaml") && warnings.contains("missing field `cdiVersion`"), "{warnings}");
    assert!(d.sh("--device wharf.test/yaml=0", "true").err.contains("unresolvable CDI devices wharf.test/yaml=0"));
}

#[test]
fn who_wants_no_devices_by_name_has_none() {
    for (options, error) in [
        (&["--feature=cdi=false"], "could not select device driver \"cdi\" with capabilities: []"),
        (&["--cdi-spec-dir="], "CDI device injection failed: no CDI specification directories specified"),
    ] {
        let Some(d) = Daemon::start_given(options) else { return };
        let said = d.sh("--device wharf.test/dev=one", "true");
        assert!(said.err.contains(error), "{options:?}: {}", said.err);
        assert_eq!(d.get("/v1.51/info")["CDISpecDirs"], json!([]));
    }
}
