//! Clients that take a connection for streams and do not say so, as Docker has it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::kit::{Daemon, Said};

/// Sends a request and what follows it, and reads what frames of standard output carry after the head until they have so
/// many bytes, or, with the input ended, all as it is: head and rest.
fn ask(d: &Daemon, request: &str, after: &[&str], most: Option<usize>) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(d.socket()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    for piece in after {
        std::thread::sleep(std::time::Duration::from_millis(50));
        stream.write_all(piece.as_bytes()).unwrap();
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let mut rest = Vec::new();
    match most {
        // What was written at two moments may come in one frame or in two.
        Some(most) => {
            while rest.len() < most {
                let mut frame = [0; 8];
                stream.read_exact(&mut frame).unwrap();
                assert_eq!(frame[..4], [1, 0, 0, 0]);
                let length = u32::from_be_bytes(frame[4..].try_into().unwrap());
                (&mut stream).take(length.into()).read_to_end(&mut rest).unwrap();
            }
        }
        None => {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream.read_to_end(&mut rest).unwrap();
        }
    }
    (String::from_utf8_lossy(&head).into_owned(), rest)
}

#[test]
fn who_does_not_ask_for_an_upgrade_gets_the_streams_as_well() {
    let Some(d) = Daemon::start() else { return };
    let cat = d.docker("run -d -i busybox cat").ok();
    let path = format!("/v1.41/containers/{cat}/attach?stream=1&stdin=1&stdout=1");
    // Input in one piece with the request, and after it.
    let request = format!("POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: text/plain\r\n\r\none\n");
    let (head, rest) = ask(&d, &request, &["two\n"], Some(8));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/vnd.docker.raw-stream"), "{head}");
    assert_eq!(rest, b"one\ntwo\n", "{}", String::from_utf8_lossy(&rest));

    let runs = d.docker("run -d busybox sleep 1000").ok();
    let body = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}"#;
    let (status, made) = d.post(&format!("/v1.41/containers/{runs}/exec"), body, true).unwrap();
    assert_eq!(status, 201);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let path = format!("/v1.41/exec/{}/start", made["Id"].as_str().unwrap());
    let json = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let (head, rest) = ask(&d, &format!("POST {path} HTTP/1.1\r\nHost: d\r\n{json}"), &["words"], None);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(rest, b"\x01\0\0\0\0\0\0\x05words");
    let top = d.docker(&format!("top {runs}")).ok();
    assert!(!top.contains("cat"), "{top}");

    // What is not there is said as text.
    let request = "POST /v1.41/containers/nope/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n";
    let (head, rest) = ask(&d, request, &[], None);
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(rest, b"No such container: nope\r\n");
    // And the connection of another request is as it was.
    let said = Said::from(d.client().args(["exec", "-i", &runs, "cat"]).output().unwrap());
    assert_eq!(said.code, 0);
}

#[test]
fn volumes_of_images_may_be_relative() {
    let Some(d) = Daemon::start() else { return };
    std::fs::create_dir(d.path().join("ctx")).unwrap();
    std::fs::write(d.path().join("ctx/Dockerfile"), "FROM busybox\nVOLUME data /\n").unwrap();
    d.docker(&format!("build -t volumes {}", d.path().join("ctx").display())).ok();
    let run = ["run", "--rm", "volumes", "sh", "-c", "grep -c ' /data ' /proc/self/mountinfo"];
    assert_eq!(Said::from(d.client().args(run).output().unwrap()).ok(), "1");
    let refused = d.docker("run --rm -v data:rel busybox true");
    assert!(refused.code == 125 && refused.err.contains("must be absolute"), "{}", refused.err);
}

#[test]
fn who_sees_the_end_of_a_stream_finds_the_end_of_the_container() {
    let Some(d) = Daemon::start() else { return };
    for _ in 0..8 {
        let id = d.docker("create busybox false").ok();
        let mut stream = UnixStream::connect(d.socket()).unwrap();
        let head = "Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0";
        write!(stream, "POST /containers/{id}/attach?stream=1&stdout=1 HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        assert_eq!(d.post(&format!("/containers/{id}/start"), "", true).unwrap().0, 204);
        stream.read_to_end(&mut Vec::new()).unwrap();
        let state = &d.get(&format!("/containers/{id}/json"))["State"];
        assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(1)));
    }
}
