//! What `create` and `run` have in common: from a bundle to a container whose first process waits.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use oci_spec::runtime::{Process, Spec};
use rustix::process::Pid;
use wharf_cgroup::{Group, Hierarchies, Scope, Started};
use wharf_runtime::{Born, Created, HookSet, Inheritance, Launch, Lifecycle, Point, Rootfs, RuntimeError, Stdio};

use crate::bundle::Bundle;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::foreground::inherited;
use crate::global::Global;
use crate::notify;
use crate::pidfd_socket::PidfdSocket;
use crate::place::{Place, check_id};
use crate::state::{Container, Identity, Record};
use crate::steps;
use crate::words::Given;

/// A container just made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) container: Container,
    pub(crate) created: Created,
}

/// Makes the container that the words ask for. `gate`: its first process waits for `start`, and not for this program.
/// `detach`: nobody is here to look after a terminal.
pub(crate) fn launch(global: &Global, given: &Given, gate: bool, detach: bool) -> Result<Made> {
    let mut inheritance = inheritance(given)?;
    let id = &given.arguments[0];
    check_id(id)?;
    let mut bundle = Bundle::read(given.value("bundle"), given.value("config"))?;
    bundle.warnings.iter().for_each(|warning| global.log.warning(warning));
    inheritance.groups = keeps_groups(&bundle.spec);
    let terminal = bundle.spec.process().as_ref().and_then(Process::terminal).unwrap_or(false);
    if !gate && bundle.spec.process().is_none() {
        return Err(Failure::new("invalid configuration: there is no process to be run: add `process`"));
    }
    refuse_unified(&bundle)?;
    let console = Console::connect(given.value("console-socket"), terminal, detach)?;
    let pidfd_socket = PidfdSocket::connect(given.value("pidfd-socket"))?;
    let scope = if global.systemd { Some(scope(&bundle, id)?) } else { None };
    let place = Place::create(&global.root, id)?;
    if notify::is_asked()
        && let Err(failure) = notify::prepare(&place, &mut bundle.spec)
    {
        place.remove()?;
        return Err(failure);
    }
    let mut record = Record {
        bundle: bundle.dir,
        rootfs: bundle.rootfs,
        created: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
        owner: rustix::process::getuid().as_raw(),
        group: String::new(),
        scope,
        process: Cell::new(None),
        creating: true,
        lent: None,
        spec: bundle.spec,
    };
    // What systemd has made goes when nobody is in it: until the container's process is.
    let (group, _started) = match make_group(global, &place, &mut record) {
        Ok(made) => made,
        Err(failure) => {
            place.remove()?;
            return Err(failure);
        }
    };
    let mut container = Container { place, record, group };
    steps::setup(&global.log, &container.record.spec);
    match make(&mut container, inheritance, terminal, gate) {
        Ok(mut created) => {
            warn_of_left_out(global, &created);
            let pid = created.pid.as_raw_nonzero().get();
            steps::set_up(&global.log, pid);
            let told = container
                .write()
                .and_then(|()| match (&console, created.terminal.take()) {
                    (Some(console), Some(master)) => console.send(master.as_fd()),
                    (None, master) => {
                        created.terminal = master;
                        Ok(())
                    }
                    (Some(_), None) => Ok(()),
                })
                .and_then(|()| pidfd_socket.as_ref().map_or(Ok(()), |socket| socket.send(created.pidfd.as_fd())))
                .and_then(|()| given.value("pid-file").map_or(Ok(()), |file| write_pid(Path::new(file), pid)));
            match told {
                Ok(()) => Ok(Made { container, created }),
                Err(failure) => {
                    drop(created);
                    Err(abandon(global, container, failure, false))
                }
            }
        }
        Err((failure, hook)) => Err(abandon(global, container, failure, hook)),
    }
}

/// Takes back what was made, and gives back why.
fn abandon(global: &Global, container: Container, failure: Failure, hook: bool) -> Failure {
    if let Err(error) = crate::delete::undo(global, container, hook) {
        global.log.warning(&format!("what was made of the container could not be removed: {}", error.message));
    }
    failure
}

/// The flag says whether a hook failed: then those for the end are run too.
fn make(
    container: &mut Container,
    inheritance: Inheritance,
    terminal: bool,
    gate: bool,
) -> std::result::Result<Created, (Failure, bool)> {
    let plain = |failure: Failure| (failure, false);
    let listener = if gate { Some(container.place.make_gate().map_err(plain)?) } else { None };
    let state = container.record.for_hooks(&container.place.id);
    let unwritten = Cell::new(None);
    // Before it does anything: should this program be killed, it waits at its gate for whoever deletes it.
    let write_down = |pid: Pid| {
        let identity = Identity::of(pid.as_raw_nonzero().get()).ok_or(RuntimeError::Vanished)?;
        container.record.process.set(Some(identity));
        container.write().map_err(|failure| {
            unwritten.set(Some(failure));
            RuntimeError::Vanished
        })
    };
    let spec = &container.record.spec;
    let launch = Launch {
        spec,
        rootfs: Rootfs::Directory(container.record.rootfs.clone()),
        layers: &[],
        binds: &[],
        stdio: if terminal { Stdio::Terminal } else { inherited().map_err(plain)? },
        netns: None,
        group: Some(&container.group).filter(|group| group.is_made()),
        default_filter: None,
        lifecycle: Lifecycle {
            gate: listener.as_ref().map(AsFd::as_fd),
            state: Some(&state),
            hooks: spec.hooks().as_ref().map(|hooks| HookSet { hooks, state: &state }),
            hooks_root: None,
            inheritance,
            // All in a configuration is asked for.
            time_is_optional: false,
            caller: None,
            born: Some(Born(&write_down)),
        },
    };
    let created = wharf_runtime::create(launch).map_err(|error| {
        let hook = matches!(error.cause(), RuntimeError::Hook(_) | RuntimeError::ContainerHook(_));
        let ended = matches!(error.cause(), RuntimeError::Vanished);
        let told = if ended && container.group.is_made() && container.group.usage().oom_kills > 0 {
            // runc's words.
            Failure::new("container init was OOM-killed (memory limit too low?)")
        } else {
            Failure::from(error)
        };
        (unwritten.take().unwrap_or(told), hook)
    })?;
    container.record.creating = false;
    container.record.lent = created.lent_devices().cloned();
    Ok(created)
}

/// Keys of cgroup2 where limits are those of v1 (runtime-spec, config-linux, "Unified").
fn refuse_unified(bundle: &Bundle) -> Result<()> {
    let resources = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let unified = resources.and_then(|resources| resources.unified().as_ref());
    if unified.is_none_or(|unified| unified.is_empty()) || Hierarchies::detect()?.is_v2() {
        return Ok(());
    }
    Err(Failure::new("invalid configuration: cannot use `unified` resources on cgroup v1: give them as memory, cpu, …"))
}

fn cgroups_path(spec: &Spec) -> Option<PathBuf> {
    spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone())
}

fn scope(bundle: &Bundle, id: &str) -> Result<Scope> {
    let path = cgroups_path(&bundle.spec).map(|path| path.to_string_lossy().into_owned());
    Ok(Scope::read(path.as_deref(), id)?)
}

/// Makes the group of `record`, which is written before there is one: what a killed creation leaves is found.
fn make_group(global: &Global, place: &Place, record: &mut Record) -> Result<(Group, Option<Started>)> {
    let hierarchies = Hierarchies::detect()?;
    if let Some(scope) = &record.scope {
        let resources = record.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let started = scope.start(resources, hierarchies.is_v2())?;
        return match Group::create(&hierarchies, &started.path) {
            Ok(group) => {
                record.group = format!("/{}", group.path().display());
                place.write(record)?;
                Ok((group, Some(started)))
            }
            Err(error) => {
                scope.stop()?;
                Err(error.into())
            }
        };
    }
    // Directly below the root: making and removing a parent each time would double the waits for RCU on v1.
    let given = cgroups_path(&record.spec);
    let path = given.as_ref().map_or_else(|| format!("/{}", place.id), |path| format!("/{}", path.display()));
    let group = Group::open(&hierarchies, &path.replace("//", "/"))?;
    let members = group.all_processes();
    if !members.is_empty() {
        return Err(Failure::new(format!("container's cgroup is not empty: {} process(es) found", members.len())));
    }
    if group.is_frozen() {
        // Whoever is put there waits until somebody thaws it.
        return Err(Failure::new("container's cgroup unexpectedly frozen"));
    }
    record.group = format!("/{}", group.path().display());
    place.write(record)?;
    let named = group.clone();
    match group.make() {
        // As with runc: an ordinary user, or root of a user namespace, may have no group to limit, and asks for none then.
        Err(error) if global.is_rootless() && !named.is_made() => {
            if has_limits(&record.spec) || given.is_some() {
                let needs = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
                return Err(Failure::from(error).during(needs));
            }
            Ok((named, None))
        }
        made => Ok((made?, None)),
    }
}

/// What could not be given is told (runtime-spec, config, "capabilities").
pub(crate) fn warn_of_left_out(global: &Global, created: &Created) {
    if !created.left_out.is_empty() {
        let names = created.left_out.join(", ");
        global.log.warning(&format!("capabilities that this runtime does not have itself are left out: {names}"));
    }
}

/// Whether something is limited but devices, which a user namespace limits by itself.
fn has_limits(spec: &Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let value = resources.and_then(|resources| serde_json::to_value(resources).ok());
    let sections = value.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
    sections.into_iter().any(|(key, value)| key != "devices" && *value != serde_json::json!({}))
}

/// What is passed on to the program. Looked at before anything is opened here that could take such a number.
pub(crate) fn inheritance(given: &Given) -> Result<Inheritance> {
    let fds: u32 = given.number("preserve-fds")?.unwrap_or(0);
    // systemd's sockets are passed on as it passes them (sd_listen_fds(3)).
    let listening: u32 = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let all = fds.saturating_add(listening);
    for number in 3..all.saturating_add(3) {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Failure::new(format!("please check that preserved-fd {} (of {all}) is present", number - 3)));
        }
    }
    Ok(Inheritance { fds: all, keyring: given.is("no-new-keyring"), groups: false })
}

/// Whether the program keeps the caller's supplementary groups (crun(1), "run.oci.keep_original_groups"): podman's
/// `--group-add keep-groups` asks for it so.
pub(crate) fn keeps_groups(spec: &Spec) -> bool {
    let asked = spec.annotations().as_ref().and_then(|all| all.get("run.oci.keep_original_groups"));
    asked.is_some_and(|value| value != "0")
}

/// Whole or not at all: who reads it may be waiting for it.
pub(crate) fn write_pid(file: &Path, pid: i32) -> Result<()> {
    let fail = |error: std::io::Error| Failure::file("write", file, &error);
    let mut temporary = PathBuf::from(file);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    temporary.set_file_name(format!(".{name}.{}", std::process::id()));
    // The directory may be one in which others write, who would choose where a link of theirs leads.
    let new = || OpenOptions::new().write(true).create_new(true).open(&temporary);
    let mut opened = match new() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => std::fs::remove_file(&temporary).and_then(|()| new()),
        opened => opened,
    }
    .map_err(fail)?;
    let written = opened.write_all(pid.to_string().as_bytes()).and_then(|()| std::fs::rename(&temporary, file));
    written.map_err(|error| {
        // What is left of it helps nobody.
        let _ = std::fs::remove_file(&temporary);
        fail(error)
    })
}

/// Runs the `poststart` hooks. When one fails the container is stopped and destroyed, with its hooks for the end
/// (runtime-spec 1.3, runtime, "Lifecycle": step 9 goes on with 12); up to 1.2 that was a warning.
pub(crate) fn after_start(global: &Global, container: Container, pid: i32) -> Result<Container> {
    let Some(hooks) = container.record.spec.hooks() else { return Ok(container) };
    let state = container.record.for_hooks(&container.place.id);
    let set = HookSet { hooks, state: &state };
    if set.at(Point::Poststart).is_empty() {
        return Ok(container);
    }
    // It runs: whoever wants it to end does not wait for a hook.
    container.place.unlock();
    let failed = set.run(Point::Poststart, "running", pid).err();
    let gone = container.place.lock().is_err();
    let Some(error) = failed else { return Ok(container) };
    if gone {
        return Err(Failure::from(RuntimeError::from(error)));
    }
    let failure = Failure::new(format!("{}; the container is stopped and deleted", wharf_report::chain(&error)));
    if let Err(error) = crate::delete::end(&container) {
        global.log.warning(&format!("the container could not be stopped: {}", error.message));
        return Err(failure);
    }
    Err(abandon(global, container, failure, true))
}

/// Runs the `poststop` hooks: a failure is told and stops nothing.
pub(crate) fn run_poststop_hooks(global: &Global, container: &Container) {
    let Some(hooks) = container.record.spec.hooks() else { return };
    let state = container.record.for_hooks(&container.place.id);
    let set = HookSet { hooks, state: &state };
    for number in 0..set.at(Point::Poststop).len() {
        if let Err(error) = set.run_one(Point::Poststop, number, "stopped", 0) {
            global.log.warning(&wharf_report::chain(&error));
        }
    }
}
