//! A first process in a PID namespace of others, who see whoever is in it, and with `CAP_SYS_PTRACE` take over whoever has
//! no more rights than they: so what sets the container up stays outside, as the go-between of an exec does
//! ([`crate::enter`]). When all is done that needs the runtime's rights it gives them away, and makes the process.
//!
//! Hooks that run before that have the go-between's number, as the runtime's PID namespace counts, and are in that one.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::thread::move_into_link_name_space;
use wharf_sys::process::{clone_sibling, exit_now};

use crate::child::{Birth, control};
use crate::filter::SystemCalls;
use crate::identity::{Ahead, setgroups_denied, settle_ahead};
use crate::process::ProcessPlan;
use crate::report::{Failure, Step, send_made, send_ready, wait_at_gate, wait_for_go, wait_for_start};

/// What the go-between takes from its own procfs while that is there: the container's will not tell of it.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    namespace: BorrowedFd<'a>,
    setgroups: bool,
}

impl<'a> Joining<'a> {
    pub(crate) fn prepare(namespace: BorrowedFd<'a>) -> Self {
        Self { namespace, setgroups: !setgroups_denied("self") }
    }

    /// Makes the process, and ends. Everything is set up but what the process is and may.
    pub(crate) fn go(
        self,
        process: &ProcessPlan,
        birth: &Birth<'_>,
        last: impl FnOnce() -> Step<()>,
    ) -> Step<Infallible> {
        // It takes only children.
        move_into_link_name_space(self.namespace, None).map_err(Failure::at("join the pid namespace"))?;
        let filter = process.filter.as_ref();
        let late = filter.filter(|filter| !filter.permits_what_is_left()).and_then(SystemCalls::fd);
        let gate = birth.gate.map(|gate| gate.as_raw_fd());
        let kept: Vec<i32> = [Some(birth.socket.as_raw_fd()), gate, late].into_iter().flatten().collect();
        wharf_sys::fds::close_all_but(3 + process.preserve_fds, &kept)
            .map_err(Failure::at("close what is not the program's"))?;
        let ahead = settle_ahead(process, self.setgroups, birth.socket)?;
        let child = clone_sibling(|| {
            let mut visitor = None;
            match inside(process, birth, ahead, &mut visitor, last) {
                Err(failure) => {
                    failure.send(visitor.as_ref().map_or(birth.socket, AsFd::as_fd));
                    125
                }
                Ok(never) => match never {},
            }
        });
        send_made(birth.socket, &child.map_err(Failure::at("make the container's process"))?)?;
        exit_now(0)
    }
}

/// The process.
fn inside(
    process: &ProcessPlan,
    birth: &Birth<'_>,
    ahead: Ahead,
    visitor: &mut Option<OwnedFd>,
    last: impl FnOnce() -> Step<()>,
) -> Step<Infallible> {
    // The parent has heard of it: two may not speak at once.
    let (number, _) = wait_for_go(birth.socket)?;
    process.is_known_as(number);
    rustix::process::setsid().map_err(Failure::at("start a session"))?;
    if process.terminal.is_some() {
        control(rustix::stdio::stdin())?;
    }
    ahead.settle(process)?;
    send_ready(birth.socket, None)?;
    match birth.gate {
        Some(gate) => {
            // Its parent will have gone: what that one held must not be held on here.
            let late =
                process.filter.as_ref().filter(|filter| !filter.permits_what_is_left()).and_then(SystemCalls::fd);
            let kept: Vec<i32> = [Some(gate.as_raw_fd()), late].into_iter().flatten().collect();
            wharf_sys::fds::close_all_but(3 + process.preserve_fds, &kept)
                .map_err(Failure::at("close what is not inherited"))?;
            *visitor = Some(wait_at_gate(gate, birth.other_user)?);
        }
        None => wait_for_start(birth.socket)?,
    }
    ahead.become_program(process, last)
}
