//! Configuration networks, and what `inspect` and the requests around networks say, as Docker's do.

use serde_json::Value;

use crate::kit::Daemon;

fn inspected(d: &Daemon, network: &str) -> Value {
    let all: Value = serde_json::from_str(&d.docker(&format!("network inspect {network}")).ok()).unwrap();
    all[0].clone()
}

#[test]
fn networks_are_made_of_a_configuration() {
    let Some(mut d) = Daemon::start() else { return };
    let options = "--subnet 10.209.7.0/24 --gateway 10.209.7.9 --label a=b -o com.docker.network.driver.mtu=1400";
    d.docker(&format!("network create --config-only {options} plan")).ok();
    let plan = inspected(&d, "plan");
    assert_eq!((&plan["ConfigOnly"], &plan["Driver"]), (&Value::Bool(true), &Value::from("null")));
    d.docker("network create --config-from plan --internal made").ok();
    let made = inspected(&d, "made");
    assert_eq!((&made["ConfigFrom"]["Network"], &made["Internal"]), (&Value::from("plan"), &Value::Bool(true)));
    for key in ["IPAM", "Labels", "Options", "EnableIPv6"] {
        assert_eq!(made[key], plan[key], "{key}");
    }
    assert_eq!(d.docker("run --rm --network made busybox cat /sys/class/net/eth0/mtu").ok(), "1400");
    // A daemon that comes after a kill knows both.
    d.kill();
    d.launch();
    assert_eq!(inspected(&d, "made")["ConfigFrom"]["Network"], "plan");
    for (command, words) in [
        ("network rm plan", "configuration network \"plan\" is in use"),
        ("run --rm --network plan busybox true", "cannot create endpoint on configuration-only network"),
        ("network create --config-from plan more", "Pool overlaps"),
        ("network create --config-from none more", "configuration network \"none\" does not exist"),
        ("network create --config-from made more", "configuration network \"made\" does not exist"),
        ("network create --config-from plan --subnet 10.209.8.0/24 more", "configurations are not supported"),
        ("network create --config-only --internal more", "can only contain network specific fields"),
        ("network create --config-only --subnet 10.209.8.1/24 more", "it should be 10.209.8.0/24"),
        ("network create -d overlay more", "This node is not a swarm manager"),
        ("network create --scope swarm more", "when swarm is not active"),
        ("network create --ingress more", "Ingress network can only be global scope network"),
    ] {
        let said = d.docker(command);
        assert!(said.code != 0 && said.err.contains(words), "{command}: {}", said.err);
    }
    assert_eq!(d.docker("network prune -f").ok().lines().last(), Some("made"), "a configuration is kept");
    d.docker("network rm plan").ok();
}

#[test]
fn inspect_shows_what_was_asked_for() {
    let Some(d) = Daemon::start() else { return };
    let pools = |network: &str| inspected(&d, network)["IPAM"]["Config"].clone();
    d.docker("network create --subnet 10.209.9.0/24 four").ok();
    assert_eq!(pools("four"), serde_json::json!([{ "Subnet": "10.209.9.0/24" }]), "no gateway was asked for");
    let gateway = d.docker("run --rm --network four busybox ip route").ok();
    assert!(gateway.contains("via 10.209.9.1 "), "it has one all the same: {gateway}");
    assert_eq!(pools("none"), Value::Null);
    for (command, words) in [
        ("--subnet 10.209.10.0/24 --gateway 10.209.10.0 bad", "failed to allocate gateway (10.209.10.0)"),
        (
            "--subnet 10.209.10.0/24 --gateway 10.209.10.5 --aux-address a=10.209.10.5 bad",
            "failed to allocate secondary ip address (a:10.209.10.5)",
        ),
        (
            "-o com.docker.network.bridge.enable_icc=x bad",
            "failed to parse com.docker.network.bridge.enable_icc value: x",
        ),
    ] {
        let said = d.docker(&format!("network create {command}"));
        assert!(said.code != 0 && said.err.contains(words), "{command}: {}", said.err);
    }
}

#[test]
fn a_container_is_on_the_networks_that_it_names() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create --subnet 10.209.11.0/24 one").ok();
    let create = |name: &str, more: &str| {
        let body = format!("{{\"Image\":\"busybox\",\"Cmd\":[\"sleep\",\"1000\"],{more}}}");
        d.post(&format!("/containers/create?name={name}"), &body, true).unwrap()
    };
    let named = r#""NetworkingConfig":{"EndpointsConfig":{"one":{}}}"#;
    assert_eq!(create("named", named).0, 201);
    d.docker("start named").ok();
    let named: Value = serde_json::from_str(&d.docker("inspect named").ok()).unwrap();
    assert_eq!(
        named[0]["NetworkSettings"]["Networks"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["one"],
        "and not on the default one"
    );
    let elsewhere = r#""HostConfig":{"NetworkMode":"one"},"NetworkingConfig":{"EndpointsConfig":{"one":{"IPAMConfig":{"IPv4Address":"10.1.1.1"}}}}"#;
    for (more, words) in [
        (r#""NetworkingConfig":{"EndpointsConfig":{"one":null}}"#, "EndpointsConfig is nil"),
        (elsewhere, "no configured subnet or ip-range contain the IP address 10.1.1.1"),
        (r#""HostConfig":{"PidMode":"container:nobody"}"#, "No such container: nobody"),
        (r#""NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"]}}}"#, "network-scoped alias is supported"),
    ] {
        let (status, said) = create("bad", more);
        assert!(status == 400 && said.contains(words), "{more}: {status} {said}");
    }
    // A hardware address that was asked for is that of each start.
    d.docker("run -d --name fixed --mac-address 02:42:0a:00:00:77 busybox sleep 1000").ok();
    d.docker("stop -t 0 fixed").ok();
    d.docker("start fixed").ok();
    assert_eq!(d.docker("exec fixed cat /sys/class/net/eth0/address").ok(), "02:42:0a:00:00:77");

    // Who is on none joins others when it has left that.
    d.docker("run -d --name alone --network none busybox sleep 1000").ok();
    let said = d.docker("network connect one alone");
    assert!(said.code != 0 && said.err.contains("private (none) mode"), "{}", said.err);
    d.docker("network disconnect none alone").ok();
    d.docker("network connect one alone").ok();
    assert!(d.docker("exec alone ip addr").ok().contains("10.209.11."));
}
