//! Networks of macvlan through the API and the command line. They have no parent here, so that nothing leaves this host:
//! `crates/network/tests` has one on a real link.

use serde_json::json;

use crate::kit::Daemon;

fn links() -> String {
    let output = std::process::Command::new("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn containers_on_a_macvlan_find_each_other() {
    let Some(mut d) = Daemon::start() else { return };
    let id = d.docker("network create -d macvlan --subnet 10.214.9.0/24 -o macvlan_mode=bridge mv").ok();
    let network = d.get(&format!("/networks/{id}"));
    assert_eq!((&network["Driver"], &network["Scope"]), (&json!("macvlan"), &json!("local")));
    assert_eq!(network["Internal"], true, "there is no way out");
    assert_eq!(network["Options"], json!({ "macvlan_mode": "bridge" }));
    assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "10.214.9.0/24");
    let parent = format!("dm-{}", &id[..12]);
    assert!(links().contains(&parent));
    d.docker("run -d --name db --network mv --ip 10.214.9.77 --network-alias store busybox httpd -f -p 80 -h /etc")
        .ok();
    d.docker("run -d --name web --network mv -p 80 busybox sleep 1000").ok();
    d.docker("exec web ping -c 1 -w 5 db").ok();
    let fetch = "exec web wget -q -O - http://store/passwd";
    d.eventually("the server answers", || d.docker(fetch).out.contains("root:"));
    assert_eq!(d.docker("port web").ok(), "", "nothing is published by the host");
    let shown = d.docker("inspect -f {{.NetworkSettings.Networks.mv.IPAddress}} web").ok();
    assert_eq!(shown, "10.214.9.1", "where there is no way out no address is kept for it");
    // Beside a bridge, and by that its ports.
    d.docker("network connect bridge web").ok();
    assert!(d.docker("port web 80/tcp").ok().contains("0.0.0.0:"));
    d.docker("network disconnect bridge web").ok();

    // Left and joined while it runs.
    d.docker("network disconnect mv web").ok();
    assert!(!d.docker("exec web ip -o link").ok().contains("eth0"));
    d.docker("network connect --ip 10.214.9.50 mv web").ok();
    d.docker("exec web ping -c 1 -w 5 db").ok();

    // A daemon that comes after a kill knows who has what, and a restarted container has its address.
    d.kill();
    d.launch();
    d.docker("exec web ping -c 1 -w 5 db").ok();
    d.docker("restart -t 0 db").ok();
    d.docker("exec web ping -c 1 -w 5 10.214.9.77").ok();
    let taken = d.docker("run --rm --network mv --ip 10.214.9.77 busybox true");
    assert!(taken.err.contains("Address already in use"), "{}", taken.err);
    let busy = d.docker("network rm mv");
    assert!(busy.err.contains("has active endpoints"), "{}", busy.err);
    d.docker("rm -f db web").ok();
    d.docker("network rm mv").ok();
    assert!(!links().contains(&parent));
    let refused = d.docker("network create -d macvlan -o parent=lo mv");
    assert!(refused.err.contains("loopback interface is not a valid macvlan parent link"), "{}", refused.err);
    let made = d.docker("network create -d ipvlan mv");
    assert!(made.code == 0 || made.err.contains("this host's kernel has none"), "{}", made.err);
    d.docker("network rm mv");
}
