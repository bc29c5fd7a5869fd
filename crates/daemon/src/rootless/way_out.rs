//! The program that leads from the namespaces to the host's network: pasta(1), else slirp4netns(1).
//!
//! Both are there with the addresses that slirp4netns is known for, not with the host's own: so the host is reached by
//! those. The host's loopback is not, but for its name server. Ports are not theirs to pass on: see `ports`.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::ids::is_program;

/// Where the host's name server answers.
pub(super) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
const ADDRESS: &str = "10.0.2.100";
const GATEWAY: &str = "10.0.2.2";
const LINK: &str = "tap0";
/// How long a program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(2);

/// A program that leads out.
#[derive(Debug)]
pub(super) struct WayOut {
    pid: i32,
    process: OwnedFd,
}

fn pid_file(exec_root: &Path) -> PathBuf {
    exec_root.join("way-out.pid")
}

/// What pasta writes when it is ready.
fn ready_file(exec_root: &Path) -> PathBuf {
    exec_root.join("way-out.ready")
}

/// The number of the one that runs for the anchor with this number, or for one in whose place that has come.
pub(super) fn pid(exec_root: &Path, anchor: i32) -> Option<i32> {
    running(exec_root, anchor).or_else(|| noted(exec_root).map(|(it, _)| it)).map(|it| it.pid)
}

/// The one that was started for the anchor with this number, if it runs.
fn running(exec_root: &Path, anchor: i32) -> Option<WayOut> {
    let is_its = |words: &[String]| words.iter().any(|word| *word == anchor.to_string());
    noted(exec_root).filter(|(_, words)| is_its(words)).or_else(|| unnoted(exec_root, anchor)).map(|(it, _)| it)
}

/// One that nobody has noted yet, or ever will: its launcher was killed.
fn unnoted(exec_root: &Path, anchor: i32) -> Option<(WayOut, Vec<String>)> {
    let (anchor, file) = (anchor.to_string(), ready_file(exec_root));
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let (it, words) = look(entry.file_name().to_str()?.parse().ok()?)?;
        // Numbers are of all users': what it was told beside that is ours.
        let is_ours = words.iter().any(|word| Path::new(word) == file || word == LINK);
        (is_ours && words.contains(&anchor)).then_some((it, words))
    })
}

/// The one that is noted, whosever it is, with what it was started with.
fn noted(exec_root: &Path) -> Option<(WayOut, Vec<String>)> {
    look(fs::read_to_string(pid_file(exec_root)).ok()?.trim().parse().ok()?)
}

/// A process, if it is a program that leads out.
fn look(pid: i32) -> Option<(WayOut, Vec<String>)> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> =
        words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    // Debian's pasta becomes pasta.avx2.
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    (program.starts_with("pasta") || program == "slirp4netns").then_some((WayOut { pid, process }, words))
}

/// Ends the one that is there, also one of the anchor's whose launcher was killed before it could note it. Nobody starts
/// another meanwhile, as the caller has the launchers' lock or is the launcher.
pub(super) fn end(exec_root: &Path, anchor: i32) {
    for (it, _) in noted(exec_root).into_iter().chain(unnoted(exec_root, anchor)) {
        it.end();
        let _ = fs::remove_file(pid_file(exec_root));
        let _ = fs::remove_file(log_file(exec_root));
        let _ = fs::remove_file(ready_file(exec_root));
    }
}

impl WayOut {
    fn end(self) {
        let _ = pidfd_send_signal(&self.process, Signal::TERM);
        let wait = Timespec { tv_sec: 2, tv_nsec: 0 };
        if !poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&wait)).is_ok_and(|ended| ended > 0) {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
    }
}

/// Sees to it that there is one; what stands against it is in the log, and whether there is one in the answer.
pub(super) fn lead(exec_root: &Path, anchor: i32) -> bool {
    if running(exec_root, anchor).is_some() {
        return true;
    }
    if let Some((other, _)) = noted(exec_root) {
        // Of an anchor that was killed.
        other.end();
    }
    let _ = fs::remove_file(pid_file(exec_root));
    let mut failures = Vec::new();
    for (program, start) in [("pasta", pasta as fn(&Path, i32) -> Result<(), String>), ("slirp4netns", slirp)] {
        if !is_program(program) {
            failures.push(format!("{program} is not there"));
            continue;
        }
        match start(exec_root, anchor) {
            Ok(()) => return true,
            Err(why) => failures.push(format!("{program}: {why}")),
        }
    }
    tracing::warn!(
        "containers have no way out, and nothing can be pulled: {}. Install pasta (package passt) or slirp4netns",
        failures.join("; ")
    );
    false
}

fn log_file(exec_root: &Path) -> PathBuf {
    exec_root.join("way-out.log")
}

/// For a program that outlives this process: a group of its own, and nothing of the terminal's.
fn command(exec_root: &Path, program: &str) -> Result<Command, String> {
    let log = File::create(log_file(exec_root)).map_err(|e| wharf_report::os(&e))?;
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(command)
}

fn pasta(exec_root: &Path, anchor: i32) -> Result<(), String> {
    let mut command = command(exec_root, "pasta")?;
    command.args(["--foreground", "--quiet", "--config-net", "--no-map-gw", "--ns-ifname", LINK]);
    command.args(["--address", ADDRESS, "--netmask", "24", "--gateway", GATEWAY]);
    command.arg("--dns-forward").arg(NAME_SERVER.to_string());
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
    let ready = ready_file(exec_root);
    let _ = fs::remove_file(&ready);
    command.arg("--pid").arg(&ready).arg(anchor.to_string());
    let child = command.spawn().map_err(|e| wharf_report::os(&e))?;
    let done = noted_until(child, exec_root, || fs::read_to_string(&ready).is_ok_and(|text| text.ends_with('\n')));
    let _ = fs::remove_file(&ready);
    done
}

fn slirp(exec_root: &Path, anchor: i32) -> Result<(), String> {
    let (mut ready, tell) = std::io::pipe().map_err(|e| wharf_report::os(&e))?;
    rustix::io::fcntl_setfd(&tell, rustix::io::FdFlags::empty()).map_err(|e| e.to_string())?;
    rustix::io::ioctl_fionbio(&ready, true).map_err(|e| e.to_string())?;
    let mut command = command(exec_root, "slirp4netns")?;
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
    command.arg(format!("--ready-fd={}", tell.as_raw_fd())).arg(anchor.to_string()).arg(LINK);
    let child = command.spawn().map_err(|e| wharf_report::os(&e))?;
    drop(tell);
    noted_until(child, exec_root, || ready.read(&mut [0]).is_ok_and(|got| got == 1))
}

/// Notes a program before it is ready, and waits for that: the anchor ends it also where this process is killed meanwhile.
fn noted_until(mut child: Child, exec_root: &Path, is_ready: impl FnMut() -> bool) -> Result<(), String> {
    let noted = fs::write(pid_file(exec_root), format!("{}\n", child.id())).map_err(|e| wharf_report::os(&e));
    let done = noted.and_then(|()| wait(&mut child, exec_root, is_ready));
    if done.is_err() {
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(pid_file(exec_root));
    }
    done
}

/// Waits until a program is ready; one that is not in time is ended.
fn wait(child: &mut Child, exec_root: &Path, mut is_ready: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let why = loop {
        if is_ready() {
            return Ok(());
        }
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(INTERVAL),
            Ok(None) => break "it does not come up".to_owned(),
            Ok(Some(status)) => break format!("it has ended ({status})"),
            Err(error) => break wharf_report::os(&error),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(log_file(exec_root)).unwrap_or_default();
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| is_telling(line)).collect();
    Err(if said.is_empty() { why } else { format!("{why}: {}", said.join(", ")) })
}

/// pasta complains of a syslog that is not there.
fn is_telling(line: &str) -> bool {
    !line.is_empty() && !line.ends_with("to syslog")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_leads_out_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(running(dir.path(), 7).is_none());
        let mut other = Command::new("sleep").arg("100").spawn().unwrap();
        fs::write(pid_file(dir.path()), format!("{}\n", other.id())).unwrap();
        assert!(noted(dir.path()).is_none());
        end(dir.path(), 7);
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn what_a_program_says_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path(), "sh").unwrap();
        command.args(["-c", "echo Failed to send 5 bytes to syslog >&2; echo no such device >&2; exit 3"]);
        let told = wait(&mut command.spawn().unwrap(), dir.path(), || false).unwrap_err();
        assert_eq!(told, "it has ended (exit status: 3): no such device");
    }
}
