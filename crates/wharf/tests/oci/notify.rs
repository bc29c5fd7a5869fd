//! `NOTIFY_SOCKET`: a container that tells systemd that it is ready. The test is systemd.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::kit::{Bundle, text};

/// What a message says, and the fds with it.
fn receive(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 4096];
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    (text(&bytes[..got.bytes]), fds)
}

/// Until the barrier, which is let go.
fn said(socket: &UnixDatagram) -> [String; 2] {
    socket.set_read_timeout(Some(crate::kit::PATIENCE)).unwrap();
    let (first, second, (barrier, fds)) = (receive(socket).0, receive(socket).0, receive(socket));
    assert_eq!((barrier.as_str(), fds.len()), ("BARRIER=1", 1));
    [first, second]
}

/// Says something as the container's program does, by way of what that sees.
fn say(bundle: &Bundle, words: &[&str]) {
    let inside = format!("/proc/{}/root/run/notify/notify.sock", bundle.state()["pid"]);
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(inside).unwrap();
    words.iter().for_each(|text| assert_eq!(socket.send(text.as_bytes()).unwrap(), text.len()));
}

fn bundle(name: &str) -> Option<Bundle> {
    Bundle::new(name, &["sh", "-c", "echo $NOTIFY_SOCKET; exec sleep 600"], |config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    })
}

const WORDS: &[&str] = &["STATUS=soon", "STATUS=now\nREADY=1\nSTATUS=done"];

#[test]
fn who_starts_a_container_hears_that_it_is_ready_and_whom_to_look_after() {
    let Some(bundle) = bundle("notify-start") else { return };
    let host = bundle.path("host.sock");
    let systemd = UnixDatagram::bind(&host).unwrap();
    let log = std::fs::File::create(bundle.path("out")).unwrap();
    let mut create = bundle.wharf(&["create", "--bundle"]);
    create.arg(bundle.dir.path()).arg(&bundle.id).env("NOTIFY_SOCKET", &host);
    assert!(create.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap().success(), "{}", bundle.shown());
    let mut start = bundle.wharf(&["start", &bundle.id]).env("NOTIFY_SOCKET", &host).spawn().unwrap();
    crate::kit::wait_until("its program", || bundle.shown() == "/run/notify/notify.sock\n");
    say(&bundle, WORDS);
    let pid = bundle.state()["pid"].to_string();
    assert_eq!(said(&systemd), ["READY=1\n".to_owned(), format!("MAINPID={pid}\n")]);
    assert!(start.wait().unwrap().success());
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_run_passes_the_readiness_on_and_is_looked_after_itself_if_it_stays() {
    let Some(bundle) = bundle("notify-run") else { return };
    // A name that is in no file system.
    let name = format!("wharf-{}", bundle.id);
    let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for detach in [false, true] {
        let log = std::fs::File::create(bundle.path("out")).unwrap();
        let mut run = bundle.wharf(if detach { &["run", "--detach", "--bundle"] } else { &["run", "--bundle"] });
        run.arg(bundle.dir.path()).arg(&bundle.id).env("NOTIFY_SOCKET", format!("@{name}")).stdin(Stdio::null());
        let mut run = run.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        crate::kit::wait_until("its program", || bundle.shown() == "/run/notify/notify.sock\n");
        say(&bundle, WORDS);
        let main = if detach { bundle.state()["pid"].to_string() } else { run.id().to_string() };
        assert_eq!(said(&systemd), ["READY=1\n".to_owned(), format!("MAINPID={main}\n")]);
        if detach {
            assert!(run.wait().unwrap().success());
            bundle.ok(&["delete", "--force", &bundle.id]);
        } else {
            bundle.ok(&["kill", &bundle.id, "KILL"]);
            assert_eq!(run.wait().unwrap().code(), Some(137));
        }
        bundle.assert_nothing_is_left();
    }
}

/// One that never says that it is ready is not waited for any longer than it lives.
#[test]
fn an_end_without_a_word_is_an_end() {
    let Some(bundle) = Bundle::new("notify-end", &["true"], |_| {}) else { return };
    let host = bundle.path("host.sock");
    let systemd = UnixDatagram::bind(&host).unwrap();
    for words in [&["run", "--bundle"][..], &["run", "--detach", "--bundle"]] {
        let mut run = bundle.wharf(words);
        let status = run.arg(bundle.dir.path()).arg(&bundle.id).env("NOTIFY_SOCKET", &host).status().unwrap();
        assert!(status.success());
        let _ = bundle.output(&["delete", "--force", &bundle.id]);
        bundle.assert_nothing_is_left();
    }
    systemd.set_nonblocking(true).unwrap();
    assert!(systemd.recv(&mut [0; 16]).is_err());
}
