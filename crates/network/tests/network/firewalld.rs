//! Beside firewalld itself, with a bus and a configuration of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wharf_network::{Answer, NetworkOptions};

use crate::firewall::run;
use crate::host::{HOST, Host, OTHER, ask_from, container, create, on_a_host, serve, tcp};

/// A bus on which everybody may do anything.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/></policy></busconfig>"#;

/// Both programs; they end with it.
struct Firewalld {
    socket: PathBuf,
    children: Vec<Child>,
}

impl Firewalld {
    /// `None` where they are not installed.
    fn start(dir: &Path) -> Option<Self> {
        if !["/usr/bin/dbus-daemon", "/usr/sbin/firewalld"].iter().all(|program| Path::new(program).exists()) {
            eprintln!("skipped: there is no firewalld");
            return None;
        }
        let (socket, config) = (dir.join("bus"), dir.join("bus.conf"));
        std::fs::create_dir(dir.join("firewalld")).unwrap();
        std::fs::write(&config, BUS.replace("SOCKET", &socket.display().to_string())).unwrap();
        let mut started = Self { socket: socket.clone(), children: Vec::new() };
        let bus = format!("--config-file={}", config.display());
        started.run("/usr/bin/dbus-daemon", &[&bus, "--nofork", "--nopidfile", "--nosyslog"]);
        eventually("the bus listens", || socket.exists());
        let (own, log) = (dir.join("firewalld"), dir.join("firewalld.log"));
        let (own, log) = (own.to_str().unwrap(), log.to_str().unwrap());
        let words = ["--nofork", "--nopid", "--system-config", own, "--log-file", log];
        started.run("/usr/sbin/firewalld", &words);
        eventually("firewalld runs", || started.says("--state").is_some_and(|state| state == "running"));
        Some(started)
    }

    fn run(&mut self, program: &str, words: &[&str]) {
        let mut command = Command::new(program);
        command.args(words).env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.socket.display()));
        self.children.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn says(&self, word: &str) -> Option<String> {
        let address = format!("unix:path={}", self.socket.display());
        let output = Command::new("firewall-cmd").arg(word).env("DBUS_SYSTEM_BUS_ADDRESS", address).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn zone(&self, link: &str) -> Option<String> {
        self.says(&format!("--get-zone-of-interface={link}"))
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn options(firewalld: &Firewalld) -> NetworkOptions {
    NetworkOptions { system_bus: firewalld.socket.clone(), ..Host::options() }
}

#[test]
fn our_bridges_are_in_a_zone_of_firewalld() {
    on_a_host(|host| {
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        let dir = tempfile::tempdir().unwrap();
        let Some(firewalld) = Firewalld::start(dir.path()) else { return };
        let networks = host.networks_with(options(&firewalld));
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        serve(&host.other, 82);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(firewalld.zone("wharf0").as_deref(), Some("trusted"));
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST, "others are reached");
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        // Networks come and go.
        let web = create(&networks, "web", "10.77.0.0/24", &[]);
        let bridge = web.bridge.unwrap();
        assert_eq!(firewalld.zone(&bridge).as_deref(), Some("trusted"));
        networks.remove("web").unwrap();
        assert_ne!(firewalld.zone(&bridge).as_deref(), Some("trusted"));
        // What is forgotten in a reload is told again.
        firewalld.says("--reload").unwrap();
        eventually("they are told again", || firewalld.zone("wharf0").as_deref() == Some("trusted"));
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST);
        // What it drops is said to be its doing.
        run(
            "nft",
            &["insert", "rule", "inet", "firewalld", "filter_FORWARD", "iifname", "lan0", "tcp", "dport", "80", "drop"],
        );
        ask_from(&host.other, HOST, 8080).unwrap_err();
        let said = networks.reach(&a.id, None, None, &|port| port.host_ip.is_ipv4()).unwrap().remove(0);
        let others = said.ways.iter().find(|way| way.from == "other hosts, by lan0").unwrap();
        assert_eq!((others.answer, others.rules[0].owner.as_str()), (Answer::No, "firewalld"), "{others:#?}");
        networks.destroy().unwrap();
    });
}
