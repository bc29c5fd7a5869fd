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
