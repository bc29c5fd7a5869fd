//! What containers may send and receive in a second, as the kernel has it.

use std::process::Command;

use serde_json::{Value, json};

use crate::kit::Daemon;

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The rate of the only queue that `tc` shows, in bytes a second; `None` when it is no token bucket.
fn rate(queues: &str) -> Option<u64> {
    let all: Vec<Value> = serde_json::from_str(queues).unwrap();
    all.iter().find(|queue| queue["kind"] == "tbf").map(|queue| queue["options"]["rate"].as_u64().unwrap())
}

/// What the container's link on a network lets through: up and down.
fn rates(d: &Daemon, container: &str, link: &str) -> (Option<u64>, Option<u64>) {
    let pid = d.docker(&format!("inspect -f {{{{.State.Pid}}}} {container}")).ok();
    let netns = format!("--net=/proc/{pid}/ns/net");
    let up = run("nsenter", &[&netns, "tc", "-j", "qdisc", "show", "dev", link]);
    // The other end, by the number that it has here.
    let shown: Value = serde_json::from_str(&run("nsenter", &[&netns, "ip", "-j", "link", "show", link])).unwrap();
    let all: Vec<Value> = serde_json::from_str(&run("ip", &["-j", "link"])).unwrap();
    let own = all.iter().find(|one| one["ifindex"] == shown[0]["link_index"]).unwrap();
    let down = run("tc", &["-j", "qdisc", "show", "dev", own["ifname"].as_str().unwrap()]);
    (rate(&up), rate(&down))
}

#[test]
fn a_link_has_the_bandwidth_that_it_is_given() {
    let Some(mut d) = Daemon::start() else { return };
    d.wharf("run -d --name aa --bandwidth up=10mbit,down=100mbit busybox sleep 1000").ok();
    assert_eq!(rates(&d, "aa", "eth0"), (Some(1_250_000), Some(12_500_000)));
    let options = |container: &str, network: &str| {
        let shown = d.get(&format!("/containers/{container}/json"));
        shown["NetworkSettings"]["Networks"][network]["DriverOpts"].clone()
    };
    let asked = json!({ "dev.wharf.bandwidth.up": "10mbit", "dev.wharf.bandwidth.down": "100mbit" });
    assert_eq!(options("aa", "bridge"), asked);

    // Changed while it runs, one direction by itself; kept over a restart and the daemon's death.
    d.wharf("update --bandwidth up=8mbit aa").ok();
    assert_eq!(rates(&d, "aa", "eth0"), (Some(1_000_000), Some(12_500_000)));
    d.docker("restart -t 0 aa").ok();
    assert_eq!(rates(&d, "aa", "eth0"), (Some(1_000_000), Some(12_500_000)));
    d.kill();
    d.launch();
    assert_eq!(rates(&d, "aa", "eth0"), (Some(1_000_000), Some(12_500_000)));
    d.wharf("update --bandwidth unlimited aa").ok();
    assert_eq!(rates(&d, "aa", "eth0"), (None, None));

    // A network has limits for all that say nothing else; Docker's client can ask, too.
    d.docker("network create -o dev.wharf.bandwidth.down=16mbit slow").ok();
    d.docker("run -d --name bb --network slow busybox sleep 1000").ok();
    assert_eq!(rates(&d, "bb", "eth0"), (None, Some(2_000_000)));
    d.wharf("network connect --bandwidth down=unlimited,up=1.6gbit slow aa").ok();
    assert_eq!(rates(&d, "aa", "eth1"), (Some(200_000_000), None));
    assert_eq!(rates(&d, "aa", "eth0"), (None, None));
    d.docker("network disconnect slow aa").ok();
    d.docker("network connect --driver-opt dev.wharf.bandwidth.up=800kbit slow aa").ok();
    assert_eq!(rates(&d, "aa", "eth1"), (Some(100_000), Some(2_000_000)));

    // One that does not run has it from its next start.
    d.wharf("create --name cc --network slow --bandwidth 4mbit busybox sleep 1000").ok();
    d.wharf("update --bandwidth up=2mbit cc").ok();
    d.docker("start cc").ok();
    assert_eq!(rates(&d, "cc", "eth0"), (Some(250_000), Some(500_000)));
    d.docker("rm -f aa bb cc").ok();
    d.docker("network rm slow").ok();
}

#[test]
fn a_bandwidth_that_cannot_be_is_refused() {
    let Some(d) = Daemon::start() else { return };
    let refused = |words: &str, why: &str| {
        let said = d.wharf(words);
        assert!(said.code != 0 && said.err.contains(why), "{words}: {}", said.err);
    };
    refused("run --rm --bandwidth 10mb busybox true", "invalid bandwidth `10mb`: write a number with bit, kbit");
    refused("run --rm --bandwidth sideways=1mbit busybox true", "write up=RATE,down=RATE or one RATE for both");
    for mode in ["host", "none"] {
        let why = format!("cannot be limited in the network mode {mode}: the container has no link of its own");
        refused(&format!("run --rm --network {mode} --bandwidth 1mbit busybox true"), &why);
    }
    refused("network create -o dev.wharf.bandwidth.up=fast net", "dev.wharf.bandwidth.up: invalid bandwidth `fast`");
    d.docker("run -d --name aa --network none busybox sleep 1000").ok();
    refused("update --bandwidth 1mbit aa", "the container has no link of its own");
    d.docker("run -d --name shared --network container:aa busybox sleep 1000").ok();
    refused("update --bandwidth 1mbit shared", "the container has no link of its own");
    d.docker("network create -d macvlan mv").ok();
    refused("run --rm --network mv --bandwidth 1mbit busybox true", "limit `up` alone");
    d.wharf("run -d --name mm --network mv --bandwidth up=1mbit busybox sleep 1000").ok();
    // Nothing of a change that cannot be is there afterwards.
    refused("update --bandwidth up=2mbit,down=2mbit mm", "limit `up` alone");
    let pid = d.docker("inspect -f {{.State.Pid}} mm").ok();
    let netns = format!("--net=/proc/{pid}/ns/net");
    let up = run("nsenter", &[&netns, "tc", "-j", "qdisc", "show", "dev", "eth0"]);
    assert_eq!(rate(&up), Some(125_000));
    let options = d.get("/containers/mm/json")["NetworkSettings"]["Networks"]["mv"]["DriverOpts"].clone();
    assert_eq!(options, json!({ "dev.wharf.bandwidth.up": "1mbit" }));
    d.docker("rm -f aa shared mm").ok();
    d.docker("network rm mv").ok();
}
