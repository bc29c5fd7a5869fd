//! Namespaces of the container's own, of others, and of the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::{Value, json};

use crate::kit::{Bundle, text};

fn namespace(pid: &Value, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

#[test]
fn namespaces_of_another_container_are_joined_by_path() {
    let Some(first) = Bundle::sleeper("first", |config| {
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    }) else {
        return;
    };
    // A bundle's root belongs to the IDs of its user namespace.
    let give = |bundle: &Bundle| chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    give(&first);
    first.create();
    first.start();
    let pid = first.state()["pid"].clone();
    let kinds = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("user", "user")];
    let second = Bundle::sleeper("second", |config| {
        let mut all: Vec<Value> = kinds
            .iter()
            .map(|(name, file)| json!({ "type": name, "path": format!("/proc/{pid}/ns/{file}") }))
            .collect();
        all.push(json!({ "type": "mount" }));
        config["linux"]["namespaces"] = json!(all);
        config["hostname"] = json!("");
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    })
    .unwrap();
    give(&second);
    second.create();
    second.start();
    let own = second.state()["pid"].clone();
    for (_, kind) in kinds {
        assert_eq!(namespace(&own, kind), namespace(&pid, kind), "{kind}");
    }
    assert_ne!(namespace(&own, "mnt"), namespace(&pid, "mnt"));
    assert_eq!(fs::metadata(format!("/proc/{own}")).unwrap().uid(), 100_000);
    let seen = second.ok(&["exec", &second.id, "sh", "-c", "id -u; ls /proc | grep -c '^[0-9]*$'"]);
    assert!(seen.starts_with("0\n"), "{seen}");
}

#[test]
fn a_path_of_another_kind_is_refused() {
    for (path, why) in [("/proc/self/ns/net", "is no ipc namespace"), ("/etc/hosts", "use as a namespace")] {
        let Some(bundle) = Bundle::sleeper("kind", |config| {
            config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "ipc", "path": path }]);
            config["hostname"] = json!("");
        }) else {
            return;
        };
        let output = bundle.run();
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

#[test]
fn clocks_of_a_time_namespace_are_offset() {
    if !fs::exists("/proc/self/ns/time").unwrap_or(false) {
        return eprintln!("skipped: no time namespaces");
    }
    let Some(bundle) = Bundle::new("time", &["cat", "/proc/uptime"], |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 10_000_000 }, "monotonic": { "secs": 5 } });
    }) else {
        return;
    };
    let output = bundle.run();
    let uptime: f64 = text(&output.stdout).split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 10_000_000.0, "{uptime}");
    bundle.configure(|config| config["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } }));
    assert!(text(&bundle.run().stderr).contains("no clock `realtime`"));
}

#[test]
fn what_is_optional_may_be_left_out() {
    let Some(bundle) = Bundle::new("little", &["sh", "-c", "id -u; hostname"], |config| {
        let process = json!({ "cwd": "/", "args": ["/bin/sh", "-c", "/bin/id -u"] });
        *config = json!({
            "ociVersion": "1.0.0", "process": process, "root": { "path": "rootfs" },
            "linux": { "namespaces": [{ "type": "mount" }] }
        });
    }) else {
        return;
    };
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
}

#[test]
fn the_host_s_propagation_does_not_reach_it_and_its_own_is_as_asked() {
    for (word, want) in
        [("", "-"), ("private", "-"), ("slave", "-"), ("shared", "shared:"), ("unbindable", "unbindable")]
    {
        let script = "grep ' / / ' /proc/self/mountinfo || grep -m1 ' / ' /proc/self/mountinfo";
        let Some(bundle) = Bundle::new("propagation", &["sh", "-c", script], |config| {
            config["linux"]["rootfsPropagation"] = json!(word);
        }) else {
            return;
        };
        let output = bundle.run();
        let line = text(&output.stdout);
        assert!(line.contains(want), "{word}: {line} {}", text(&output.stderr));
    }
    let Some(bundle) = Bundle::sleeper("sheared", |config| config["linux"]["rootfsPropagation"] = json!("sheared"))
    else {
        return;
    };
    assert!(text(&bundle.run().stderr).contains("unknown rootfsPropagation"));
}

#[test]
fn a_kernel_parameter_of_the_host_s_network_is_not_the_container_s() {
    let Some(bundle) = Bundle::new("hostnet", &["true"], |config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!("/proc/self/ns/net");
            }
        }
        // What is there: a write would change nothing.
        let own = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": own.trim() });
    }) else {
        return;
    };
    let errors = text(&bundle.run().stderr);
    assert!(errors.contains("not allowed in host network namespace"), "{errors}");
}
