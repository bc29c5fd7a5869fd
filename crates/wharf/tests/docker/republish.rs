//! Ports that are published, and taken back, while the container runs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::kit::Daemon;

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("HTTP/1"))
}

/// The number at the end of the first line.
fn number(text: &str) -> u16 {
    text.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn ports_come_and_go_while_a_container_runs() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name web -p 127.0.0.1::80 busybox httpd -f -p 80 -h /etc").ok();
    let first = number(&d.docker("port web 80/tcp").ok());
    d.eventually("the server answers", || answers(first));
    d.wharf("update --publish-add 127.0.0.1::80 --publish-add 53/udp web").ok();
    let both = d.docker("port web 80/tcp").ok();
    assert_eq!(both.lines().count(), 2, "{both}");
    let second = both.lines().map(number).find(|port| *port != first).unwrap();
    assert!(answers(first) && answers(second));
    assert!(d.docker("port web 53/udp").ok().starts_with("0.0.0.0:"));
    let bindings = &d.get("/containers/web/json")["HostConfig"]["PortBindings"];
    assert_eq!(bindings["53/udp"], json!([{ "HostIp": "", "HostPort": "" }]));

    // Who has a port is said, and then nothing has changed.
    d.docker("run -d --name other busybox sleep 1000").ok();
    let id = d.docker("inspect -f {{.Id}} web").ok();
    let taken = d.wharf(&format!("update --publish-add {first}:80 other"));
    assert!(taken.code == 1 && taken.err.contains(&format!("by container {}", &id[..12])), "{}", taken.err);
    let program = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = program.local_addr().unwrap().port();
    let taken = d.wharf(&format!("update --publish-rm 80 --publish-add 127.0.0.1:{port}:80 web"));
    assert!(taken.err.contains(&format!("by process {}", std::process::id())), "{}", taken.err);
    assert!(answers(first) && answers(second));
    assert_eq!(d.docker("port web 80/tcp").ok(), both);
    drop(program);

    // As it is, it stays under the next daemon.
    d.kill();
    d.launch();
    assert!(answers(first) && answers(second) && d.docker("port web 80/tcp").ok() == both);
    d.wharf(&format!("update --publish-rm 127.0.0.1:{second}:80 web")).ok();
    assert!(answers(first) && !answers(second));
    assert!(TcpListener::bind(("127.0.0.1", second)).is_ok(), "it is free");
    d.kill();
    d.launch();
    assert!(answers(first) && !answers(second));
    assert_eq!(number(&d.docker("port web 80/tcp").ok()), first);
    d.wharf(&format!("update --publish-rm 80 --publish-rm 53/udp --publish-add 127.0.0.1:{second}:80 web")).ok();
    assert!(answers(second) && !answers(first));
    assert_ne!(d.docker("port web 53/udp").code, 0);
    let none = d.wharf("update --publish-rm 81 web");
    assert!(none.code == 1 && none.err.contains("port 81/tcp is not published"), "{}", none.err);

    // What it says counts for the next start.
    d.docker("restart -t 0 web").ok();
    d.eventually("the server answers", || answers(second));
    d.docker("stop -t 0 web").ok();
    d.wharf(&format!("update --publish-rm {second}:80 --publish-add 127.0.0.1:{first}:80 web")).ok();
    d.docker("start web").ok();
    d.eventually("the server answers", || answers(first));
    assert!(!answers(second));

    d.docker("run -d --name none --network none busybox sleep 1000").ok();
    let refused = d.wharf("update --publish-add 80 none");
    assert!(refused.err.contains("is on no network that ports can be published on"), "{}", refused.err);
    d.docker("run -d --name host --network host busybox sleep 1000").ok();
    let refused = d.wharf("update --publish-add 80 host");
    assert!(refused.err.contains("ports cannot be published in the network mode host"), "{}", refused.err);
}
