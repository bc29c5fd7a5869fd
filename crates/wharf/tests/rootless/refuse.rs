//! What an ordinary user's daemon cannot do, it says.

use std::process::Command;

use crate::kit::User;

#[test]
fn root_has_no_rootless_daemon() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(["daemon", "--rootless"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("--rootless is for ordinary users"), "{said}");
}

#[test]
fn what_is_root_s_is_refused_by_name() {
    let Some(user) = User::start() else { return };
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u32>().unwrap() > 80 {
        let said = user.sh("-p 80:80", "true");
        assert!(said.code == 125 && said.err.contains("net.ipv4.ip_unprivileged_port_start"), "{}", said.err);
    }
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = user.sh(&format!("-p {port}:80"), "true");
    assert!(said.code == 125 && said.err.contains("port is already allocated"), "{}", said.err);
    let said = user.sh("-p 0:80/sctp", "true");
    assert!(said.code == 125 && said.err.contains("none of SCTP"), "{}", said.err);
    let said = user.sh("--userns auto", "true");
    assert!(
        said.code == 125 && said.err.contains("--userns auto is not supported by an ordinary user"),
        "{}",
        said.err
    );
    let said = user.sh("-m 64m", "true");
    assert!(said.code == 0 && said.err.contains("Limitation discarded"), "{}", said.err);
    let said = user.wharf("network create -d macvlan -o parent=eth0 m");
    assert!(said.code == 1 && said.err.contains("an ordinary user's daemon has no macvlan"), "{}", said.err);
    let said = user.daemon(&["-H", "unix:///run/wharf-of-nobody/wharf.sock", "--exec-root", "/run/wharf-of-nobody"]);
    assert!(said.code == 1 && said.err.contains("cannot make /run/wharf-of-nobody"), "{}", said.err);
    let long = format!("unix://{}/{}", user.path("run").display(), "x".repeat(107));
    let (other, data) = (user.path("run/other"), user.path("home/other"));
    let said =
        user.daemon(&["-H", &long, "--exec-root", other.to_str().unwrap(), "--data-root", data.to_str().unwrap()]);
    assert!(said.code == 1 && said.err.contains("may have 107 bytes"), "{}", said.err);
}
