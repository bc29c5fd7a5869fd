//! Networks with IPv6, through the API and Docker's own command line.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::kit::Daemon;

const NETWORK: &str = "{{.NetworkSettings.Networks.six.";

fn inspect(d: &Daemon, field: &str, container: &str) -> String {
    d.docker(&format!("inspect -f {NETWORK}{field}}}}} {container}")).ok()
}

/// What `web` hears of a name.
fn asks(d: &Daemon, kind: &str, name: &str) -> String {
    d.docker(&format!("exec web nslookup -type={kind} {name}")).out
}

/// What a server at `::1` says.
fn ask(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn containers_have_addresses_names_and_ports_of_both_families() {
    let Some(mut d) = Daemon::start() else { return };
    let id = d.docker("network create --ipv6 --subnet fd00:cafe:1::/64 six").ok();
    let network = d.get(&format!("/networks/{id}"));
    assert_eq!((&network["EnableIPv4"], &network["EnableIPv6"]), (&json!(true), &json!(true)));
    let pools = network["IPAM"]["Config"].as_array().unwrap();
    assert_eq!(pools[0], json!({ "Subnet": "fd00:cafe:1::/64" }), "as it was asked for, and before what was not");
    d.docker("network create plain").ok();
    d.docker("run -d --name db --network six --ip6 fd00:cafe:1::99 --network-alias store busybox sleep 1000").ok();
    let serve = "busybox httpd -f -p [::]:80 -h /etc";
    let run = "run -d --name web --network six --link-local-ip fe80::77 -p 80 --add-host far:[2001:db8::1] --add-host host:host-gateway";
    d.docker(&format!("{run} busybox {serve}")).ok();
    assert_eq!(inspect(&d, "GlobalIPv6Address", "web"), "fd00:cafe:1::2");
    assert_eq!(inspect(&d, "GlobalIPv6PrefixLen", "web"), "64");
    assert_eq!(inspect(&d, "IPv6Gateway", "web"), "fd00:cafe:1::1");
    assert_eq!(inspect(&d, "GlobalIPv6Address", "db"), "fd00:cafe:1::99");
    let shown = d.get("/networks/six");
    let container = d.docker("inspect -f {{.Id}} web").ok();
    assert_eq!(shown["Containers"][&container]["IPv6Address"], "fd00:cafe:1::2/64");
    let counted = &d.get("/v1.52/networks/six")["Status"]["IPAM"]["Subnets"]["fd00:cafe:1::/64"];
    assert_eq!(counted["IPsInUse"], 4, "any router's, the gateway, two containers");

    // Names, both ways, and none for what has no such address.
    for name in ["db", "store", "db.six"] {
        assert!(asks(&d, "aaaa", name).contains("fd00:cafe:1::99"), "{}", asks(&d, "aaaa", name));
    }
    assert!(asks(&d, "a", "db").contains(&inspect(&d, "IPAddress", "db")));
    let digits = format!("{:032x}", "fd00:cafe:1::99".parse::<Ipv6Addr>().unwrap().to_bits());
    let reversed: String = digits.chars().rev().map(|digit| format!("{digit}.")).collect();
    let named = asks(&d, "ptr", &format!("{reversed}ip6.arpa"));
    assert!(named.contains("db.six"), "{named}");
    d.docker("network connect plain web").ok();
    d.docker("run -d --name four --network plain busybox sleep 1000").ok();
    let four = asks(&d, "aaaa", "four");
    assert!(!four.contains("NXDOMAIN") && !four.contains("fd00:"), "{four}");
    d.docker("exec web ping -6 -c 1 -w 5 db").ok();
    let hosts = d.docker("exec web cat /etc/hosts").ok();
    let bridge = &d.get("/networks/bridge")["IPAM"]["Config"][0]["Gateway"];
    let gateway = format!("{}\thost", bridge.as_str().unwrap());
    for line in ["fd00:cafe:1::2\t", "2001:db8::1\tfar", &gateway] {
        assert!(hosts.contains(line), "{line}: {hosts}");
    }
    let addresses = d.docker("exec web ip -6 addr show eth0").ok();
    assert!(addresses.contains("fe80::77/64") && !addresses.contains("tentative"), "{addresses}");
    assert_eq!(d.docker("exec four cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").ok(), "1");

    // Ports of both families have one number.
    let ports = d.docker("port web 80/tcp").ok();
    let ports: Vec<&str> = ports.lines().collect();
    let port: u16 = ports[0].strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
    assert!(ports[1].ends_with(&format!(":{port}")) && ports[1].contains("::"), "{ports:?}");
    d.eventually("the server answers at ::1", || ask(port).is_ok_and(|answer| answer.contains("HTTP/1")));

    // All of it is there without a daemon, and for the next one.
    d.kill();
    assert!(ask(port).is_ok());
    d.launch();
    assert_eq!(inspect(&d, "GlobalIPv6Address", "web"), "fd00:cafe:1::2");
    assert_eq!(inspect(&d, "IPv6Gateway", "web"), "fd00:cafe:1::1");
    assert!(d.docker("port web").ok().contains(&format!("[::]:{port}")) || d.docker("port web").ok().contains(":::"));
    assert!(ask(port).is_ok());
    d.docker("run -d --name more --network six busybox sleep 1000").ok();
    assert_eq!(inspect(&d, "GlobalIPv6Address", "more"), "fd00:cafe:1::3");

    // Left and joined while it runs.
    d.docker("network disconnect six more").ok();
    assert!(!asks(&d, "aaaa", "more").contains("fd00:"));
    d.docker("network connect --ip6 fd00:cafe:1::50 six more").ok();
    assert_eq!(inspect(&d, "GlobalIPv6Address", "more"), "fd00:cafe:1::50");
    d.docker("exec more ping -6 -c 1 -w 5 db").ok();

    // Ports follow: one of IPv4 gets its IPv6 with a network that has it, and goes with what it was published on.
    let late = d.docker("run -d --name late --network plain -p 80 busybox httpd -f -p [::]:80 -h /etc").ok();
    let both = d.docker("port late 80/tcp").ok();
    let number = both.lines().next().unwrap().strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
    d.eventually("it is relayed", || ask(number).is_ok());
    d.docker("network connect six late").ok();
    assert_eq!(d.docker("port late 80/tcp").ok().lines().count(), 2);
    d.eventually("the server answers at ::1", || ask(number).is_ok());
    d.docker("network disconnect six late").ok();
    assert_eq!(d.docker("port late 80/tcp").ok(), both);
    d.eventually("it is relayed again", || ask(number).is_ok());
    d.docker(&format!("network disconnect plain {late}")).ok();
    assert_eq!(d.docker("port late").ok(), "");
    d.docker("rm -f db web four more late").ok();
    d.docker("network rm six plain").ok();
    let link = std::process::Command::new("ip").args(["-6", "addr"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&link.stdout).contains("fd00:cafe:1:"));
}

#[test]
fn what_makes_no_sense_is_refused_in_docker_s_words() {
    let Some(d) = Daemon::start() else { return };
    let create = |body: serde_json::Value| d.post("/networks/create", &body.to_string(), true).unwrap();
    let config = |subnet: &str, gateway: &str| json!({ "Driver": "default", "Config": [{ "Subnet": subnet, "Gateway": gateway }] });
    let (status, text) = create(json!({ "Name": "x", "EnableIPv6": true, "IPAM": config("fd00::/64", "fd01::1") }));
    assert_eq!(status, 400);
    assert!(text.contains("invalid gateway fd01::1: parent subnet fd00::/64 doesn't contain this address"), "{text}");
    let (status, text) = create(json!({ "Name": "x", "EnableIPv4": false }));
    assert_eq!((status, text.contains("IPv4 or IPv6 must be enabled")), (400, true), "{text}");
    d.docker("network create --ipv6 --subnet fd00:cafe:2::/64 six").ok();
    let (status, text) = create(json!({ "Name": "x", "EnableIPv6": true, "IPAM": config("fd00:cafe:2::/80", "") }));
    assert_eq!(status, 403, "{text}");
    let refused = |words: &str, why: &str| {
        let said = d.docker(words);
        assert!(said.code != 0 && said.err.contains(why), "{words}: {}", said.err);
    };
    refused("run --rm --network six --ip6 fd00:beef::1 busybox true", "fd00:beef::1");
    refused("run --rm --network six --ip6 fd00:cafe:2::1 busybox true", "Address already in use");
    refused("run --rm --network bridge --ip6 fd00::1 busybox true", "user defined networks only");
    refused("run --rm -p [::1]:8099:80/sctp busybox true", "the container has no IPv6 address");
    // IPv6 alone, and turned off by the container.
    d.wharf("network create --ipv4=false --ipv6 only").ok();
    let only = d.docker("run --rm --network only busybox ip addr show eth0").ok();
    assert!(only.contains("inet6 fd") && !only.contains("inet "), "{only}");
    let off = "run --rm --network six --sysctl net.ipv6.conf.all.disable_ipv6=1 busybox ip addr show eth0";
    let off = d.docker(off).ok();
    assert!(!off.contains("inet6") && off.contains("inet "), "{off}");
    d.docker("network rm six only").ok();
}

#[test]
fn the_highest_priority_leads_out() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create --ipv6 --subnet fd00:cafe:3::/64 a").ok();
    d.docker("network create --ipv6 --subnet fd00:cafe:4::/64 b").ok();
    let run = "run -d --name cc --network name=a --network name=b,gw-priority=10 busybox sleep 1000";
    d.wharf(run).ok();
    let first = |family: &str| {
        let routes = d.docker(&format!("exec cc ip {family} route show default")).ok();
        let metric = |line: &str| {
            let metric: Option<u32> =
                line.split(" metric ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            metric.unwrap_or(0)
        };
        routes.lines().min_by_key(|line| metric(line)).unwrap().to_owned()
    };
    assert!(first("-6").contains("via fd00:cafe:4::1"), "{}", first("-6"));
    let gateway = d.docker("inspect -f {{.NetworkSettings.Networks.b.Gateway}} cc").ok();
    assert!(first("-4").contains(&gateway), "{}", first("-4"));
    // One that comes later.
    d.docker("network create --ipv6 --subnet fd00:cafe:5::/64 later").ok();
    d.wharf("network connect --gw-priority 20 later cc").ok();
    assert!(first("-6").contains("via fd00:cafe:5::1"), "{}", first("-6"));
    d.docker("network disconnect later cc").ok();
    assert!(first("-6").contains("via fd00:cafe:4::1"), "{}", first("-6"));
    d.docker("rm -f cc").ok();
    d.docker("network rm a b later").ok();
}

#[test]
fn the_default_bridge_has_ipv6_when_told_so() {
    let options = [
        "--ipv6",
        "--fixed-cidr-v6",
        "fd00:cafe:6::/64",
        "--default-network-opt",
        "bridge=com.docker.network.enable_ipv6=true",
    ];
    let Some(d) = Daemon::start_given(&options) else { return };
    let bridge = d.get("/networks/bridge");
    assert_eq!(bridge["EnableIPv6"], true);
    let addresses = d.docker("run --rm busybox ip -6 addr show eth0").ok();
    assert!(addresses.contains("fd00:cafe:6::2/64"), "{addresses}");
    d.docker("network create other").ok();
    let other = d.get("/networks/other");
    let subnet = other["IPAM"]["Config"][1]["Subnet"].as_str().unwrap();
    assert!(subnet.starts_with("fd") && subnet.ends_with("/64"), "one of this host's own: {subnet}");
    d.docker("network rm other").ok();
    let words = "network create --ipv6 --subnet 10.213.7.0/24 --gateway 10.213.7.9 --subnet fd00:cafe:7::/64 --gateway \
                 fd00:cafe:7::9 --ip-range fd00:cafe:7::8000/113 --aux-address r=fd00:cafe:7::8000 detailed";
    for ours in [false, true] {
        if ours { d.wharf(words) } else { d.docker(words) }.ok();
        let six = &d.get("/networks/detailed")["IPAM"]["Config"][1];
        let expected = json!({
            "Subnet": "fd00:cafe:7::/64", "Gateway": "fd00:cafe:7::9", "IPRange": "fd00:cafe:7::8000/113",
            "AuxiliaryAddresses": { "r": "fd00:cafe:7::8000" },
        });
        assert_eq!(*six, expected);
        let shown = d.docker("run --rm --network detailed busybox ip -6 addr show eth0").ok();
        assert!(shown.contains("fd00:cafe:7::8001/64"), "{shown}");
        d.docker("network rm detailed").ok();
    }
}

/// What was published of one family goes to the next network that has it, though the other stays where it is.
#[test]
fn each_family_s_ports_go_to_the_next_network_that_has_it() {
    let Some(d) = Daemon::start() else { return };
    for network in ["aa", "--ipv6 --ipv4=false bb", "cc"] {
        d.docker(&format!("network create {network}")).ok();
    }
    d.docker("run -d --name web --network aa -p 80 busybox httpd -f -p [::]:80 -h /etc").ok();
    d.docker("network connect bb web").ok();
    d.docker("network connect cc web").ok();
    let both = d.docker("port web 80/tcp").ok();
    assert_eq!(both.lines().count(), 2, "{both}");
    let number: u16 = both.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    d.docker("network disconnect aa web").ok();
    assert_eq!(d.docker("port web 80/tcp").ok().lines().count(), 2);
    // By what it says: a port that is free is soon another engine's, of a test beside this one.
    let own = d.docker("exec web cat /etc/hostname").ok();
    let reached = |at: &str| {
        let mut answer = String::new();
        let asked = TcpStream::connect(format!("{at}:{number}")).and_then(|mut stream| {
            stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.ends_with(&format!("\r\n\r\n{own}\n"))
    };
    d.eventually("the server answers at 127.0.0.1", || reached("127.0.0.1"));
    assert!(reached("[::1]"));
    d.docker("network disconnect cc web").ok();
    assert_eq!(d.docker("port web 80/tcp").ok(), format!("[::]:{number}"));
    assert!(!reached("127.0.0.1"));
    d.docker("rm -f web").ok();
    d.docker("network rm aa bb cc").ok();
}
