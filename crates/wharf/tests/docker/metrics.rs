//! What Prometheus reads.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::kit::Daemon;

/// The answer to a GET by TCP, head and all.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_engine_and_its_containers_are_counted() {
    let Some(d) = Daemon::start_given(&["--metrics-addr", "127.0.0.1:0"]) else { return };
    d.docker("run -d --name busy -m 64m busybox sleep 1000").ok();
    d.docker("run --name done --network none busybox false");
    d.eventually("it listens", || d.log().contains("metrics on tcp://"));
    let log = d.log();
    let address = log.lines().find_map(|line| line.split_once("metrics on tcp://")).unwrap().1.trim().to_owned();
    let said = get(&address, "/metrics");
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("text/plain; version=0.0.4"), "{said}");
    let sample = |start: &str, name: &str| {
        let found = said.lines().find(|line| line.starts_with(start) && line.contains(name));
        let line = found.unwrap_or_else(|| panic!("no {start} with {name}: {said}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!((sample("engine_daemon_container_states_containers", "running") - 1.0).abs() < 0.1);
    assert!((sample("engine_daemon_container_states_containers", "stopped") - 1.0).abs() < 0.1);
    assert!((sample("wharf_container_memory_limit_bytes", "name=\"busy\"") - f64::from(64 << 20)).abs() < 0.1);
    assert!((sample("wharf_container_exit_code", "name=\"done\"") - 1.0).abs() < 0.1);
    assert!(sample("wharf_container_pids", "name=\"busy\"") >= 1.0);
    sample("wharf_container_network_receive_bytes_total", "interface=\"eth0\"");
    assert!(sample("process_resident_memory_bytes", "") > 1e6);
    // A family is said once, and its samples stand together.
    let helps: Vec<&str> = said.lines().filter(|line| line.starts_with("# HELP")).collect();
    let mut names: Vec<&str> = helps.iter().map(|line| line.split(' ').nth(2).unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), helps.len());
    // Nothing else is to be had there.
    assert!(get(&address, "/containers/json").starts_with("HTTP/1.1 404"));
    assert!(get(&address, "/v1.40/info").starts_with("HTTP/1.1 404"));
}
