//! `exec`: a further process in a container.

use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use serde_json::{Value, json};
use wharf_cgroup::{Group, Hierarchies};
use wharf_runtime::{Created, Entering, Exec, Stdio};

use crate::bundle::read_process;
use crate::capabilities;
use crate::check::check_environment;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::foreground::{Signals, inherited, look_after};
use crate::global::Global;
use crate::launch::{inheritance, keeps_groups, warn_of_left_out, write_pid};
use crate::pidfd_socket::PidfdSocket;
use crate::state::{Container, Status};
use crate::steps;
use crate::words::Given;

/// What says that there is no exit code of the process's.
const FAILED: u8 = 255;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    exec(global, given).map_err(|failure| Failure { code: FAILED, ..failure.during("exec failed") })
}

fn exec(global: &Global, given: &Given) -> Result<u8> {
    let mut inheritance = inheritance(given)?;
    let container = Container::open(global, &given.arguments[0])?;
    match container.status() {
        Status::Stopped | Status::Creating => return Err(Failure::new("cannot exec in a stopped container")),
        Status::Paused if !given.is("ignore-paused") => {
            return Err(Failure::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    inheritance.groups = keeps_groups(&container.record.spec);
    let (process, warning) = process(&container.record.spec, given)?;
    check_environment(&process)?;
    if let Some(warning) = warning {
        global.log.warning(&warning);
    }
    let stopped = || Failure::new("cannot exec in a stopped container");
    let (pid, pidfd) = container.process().ok_or_else(stopped)?;
    let detach = given.is("detach");
    let terminal = process.terminal().unwrap_or(false);
    let console = given.value("console-socket");
    // Whoever waits for it here may still give its terminal away.
    let console = Console::connect(console, terminal, detach || console.is_some())?;
    let pidfd_socket = PidfdSocket::connect(given.value("pidfd-socket"))?;
    // An ordinary user may not look at a process that waits; it shows itself.
    let waits = container.status() == Status::Created && !rustix::process::geteuid().is_root();
    let gate = if waits { container.place.connect_to_gate().ok() } else { None };
    let sight = gate.map(|gate| wharf_runtime::look_at(&gate.into())).transpose()?;
    let groups = Groups::read(&container.group, given.values("cgroup"))?;
    let signals = if detach { None } else { Some(Signals::block()?) };
    let mut state = container.record.for_hooks(&container.place.id);
    state["pid"] = serde_json::json!(pid.as_raw_nonzero().get());
    state["status"] = serde_json::json!(container.status().name());
    let exec = Exec {
        pid,
        pidfd: std::os::fd::AsFd::as_fd(&pidfd),
        process: &process,
        seccomp: container.record.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()),
        default_filter: None,
        state: Some(&state),
        stdio: if terminal { Stdio::Terminal } else { inherited()? },
        group: Some(&groups.all).filter(|group| group.is_made()),
        only_there: given.has("cgroup"),
        personality: container.record.spec.linux().as_ref().and_then(|linux| linux.personality().as_ref()),
        memory_policy: container.record.spec.linux().as_ref().and_then(|linux| linux.memory_policy().as_ref()),
        inheritance,
        sight,
    };
    steps::setup(&global.log, &container.record.spec);
    let mut created = if container.group.is_frozen() {
        // Who says `--ignore-paused` knows.
        global.log.debug("the container is paused: the process starts when it is resumed");
        when_resumed(wharf_runtime::begin_exec(exec)?, signals.as_ref())?
    } else {
        wharf_runtime::exec(exec)?
    };
    steps::set_up(&global.log, created.pid.as_raw_nonzero().get());
    warn_of_left_out(global, &created);
    if let (Some(console), Some(master)) = (&console, created.terminal.take_if(|_| console.is_some())) {
        console.send(std::os::fd::AsFd::as_fd(&master))?;
    }
    let number = created.pid.as_raw_nonzero().get();
    groups.move_into_some(number)?;
    if let Some(socket) = &pidfd_socket {
        socket.send(std::os::fd::AsFd::as_fd(&created.pidfd))?;
    }
    if let Some(file) = given.value("pid-file") {
        write_pid(Path::new(file), number)?;
    }
    steps::about_to_execute(&global.log);
    let (_, pidfd, master) = created.start()?;
    match signals {
        None => Ok(0),
        Some(signals) => look_after(&signals, &pidfd, master),
    }
}

/// Who comes into a frozen group is frozen: waits for as long as that takes, or until a signal ends this program.
fn when_resumed(mut entering: Entering, signals: Option<&Signals>) -> Result<Created> {
    loop {
        if let Some(created) = entering.advance()? {
            return Ok(created);
        }
        let mut fds = vec![PollFd::new(&entering, PollFlags::IN)];
        fds.extend(signals.map(|signals| PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)));
        retry_on_intr(|| poll(&mut fds, None)).map_err(|errno| Failure::os("wait until it is resumed", errno))?;
        if let Some(signal) = signals.and_then(Signals::that_ends) {
            return Err(Failure::new(format!("ended by {signal:?} before the container was resumed")));
        }
    }
}

/// Where the process goes below the container's group: `PATH` in every hierarchy, `CONTROLLER,…:PATH` in those of v1.
#[derive(Debug)]
struct Groups {
    all: Group,
    some: Vec<PathBuf>,
}

impl Groups {
    fn read(container: &Group, asked: &[String]) -> Result<Self> {
        let mut groups = Self { all: container.clone(), some: Vec::new() };
        for word in asked {
            let (controllers, path) = word.split_once(':').map_or((None, word.as_str()), |(c, path)| (Some(c), path));
            let inside = path.trim_start_matches('/');
            if !Path::new(inside).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(Failure::new(format!("bad sub cgroup path: {path} is not a sub cgroup path")));
            }
            let Some(controllers) = controllers else {
                if let Some(missing) = first_missing(container, inside) {
                    return Err(no_group(&missing));
                }
                groups.all = container.below(inside)?;
                continue;
            };
            for controller in controllers.split(',') {
                let dir = container.v1_dir(controller);
                let dir = dir.ok_or_else(|| Failure::new(format!("unknown controller {controller:?}")))?.join(inside);
                if !dir.is_dir() {
                    return Err(no_group(&dir));
                }
                groups.some.push(dir);
            }
        }
        Ok(groups)
    }

    fn move_into_some(&self, pid: i32) -> Result<()> {
        self.some.iter().try_for_each(|dir| {
            let file = dir.join("cgroup.procs");
            std::fs::write(&file, pid.to_string()).map_err(|error| Failure::file("write", &file, &error))
        })
    }
}

/// A directory of a sub-group that is not there.
fn first_missing(container: &Group, inside: &str) -> Option<PathBuf> {
    let groups = Hierarchies::detect().ok()?;
    let unified = container.v2_dir();
    let all = groups.all_v1().filter_map(|(name, _)| container.v1_dir(name)).chain(unified);
    all.map(|dir| dir.join(inside)).find(|dir| !dir.is_dir())
}

/// In runc's words.
fn no_group(dir: &Path) -> Failure {
    Failure::file("adding pid to the cgroup: open", &dir.join("cgroup.procs"), &rustix::io::Errno::NOENT.into())
}

/// The process of a file, or the container's own with what the words change of it; and what is left out.
fn process(spec: &Spec, given: &Given) -> Result<(Process, Option<String>)> {
    if let Some(file) = given.value("process") {
        let (process, warning) = read_process(Path::new(file))?;
        return if process.args().as_ref().is_none_or(Vec::is_empty) {
            Err(Failure::new("process args cannot be empty"))
        } else {
            Ok((process, warning))
        };
    }
    let words = &given.arguments[1..];
    if words.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    let own = spec
        .process()
        .as_ref()
        .ok_or_else(|| Failure::new("the container has no process to take the rest from: give one with --process"))?;
    let odd = |error: serde_json::Error| Failure::new(error.to_string());
    let mut value = serde_json::to_value(own).map_err(odd)?;
    value["args"] = json!(words);
    value["terminal"] = json!(given.is("tty"));
    for (flag, key) in [("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")] {
        if let Some(text) = given.value(flag) {
            value[key] = json!(text);
        }
    }
    if given.has("no-new-privs") {
        value["noNewPrivileges"] = json!(given.is("no-new-privs"));
    }
    append(&mut value["env"], given.values("env").iter().map(|pair| json!(pair)));
    for set in ["bounding", "effective", "permitted"] {
        if !given.values("cap").is_empty() {
            append(&mut value["capabilities"][set], given.values("cap").iter().map(|name| json!(name)));
        }
    }
    if let Some(user) = given.value("user").filter(|user| !user.is_empty()) {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        value["user"]["uid"] = json!(id(uid, "parsing uid")?);
        if let Some(gid) = gid {
            value["user"]["gid"] = json!(id(gid, "parsing gid")?);
        }
    }
    let groups = given.values("additional-gids").iter().map(|gid| id(gid, "parsing gid").map(|gid| json!(gid)));
    append(&mut value["user"]["additionalGids"], groups.collect::<Result<Vec<Value>>>()?);
    let warning = capabilities::warning(&capabilities::take_unknown(&mut value));
    Ok((serde_json::from_value(value).map_err(odd)?, warning))
}

fn append(list: &mut Value, more: impl IntoIterator<Item = Value>) {
    let mut more = more.into_iter().peekable();
    if more.peek().is_none() {
        return;
    }
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

/// Digits and nothing else, in the kernel's range: what overflows is not taken for root.
fn id(text: &str, what: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|id| digits && *id != u32::MAX);
    number.ok_or_else(|| Failure::new(format!("{what} as int for -u: {text:?} is no ID")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::COMMANDS;

    fn read(words: &[&str]) -> Result<Process> {
        let spec: Spec = serde_json::from_str(&crate::spec::example(false)).unwrap();
        let command = COMMANDS.iter().find(|command| command.name == "exec").unwrap();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        process(&spec, &Given::read(command.flags, command.order, &words)?).map(|(process, _)| process)
    }

    #[test]
    fn flags_change_the_container_s_own_process() {
        let process =
            read(&["-u", "7:8", "-g", "9", "-e", "A=1", "--cwd", "/tmp", "--cap", "CAP_SYS_TIME", "id", "ls", "-l"])
                .unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["ls", "-l"]);
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [9]);
        assert!(process.env().as_ref().unwrap().contains(&"A=1".to_owned()));
        let sets = process.capabilities().as_ref().unwrap();
        let has = |set: &Option<oci_spec::runtime::Capabilities>| {
            set.as_ref().is_some_and(|set| set.contains(&oci_spec::runtime::Capability::SysTime))
        };
        assert!(has(sets.effective()) && has(sets.bounding()) && !has(sets.inheritable()) && !has(sets.ambient()));
    }

    #[test]
    fn an_id_is_a_number_and_no_overflow() {
        for bad in ["root", "-1", "+1", "4294967295", "4294967296", "1:x", "1:", " 1"] {
            assert!(read(&["-u", bad, "id", "ls"]).is_err(), "{bad:?}");
        }
        assert!(read(&["id"]).unwrap_err().message.contains("args cannot be empty"));
    }
}
