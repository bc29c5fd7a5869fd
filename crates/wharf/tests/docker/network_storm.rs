//! Many containers on one network and on several, joined and left by many clients at once. The numbers are those that take
//! seconds; `WHARF_STORM=500` has that many containers and 30 networks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::kit::{Daemon, Said};

/// Clients at once.
const WORKERS: usize = 64;
/// The network that all are on.
const CROWD: &str = "crowd";

fn numbers() -> (usize, usize) {
    let asked = std::env::var("WHARF_STORM").ok().and_then(|text| text.parse().ok());
    asked.map_or((32, 6), |containers| (containers, 30))
}

/// Does `work` for each number, by so many threads.
fn by_many(workers: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(count) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number if number < count => work(number),
                        _ => return,
                    }
                }
            });
        }
    });
}

fn name(number: usize) -> String {
    format!("member{number}")
}

fn network(place: usize) -> String {
    format!("net{place}")
}

fn post(d: &Daemon, path: &str, body: &str) -> u16 {
    d.post(path, body, true).unwrap().0
}

/// Joins and leaves networks, others for each container; answers with those that it stays on.
fn come_and_go(d: &Daemon, number: usize, networks: usize) -> BTreeSet<String> {
    let mut stays = BTreeSet::from([CROWD.to_owned()]);
    let body = format!("{{\"Container\":\"{}\"}}", name(number));
    for turn in 0..3 {
        let place = network((number * 7 + turn * 5) % networks);
        if stays.contains(&place) {
            assert_eq!(post(d, &format!("/networks/{place}/connect"), &body), 403, "once is enough");
            continue;
        }
        assert_eq!(post(d, &format!("/networks/{place}/connect"), &body), 200);
        if turn == 1 || number.is_multiple_of(3) {
            assert_eq!(post(d, &format!("/networks/{place}/disconnect"), &body), 200);
        } else {
            stays.insert(place);
        }
    }
    stays
}

/// What `inspect` says of a container's networks: the address on each.
fn addresses(d: &Daemon, number: usize) -> BTreeMap<String, String> {
    let found = d.get(&format!("/containers/{}/json", name(number)));
    let networks = found["NetworkSettings"]["Networks"].as_object().unwrap();
    networks.iter().map(|(name, own)| (name.clone(), own["IPAddress"].as_str().unwrap().to_owned())).collect()
}

/// Holds what the engine says against itself, and against bridges, containers' links and names.
fn check(d: &Daemon, networks: usize, stays: &[BTreeSet<String>]) {
    let all: Vec<_> = (0..stays.len()).map(|number| addresses(d, number)).collect();
    for (own, wanted) in all.iter().zip(stays) {
        assert_eq!(own.keys().cloned().collect::<BTreeSet<_>>(), *wanted);
    }
    for net in (0..networks).map(network).chain([CROWD.to_owned()]) {
        let members: Vec<&String> = all.iter().filter_map(|own| own.get(&net)).collect();
        assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), members.len(), "{net}: an address is there twice");
        let shown = d.get(&format!("/networks/{net}"));
        assert_eq!(shown["Containers"].as_object().unwrap().len(), members.len(), "{net}");
        let bridge = format!("/sys/class/net/br-{}/brif", &shown["Id"].as_str().unwrap()[..12]);
        assert_eq!(std::fs::read_dir(bridge).unwrap().count(), members.len(), "{net}: links");
    }
    by_many(4, stays.len(), |number| {
        let asked = (number * 37 + 11) % stays.len();
        let script = format!("ip -o -4 addr; nslookup {}", name(asked));
        let mut exec = d.client();
        let said: Said = exec.args(["exec", &name(number), "sh", "-c", &script]).output().unwrap().into();
        let said = said.ok();
        for own in all[number].values() {
            assert!(said.contains(&format!("inet {own}/")), "{} is not at {own}: {said}", name(number));
        }
        assert_eq!(said.matches("inet ").count(), all[number].len() + 1, "no more than these and loopback: {said}");
        let told: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("Address: ")).collect();
        let told: Vec<&str> = told.into_iter().filter(|line| !line.starts_with("127.0.0.11")).collect();
        let shared = |place: &&String| all[number].contains_key(*place);
        let right: Vec<&String> = all[asked].keys().filter(shared).map(|place| &all[asked][place]).collect();
        assert!(!told.is_empty() && told.iter().all(|line| right.iter().any(|address| line == address)), "{said}");
    });
}

#[test]
fn many_join_and_leave_at_once_and_nothing_is_lost() {
    let (containers, networks) = numbers();
    let Some(mut d) = Daemon::start() else { return };
    d.docker(&format!("network create --subnet 10.210.0.0/20 {CROWD}")).ok();
    for place in 0..networks {
        d.docker(&format!("network create --subnet 10.210.{}.0/24 {}", 16 + place, network(place))).ok();
    }
    let body = r#"{"Image":"busybox","Cmd":["sleep","10000"],"HostConfig":{"NetworkMode":"crowd"}}"#;
    by_many(8, containers, |number| {
        assert_eq!(post(&d, &format!("/containers/create?name={}", name(number)), body), 201);
        assert_eq!(post(&d, &format!("/containers/{}/start", name(number)), ""), 204);
    });
    let stays = std::sync::Mutex::new(vec![BTreeSet::new(); containers]);
    by_many(WORKERS, containers, |number| {
        let own = come_and_go(&d, number, networks);
        stays.lock().unwrap()[number] = own;
    });
    let stays = stays.into_inner().unwrap();
    check(&d, networks, &stays);
    // The same for a daemon that comes after a kill.
    d.kill();
    d.launch();
    check(&d, networks, &stays);
    let ids: Vec<Value> = d.get("/containers/json").as_array().unwrap().iter().map(|one| one["Id"].clone()).collect();
    assert_eq!(ids.len(), containers);
    by_many(8, containers, |number| {
        d.docker(&format!("rm -f {}", name(number))).ok();
    });
    let names: Vec<String> = (0..networks).map(network).chain([CROWD.to_owned()]).collect();
    d.docker(&format!("network rm {}", names.join(" "))).ok();
    assert_eq!(d.docker("network ls -q").ok().lines().count(), 3);
}

#[test]
fn a_container_that_is_removed_while_it_is_connected_stays_removed() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("network create net0").ok();
    for turn in 0..12 {
        let id = d.docker("create --name one busybox true").ok();
        let body = r#"{"Container":"one"}"#;
        std::thread::scope(|scope| {
            for verb in ["connect", "disconnect", "connect"] {
                let d = &d;
                scope.spawn(move || {
                    for _ in 0..6 {
                        post(d, &format!("/networks/net0/{verb}"), body);
                    }
                });
            }
            let d = &d;
            scope.spawn(move || {
                for _ in 0..4 {
                    post(d, "/containers/one/rename?name=two", "");
                }
            });
            d.docker(&format!("rm -f {id}"));
        });
        assert_eq!(d.docker("ps -aq").ok(), "", "turn {turn}");
    }
    d.kill();
    d.launch();
    assert_eq!(d.docker("ps -aq").ok(), "", "the next daemon finds none either");
}

/// Asks a daemon that may be killed before it answers.
fn ask(socket: &std::path::Path, path: &str, body: &str) {
    use std::io::{Read, Write};
    let head = "Host: d\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return };
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut Vec::new()));
}

/// The addresses of IPv4 that a container has, and those that its record tells of.
fn had_and_told(d: &Daemon, container: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let shown = d.docker(&format!("exec {container} ip -o -4 addr")).ok();
    let addresses = shown.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next());
    let had = addresses.filter(|address| *address != "127.0.0.1").map(str::to_owned).collect();
    let inspected = d.get(&format!("/containers/{container}/json"));
    let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
    (had, networks.values().map(|endpoint| endpoint["IPAddress"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn a_daemon_that_is_killed_while_containers_come_and_go_leaves_what_it_says() {
    const CONTAINERS: usize = 6;
    let Some(mut d) = Daemon::start() else { return };
    for place in 0..3 {
        d.docker(&format!("network create {}", network(place))).ok();
    }
    for number in 0..CONTAINERS {
        d.docker(&format!("run -d --name {} busybox sleep 1000", name(number))).ok();
    }
    for round in 0..4 {
        let socket = d.socket();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..CONTAINERS {
                let (over, socket) = (&over, &socket);
                scope.spawn(move || {
                    let body = format!("{{\"Container\":\"{}\"}}", name(number));
                    for turn in round.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let verb = if turn % 2 == 0 { "connect" } else { "disconnect" };
                        let path = format!("/networks/{}/{verb}", network((number + turn / 2) % 3));
                        ask(socket, &path, &body);
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
            d.kill();
            over.store(true, Ordering::Relaxed);
        });
        d.launch();
        for number in 0..CONTAINERS {
            let (had, told) = had_and_told(&d, &name(number));
            assert_eq!(had, told, "round {round}, {}", name(number));
        }
    }
}
