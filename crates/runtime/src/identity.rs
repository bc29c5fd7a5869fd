//! Who the program is and what it may do; the last steps before the exec.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, statat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use wharf_rooted_path::RootDir;
use wharf_sys::process::Words;

use crate::process::ProcessPlan;
use crate::report::{Failure, Step};
use crate::rlimits;

/// Takes on the program's confinement, and becomes the program; [`settle`] came before. `last` is what is done as the
/// program would do it.
pub(crate) fn become_program(process: &ProcessPlan, last: impl FnOnce() -> Step<()>) -> Step<Infallible> {
    let home = home_variable(process);
    confine(process)?;
    reset(process)?;
    // Before what is done last, as with runc: a hook in the container has the container's confinement.
    forbid_privileges(process)?;
    last()?;
    execute(process, home.as_ref())
}

/// As [`become_program`], for who has the program's confinement already.
pub(crate) fn become_program_as_confined(process: &ProcessPlan, last: impl FnOnce() -> Step<()>) -> Step<Infallible> {
    let home = home_variable(process);
    reset(process)?;
    last()?;
    execute(process, home.as_ref())
}

/// The environment with the home in it, where nobody has said that.
pub(crate) fn home_variable(process: &ProcessPlan) -> Option<Words> {
    process.homeless.then(|| process.environment.with(home(process.uid)))
}

fn execute(process: &ProcessPlan, with_home: Option<&Words>) -> Step<Infallible> {
    let environment = with_home.unwrap_or(&process.environment);
    let mut denied = None;
    for path in &process.candidates {
        match wharf_sys::process::execve(path, &process.arguments, environment) {
            // Its interpreter is missing (execve(2)).
            Errno::NOENT if is_there(path) => return Err(Failure::NotExecutable(Errno::NOENT)),
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::LOOP if process.candidates.len() > 1 => {}
            Errno::ACCESS if process.candidates.len() > 1 => denied = Some(Errno::ACCESS),
            errno => return Err(Failure::NotExecutable(errno)),
        }
    }
    Err(denied.map_or(Failure::NotFound, Failure::NotExecutable))
}

fn is_there(path: &CStr) -> bool {
    statat(CWD, path, AtFlags::empty()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// More than this is no table of users.
const MAX_PASSWD: u64 = 1 << 20;

/// `HOME=` and what the image says, as runc has it: engines leave it to the runtime.
fn home(uid: u32) -> CString {
    let table = RootDir::open("/").and_then(|root| root.read_small("etc/passwd", MAX_PASSWD)).unwrap_or_default();
    let home = home_in(&String::from_utf8_lossy(&table), uid).unwrap_or_else(|| "/".into());
    CString::new(format!("HOME={home}")).unwrap_or_else(|_| c"HOME=/".to_owned())
}

/// passwd(5): `NAME:PASSWORD:UID:GID:COMMENT:HOME:SHELL`.
fn home_in(table: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let line = table.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    line.split(':').nth(5).filter(|home| !home.is_empty()).map(str::to_owned)
}

/// Becomes the program's user, in the one order in which each step still has the right to be done. What can be refused
/// is here: it is done before the container counts as made. Of capabilities the program's stay, and what [`confine`]
/// needs. The label is set already.
pub(crate) fn settle(process: &ProcessPlan) -> Step<()> {
    process.scheduling.apply()?;
    rlimits::apply(&process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    give_streams(process.uid);
    change_user(process, || setgroups_denied("self"))?;
    enter_cwd(&process.cwd)?;
    set_capabilities(process, process.effective, process.permitted | needed_to_confine(process))
}

/// As [`settle`], for a process of ours that is no program and has neither streams nor a directory.
pub(crate) fn settle_ourselves(process: &ProcessPlan) -> Step<()> {
    process.scheduling.apply()?;
    rlimits::apply(&process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    change_user(process, || setgroups_denied("self"))
}

/// As [`settle`] and [`become_program`], for a process that the caller is still to make: it starts with its
/// program's confinement, and has never had anything else where the container sees it. The label is set already, the
/// scheduler and what [`Ahead`] has is not. `setgroups`: as [`crate::enter::Entry`] has it.
pub(crate) fn settle_ahead(process: &ProcessPlan, setgroups: bool, socket: BorrowedFd<'_>) -> Step<Ahead> {
    process.scheduling.apply_ahead()?;
    rlimits::apply_ahead(&process.rlimits, process.preserve_fds)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    give_streams(process.uid);
    change_user(process, || !setgroups)?;
    let in_cwd = match enter_cwd(&process.cwd) {
        // What procfs shows of a process there is not seen from outside.
        Err(Failure::Step(_, Errno::NOENT)) => false,
        entered => entered.map(|()| true)?,
    };
    let filter = process.filter.as_ref().filter(|filter| filter.permits_what_is_left());
    if !process.no_new_privileges
        && let Some(filter) = filter
    {
        use_permitted()?;
        filter.install_ahead(socket)?;
    }
    let needed = if filter.is_some() { 0 } else { needed_to_confine(process) };
    set_capabilities(process, process.effective, process.permitted | needed)?;
    set_ambient(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at("forbid new privileges"))?;
        filter.map_or(Ok(()), |filter| filter.install_ahead(socket))?;
    }
    Ok(Ahead { in_cwd, confined: process.filter.is_none() || filter.is_some() })
}

/// What [`settle_ahead`] could do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    in_cwd: bool,
    confined: bool,
}

impl Ahead {
    /// What is left of it, in the process itself.
    pub(crate) fn settle(self, process: &ProcessPlan) -> Step<()> {
        if !self.in_cwd {
            enter_cwd(&process.cwd)?;
        }
        rlimits::apply(&process.rlimits)
    }

    /// And the rest.
    pub(crate) fn become_program(self, process: &ProcessPlan, last: impl FnOnce() -> Step<()>) -> Step<Infallible> {
        if self.confined { become_program_as_confined(process, last) } else { become_program(process, last) }
    }
}

fn change_user(process: &ProcessPlan, denied: impl FnOnce() -> bool) -> Step<()> {
    clear_secure_bits()?;
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if process.bounding & (1 << bit) == 0 {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                // No such capability in this kernel.
                Err(Errno::INVAL) => break,
                done => done.map_err(Failure::at("drop a capability"))?,
            }
        }
    }
    rustix::thread::set_keep_capabilities(true).map_err(Failure::at("keep capabilities"))?;
    if process.keep_groups {
        set_ids(process.uid, process.gid)?;
    } else {
        become_id_where(process.uid, process.gid, &process.groups, denied)?;
    }
    rustix::thread::set_keep_capabilities(false).map_err(Failure::at("keep capabilities"))?;
    // Another user's process may have become one that can be looked into (fs.suid_dumpable, proc_sys_fs(5)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Failure::at("become undumpable"))
}

/// What capabilities mean to the program is what the configuration says, and not what the caller has for itself
/// (capabilities(7), "The securebits flags"). A new user namespace begins without any.
fn clear_secure_bits() -> Step<()> {
    let bits = rustix::thread::capabilities_secure_bits().map_err(Failure::at("read the secure bits"))?;
    if bits.is_empty() {
        return Ok(());
    }
    // EPERM where they are locked: then it is the caller that has to be started without them.
    let none = CapabilitiesSecureBits::empty();
    rustix::thread::set_capabilities_secure_bits(none).map_err(Failure::at("clear the secure bits of the caller"))
}

/// What [`confine`] cannot do without: a filter where new privileges are not forbidden.
fn needed_to_confine(process: &ProcessPlan) -> u64 {
    if process.filter.is_some() && !process.no_new_privileges { CapabilitySet::SYS_ADMIN.bits() } else { 0 }
}

/// The change of the user puts them aside.
fn use_permitted() -> Step<()> {
    let mut sets = rustix::thread::capabilities(None).map_err(Failure::at("read the capabilities"))?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("use the capabilities"))
}

fn set_capabilities(process: &ProcessPlan, effective: u64, permitted: u64) -> Step<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(process.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("set the capabilities"))
}

fn set_ambient(process: &ProcessPlan) -> Step<()> {
    rustix::thread::clear_ambient_capability_set().map_err(Failure::at("clear the ambient capabilities"))?;
    for bit in (0..64).filter(|bit| process.ambient & (1 << bit) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .map_err(Failure::at("set an ambient capability"))?;
    }
    Ok(())
}

/// Takes on the program's capabilities, and its filter where that needs one of the runtime's.
fn confine(process: &ProcessPlan) -> Step<()> {
    filter_as_admin(process)?;
    set_capabilities(process, process.effective, process.permitted)?;
    set_ambient(process)
}

/// As [`confine`], for a process of ours that does not exec: the exec of who is not root leaves it the ambient ones
/// alone (capabilities(7)).
pub(crate) fn confine_ourselves(process: &ProcessPlan) -> Step<()> {
    filter_as_admin(process)?;
    let kept = if process.uid == 0 { u64::MAX } else { process.ambient };
    set_capabilities(process, process.effective & kept, process.permitted & kept)?;
    set_ambient(process)
}

fn filter_as_admin(process: &ProcessPlan) -> Step<()> {
    if !process.no_new_privileges && process.filter.is_some() {
        use_permitted()?;
        install_filter(process)?;
    }
    Ok(())
}

/// What only a program needs: its signals, and no fds but its own.
fn reset(process: &ProcessPlan) -> Step<()> {
    wharf_sys::process::reset_signals().map_err(Failure::at("reset the signals"))?;
    wharf_sys::fds::close_on_exec_from(3 + process.preserve_fds).map_err(Failure::at("close what is not inherited"))
}

/// From here on nothing can be gained by an exec; then a filter needs no capability.
pub(crate) fn forbid_privileges(process: &ProcessPlan) -> Step<()> {
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at("forbid new privileges"))?;
        install_filter(process)?;
    }
    Ok(())
}

/// A program that is not there, or is none, is told before the container counts as made. What the user may is seen
/// at the exec.
pub(crate) fn find_program(process: &ProcessPlan) -> Step<()> {
    let (mut denied, mut unsure) = (None, false);
    for path in &process.candidates {
        let path = process.cwd.join(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())));
        match statat(CWD, &path, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::LOOP) => denied = process.command.contains('/').then_some(Errno::LOOP).or(denied),
            // The exec will say.
            Err(_) => unsure = true,
            Ok(stat) => {
                let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                if file && stat.st_mode & 0o111 != 0 {
                    return Ok(());
                }
                // What cannot be executed is none in a search, as with runc.
                denied = process.command.contains('/').then_some(Errno::ACCESS);
            }
        }
    }
    if unsure {
        return Ok(());
    }
    Err(denied.map_or(Failure::NotFound, Failure::NotExecutable))
}

/// The streams become the user's, or it could not open `/dev/stdout` again. Files stay whose they are.
fn give_streams(uid: u32) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let passing = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => rustix::termios::isatty(stream.as_fd()),
            _ => false,
        };
        if passing && stat.st_uid != uid {
            // An owner that has no ID in this user namespace keeps it.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// As the user, so that a directory that the user may not enter is not entered.
fn enter_cwd(cwd: &Path) -> Step<()> {
    rustix::process::chdir(cwd).map_err(Failure::at(format!("enter the working directory `{}`", cwd.display())))?;
    let here = rustix::process::getcwd(Vec::new()).map_err(Failure::at("find the working directory"))?;
    if !here.to_bytes().starts_with(b"/") {
        // Outside of the root (CVE-2024-21626).
        return Err(Failure::Step("stay inside the root".into(), Errno::XDEV));
    }
    Ok(())
}

fn install_filter(process: &ProcessPlan) -> Step<()> {
    process.filter.as_ref().map_or(Ok(()), |filter| filter.install(process.exec))
}

/// user_namespaces(7), `/proc/PID/setgroups`.
pub(crate) fn setgroups_denied(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/setgroups")).is_ok_and(|text| text.trim() == "deny")
}

/// Groups first, then the group, then the user: after that the right to change them is gone.
pub(crate) fn become_id(uid: u32, gid: u32, groups: &[u32]) -> Step<()> {
    become_id_where(uid, gid, groups, || setgroups_denied("self"))
}

/// `denied`: whether the user namespace has given up the groups.
fn become_id_where(uid: u32, gid: u32, groups: &[u32], denied: impl FnOnce() -> bool) -> Step<()> {
    // The process's group beside itself, as Docker has it, gives no right more.
    let are_none = groups.iter().all(|group| *group == gid);
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // An ordinary user has given it up, and keeps the groups that it has: they are its own.
        Err(Errno::PERM) if are_none && denied() => {}
        done => done.map_err(Failure::at("set the supplementary groups"))?,
    }
    set_ids(uid, gid)
}

/// The group, then the user.
pub(crate) fn set_ids(uid: u32, gid: u32) -> Step<()> {
    if uid == u32::MAX || gid == u32::MAX {
        // "As it was" (setresuid(2)).
        return Err(Failure::at("set the user")(Errno::INVAL));
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(Failure::at("set the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Failure::at("set the user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user who is the same does not change what the process is, and another one makes it what fs.suid_dumpable says.
    #[test]
    fn who_has_become_the_user_cannot_be_looked_into() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: groups are root's to set");
        }
        let program: oci_spec::runtime::Process =
            serde_json::from_str(r#"{"user":{"uid":0,"gid":0,"umask":18},"cwd":"/","args":["a"]}"#).unwrap();
        let process = crate::process::process_plan(&program, None).unwrap();
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        // In a thread, whose capabilities and groups are its own.
        let settled = std::thread::spawn(move || settle_ourselves(&process)).join().unwrap();
        let behavior = rustix::process::dumpable_behavior().unwrap();
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        assert!(settled.is_ok());
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }

    #[test]
    fn users_are_at_home_where_the_table_says() {
        let table = "root:x:0:0:root:/root:/bin/sh\nodd\na:x:7:7::/home/a:/bin/sh\nb:x:8:8:::\n";
        assert_eq!(home_in(table, 7).as_deref(), Some("/home/a"));
        assert_eq!(home_in(table, 8), None);
        assert_eq!(home_in(table, 9), None);
    }
}
