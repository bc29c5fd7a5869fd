//! Pidfds, given away over a socket: of a container's first process, and of an exec's.

use std::os::unix::net::UnixListener;

use rustix::process::{Signal, pidfd_send_signal};

use crate::kit::{Bundle, text};
use crate::terminal;

#[test]
fn whoever_listens_gets_a_hold_of_the_process() {
    let Some(bundle) = Bundle::sleeper("pidfd", |_| {}) else { return };
    let path = bundle.path("pidfds");
    let listener = UnixListener::bind(&path).unwrap();
    let (socket, dir) = (path.to_string_lossy().into_owned(), bundle.dir.path().to_string_lossy().into_owned());
    let log = std::fs::File::create(bundle.path("out")).unwrap();
    let mut create = bundle.wharf(&["create", "--pidfd-socket", &socket, "--bundle", &dir, &bundle.id]);
    assert!(create.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap().success(), "{}", bundle.shown());
    let first = terminal::receive(&listener);
    bundle.start();
    let mut exec = bundle.wharf(&["exec", "--pidfd-socket", &socket, &bundle.id, "sleep", "600"]).spawn().unwrap();
    pidfd_send_signal(terminal::receive(&listener), Signal::USR1).unwrap();
    // The exec's, by its signal.
    assert_eq!(exec.wait().unwrap().code(), Some(128 + Signal::USR1.as_raw()));
    assert_eq!(bundle.status(), "running");
    pidfd_send_signal(first, Signal::KILL).unwrap();
    bundle.wait_for_status("stopped");
    let nobody = bundle.output(&["exec", "--pidfd-socket", "/no/such", &bundle.id, "true"]);
    assert!(!nobody.status.success(), "{}", text(&nobody.stderr));
}
