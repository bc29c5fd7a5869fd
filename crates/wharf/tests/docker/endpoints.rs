//! What is asked of a container's place on a network.

use crate::kit::{Daemon, Said};

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

fn links(d: &Daemon, container: &str) -> Vec<String> {
    let mut all: Vec<String> =
        d.docker(&format!("exec {container} ls /sys/class/net")).ok().split_whitespace().map(str::to_owned).collect();
    all.sort();
    all
}

/// A container's value of a parameter of the network.
fn parameter(d: &Daemon, container: &str, name: &str) -> String {
    d.docker(&format!("exec {container} cat /proc/sys/net/{name}")).ok()
}

fn run(d: &Daemon, name: &str, networks: &[&str]) -> Said {
    let mut command = d.client();
    command.args(["run", "-d", "--name", name]);
    command.args(networks.iter().flat_map(|network| ["--network", network]));
    command.args(["busybox", "sleep", "1000"]).output().unwrap().into()
}

#[test]
fn an_interface_has_the_name_and_the_parameters_that_it_is_given() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("network create two").ok();
    let sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.ifname.gc_stale_time=77";
    let named = format!("name=one,driver-opt={IFNAME}=foo0,\"driver-opt={SYSCTLS}={sysctls}\"");
    run(&d, "both", &[&named, "two"]).ok();
    assert_eq!(links(&d, "both"), ["eth0", "foo0", "lo"]);
    assert_eq!(parameter(&d, "both", "ipv4/conf/foo0/log_martians"), "1");
    assert_eq!(parameter(&d, "both", "ipv4/neigh/foo0/gc_stale_time"), "77");
    assert_eq!(parameter(&d, "both", "ipv4/conf/eth0/log_martians"), "0");
    // It is asked for again at each start.
    d.docker("restart -t 0 both").ok();
    assert_eq!(links(&d, "both"), ["eth0", "foo0", "lo"]);
    assert_eq!(parameter(&d, "both", "ipv4/conf/foo0/log_martians"), "1");

    // The others are numbered around it.
    run(&d, "around", &["one", &format!("name=two,driver-opt={IFNAME}=eth0")]).ok();
    assert_eq!(links(&d, "around"), ["eth0", "eth1", "lo"]);
    let own = d.docker("inspect -f {{.NetworkSettings.Networks.two.MacAddress}} around").ok();
    assert_eq!(d.docker("exec around cat /sys/class/net/eth0/address").ok(), own);

    // Those that come later.
    run(&d, "later", &[&format!("name=one,driver-opt={IFNAME}=foo0")]).ok();
    d.docker(&format!(
        "network connect --driver-opt {IFNAME}=bar --driver-opt {SYSCTLS}=net.ipv4.conf.IFNAME.forwarding=0 two later"
    ))
    .ok();
    d.docker("network connect bridge later").ok();
    assert_eq!(links(&d, "later"), ["bar", "eth0", "foo0", "lo"]);
    assert_eq!(parameter(&d, "later", "ipv4/conf/bar/forwarding"), "0");
    // The way out is still the first.
    let route = d.docker("exec later ip route get 198.51.100.1").ok();
    assert!(route.contains("dev foo0"), "{route}");
    d.docker("network disconnect one later").ok();
    let route = d.docker("exec later ip route get 198.51.100.1").ok();
    assert!(route.contains("dev bar"), "{route}");
    d.docker("rm -f both around later").ok();
    d.docker("network rm one two").ok();
}

#[test]
fn an_interface_that_cannot_be_is_refused() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("network create two").ok();
    for bad in ["a/b", "..", "abcdefghijklmnop", "eth%d"] {
        let said = run(&d, "bad", &[&format!("name=one,driver-opt={IFNAME}={bad}")]);
        assert!(said.code != 0 && said.err.contains("error renaming interface"), "{bad}: {}", said.err);
    }
    for bad in ["net.ipv4.conf.eth0.forwarding=1", "kernel.msgmax=1", "net.ipv4.conf.IFNAME.x/../forwarding=1"] {
        let said = run(&d, "bad", &[&format!("name=one,driver-opt={SYSCTLS}={bad}")]);
        // Docker's client makes it lower case.
        let words = format!("interface sysctl '{bad}'").to_lowercase();
        assert!(said.code != 0 && said.err.to_lowercase().contains(&words), "{bad}: {}", said.err);
    }
    assert_eq!(d.docker("ps -aq").ok(), "");
    let said = run(&d, "bad", &[&format!("name=one,driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.nosuch=1")]);
    assert!(said.err.contains("/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file"), "{}", said.err);
    d.docker("rm -f bad").ok();
    let twice = ["one", "two"].map(|name| format!("name={name},driver-opt={IFNAME}=foo0"));
    let said = run(&d, "bad", &[&twice[0], &twice[1]]);
    assert!(said.err.contains("error renaming interface to \"foo0\""), "{}", said.err);
    d.docker("rm -f bad").ok();

    run(&d, "there", &[&twice[0]]).ok();
    let body =
        |name: &str| format!(r#"{{"Container":"there","EndpointConfig":{{"DriverOpts":{{"{IFNAME}":"{name}"}}}}}}"#);
    let connect = |name: &str| d.post("/networks/two/connect", &body(name), true).unwrap();
    assert_eq!(connect("foo0").0, 409);
    assert_eq!(connect("lo").0, 409);
    assert_eq!(connect("a:b").0, 400);
    assert_eq!(links(&d, "there"), ["foo0", "lo"]);
    d.docker("rm -f there").ok();
    d.docker("network rm one two").ok();
}

#[test]
fn an_endpoint_of_nobody_is_no_endpoint() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    for verb in ["connect", "disconnect"] {
        for body in ["", "{}", r#"{"Container":""}"#] {
            let (status, answer) = d.post(&format!("/networks/one/{verb}"), body, true).unwrap();
            assert_eq!(
                (status, answer.contains("invalid name or ID supplied")),
                (400, true),
                "{verb} {body}: {answer}"
            );
        }
    }
    assert_eq!(d.post("/networks/nosuch/connect", "{}", true).unwrap().0, 404);
    let said = d.docker("network disconnect -f one nope");
    assert!(said.code != 0 && said.err.contains("endpoint nope not found"), "{}", said.err);
    let said = d.docker("network disconnect -f nosuch nope");
    assert!(said.code != 0 && said.err.contains("network nosuch not found"), "{}", said.err);
    d.docker("network rm one").ok();
}

#[test]
fn a_body_is_an_object() {
    let Some(d) = Daemon::start() else { return };
    for (path, body, words) in [
        ("/volumes/create", "[]", "cannot unmarshal array into Go value of type volume.CreateRequest"),
        ("/volumes/create", "\"v\"", "cannot unmarshal string into Go value of type volume.CreateRequest"),
        ("/networks/create", "[]", "cannot unmarshal array into Go value of type network.CreateRequest"),
        ("/containers/create", "[]", "cannot unmarshal array into Go value of type container.CreateRequest"),
        ("/networks/bridge/connect", "[]", "cannot unmarshal array into Go value of type network.ConnectRequest"),
    ] {
        let (status, answer) = d.post(path, body, true).unwrap();
        assert!(status == 400 && answer.contains(words), "{path}: {status} {answer}");
    }
    assert_eq!(d.docker("volume ls -q").ok(), "");
    assert_eq!(d.post("/volumes/create", "null", true).unwrap().0, 201, "as if nothing were said");
}

#[test]
fn a_subnet_of_a_family_that_is_off_is_shown() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create --subnet fd99:7::/64 --gateway fd99:7::9 --subnet 10.197.3.0/24 four").ok();
    let four = d.get("/networks/four");
    assert_eq!((&four["EnableIPv4"], &four["EnableIPv6"]), (&true.into(), &false.into()));
    let wanted = serde_json::json!([
        { "Subnet": "10.197.3.0/24" },
        { "Subnet": "fd99:7::/64", "Gateway": "fd99:7::9" },
    ]);
    assert_eq!(four["IPAM"]["Config"], wanted);
    let addresses = d.docker("run --rm --network four busybox ip -6 addr show dev eth0").ok();
    assert!(!addresses.contains("fd99"), "{addresses}");
    d.docker("network rm four").ok();
}

#[test]
fn who_leaves_none_can_join_others() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("run -d --network none --name late busybox sleep 1000").ok();
    let none = "one of the networks in private (none) mode";
    assert!(d.docker("network connect one late").err.contains(none));
    d.docker("network disconnect none late").ok();
    d.docker("network connect one late").ok();
    assert!(d.docker("network connect none late").err.contains(none));
    let address = || d.docker("exec late ip -o -4 addr show eth0").ok();
    let own = d.docker("inspect -f {{.NetworkSettings.Networks.one.IPAddress}} late").ok();
    assert!(!own.is_empty() && address().contains(&own), "{own}: {}", address());
    // On and on.
    d.docker("restart -t 0 late").ok();
    assert!(address().contains("inet "), "{}", address());
    d.docker("network disconnect one late").ok();
    let gone = d.docker("network disconnect one late").err;
    assert!(gone.contains("is not connected to network one"), "{gone}");
    d.docker("network connect none late").ok();
    assert!(d.docker("inspect late").ok().contains("\"none\": {"));
}

#[test]
fn a_network_may_be_too_narrow_for_ipv6() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create -o com.docker.network.driver.mtu=1234 narrow").ok();
    let link = d.docker("run --rm --network narrow busybox ip link show eth0").ok();
    assert!(link.contains("mtu 1234"), "{link}");
}

#[test]
fn networks_are_asked_for_in_docker_s_words() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create a/b").ok();
    assert_eq!(d.docker("network inspect -f {{.Name}} a/b").ok(), "a/b");
    d.docker("network rm a/b").ok();
    let create = |ipam: &str| {
        let body = format!(r#"{{"Name":"x","IPAM":{{"Config":{ipam}}}}}"#);
        let (status, answer) = d.post("/networks/create", &body, true).unwrap();
        format!("{status} {answer}")
    };
    let nothing = r#"400 {"message":"invalid network config:\ninvalid subnet : invalid CIDR block notation"}"#;
    assert_eq!(create("[{}]").trim(), nothing);
    for list in ["network ls --filter label!=a", "volume ls --filter label!=a"] {
        assert!(d.docker(list).err.contains("invalid filter 'label!'"), "{list}: {}", d.docker(list).err);
    }
    d.docker("network create --label keep kept").ok();
    d.docker("network create gone").ok();
    let pruned = d.docker("network prune -f --filter label!=keep").ok();
    assert!(pruned.contains("gone") && !pruned.contains("kept"), "{pruned}");
    let wrong = d.docker("network ls --filter dangling=x").err;
    assert!(wrong.contains("invalid value for filter 'dangling', must be \"true\""), "{wrong}");

    // Which network it will be is told of by its name, until it has been there.
    let id = |container: &str| {
        d.docker(&format!(
            "inspect -f {{{{range.NetworkSettings.Networks}}}}[{{{{.NetworkID}}}}]{{{{end}}}} {container}"
        ))
        .ok()
    };
    for network in ["bridge", "kept", "none"] {
        let name = format!("on-{network}");
        d.docker(&format!("create --name {name} --network {network} busybox true")).ok();
        assert_eq!(id(&name), "[]");
        d.docker(&format!("start -a {name}")).ok();
        let known = d.docker(&format!("network inspect -f {{{{.Id}}}} {network}")).ok();
        assert_eq!(id(&name), format!("[{known}]"));
    }
}
