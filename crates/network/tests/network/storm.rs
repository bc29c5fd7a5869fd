//! Many containers on many networks, all at once. The numbers are those that take seconds; `WHARF_STORM=500` has that many
//! containers and 30 networks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use wharf_netlink::route::Connection;
use wharf_network::{EndpointRequest, Networks};

use crate::host::{create, id, on_a_host, request, tcp};

/// Who is at work at once.
const WORKERS: usize = 64;

/// Addresses that somebody has, each with the network.
type Taken = Mutex<BTreeSet<(usize, IpAddr)>>;

fn numbers() -> (usize, usize) {
    let asked = std::env::var("WHARF_STORM").ok().and_then(|text| text.parse().ok());
    asked.map_or((96, 6), |containers| (containers, 30))
}

fn links() -> Vec<String> {
    let all = Connection::open().unwrap().links().unwrap();
    all.into_iter().filter(|link| link.name.starts_with("veth")).map(|link| link.name).collect()
}

/// Joins and leaves networks, another order for each container; stays on some in the end.
fn come_and_go(networks: &Networks, names: &[String], taken: &Taken, number: usize, netns: &OwnedFd) -> Vec<usize> {
    let (own, name) = (id(&format!("c{number}")), format!("c{number}"));
    let mut stays = Vec::new();
    for turn in 0..3 {
        let place = (number * 7 + turn * 5) % names.len();
        let asked = EndpointRequest { index: 0, ..request(&names[place], &own, &name, netns) };
        let asked = EndpointRequest { interface: None, index: u32::try_from(stays.len()).unwrap(), ..asked };
        if stays.contains(&place) {
            networks.connect(&asked).unwrap_err();
            continue;
        }
        let endpoint = networks.connect(&asked).unwrap();
        for address in endpoint.addresses() {
            assert!(taken.lock().unwrap().insert((place, address)), "{address} is given twice");
        }
        if turn == 0 {
            let port = u16::try_from(20000 + number).unwrap();
            networks.publish(&own, &endpoint.addresses(), &[tcp(80, port)]).unwrap();
        }
        if turn == 1 || number.is_multiple_of(3) {
            for address in endpoint.addresses() {
                taken.lock().unwrap().remove(&(place, address));
            }
            networks.disconnect(&names[place], &own).unwrap();
        } else {
            stays.push(place);
        }
    }
    stays
}

#[test]
fn a_storm_of_connects_and_disconnects_loses_nothing() {
    on_a_host(|host| {
        let networks = host.networks();
        let (containers, count) = numbers();
        let names: Vec<String> = (0..count).map(|number| format!("net{number}")).collect();
        // More than Docker's pools have, each of its own size.
        for (number, name) in names.iter().enumerate() {
            create(&networks, name, &format!("10.{}.0.0/20", 100 + number), &[]);
        }
        let namespaces: Vec<OwnedFd> = (0..containers).map(|_| networks.namespace().unwrap().into()).collect();
        let taken = Taken::default();
        let work = |worker: usize| -> Vec<(usize, Vec<usize>)> {
            let own = (worker..containers).step_by(WORKERS);
            own.map(|number| (number, come_and_go(&networks, &names, &taken, number, &namespaces[number]))).collect()
        };
        let stays: BTreeMap<usize, Vec<usize>> = std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });

        // Each link is somebody's, and each endpoint has one.
        let check = |networks: &Networks| {
            let mut wanted = BTreeSet::new();
            for (number, places) in &stays {
                let endpoints = networks.endpoints_of(&id(&format!("c{number}")));
                assert_eq!(endpoints.len(), places.len(), "container {number}");
                wanted.extend(endpoints.into_iter().map(|endpoint| endpoint.host_interface));
                let published = networks.published(&id(&format!("c{number}"))).len();
                assert_eq!(published, usize::from(!number.is_multiple_of(3)), "container {number}");
            }
            assert_eq!(links().into_iter().collect::<BTreeSet<_>>(), wanted);
            let given: usize =
                names.iter().map(|name| networks.endpoints(&networks.resolve(name).unwrap().id).len()).sum();
            assert_eq!((given, taken.lock().unwrap().len()), (wanted.len(), wanted.len()));
        };
        check(&networks);
        // As the next daemon finds it.
        drop(networks);
        let networks = host.networks();
        let alive: Vec<String> = stays.keys().map(|number| id(&format!("c{number}"))).collect();
        networks.recover(&alive).unwrap();
        check(&networks);

        // All end at once.
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (networks, alive) = (&networks, &alive);
                scope.spawn(move || {
                    for id in alive.iter().skip(worker).step_by(WORKERS) {
                        networks.release(id).unwrap();
                    }
                });
            }
        });
        drop(namespaces);
        for name in &names {
            networks.remove(name).unwrap();
        }
        let begun = std::time::Instant::now();
        while !links().is_empty() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "links are left: {:?}", links());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(alive.iter().all(|id| networks.published(id).is_empty() && networks.endpoints_of(id).is_empty()));
    });
}
