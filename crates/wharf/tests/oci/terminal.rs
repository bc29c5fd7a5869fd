//! Terminals, given away over a console socket.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::kit::Bundle;

/// Takes the master that is sent to `listener`.
pub(crate) fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0u8; 64];
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert!(got.bytes > 0, "a name comes with it");
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(fds.len(), 1);
    File::from(fds.into_iter().next().unwrap())
}

pub(crate) fn read_until(master: &mut File, want: &str) -> String {
    let mut seen = String::new();
    let mut bytes = [0u8; 256];
    while !seen.contains(want) {
        match master.read(&mut bytes) {
            Ok(0) | Err(_) => panic!("ended at {seen:?}"),
            Ok(count) => seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
    }
    seen
}

#[test]
fn a_container_s_terminal_goes_to_the_console_socket() {
    let script = "tty; stat -c %u $(tty); stty size; read x; echo got $x";
    let Some(bundle) = Bundle::new("tty", &["sh", "-c", script], |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
        config["process"]["user"] = json!({ "uid": 5, "gid": 5 });
    }) else {
        return;
    };
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = bundle.wharf(&["create", "--console-socket"]);
    let status = command.arg(&path).arg("--bundle").arg(bundle.dir.path()).arg(&bundle.id).status().unwrap();
    assert!(status.success());
    let mut master = receive(&listener);
    bundle.start();
    let seen = read_until(&mut master, "33 77");
    assert!(seen.contains("/dev/pts/0\r\n5\r\n"), "{seen:?}");
    master.write_all(b"word\n").unwrap();
    read_until(&mut master, "got word");
    bundle.wait_for_status("stopped");
}

#[test]
fn an_exec_s_terminal_too() {
    let Some(bundle) = Bundle::sleeper("exectty", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = bundle.wharf(&["exec", "--tty", "--detach", "--console-socket"]);
    let status = command.arg(&path).args([&bundle.id, "sh", "-c", "tty; sleep 600"]).status().unwrap();
    assert!(status.success());
    read_until(&mut receive(&listener), "/dev/pts/0");
}

#[test]
fn a_terminal_that_nobody_would_look_after_is_refused() {
    let Some(bundle) = Bundle::sleeper("notty", |config| config["process"]["terminal"] = json!(true)) else { return };
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let (_, message) = bundle.fails(&["create", "--bundle", &dir, &bundle.id]);
    assert!(message.contains("cannot allocate tty if runc will detach without setting console socket"), "{message}");
    bundle.configure(|config| config["process"]["terminal"] = json!(false));
    let (_, message) = bundle.fails(&["create", "--console-socket", "/no", "--bundle", &dir, &bundle.id]);
    assert!(message.contains("cannot use console socket"), "{message}");
    bundle.assert_nothing_is_left();
}

/// CVE-2025-52565: without a devpts of the configuration's the image says what is in that place.
#[test]
fn a_terminal_is_none_that_the_image_has_for_one() {
    let Some(bundle) = Bundle::new("nodevpts", &["true"], |config| {
        config["process"]["terminal"] = json!(true);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(json!({ "destination": "/odd/pts", "type": "devpts", "source": "devpts" }));
    }) else {
        return;
    };
    let inside = bundle.path("rootfs");
    for dir in ["dev/pts", "odd/pts"] {
        std::fs::create_dir_all(inside.join(dir)).unwrap();
    }
    std::fs::write(inside.join("file"), "as it was").unwrap();
    // One that is a terminal's master when it is opened, of another file system of terminals.
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    let number = rustix::fs::makedev(5, 2);
    rustix::fs::mknodat(rustix::fs::CWD, inside.join("odd/ptmx"), kind, mode, number).unwrap();
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    for target in ["/file", "/odd/ptmx", "/dev/null", "/no/such"] {
        let link = inside.join("dev/pts/ptmx");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let (console, dir) = (path.to_string_lossy(), bundle.dir.path().to_string_lossy());
        let words = ["create", "--console-socket", &console, "--bundle", &dir, &bundle.id];
        let (_, message) = bundle.fails(&words);
        assert!(message.contains("cannot make the terminal"), "{target}: {message}");
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "{target}: something is given away");
        }
        bundle.assert_nothing_is_left();
    }
    assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"as it was");
}
