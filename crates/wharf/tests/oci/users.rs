//! User namespaces: their mappings, and what is joined beside them.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Bundle, text, wait_until};

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

fn with_users(config: &mut Value, maps: Value) {
    config["linux"]["uidMappings"] = maps.clone();
    config["linux"]["gidMappings"] = maps;
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
}

/// The group of terminals has no ID in a small user namespace.
fn without_group_of_terminals(config: &mut Value) {
    for mount in config["mounts"].as_array_mut().unwrap() {
        mount["options"].as_array_mut().into_iter().for_each(|options| options.retain(|option| option != "gid=5"));
    }
}

/// Somebody in a namespace of its own, who ends with its input.
struct Other(Child);

impl Other {
    fn new(kind: &str, words: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(words).args(["sh", "-c", "read wait"]).stdin(Stdio::piped()).spawn().unwrap();
        let other = Self(child);
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        wait_until("the other's namespace", || fs::read_link(other.path(kind)).is_ok_and(|link| link != own));
        other
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_user_namespace_may_have_no_root() {
    let Some(bundle) = Bundle::sleeper("rootless-map", |config| {
        with_users(config, map(1000, 100_000, 1));
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        without_group_of_terminals(config);
    }) else {
        return;
    };
    chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    bundle.create();
    bundle.start();
    let seen = bundle.ok(&["exec", &bundle.id, "sh", "-c", "id -u; id -g; touch /made && stat -c %u /made"]);
    assert_eq!(seen, "1000\n1000\n1000\n");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.configure(|config| config["process"]["args"] = json!(["id", "-u"]));
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "1000\n", "{}", text(&output.stderr));
}

#[test]
fn a_network_that_is_not_the_joined_user_namespace_s_is_joined_too() {
    let Some(bundle) =
        Bundle::new("wrong-owner", &["sh", "-c", "id -u; readlink /proc/self/ns/net"], without_group_of_terminals)
    else {
        return;
    };
    let (users, net) = (Other::new("user", &["-U", "-r"]), Other::new("net", &["-n"]));
    bundle.configure(|config| {
        config["linux"]["namespaces"] = json!([
            { "type": "user", "path": users.path("user") }, { "type": "network", "path": net.path("net") },
            { "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }
        ]);
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    });
    let want = fs::read_link(net.path("net")).unwrap().to_string_lossy().into_owned();
    let output = bundle.run();
    assert_eq!(text(&output.stdout), format!("0\n{want}\n"), "{}", text(&output.stderr));
    let forwards = Command::new("nsenter")
        .arg(format!("--net={}", net.path("net")))
        .args(["cat", "/proc/sys/net/ipv4/ip_forward"])
        .output()
        .unwrap();
    assert_eq!(text(&forwards.stdout), "1\n");
}

#[test]
fn mappings_beside_a_path_are_those_that_it_has() {
    let Some(bundle) = Bundle::new("mapped", &["id", "-u"], without_group_of_terminals) else { return };
    let users = Other::new("user", &["-U", "-r"]);
    wait_until("its mappings", || {
        let written = |file: &str| fs::read(format!("/proc/{}/{file}", users.0.id())).is_ok_and(|map| !map.is_empty());
        written("uid_map") && written("gid_map")
    });
    bundle.configure(|config| {
        with_users(config, map(0, 100_000, 65_536));
        config["linux"]["namespaces"].as_array_mut().unwrap().last_mut().unwrap()["path"] = json!(users.path("user"));
    });
    let errors = text(&bundle.run().stderr);
    assert!(errors.contains("uidMappings are not those of the user namespace that is joined"), "{errors}");
    let root = rustix::process::getuid().as_raw();
    bundle.configure(|config| {
        config["linux"]["uidMappings"] = map(0, root, 1);
        config["linux"]["gidMappings"] = map(0, root, 1);
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
}

/// As podman writes it for `--userns=ns:PATH`.
#[test]
fn a_mapping_of_one_root_beside_a_path_stands_for_none() {
    let Some(bundle) = Bundle::new("stands", &["id", "-u"], without_group_of_terminals) else { return };
    let users = Other::new("user", &["-U"]);
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", users.0.id()), "0 0 65536").unwrap();
    }
    bundle.configure(|config| {
        with_users(config, map(0, 0, 1));
        config["linux"]["namespaces"].as_array_mut().unwrap().last_mut().unwrap()["path"] = json!(users.path("user"));
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
}

#[test]
fn mappings_that_overlap_are_refused_before_there_is_a_process() {
    let twice = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }, { "containerID": 9, "hostID": 200_000, "size": 1 }]);
    let Some(bundle) = Bundle::new("overlap", &["true"], |config| with_users(config, twice)) else { return };
    let errors = text(&bundle.run().stderr);
    assert!(errors.contains("uidMappings: the ID 9 of the container is mapped twice"), "{errors}");
}

/// The mapping beside the path stands for none there, and a bind that is mapped has that of the namespace.
#[test]
fn a_mapped_bind_beside_a_joined_namespace_has_its_mapping() {
    let Some(bundle) = Bundle::new("joined-map", &["stat", "-c", "%u:%g", "/mnt/file"], without_group_of_terminals)
    else {
        return;
    };
    fs::create_dir(bundle.path("src")).unwrap();
    fs::write(bundle.path("src/file"), "").unwrap();
    let users = Other::new("user", &["-U"]);
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{file}", users.0.id()), "0 200000 65536").unwrap();
    }
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(200_000), Some(200_000)).unwrap();
    bundle.configure(|config| {
        with_users(config, map(0, 0, 1));
        config["linux"]["namespaces"].as_array_mut().unwrap().last_mut().unwrap()["path"] = json!(users.path("user"));
        let source = bundle.path("src");
        let mount = json!({ "destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "idmap"] });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0:0\n", "{}", text(&output.stderr));
}

/// podman sets this parameter for every container: a procfs of the host's PID namespace is not the user namespace's.
#[test]
fn a_parameter_is_set_beside_the_host_s_processes() {
    let command = ["cat", "/proc/sys/net/ipv4/ping_group_range"];
    let Some(bundle) = Bundle::new("host-pid", &command, without_group_of_terminals) else { return };
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    bundle.configure(|config| {
        with_users(config, map(0, 100_000, 65_536));
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/proc" {
                *mount = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
            }
        }
        config["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 0" });
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "0\t0\n", "{}", text(&output.stderr));
}
