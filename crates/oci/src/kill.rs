//! `kill`: a signal by name or number.

use rustix::process::Signal;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::state::{Container, Status};
use crate::words::Given;

/// Names by number, from 1 on (signal(7), x86 and ARM).
const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Other names of the same.
const ALIASES: &[(&str, i32)] = &[("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// The first and the last real-time signal that programs may use.
const REAL_TIME: (i32, i32) = (34, 64);

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let signal = number(given.arguments.get(1).map_or("SIGTERM", String::as_str))?;
    let container = Container::open(global, &given.arguments[0])?;
    let status = container.status();
    let kill = Signal::KILL.as_raw();
    if given.is("all") {
        for pid in container.group.all_processes() {
            // It may have ended meanwhile.
            if let Some(pid) = rustix::process::Pid::from_raw(pid)
                && let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            {
                let _ = wharf_sys::process::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), signal);
            }
        }
    } else {
        // With no PID namespace of its own the others neither end with the first process nor need it.
        let all = signal == kill && !has_pid_namespace(&container);
        match container.process().filter(|_| status != Status::Stopped) {
            Some((_, pidfd)) => wharf_sys::process::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), signal)
                .map_err(|errno| Failure::os("send the signal", errno))?,
            None if all && !container.group.all_processes().is_empty() => {}
            None => return Err(Failure::new("container not running")),
        }
        if all {
            container.group.kill()?;
        }
    }
    if signal == kill && (status == Status::Paused || status == Status::Stopped && container.group.is_frozen()) {
        // What is frozen does not even die.
        container.group.freeze(false)?;
    }
    Ok(0)
}

/// Whether the kernel ends all processes with the first one.
pub(crate) fn has_pid_namespace(container: &Container) -> bool {
    let namespaces = container.record.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| {
        namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Pid
            && namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    })
}

/// `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+1`.
fn number(text: &str) -> Result<i32> {
    let unknown = || Failure::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=REAL_TIME.1).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).map_err(|_| unknown());
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Ok(*number);
    }
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse::<i32>().ok() };
    let real_time =
        if let Some(rest) = name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+')) {
            offset(rest).map(|offset| REAL_TIME.0 + offset)
        } else if let Some(rest) = name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-')) {
            offset(rest).map(|offset| REAL_TIME.1 - offset)
        } else {
            None
        };
    real_time.filter(|number| (REAL_TIME.0..=REAL_TIME.1).contains(number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, want) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("SIGPOLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(number(text).unwrap(), want, "{text}");
        }
        for bad in ["", "NOPE", "65", "-1", "RTMIN+99", "RTMIN-1", "RTMAX+1"] {
            assert_eq!(number(bad).unwrap_err().message, format!("unknown signal {bad:?}"));
        }
    }
}
