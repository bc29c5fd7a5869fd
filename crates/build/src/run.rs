//! RUN: a command in the stage's files, confined as a container is.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wharf_dockerfile::{Mount, MountKind, Run, RunNetwork, Source};
use wharf_monitor::{Attach, Exit, Given, Launch, Restart};
use wharf_reference::Digest;
use wharf_report::chain;
use wharf_runtime::Rootfs;
use wharf_snapshot::{Dating, Lower};

use crate::bundle::{self, Command, MountSource, Mounted, Network};
use crate::cache::Key;
use crate::command::{PROGRAMS, Prepared, prepare};
use crate::entitlements::{host_network_denied, insecure_denied};
use crate::error::{BuildError, ErrorKind, Result};
use crate::foreign::foreign;
use crate::identity::Accounts;
use crate::init_layer;
use crate::launched::Launched;
use crate::metadata;
use crate::mounts::{self, Asked};
use crate::request::StepNetwork;
use crate::scratch::{self, Scratch, random_id};
use crate::session::{Outcome, Session};
use crate::state::State;
use crate::together::{Joined, Running};
use crate::tree::moment;
use crate::why::Inputs;

/// Steps of the kernel's clock for files.
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// Whose it is to run a command.
enum Turn<'a> {
    Run(Running<'a>),
    /// Another build has run it.
    Made(Outcome),
}

/// A command that is this build's to run.
#[derive(Clone, Copy)]
struct Step<'s> {
    key: &'s Digest,
    source: &'s Source,
    running: &'s Running<'s>,
}

impl<'a> Session<'a> {
    /// Finds out who runs a command; `same` names it and all that it runs with. Where that is another build, hears it to its end.
    fn join(&mut self, key: &Digest, same: Option<&Digest>) -> Result<Turn<'a>> {
        let common = self.common;
        let Some(same) = same else { return Ok(Turn::Run(Running::alone(&common.cancel)?)) };
        loop {
            let (at, steps) = (self.at, self.output.steps.clone());
            let deserting = Box::new(move || common.desert(at, steps.clone()));
            let mut heard = match common.shared.commands.join(same, &common.cancel, deserting)? {
                Joined::Own(running) => {
                    // Another build may have made it meanwhile.
                    return Ok(self.cached(key)?.map_or(Turn::Run(running), Turn::Made));
                }
                Joined::Other(heard) => heard,
            };
            while let Some(pieces) = heard.next()? {
                pieces.into_iter().try_for_each(|piece| self.say(piece))?;
                self.cancel.check()?;
            }
            drop(heard);
            // It was heard at work: to whoever looks on it is made, and not found.
            if let Some(outcome) = self.cached(key)? {
                return Ok(Turn::Made(Outcome { cached: false, ..outcome }));
            }
        }
    }
}

impl Session<'_> {
    /// Runs a command, or finds what it made before. The value is what the files are afterwards, and the outcome.
    pub(crate) fn run(&mut self, index: usize, state: &State, run: &Run, source: &Source) -> Result<(Digest, Outcome)> {
        // Here and not where the request is read: whoever gets this far is refused (CVE-2024-23653).
        if run.insecure && !self.options.insecure {
            return Err(insecure_denied());
        }
        if run.network == RunNetwork::Host && !self.options.host_network {
            return Err(host_network_denied());
        }
        if !run.devices.is_empty() {
            return Err(BuildError::invalid("RUN --device is not supported: this daemon gives builds no devices"));
        }
        let prepared = prepare(state, run)?;
        let mounts = run.mounts().map_err(BuildError::invalid)?;
        let asked = self.asked_mounts(index, state, mounts.clone(), source)?;
        let network = self.network_name(run).to_owned();
        let mounts_key = self.mounts_key(&asked)?;
        self.note_caches(&asked)?;
        let shown: Vec<&str> = mounts_key.iter().map(|(field, _)| field.as_str()).collect();
        let key = self.command_key(state.files.as_str(), state, &prepared, &network, &shown);
        let program = prepared.program_text();
        let inputs = Inputs::after(state.files.as_str())
            .with("the command", &prepared.args.join("\0"))
            .with("the program", &program)
            .with("the working directory", state.workdir())
            .with("the user", &state.image.config.user)
            .with("the architecture", &state.image.architecture)
            .with("the network", &network)
            .with("the host name", self.hostname())
            .with("added hosts", &self.options.extra_hosts.join(" "))
            .with("SOURCE_DATE_EPOCH", &self.clamp_text())
            .environment(&prepared.env);
        let inputs = mounts::inputs(inputs, &asked, &mounts_key);
        if let Some(outcome) = self.cached(&key)? {
            self.note_inputs(source, inputs, &outcome)?;
            return Ok((key, outcome));
        }
        self.ask_ahead(&mounts)?;
        let same = self.running_key(&key, &prepared, &mounts)?;
        let running = match self.join(&key, same.as_ref())? {
            Turn::Run(running) => running,
            Turn::Made(outcome) => {
                self.note_inputs(source, inputs, &outcome)?;
                return Ok((key, outcome));
            }
        };
        let step = Step { key: &key, source, running: &running };
        let done = self.execute(state, &prepared, &asked, &network, &step);
        let done = done.inspect_err(|error| running.fail(error));
        running.end();
        let told = self.tell_rest(&running);
        let (outcome, id) = done?;
        told.and_then(|()| self.output.text(format!(" ---> Removed intermediate container {id}\n")))?;
        self.note_inputs(source, inputs, &outcome)?;
        Ok((key, outcome))
    }

    /// Names a command with what it runs with and what is no part of its key, as that is not meant to change what it makes. But
    /// it may be why the command fails, and so none of another build's business. None for one that this build runs for itself.
    fn running_key(&self, key: &Digest, prepared: &Prepared, mounts: &[Mount]) -> Result<Option<Digest>> {
        // An agent is the client's, and goes with it.
        if self.no_cache || mounts.iter().any(|mount| mount.kind == MountKind::Ssh) {
            return Ok(None);
        }
        let mut all = Key::new("running").text(key.as_str()).list(&prepared.extra_env);
        all = all.text(&format!("{:?}", self.options.limits)).list(&self.options.cgroup_parent);
        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Secret) {
            let (id, secret) = self.secret_of(mount)?;
            all = all.text(&id).text(if secret.is_some() { "given" } else { "" }).bytes(&secret.unwrap_or_default());
        }
        Ok(Some(all.finish()))
    }

    fn execute(
        &mut self,
        state: &State,
        prepared: &Prepared,
        asked: &[Asked],
        network: &str,
        step: &Step<'_>,
    ) -> Result<(Outcome, String)> {
        let (shared, Step { key, source, running }) = (self.shared, *step);
        // The clock of files is a little behind.
        let began = moment(jiff::Timestamp::now() - CLOCK_STEP);
        let id = random_id()?;
        let dir = self.step_dir()?;
        // Dropped before `dir`, and after the command has ended.
        let volatile = Scratch::new(scratch::commands(&shared.options.exec_root).join(&id))?;
        let below = shared.layers.view(state.layers(), None)?;
        let identity = Accounts::of(&below)?.identity(&state.image.config.user)?;
        let mut mounts = self.open_mounts(asked, &dir, &volatile.path)?;
        if let Some((name, text)) = &prepared.program {
            let programs = dir.sub("programs")?;
            let path = programs.join(name);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
                .map_err(|e| BuildError::system("the heredoc's program cannot be written", &e))?;
            let source = MountSource::Path(programs);
            mounts.mounted.push(Mounted { target: PROGRAMS.into(), source, read_only: true });
        }
        let given = self.network_of(&id, network)?;
        let files = self.etc_files(&dir, given.as_ref(), network)?;
        let (upper, work) = (dir.sub("upper")?, dir.sub("work")?);
        // The root of what is written is the root that the command sees. As with Docker everybody may look into it, also where
        // an archive was made of a directory that was its owner's alone.
        let top = below.metadata("", true)?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(top.st_mode & 0o7777 | 0o755))
            .and_then(|()| std::os::unix::fs::chown(&upper, Some(top.st_uid), Some(top.st_gid)))
            .map_err(|e| BuildError::system("the command's root cannot be made", &e))?;
        let mut lowers = shared.layers.lowers(state.layers())?;
        let init = dir.sub("init")?;
        let cwd = metadata::workdir("/", state.workdir());
        let mut directories = vec![cwd.as_str()];
        directories.extend(state.volumes());
        let (own, mut places): (Vec<_>, Vec<_>) = (files.iter().map(|(_, target)| *target).collect(), Vec::new());
        for mount in &mounts.mounted {
            let file = mounts.files.contains(&mount.target);
            if file { &mut places } else { &mut directories }.push(mount.target.as_str());
        }
        // What lies in a file system of the command's own has its place made there.
        directories.retain(|path| !path.starts_with("/dev/"));
        places.retain(|path| !path.starts_with("/dev/"));
        if init_layer::make(&below, &directories, [&own, &places], (self.date_of(state), 0), &init, &self.cancel)? {
            lowers.insert(0, Lower::Directory(init));
        }
        let (lowers, layers) = wharf_runtime::Lower::list(lowers.into_iter().map(Lower::into_parts));
        let mut env = prepared.env.clone();
        env.extend(prepared.extra_env.iter().cloned());
        env.extend(mounts.env.iter().cloned());
        if !env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        // Compilers that write down times, Python's among them, then write what does not depend on when they run, and what is
        // right where the files have the archive's times.
        if !env.iter().any(|pair| pair.starts_with("SOURCE_DATE_EPOCH=")) {
            env.push(format!("SOURCE_DATE_EPOCH={}", self.date_of(state)));
        }
        let cgroup = match &self.options.cgroup_parent {
            Some(parent) => format!("/{}/{id}", parent.trim_matches('/')),
            None => scratch::group(&shared.options.cgroup_parent, &id),
        };
        let command = Command {
            args: &prepared.args,
            env: &env,
            cwd: &cwd,
            identity: &identity,
            architecture: &state.image.architecture,
            hostname: self.hostname(),
            cgroup: &cgroup,
            network: if network == "host" { Network::Host } else { Network::Own },
            insecure: prepared.insecure,
            shm_size: self.options.shm_size,
            limits: &self.options.limits,
            files: &files,
            mounts: &mounts.mounted,
            bounding: bundle::own_bounding(),
        };
        let launch = Launch {
            id: id.clone(),
            dir: volatile.path.clone(),
            state_dir: volatile.path.clone(), // The command may fill the disk.
            spec: bundle::spec(&command)?,
            default_filter: bundle::filter(&command),
            rootfs: Rootfs::Overlay { lowers, upper: Some(upper.clone()), work: Some(work) },
            binds: Vec::new(),
            cgroup,
            log: None,
            open_stdin: false,
            stdin_once: false,
            restart: Restart { name: "no".into(), max: 0 },
            health: None,
            attach: vec![Attach { stdin: false, stdout: true, stderr: true, detach_keys: None }],
            init: false,
            transient: true,
        };
        self.tell_begin(&id[..12], running, &dir.path)?;
        let exit = self
            .follow(&launch, given.as_ref(), &layers, running, &dir.path)
            .map_err(|error| foreign(error, &state.image))?;
        drop((given, mounts));
        if exit.code != 0 {
            let mut error = BuildError::command(&prepared.args.join(" "), exit.code);
            if exit.oom_killed {
                error.message.push_str(" (out of memory)");
            }
            return Err(error);
        }
        let empty = fs::read_dir(&upper)
            .map_err(|e| BuildError::system("what the command has written cannot be read", &e))?
            .next()
            .is_none();
        let id = id[..12].to_owned();
        let wanted = || running.is_wanted();
        if empty {
            return Ok((self.made_while(key, None, &source.text, state.date, &wanted)?, id));
        }
        let dating = Dating {
            latest: (self.date_of(state), 0),
            since: began,
            until: moment(jiff::Timestamp::now()),
            below: shared.layers.archive_times(state.layers())?,
        };
        let layer = shared.layers.commit_while(&upper, Some(below), Some(dating), &wanted);
        if layer.is_err() && !running.is_wanted() {
            return Err(BuildError::cancelled());
        }
        let layer = layer?;
        Ok((self.made_while(key, Some(&layer), &source.text, state.date, &wanted)?, id))
    }

    /// The command's network namespace. Without one it gets an empty one of its own, or the host's if that was asked.
    fn network_of(&self, id: &str, network: &str) -> Result<Option<StepNetwork>> {
        let Some(give) = self.shared.options.network.as_ref().filter(|_| network != "host") else { return Ok(None) };
        match give(id, network) {
            Ok(given) => Ok(Some(given)),
            // What has no network needs nobody who gives one.
            Err(_) if network == "none" => Ok(None),
            Err(error) => Err(BuildError::system("the command gets no network", &error)),
        }
    }

    /// `/etc/resolv.conf` and `/etc/hosts`, files of ours that are mounted over the stage's. `/etc/hostname` is the stage's
    /// own: what is written to it is meant for the image.
    fn etc_files(
        &self,
        dir: &Scratch,
        network: Option<&StepNetwork>,
        name: &str,
    ) -> Result<Vec<(PathBuf, &'static str)>> {
        let resolv_conf = match network {
            Some(network) => network.resolv_conf.clone(),
            None if name == "host" => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            None => String::new(),
        };
        let hosts = hosts(&self.options.extra_hosts, self.hostname())?;
        let mut files = Vec::new();
        for (file, text, target) in [("resolv.conf", resolv_conf, "/etc/resolv.conf"), ("hosts", hosts, "/etc/hosts")] {
            let path = dir.path.join(file);
            fs::write(&path, text)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
                .map_err(|e| BuildError::system(format_args!("the command's {file} cannot be written"), &e))?;
            files.push((path, target));
        }
        Ok(files)
    }

    /// Runs a command to its end, telling what it writes. When nobody wants it any more, it is killed first.
    fn follow(
        &self,
        launch: &Launch,
        network: Option<&StepNetwork>,
        layers: &[Arc<OwnedFd>],
        running: &Running<'_>,
        dir: &Path,
    ) -> Result<Exit> {
        let failing = |e: std::io::Error| BuildError::system("the command's output cannot be read", &e);
        let (mut ours, theirs) = UnixStream::pair().map_err(failing)?;
        let netns = network.map(|network| network.namespace.as_fd());
        let given = Given { netns, layers: layers.iter().map(AsFd::as_fd).collect(), call_off: None };
        let spawned = self.shared.spawner.launch(launch, &given, &[theirs.as_fd()]);
        drop(theirs);
        spawned.map_err(|error| launch_error(&error, error.exit_code()))?;
        let mut launched = Launched::new(launch);
        let told = self.tell(&mut ours, running, dir);
        if told.is_ok() {
            return launched.wait(running);
        }
        launched.kill();
        // Until its end has been seen nothing of it may be removed.
        let _ = launched.wait_killed();
        told.and(Err(BuildError::cancelled()))
    }
}

/// A command that did not come to run; 126 and 127 are its own fault. It has no exit code, as Docker has it.
fn launch_error(error: &dyn std::error::Error, code: u8) -> BuildError {
    let own = matches!(code, 126 | 127);
    BuildError::new(if own { ErrorKind::Command } else { ErrorKind::System }, chain(error))
}

/// The same for every build: the command's own name leads to the loopback, and not to an address that changes.
fn hosts(extra: &[String], hostname: &str) -> Result<String> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for line in extra {
        let (host, address) = line.split_once([':', '=']).unwrap_or((line, ""));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let good = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
        let address = address.parse::<IpAddr>().ok().filter(|_| good);
        let address = address.ok_or_else(|| BuildError::invalid(format!("bad format for add-host: {line:?}")))?;
        text.push_str(&format!("{address}\t{host}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_added_and_checked() {
        let text = hosts(&["a:10.0.0.1".into(), "b:[::1]".into()], "buildkitsandbox").unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"));
        assert!(text.ends_with("10.0.0.1\ta\n::1\tb\n"));
        for bad in ["a", "a:", ":1.1.1.1", "a b:1.1.1.1", "a:x\n"] {
            assert!(hosts(&[bad.into()], "buildkitsandbox").is_err(), "{bad}");
        }
    }
}
