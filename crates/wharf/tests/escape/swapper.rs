//! A container that swaps a directory of a volume for a link, as fast as the kernel does it.

use std::path::Path;

use crate::canary::{exec, say};
use crate::kit::Daemon;
use crate::program::{Arg, call, forever};

/// renameat2(2).
const RENAMEAT2: u64 = 316;
const RENAME_EXCHANGE: u64 = 2;
/// `AT_FDCWD`.
const HERE: u64 = -100_i64 as u64;

/// Writes the program, which swaps `place` and `link` in its working directory.
pub(crate) fn program(path: &Path) {
    let (place, link) = (Arg::Bytes(b"place"), Arg::Bytes(b"link"));
    let swap = [Arg::Number(HERE), place, Arg::Number(HERE), link, Arg::Number(RENAME_EXCHANGE)];
    forever(path, &[call(RENAMEAT2, &swap)]);
}

/// It runs until this is dropped.
pub(crate) struct Swapper<'a>(&'a Daemon);

/// Makes `place`, a directory, and `link`, one to `target`, at the top of the volume, and swaps them.
pub(crate) fn start<'a>(d: &'a Daemon, volume: &str, target: &Path) -> Swapper<'a> {
    let program = d.path().join("swap");
    let swap =
        [Arg::Number(HERE), Arg::Bytes(b"place"), Arg::Number(HERE), Arg::Bytes(b"link"), Arg::Number(RENAME_EXCHANGE)];
    forever(&program, &[call(RENAMEAT2, &swap)]);
    let mount = format!("{}:/swap:ro", program.display());
    let volume = format!("{volume}:/vol");
    let script =
        format!("rm -rf place link; mkdir place; ln -s {} link; touch /tmp/ready; exec /swap", target.display());
    let words = ["run", "-d", "--name", "swapper", "--network", "none", "-v", &mount, "-v", &volume, "-w", "/vol"];
    say(d, &[&words[..], &["busybox", "sh", "-c", &script]].concat()).ok();
    d.eventually("it swaps", || exec(d, "swapper", "test -e /tmp/ready").code == 0);
    Swapper(d)
}

impl Drop for Swapper<'_> {
    fn drop(&mut self) {
        self.0.docker("rm -f swapper");
    }
}
