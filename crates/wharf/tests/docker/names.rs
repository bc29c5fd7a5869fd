//! Containers find each other by name on networks of the user's own.

use crate::kit::Daemon;

fn asks(d: &Daemon, container: &str, name: &str) -> String {
    d.docker(&format!("exec {container} nslookup -type=a {name}")).out
}

#[test]
fn names_aliases_and_their_ends() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("network create two").ok();
    let id = d.docker("run -d --name db --network one --network-alias store busybox sleep 1000").ok();
    d.docker("run -d --name web --network one busybox sleep 1000").ok();
    d.docker("run -d --name far --network two busybox sleep 1000").ok();
    let address = d.docker("inspect -f {{.NetworkSettings.Networks.one.IPAddress}} db").ok();
    assert_eq!(d.docker("exec web cat /etc/resolv.conf").ok().lines().nth(1), Some("nameserver 127.0.0.11"));
    for name in ["db", "store", &id[..12], "DB", "db.one"] {
        assert!(asks(&d, "web", name).contains(&address), "{name}: {}", asks(&d, "web", name));
    }
    assert!(!asks(&d, "far", "db").contains(&address), "another network's names are nobody's business");
    d.docker("exec web ping -c 1 -w 5 db").ok();

    // Joined, left and renamed while they run.
    d.docker("network connect --alias visitor two db").ok();
    let there = d.docker("inspect -f {{.NetworkSettings.Networks.two.IPAddress}} db").ok();
    assert!(asks(&d, "far", "visitor").contains(&there));
    d.docker("network disconnect two db").ok();
    assert!(!asks(&d, "far", "visitor").contains(&there));
    d.docker("rename db base").ok();
    assert!(asks(&d, "web", "base").contains(&address) && !asks(&d, "web", "db").contains(&address));

    // Names are answered while no daemon is there, and by the next one.
    let (web, base) = (d.docker("inspect -f {{.State.Pid}} web").ok(), "base");
    d.kill();
    let inside = std::process::Command::new("nsenter")
        .args(["--net", "--mount", "--target", &web, "/bin/busybox", "nslookup", "-type=a", base])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&inside.stdout).contains(&address));
    d.launch();
    d.docker("run -d --name late --network one busybox sleep 1000").ok();
    let late = d.docker("inspect -f {{.NetworkSettings.Networks.one.IPAddress}} late").ok();
    assert!(asks(&d, "web", "late").contains(&late));
    d.docker("rm -f late").ok();
    assert!(!asks(&d, "web", "late").contains(&late));
    d.docker("rm -f web far base").ok();
    d.docker("network rm one two").ok();
}

/// The process that answers for this daemon's containers, and how many sockets it has.
fn answering(d: &Daemon) -> Option<(u32, usize)> {
    let root = d.path().join("run").display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        if words.starts_with("wharf-dns\0") && words.contains(&root) {
            let fds = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
            let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
            return Some((pid, links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()));
        }
    }
    None
}

#[test]
fn sockets_of_names_go_with_their_container() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("run -d --name stays --network one busybox sleep 1000").ok();
    let (_, before) = answering(&d).unwrap();
    // On no network with names any more when it ends.
    d.docker("run -d --name visitor busybox sleep 1000").ok();
    d.docker("network connect one visitor").ok();
    assert_eq!(answering(&d).unwrap().1, before + 2);
    d.docker("network disconnect one visitor").ok();
    // It asks on, as its resolv.conf says.
    assert_eq!(answering(&d).unwrap().1, before + 2);
    d.docker("rm -f visitor").ok();
    assert_eq!(answering(&d).unwrap().1, before);

    // One that joined while it ran ends while no daemon is there.
    d.docker("run -d --name visitor busybox sleep 1000").ok();
    d.docker("network connect one visitor").ok();
    d.docker("network disconnect one visitor").ok();
    let pid: i32 = d.docker("inspect -f {{.State.Pid}} visitor").ok().parse().unwrap();
    d.kill();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    // The connection of the daemon is gone, too.
    d.eventually("its sockets go with its monitor", || answering(&d).is_some_and(|(_, now)| now == before - 1));
    d.launch();
    assert_eq!(answering(&d).unwrap().1, before);

    // The next daemon takes over whom only the process knows.
    d.docker("rm -f visitor stays").ok();
    d.docker("run -d --name visitor busybox sleep 1000").ok();
    d.docker("network connect one visitor").ok();
    d.docker("network disconnect one visitor").ok();
    d.stop();
    assert!(answering(&d).is_some());
    d.launch();
    d.docker("rm -f visitor").ok();
    d.docker("network rm one").ok();
    d.stop();
    assert_eq!(answering(&d), None);
    d.launch();
}

/// Answers every question with 192.0.2.77 at this address: on the host, or where the process `of` is.
fn resolve_at(address: &str, of: Option<&str>) {
    let (ready, bound) = std::sync::mpsc::channel();
    let (address, netns) =
        (address.to_owned(), of.map(|pid| std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap()));
    std::thread::spawn(move || {
        if let Some(netns) = netns {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            let fd = std::os::fd::AsFd::as_fd(&netns);
            move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)).unwrap();
        }
        let socket = std::net::UdpSocket::bind((address.as_str(), 53)).unwrap();
        ready.send(()).unwrap();
        let mut packet = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut packet) {
            let mut answer = packet[..length].to_vec();
            // One question, which is the whole of the rest: what stands behind it (EDNS) is left out.
            let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            answer.truncate(end);
            answer[2] |= 0x80;
            answer[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            let _ = socket.send_to(&answer, asker);
        }
    });
    bound.recv().unwrap();
}

#[test]
fn a_container_finds_itself_where_it_is() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create one").ok();
    d.docker("network create two").ok();
    d.docker("run -d --name web --hostname web --network one busybox sleep 1000").ok();
    d.docker("network connect two web").ok();
    let own = |name: &str| d.docker(&format!("inspect -f {{{{.NetworkSettings.Networks.{name}.IPAddress}}}} web")).ok();
    let hosts = || d.docker("exec web grep web /etc/hosts").ok();
    assert_eq!(hosts(), format!("{}\tweb\n{}\tweb", own("one"), own("two")));
    d.docker("network disconnect one web").ok();
    assert_eq!(hosts(), format!("{}\tweb", own("two")));
    d.docker("restart -t 0 web").ok();
    assert_eq!(hosts(), format!("{}\tweb", own("two")));
    d.docker("rm -f web").ok();
    d.docker("network rm one two").ok();
}

#[test]
fn a_name_server_on_a_closed_network_is_asked_by_those_who_name_it() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create --internal closed").ok();
    d.docker("run -d --name dns --network closed busybox sleep 1000").ok();
    let address = d.docker("inspect -f {{.NetworkSettings.Networks.closed.IPAddress}} dns").ok();
    resolve_at(&address, Some(&d.docker("inspect -f {{.State.Pid}} dns").ok()));
    d.docker(&format!("run -d --name asks --network closed --dns {address} busybox sleep 1000")).ok();
    d.docker("run -d --name other --network closed busybox sleep 1000").ok();
    let answer = asks(&d, "asks", "far.example");
    assert!(answer.contains("192.0.2.77"), "{answer}");
    assert!(asks(&d, "asks", "dns").contains(&address));
    assert!(!asks(&d, "other", "far.example").contains("192.0.2.77"));
    d.docker("rm -f dns asks other").ok();
    d.docker("network rm closed").ok();
}

/// Docker tells such containers to ask Google.
#[test]
fn a_resolver_on_the_host_s_loopback_is_asked_for_those_on_the_default_bridge() {
    const RESOLVER: &str = "127.83.71.1";
    let Some(mut d) = Daemon::start_given(&["--dns", RESOLVER]) else { return };
    resolve_at(RESOLVER, None);
    d.docker("run -d --name plain busybox sleep 1000").ok();
    d.docker("run -d --name own --dns 192.0.2.1 busybox sleep 1000").ok();
    let servers = |name: &str| d.docker(&format!("exec {name} grep nameserver /etc/resolv.conf")).ok();
    assert_eq!((servers("plain").as_str(), servers("own").as_str()), ("nameserver 127.0.0.11", "nameserver 192.0.2.1"));
    let answer = asks(&d, "plain", "far.example");
    assert!(answer.contains("192.0.2.77"), "{answer}");
    let address = d.docker("inspect -f {{.NetworkSettings.Networks.bridge.IPAddress}} own").ok();
    assert!(!asks(&d, "plain", "own").contains(&address), "there are no names on the default bridge");
    let dockerfile = "FROM busybox\nRUN nslookup -type=a far.example | grep 192.0.2.77\n";
    let context = crate::build_inputs::context(&d, "asks", &[("Dockerfile", dockerfile)]);
    d.wharf(&format!("build -q {}", context.display())).ok();

    // It also has names once it is on a network that has some, and asks on after it has left that.
    d.docker("network create one").ok();
    d.docker("run -d --name db --network one busybox sleep 1000").ok();
    let db = d.docker("inspect -f {{.NetworkSettings.Networks.one.IPAddress}} db").ok();
    d.docker("network connect one plain").ok();
    assert!(asks(&d, "plain", "db").contains(&db) && asks(&d, "plain", "far.example").contains("192.0.2.77"));
    d.docker("network disconnect one plain").ok();
    assert!(!asks(&d, "plain", "db").contains(&db) && asks(&d, "plain", "far.example").contains("192.0.2.77"));
    d.kill();
    d.launch();
    assert!(asks(&d, "plain", "far.example").contains("192.0.2.77"));
    d.docker("rm -f plain own db").ok();
    d.docker("network rm one").ok();
    d.stop();
    assert_eq!(answering(&d), None);
    d.launch();
}
