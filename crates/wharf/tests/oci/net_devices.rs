//! `linux.netDevices`: links of the host's that a container gets. The runtime runs in a network namespace of the test's
//! own, which is its host.

use std::fs;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::kit::{Bundle, WHARF, text, wait_until};

/// A network namespace that a process of ours keeps.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let network = Self(child);
        wait_until("a network namespace", || fs::read_link(network.path()).is_ok_and(|there| there != own));
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program).stdin(Stdio::null());
        command
    }

    fn ip(&self, words: &str) -> String {
        let output = self.command("ip").args(words.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {words}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A pair of links, `dev0` with addresses and its other end.
    fn with_device() -> Self {
        let network = Self::new();
        network.ip("link add dev0 mtu 1400 type veth peer name far0");
        network.ip("link set far0 up");
        network.ip("link set dev0 up");
        network.ip("address add 10.9.0.1/24 dev dev0");
        network.ip("address add fd00:9::1/64 nodad dev dev0");
        network
    }

    /// Runs the bundle's container from here.
    fn run(&self, bundle: &Bundle) -> Output {
        let mut command = self.command(WHARF);
        command.arg("oci").arg("--root").arg(bundle.root()).args(["run", "--bundle"]).arg(bundle.dir.path());
        let output = command.arg(&bundle.id).output().unwrap();
        bundle.assert_nothing_is_left();
        output
    }

    fn assert_dev0_is_as_it_was(&self) {
        let shown = self.ip("-oneline address show dev dev0 scope global");
        assert!(shown.contains("10.9.0.1/24") && shown.contains("fd00:9::1/64"), "{shown}");
        let shown = self.ip("link show dev dev0");
        assert!(shown.contains(",UP") && shown.contains("mtu 1400"), "{shown}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bundle(name: &str, script: &str, devices: Value) -> Option<Bundle> {
    Bundle::new(name, &["sh", "-c", script], |config| config["linux"]["netDevices"] = devices)
}

fn join(bundle: &Bundle, path: &str) {
    bundle.configure(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
    });
}

const SHOW: &str = "busybox ip address show";

#[test]
fn a_device_comes_with_its_addresses_under_a_new_name() {
    let devices = json!({ "dev0": { "name": "ctr0" }, "dev1": {} });
    let Some(bundle) = bundle("netdev", SHOW, devices) else { return };
    let host = Network::with_device();
    host.ip("link add dev1 type veth peer name far1");
    let output = host.run(&bundle);
    let shown = text(&output.stdout);
    for want in ["ctr0@", "10.9.0.1/24", "fd00:9::1/64", "mtu 1400", "dev1@"] {
        assert!(shown.contains(want), "{want}: {shown}{}", text(&output.stderr));
    }
    let up = shown.lines().filter(|line| line.contains("@") && line.contains("UP")).count();
    assert_eq!(up, 2, "{shown}");
    // The namespace ended, and with it a pair.
    assert!(!host.ip("link show").contains("dev0"));
}

#[test]
fn in_a_namespace_that_is_joined_a_template_takes_the_next_name() {
    let Some(bundle) = bundle("netdev-join", SHOW, json!({ "dev0": { "name": "eth%d" } })) else { return };
    let (host, other) = (Network::with_device(), Network::new());
    // The name that it comes with is taken too.
    other.ip("link add eth0 type veth peer name dev0");
    join(&bundle, &other.path());
    let output = host.run(&bundle);
    let shown = text(&output.stdout);
    assert!(shown.contains("eth1@") && shown.contains("10.9.0.1/24"), "{shown}{}", text(&output.stderr));
    // It is not this runtime's namespace: what was put there stays.
    assert!(other.ip("address show dev eth1").contains("fd00:9::1/64"));
}

#[test]
fn a_device_of_a_user_namespace_s_network_has_its_parameters() {
    let script = "busybox ip address show dev ctr0; cat /proc/sys/net/ipv4/conf/ctr0/forwarding";
    let Some(bundle) = bundle("netdev-user", script, json!({ "dev0": { "name": "ctr0" } })) else { return };
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    bundle.configure(|config| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["sysctl"] = json!({ "net.ipv4.conf.ctr0.forwarding": "1" });
    });
    let host = Network::with_device();
    let output = host.run(&bundle);
    let shown = text(&output.stdout);
    assert!(shown.contains("10.9.0.1/24") && shown.ends_with("\n1\n"), "{shown}{}", text(&output.stderr));
    let (host, other) = (Network::with_device(), Network::new());
    join(&bundle, &other.path());
    let output = host.run(&bundle);
    let shown = text(&output.stdout);
    assert!(shown.contains("10.9.0.1/24") && shown.ends_with("\n1\n"), "{shown}{}", text(&output.stderr));
}

#[test]
fn what_fails_gives_the_device_back() {
    let Some(bundle) = bundle("netdev-back", SHOW, json!({ "dev0": { "name": "ctr0" } })) else { return };
    let host = Network::with_device();
    let fails = |change: &dyn Fn(&mut Value), want: &str| {
        let before = fs::read(bundle.path("config.json")).unwrap();
        bundle.configure(change);
        let output = host.run(&bundle);
        fs::write(bundle.path("config.json"), before).unwrap();
        assert!(!output.status.success(), "{want}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(want), "{want}: {}", text(&output.stderr));
        host.assert_dev0_is_as_it_was();
    };
    fails(&|config| config["process"]["args"] = json!(["/no/such"]), "no such file");
    let hook = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    fails(&|config| config["hooks"] = hook.clone(), "createRuntime hook");
    let mount = json!({ "destination": "/x", "type": "tmpfs", "options": ["size=nonsense"] });
    fails(&|config| config["mounts"].as_array_mut().unwrap().push(mount.clone()), "mount `/x`");
}

#[test]
fn what_does_not_come_to_run_gives_the_device_back() {
    let Some(bundle) = bundle("netdev-created", SHOW, json!({ "dev0": { "name": "ctr0" } })) else { return };
    let host = Network::with_device();
    let from_here = |words: &[&str]| {
        let mut command = host.command(WHARF);
        let log = fs::File::create(bundle.path("out")).unwrap();
        command.arg("oci").arg("--root").arg(bundle.root()).args(words).stdout(log.try_clone().unwrap()).stderr(log);
        command.status().unwrap().success()
    };
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let create = || {
        assert!(from_here(&["create", "--bundle", &dir, &bundle.id]), "{}", bundle.shown());
        assert!(!host.ip("link show").contains("dev0"));
    };
    create();
    assert!(from_here(&["delete", &bundle.id]), "{}", bundle.shown());
    assert_eq!(bundle.shown(), "");
    host.assert_dev0_is_as_it_was();
    // The program is gone by the start.
    create();
    fs::remove_file(bundle.path("rootfs/bin/sh")).unwrap();
    assert!(!from_here(&["start", &bundle.id]));
    assert!(bundle.shown().contains("no such file") || bundle.shown().contains("not found"), "{}", bundle.shown());
    host.assert_dev0_is_as_it_was();
    assert!(from_here(&["delete", &bundle.id]), "{}", bundle.shown());
    host.assert_dev0_is_as_it_was();
    // A device that has lost its name and its number here, and another name there, is kept all the same.
    std::os::unix::fs::symlink("busybox", bundle.path("rootfs/bin/sh")).unwrap();
    create();
    host.ip("link add dev0 type veth peer name far9");
    let pid = bundle.state()["pid"].to_string();
    let rename = ["--net", "--target", &pid, "ip", "link", "set", "ctr0", "name", "mine"];
    for words in [&["--net", "--target", &pid, "ip", "link", "set", "ctr0", "down"][..], &rename] {
        assert!(Command::new("nsenter").args(words).status().unwrap().success());
    }
    assert!(from_here(&["delete", &bundle.id]), "{}", bundle.shown());
    assert!(bundle.shown().contains("comes back as `dev1`"), "{}", bundle.shown());
    let shown = host.ip("-oneline address show dev dev1 scope global");
    assert!(shown.contains("10.9.0.1/24") && shown.contains("fd00:9::1/64"), "{shown}");
    bundle.assert_nothing_is_left();
}

#[test]
fn what_cannot_be_moved_is_told_before_anything_is_made() {
    let Some(bundle) = bundle("netdev-wrong", SHOW, json!({ "dev0": {} })) else { return };
    let (host, other) = (Network::with_device(), Network::new());
    other.ip("link add taken type veth peer name dev0");
    let wrong = |devices: Value, network: Value, want: &str| {
        bundle.configure(|config| {
            config["linux"]["netDevices"] = devices;
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
            if !network.is_null() {
                namespaces.push(network);
            }
        });
        let output = host.run(&bundle);
        assert_eq!(output.status.code(), Some(1), "{want}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains(want), "{want}: {}", text(&output.stderr));
        host.assert_dev0_is_as_it_was();
    };
    let new = json!({ "type": "network" });
    let joined = json!({ "type": "network", "path": other.path() });
    let none = "unable to move network devices without a NET namespace";
    wrong(json!({ "dev0": {} }), Value::Null, none);
    wrong(json!({ "dev0": {} }), json!({ "type": "network", "path": host.path() }), none);
    wrong(json!({ "none": {} }), new.clone(), "there is no network device `none`");
    wrong(json!({ "lo": { "name": "lo1" } }), new.clone(), "cannot give the container the network device `lo`");
    wrong(json!({ "dev0": { "name": "a/b" } }), new.clone(), "cannot be named `a/b`");
    wrong(json!({ "dev0": { "name": "sixteen_letters_" } }), new, "cannot be named `sixteen_letters_`");
    wrong(json!({ "dev0": {} }), joined.clone(), "give `dev0` another name");
    // The first of two has been moved by then.
    host.ip("link add zzz type veth peer name far2");
    wrong(json!({ "dev0": { "name": "ctr0" }, "zzz": { "name": "taken" } }), joined, "give `zzz` another name");
    assert!(host.ip("link show dev zzz").contains("zzz@"));
}
