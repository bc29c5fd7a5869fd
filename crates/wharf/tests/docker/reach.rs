//! Who reaches a port, as the command line and the API say it.

use crate::kit::Daemon;

#[test]
fn who_reaches_a_port_is_said() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create net").ok();
    d.docker("run -d --name web -p 127.0.0.1::80 busybox httpd -f -p 80 -h /etc").ok();
    d.docker("run -d --name quiet --network net busybox sleep 100000").ok();
    d.docker("run -d --name hosted --network host busybox sleep 100000").ok();
    let port = d.docker("port web 80").ok().trim().rsplit_once(':').unwrap().1.to_owned();
    let line = |text: &str, from: &str| {
        text.lines().find(|line| line.contains(from)).unwrap_or_else(|| panic!("no {from}: {text}")).trim().to_owned()
    };
    d.eventually("the server listens", || !d.wharf("network reach web").ok().contains("nothing listens"));

    let said = d.wharf(&format!("network reach {port}/tcp")).ok();
    assert!(said.starts_with(&format!("127.0.0.1:{port} -> web port 80/tcp, at ")), "{said}");
    let own = line(&said, "this host, by its loopback");
    assert!(own.starts_with("yes") && own.ends_with(&format!("127.0.0.1:{port}")), "{own}");
    let other = line(&said, "containers of network net");
    assert!(other.starts_with("no") && other.ends_with("it is published on 127.0.0.1 alone"), "{other}");
    assert!(line(&said, "containers of its network bridge").starts_with("yes"), "{said}");
    assert!(!said.contains("note:"), "{said}");
    assert!(d.wharf("network reach web").ok().starts_with(said.lines().next().unwrap()));

    // One that nothing listens on, in a network that others do not get into.
    let said = d.wharf("network reach quiet:53/udp").ok();
    assert!(said.starts_with("quiet port 53/udp, at "), "{said}");
    let bridge = line(&said, "containers of network bridge");
    assert!(bridge.starts_with("no") && bridge.contains("dropped by Wharf's rule `oifname @bridges drop`"), "{bridge}");
    assert!(line(&said, "this host").starts_with("yes"), "{said}");
    assert!(said.contains("note: nothing listens on port 53/udp in the container"), "{said}");

    let answer = d.get(&format!("/networks/reach?of={port}"));
    assert_eq!(answer[0]["Name"], "web");
    let reach = &answer[0]["Ports"][0];
    assert_eq!((&reach["Port"], &reach["Protocol"]), (&80.into(), &"tcp".into()));
    assert_eq!(reach["Ways"][0]["Answer"], "yes");
    let json: serde_json::Value = serde_json::from_str(&d.wharf("network reach --format json web").ok()).unwrap();
    assert_eq!(json[0]["ID"], answer[0]["ID"]);

    for (words, why) in [
        ("network reach 1", "no container has published port 1 of the host; for a port of a container give NAME:PORT"),
        ("network reach nosuch", "No such container: nosuch"),
        ("network reach web:x", "`x` is no port: give NAME:PORT[/PROTOCOL]"),
        ("network reach quiet", "container quiet publishes no port, and its image names none"),
        ("network reach hosted", "container hosted has the host's network"),
        ("network reach --format xml web", "unknown format 'xml'"),
    ] {
        let refused = d.wharf(words);
        assert!(refused.code != 0 && refused.err.contains(why), "{words}: {}", refused.err);
    }
    d.docker("rm -f web quiet hosted").ok();
}
