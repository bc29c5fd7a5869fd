//! What others see of a process's arguments and environment (`/proc/PID/cmdline` and `environ`, proc(5)).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use crate::Result;

/// Fields of `/proc/PID/stat` that come after the name, which may have any character in it.
const ARGUMENTS_START: usize = 48 - 3;

/// Replaces the arguments that this process shows by `title`, cut to their length, and the environment that it was
/// started with by nothing. For a copy of a process that has forked itself: what its parent was started with, maybe
/// with secrets, is none of its business. `std::env` finds nothing of either afterwards.
///
/// The kernel writes, as for a debugger, into memory that belongs to nobody in this program but the C library's
/// `environ` and `argv`, whose strings stay strings.
///
/// # Errors
/// When there is no procfs, or it is not this process's.
pub fn set(title: &[u8]) -> Result<()> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let stat = fs::read_to_string("/proc/self/stat").map_err(errno)?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let places: Vec<u64> =
        fields.split_whitespace().skip(ARGUMENTS_START).take(4).filter_map(|field| field.parse().ok()).collect();
    let [arguments, arguments_end, environment, environment_end] = places[..] else { return Err(Errno::IO) };
    let memory = File::options().write(true).open("/proc/self/mem").map_err(errno)?;
    let area = |start: u64, end: u64| usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    let mut bytes = vec![0; area(arguments, arguments_end)];
    // The last byte stays NUL: the kernel takes another for a sign that the title goes on in the environment.
    let length = title.len().min(bytes.len().saturating_sub(1));
    bytes[..length].copy_from_slice(&title[..length]);
    memory.write_all_at(&bytes, arguments).map_err(errno)?;
    memory.write_all_at(&vec![0; area(environment, environment_end)], environment).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Namespaces, clone3};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    #[test]
    fn others_see_the_title_and_no_environment() {
        let child = clone3(Namespaces::default(), None, || {
            let seen = |file: &str| fs::read(format!("/proc/self/{file}")).unwrap_or_default();
            let had = seen("cmdline").len() > 5;
            let done = set(b"title").is_ok();
            let blank = seen("environ").iter().all(|byte| *byte == 0);
            u8::from(had && done && seen("cmdline").starts_with(b"title\0") && blank)
        })
        .expect("clones");
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
        assert_eq!(status.and_then(|s| s.exit_status()), Some(1));
    }
}
