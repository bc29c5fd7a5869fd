//! dockerd's options that say what containers get and what the default bridge lets them do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::build_inputs;
use crate::kit::Daemon;

/// `mkdir` is forbidden in it, whatever a container is allowed.
const PROFILE: &str = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 }] }"#;

#[test]
fn containers_that_do_not_say_get_what_the_daemon_says() {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("profile.json");
    std::fs::write(&profile, PROFILE).unwrap();
    let profile = profile.to_str().unwrap();
    let options = [
        "--default-shm-size=128M",
        "--default-ipc-mode=shareable",
        "--no-new-privileges",
        "--seccomp-profile",
        profile,
        // What changes nothing here is taken.
        "--containerd=/run/containerd/containerd.sock",
        "--exec-opt",
        "native.cgroupdriver=systemd",
    ];
    let Some(d) = Daemon::start_given(&options) else { return };
    let told = d.docker("info -f {{.SecurityOptions}}").ok();
    assert!(told.contains(&format!("profile={profile}")) && told.contains("name=no-new-privileges"), "{told}");
    d.docker("run -d --name cc busybox sleep 1000").ok();
    assert_eq!(d.docker("inspect -f {{.HostConfig.IpcMode}}-{{.HostConfig.ShmSize}} cc").ok(), "shareable-134217728");
    assert!(d.docker("exec cc df -k /dev/shm").ok().contains(" 131072 "));
    for with in ["exec cc", "run --rm busybox"] {
        assert!(d.docker(&format!("{with} grep NoNewPrivs /proc/self/status")).ok().ends_with('1'), "{with}");
        let refused = d.docker(&format!("{with} mkdir /tmp/x"));
        assert!(refused.code != 0 && refused.err.contains("Disk quota exceeded"), "{with}: {}", refused.err);
    }
    // Who says otherwise is heard.
    let options = "--security-opt seccomp=builtin --security-opt no-new-privileges=false --shm-size 1m --ipc private";
    let said = d.sh(options, "mkdir /tmp/x && grep NoNewPrivs /proc/self/status && df -k /dev/shm");
    assert!(
        said.code == 0 && said.out.contains("NoNewPrivs:\t0") && said.out.contains(" 1024 "),
        "{}{}",
        said.out,
        said.err
    );
    d.docker("rm -f cc").ok();
}

/// Another address of the bridge would cut off what runs there, and whoever reaches it by its ports.
#[test]
fn the_default_bridge_moves_when_nobody_is_on_it() {
    let Some(mut d) = Daemon::start_given(&["--bip=10.216.0.1/24", "--ip=127.0.0.1"]) else { return };
    d.docker("run -d --name web -p 80 busybox httpd -f -p 80 -h /etc").ok();
    let subnet = |d: &Daemon| d.get("/networks/bridge")["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned();
    let port = d.docker("port web 80/tcp").ok();
    let reached = |d: &Daemon| d.docker("exec web ping -c 1 -W 2 10.216.0.1").code == 0;
    assert!(reached(&d), "the gateway answers");
    d.kill();
    d.options(&["--bip=10.217.0.1/24", "--ip=127.0.0.1"]);
    d.launch();
    assert!(d.log().contains("it keeps its addresses"), "{}", d.log());
    assert_eq!((subnet(&d).as_str(), d.docker("port web 80/tcp").ok()), ("10.216.0.0/24", port));
    assert!(reached(&d), "it does so still");
    d.docker("restart -t 0 web").ok();
    d.docker("rm -f web").ok();
    d.stop();
    d.launch();
    assert_eq!(subnet(&d), "10.217.0.0/24");
}

#[test]
fn the_default_bridge_is_as_the_daemon_says() {
    let options = [
        "--icc=false",
        "--ip=127.0.0.1",
        "--bip=10.214.0.1/16",
        "--fixed-cidr=10.214.8.0/24",
        "--default-gateway=10.214.0.9",
        "--ip-masq=false",
    ];
    let Some(d) = Daemon::start_given(&options) else { return };
    let bridge = d.get("/networks/bridge");
    let option =
        |name: &str| bridge["Options"][format!("com.docker.network.bridge.{name}")].as_str().unwrap().to_owned();
    let options = (option("enable_icc"), option("enable_ip_masquerade"), option("host_binding_ipv4"));
    assert_eq!(options, ("false".into(), "false".into(), "127.0.0.1".into()));
    assert_eq!(bridge["IPAM"]["Config"][0]["IPRange"], "10.214.8.0/24");
    d.docker("run -d --name web -p 80 busybox httpd -f -p 80 -h /etc").ok();
    let address = d.docker("inspect -f {{.NetworkSettings.IPAddress}} web").ok();
    assert!(address.starts_with("10.214.8."), "{address}");
    assert!(d.docker("exec web ip route").ok().contains("default via 10.214.0.9"));
    assert!(d.docker("port web 80/tcp").ok().starts_with("127.0.0.1:"));
    let asked = d.docker(&format!("run --rm busybox wget -T 1 -q -O - http://{address}/hostname"));
    assert!(asked.code != 0, "neighbours are apart: {}", asked.out);
    d.docker("rm -f web").ok();
}

/// The names of the kernel's tables of rules.
fn tables() -> String {
    String::from_utf8(Command::new("nft").args(["list", "tables"]).output().unwrap().stdout).unwrap()
}

#[test]
fn without_rules_of_its_own_a_daemon_publishes_by_a_process() {
    let Some(mut d) = Daemon::start_given(&["--iptables=false", "--ip6tables=false"]) else { return };
    d.docker("network create own").ok();
    d.docker("run -d --name web --network own -p 127.0.0.1::80 busybox httpd -f -p 80 -h /etc").ok();
    let root = d.data().canonicalize().unwrap();
    let marked = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum"]).arg(root).output().unwrap();
    let own = format!("wharf-{}", &String::from_utf8(marked.stdout).unwrap()[..8]);
    assert!(!tables().contains(&own), "{own}: {}", tables());
    let port = d.docker("port web 80/tcp").ok();
    let hostname = d.docker("exec web cat /etc/hostname").ok();
    let answers = || {
        let mut answer = String::new();
        let asked = TcpStream::connect(&port).and_then(|mut stream| {
            stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.ends_with(&format!("{hostname}\n"))
    };
    d.eventually("the server answers", answers);
    let reach = d.wharf("network reach web").ok();
    let is_told = |line: &str| line.trim().starts_with("yes") && line.contains("this host, by its loopback");
    assert!(reach.lines().any(is_told), "{reach}");
    assert_eq!(d.docker("run --rm --network own busybox wget -q -O - http://web/hostname").ok(), hostname);
    d.kill();
    d.launch();
    d.eventually("the server answers the next daemon's clients", answers);
    d.docker("rm -f web").ok();
    assert!(TcpStream::connect(&port).is_err() || !answers());
    d.docker("network rm own").ok();
}

/// Ports go on when a daemon with rules comes after one without, and the other way round.
#[test]
fn published_ports_change_hands() {
    let without: &[&str] = &["--iptables=false", "--ip6tables=false"];
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name web -p 80 busybox httpd -f -p 80 -h /etc").ok();
    let ports = d.docker("port web").ok();
    let hostname = d.docker("exec web cat /etc/hostname").ok();
    let number = ports.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let answers = || {
        let mut answer = String::new();
        let asked = TcpStream::connect(format!("127.0.0.1:{number}")).and_then(|mut stream| {
            stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        asked.is_ok() && answer.ends_with(&format!("{hostname}\n"))
    };
    d.eventually("it answers", answers);
    for options in [without, &[], without, without, &[]] {
        d.kill();
        d.options(options);
        d.launch();
        assert_eq!(d.docker("port web").ok(), ports, "{options:?}");
        d.eventually("it answers still", answers);
    }
    d.docker("rm -f web").ok();
    assert!(!answers());
}

#[test]
fn without_a_default_network_who_names_none_has_the_loopback_alone() {
    let Some(d) = Daemon::start_given(&["--bridge=none"]) else { return };
    let networks = d.docker("network ls --format {{.Name}}").ok();
    assert_eq!(networks.split_whitespace().collect::<Vec<_>>(), ["host", "none"]);
    for options in ["", "--network bridge", "--network default -p 127.0.0.1:2300:80"] {
        let links = d.docker(&format!("run --rm {options} busybox ls /sys/class/net")).ok();
        assert_eq!(links, "lo", "{options}");
    }
    d.docker("network create own").ok();
    assert!(d.docker("run --rm --network own busybox ls /sys/class/net").ok().contains("eth0"));
    let refused = d.docker("network create bridge");
    assert!(refused.err.contains("operation is not permitted on predefined bridge network"), "{}", refused.err);
    let missing = d.docker("network inspect bridge");
    assert!(missing.code == 1 && missing.err.contains("network bridge not found"), "{}", missing.err);
    let dockerfile = "FROM busybox\nRUN test \"$(ls /sys/class/net)\" = lo\n";
    let context = build_inputs::context(&d, "alone", &[("Dockerfile", dockerfile)]);
    d.docker(&format!("build -q {}", context.display())).ok();
    d.docker("network rm own").ok();
}
