//! Starting a container: network, files, configuration, launch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use wharf_monitor::{CallOff, Given, Health, Launch, LogConfig, Restart, client};
use wharf_rooted_path::RootDir;
use wharf_runtime::Rootfs;

use crate::bundle::{self, Surroundings};
use crate::connecting::Network;
use crate::endpoint;
use crate::engine::{Engine, blocking, make_private, to_its_end};
use crate::error::{EngineError, Result};
use crate::etc::{self, Names};
use crate::process::Process;
use crate::profile::Filter;
use crate::record::{Container, Health as HealthRecord, Status};
use crate::slot::{Pending, Slot, lock};
use crate::spec::EndpointSettings;
use crate::stop::{SIGKILL, patience_of, stop_signal};
use crate::user::{self, Identity};
use crate::{clocks, log_attributes, log_options, log_remote};

/// Images whose root user is remembered.
const KEPT_ROOTS: usize = 64;

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` when it runs already, `Conflict` when it is paused, `InvalidParameter` when its command cannot
    /// be found or executed, `System` when the host refuses something; then nothing of it runs or stays.
    pub async fn start(&self, name: &str) -> Result<()> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move { engine.start_now(&slot).await }).await
    }

    async fn start_now(&self, slot: &Arc<Slot>) -> Result<()> {
        // One that is being stopped runs until it has ended, as with Docker: who starts it then is not kept waiting.
        if slot.record().state.status == Status::Running {
            return Err(EngineError::not_modified());
        }
        let _turn = slot.turn.lock().await;
        self.inner.slots.find(&slot.id)?;
        match slot.record().state.status {
            Status::Running | Status::Restarting => return Err(EngineError::not_modified()),
            Status::Paused => {
                return Err(EngineError::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited => {}
        }
        let pending = std::mem::take(&mut *lock(&slot.pending));
        let (engine, own) = (self.clone(), Arc::clone(slot));
        let starting = slot.starting();
        let call_off = Arc::clone(&starting.call_off);
        let started = blocking(move || {
            let launched = engine.launch(&own, pending, &call_off);
            Ok(launched.map(|record| {
                // Who is to run again after a crash of the host must be known to run now; of the others the monitor tells.
                engine.save_soon(&record);
                let written = match record.host.restart_policy.name.as_str() {
                    "no" => Ok(()),
                    _ => engine.write_unwritten(),
                };
                engine.refresh_links_to(&record);
                (record, written, engine.listen_to(&own.id).ok().flatten())
            }))
        })
        .await;
        // A start that breaks down has failed, too: whoever waits for the container's end is told.
        let started = started.unwrap_or_else(|error| Err((error, 128)));
        drop(starting);
        match started {
            Ok((record, written, monitor)) => {
                slot.set_life(|life| life.active = true);
                self.tell(&record, "start");
                self.watch_on(slot, monitor);
                written
            }
            Err((error, code)) => {
                let record = slot.change(|record| {
                    record.state.exit_code = code;
                    record.state.error.clone_from(&error.message);
                });
                // Nothing else on this host knows of it.
                if !record.host.auto_remove {
                    self.save(&record).await?;
                }
                slot.set_life(|life| life.code = code);
                if record.host.auto_remove {
                    let _ = self.remove_ended(slot, true).await;
                }
                Err(error)
            }
        }
    }

    /// Does all that waits. Gives the exit code by which Docker's users know a failure.
    fn launch(
        &self,
        slot: &Arc<Slot>,
        pending: Vec<Pending>,
        call_off: &CallOff,
    ) -> Result<Arc<Container>, (EngineError, i32)> {
        let record = slot.record();
        crate::check::device_requests(&record.host, self.inner.options.cdi_dirs.is_some())
            .map_err(|error| (error, 128))?;
        let prepared = self.prepare_network(&record);
        let (network, endpoints, published) = prepared.map_err(|error| (error, 128))?;
        let record = match self.mount_volumes(slot) {
            Ok(record) => record,
            Err(error) => {
                self.release_network(&record);
                return Err((error, 128));
            }
        };
        let launched = self.launch_on(&record, &network, &endpoints, pending, call_off);
        match launched {
            Ok(launched) => {
                let monitor = launched.monitor_pid;
                clocks::warn_if_shared(launched.pid);
                let running = slot.change(|record| {
                    record.state.status = Status::Running;
                    record.state.pid = launched.pid;
                    record.state.started_at.clone_from(&launched.started_at);
                    record.state.forget_run();
                    record.state.health =
                        health(record).map(|_| HealthRecord { status: "starting".into(), ..Default::default() });
                    record.stopped_by_user = false;
                    record.networks = endpoints;
                    record.ports = published;
                });
                self.bind_names(&running, monitor);
                Ok(running)
            }
            Err(failure) => {
                self.release_network(&record);
                self.drop_shm(&record);
                self.release_volumes(&record);
                self.tell_unmounted(&record);
                Err(failure)
            }
        }
    }

    fn launch_on(
        &self,
        record: &Container,
        network: &Network,
        endpoints: &BTreeMap<String, EndpointSettings>,
        pending: Vec<Pending>,
        call_off: &CallOff,
    ) -> Result<wharf_monitor::Launched, (EngineError, i32)> {
        let (launch, layers) =
            self.prepare_launch(record, network, endpoints, &pending).map_err(|error| (error, 128))?;
        let streams: Vec<BorrowedFd<'_>> = pending.iter().map(|p| p.stream.as_fd()).collect();
        let netns = network.own.as_ref().or(network.shared.as_ref()).map(AsFd::as_fd);
        let given = Given { netns, layers: layers.iter().map(AsFd::as_fd).collect(), call_off: Some(call_off) };
        let launched = self.inner.parts.spawner.launch(&launch, &given, &streams).map_err(|error| {
            let code = error.exit_code();
            // Docker's own words, as tools look for them.
            let reason = wharf_report::chain(&error);
            let of_runtime = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                              container process: ";
            let step = if reason.starts_with(log_remote::NO_DRIVER) { "" } else { of_runtime };
            let text = format!("{}: {step}{reason}", log_remote::NOT_CREATED);
            // The user's command is at fault, not this engine.
            let kind = if matches!(code, 126 | 127) { EngineError::invalid(text) } else { EngineError::system(text) };
            (kind, i32::from(code))
        })?;
        // Only if they live now, the paths were theirs.
        if let Err(error) = network.donors.iter().try_for_each(Process::lives) {
            let _ = client::signal(&self.exec_dir(&record.id), SIGKILL, true);
            return Err((error, 128));
        }
        Ok(launched)
    }

    fn prepare_launch(
        &self,
        record: &Container,
        network: &Network,
        endpoints: &BTreeMap<String, EndpointSettings>,
        pending: &[Pending],
    ) -> Result<(Launch, Vec<Arc<OwnedFd>>)> {
        let (dir, exec_dir) = (self.dir(&record.id), self.exec_dir(&record.id));
        make_private(&exec_dir)?;
        record.mounts.iter().try_for_each(|point| self.check_subpath(point))?;
        self.check_propagation(record)?;
        let stacks = self.stacks(record)?;
        let identity = self.identity(record)?;
        let etc = self.etc_files(record);
        let linked = self.linked(record, endpoints)?;
        // Another's are as that one has them at this moment.
        if network.shared.is_none() {
            self.write_etc(record, network, endpoints, linked.hosts)?;
        }
        let userns = (record.host.userns_mode == "auto").then(|| self.id_range(record)).transpose()?;
        let mapped = if userns.is_some() { self.mapped(record) } else { Vec::new() };
        let shm = self.shared_shm(record, userns.map(|(first, _)| first))?;
        let secrets = self.inner.secrets.ready(record, userns)?;
        let capabilities = bundle::capabilities(&record.host, self.inner.bounding)?;
        let filter = Filter::of(&record.host, &self.defaults().seccomp, &record.architecture, &capabilities)?;
        let surroundings = Surroundings {
            identity: &identity,
            etc: etc.as_deref(),
            shm: shm.as_deref(),
            cgroup: &self.cgroup(record),
            joined: &network.joined,
            own_network: network.own.is_some() || network.shared.is_some(),
            time_namespaces: clocks::can_be_own(),
            id_range: userns,
            mapped: &mapped,
            seccomp: match &filter {
                Filter::Own(section) => Some(section),
                Filter::None | Filter::Default(_) => None,
            },
            rights: self.rights(),
            secrets: secrets.as_deref(),
            linked: &linked.env,
        };
        let spec = self.with_named_devices(record, bundle::spec(record, &surroundings)?)?;
        let limits = log_options::limits(&record.host.log_config)?;
        let attributes = log_attributes::attributes(record)?;
        let remote = log_remote::of(record, &attributes)?;
        let log = (record.host.log_config.driver != "none").then(|| LogConfig {
            path: record.log_path.clone().into(),
            driver: log_options::kept(&record.host.log_config).to_owned(),
            max_size: limits.size,
            max_files: limits.files,
            compress: limits.compress,
            attributes,
            remote,
        });
        // What an earlier run has left would be taken for this one's end.
        let _ = std::fs::remove_file(dir.join("exit.json"));
        let launch = Launch {
            id: record.id.clone(),
            dir: exec_dir,
            state_dir: dir.clone(),
            spec,
            default_filter: match filter {
                Filter::Default(filter) => Some(filter),
                Filter::None | Filter::Own(_) => None,
            },
            rootfs: Rootfs::Overlay {
                lowers: stacks.root,
                upper: Some(dir.join("upper")),
                work: Some(dir.join("work")),
            },
            binds: stacks.binds,
            cgroup: self.cgroup(record),
            log,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            restart: restart(record),
            health: health(record),
            attach: pending.iter().map(|p| p.attach.clone()).collect(),
            // As Docker: who shares PIDs with others is not the one that reaps.
            init: record.host.init == Some(true) && record.host.pid_mode.is_empty(),
            transient: record.host.auto_remove,
        };
        Ok((launch, stacks.mounts))
    }

    /// Who its processes are by default.
    pub(crate) fn identity(&self, record: &Container) -> Result<Identity> {
        self.identity_of(record, &record.config.user)
    }

    /// Who `user` is in the container's files as they are now.
    pub(crate) fn identity_of(&self, record: &Container, user: &str) -> Result<Identity> {
        let groups = record.host.group_add.clone().unwrap_or_default();
        let upper = self.dir(&record.id).join("upper");
        // Most containers run as root and have not touched their user database: then the image's answer holds.
        // Not what a link in its place leads to on the host.
        let has_own = upper.join("etc").symlink_metadata().is_ok();
        let plain = matches!(user, "" | "root" | "0") && groups.is_empty() && !has_own;
        if plain && let Some((_, known)) = lock(&self.inner.roots).iter().find(|(image, _)| *image == record.image) {
            return Ok(known.clone());
        }
        let view = self.images().layers().view(&record.layers, None)?;
        let above = RootDir::open(&upper).ok().filter(|_| has_own);
        let found = match above {
            // Its own copy of a file hides the image's.
            Some(own) => user::lookup_in(&[&own, &view], user, &groups)?,
            None => user::lookup(&view, user, &groups)?,
        };
        if plain {
            let mut roots = lock(&self.inner.roots);
            if roots.len() >= KEPT_ROOTS {
                roots.remove(0);
            }
            roots.push((record.image.clone(), found.clone()));
        }
        Ok(found)
    }

    fn write_etc(
        &self,
        record: &Container,
        network: &Network,
        endpoints: &BTreeMap<String, EndpointSettings>,
        links: Vec<(IpAddr, String)>,
    ) -> Result<()> {
        let own: Vec<IpAddr> = endpoints.values().flat_map(endpoint::addresses).collect();
        let has_ipv6 = own.iter().any(IpAddr::is_ipv6);
        let mut host_gateway = self.host_gateways();
        // Who has addresses of the other family alone would not get there.
        let is_reached =
            own.is_empty() || host_gateway.iter().any(|to| own.iter().any(|own| own.is_ipv4() == to.is_ipv4()));
        if !is_reached {
            host_gateway.extend(&network.gateways);
        }
        let names = Names { own, host_gateway, embedded: !self.answered(record, endpoints).is_empty(), links };
        let mut resolv = self.resolv_conf(record);
        // Whoever names a server of the container's own loopback means it.
        if network.own.is_some() && record.host.dns.as_ref().is_none_or(Vec::is_empty) {
            resolv = resolv.reachable(has_ipv6);
        }
        etc::write(&self.dir(&record.id), record, &names, &resolv)
    }
}

fn restart(record: &Container) -> Restart {
    let policy = &record.host.restart_policy;
    Restart { name: policy.name.clone(), max: u32::try_from(policy.maximum_retry_count).unwrap_or(0) }
}

/// The probe, if there is one; zeroes become Docker's defaults.
pub(crate) fn health(record: &Container) -> Option<Health> {
    let check = record.config.healthcheck.as_ref()?;
    let mut test = check.test.clone().filter(|test| !test.is_empty() && test[0] != "NONE")?;
    // The image's own shell, if it has named one.
    if let Some(shell) = record.config.shell.as_ref().filter(|shell| !shell.is_empty() && test[0] == "CMD-SHELL") {
        let words = ["CMD".to_owned()].into_iter().chain(shell.iter().cloned()).chain(test.drain(1..));
        test = words.collect();
    }
    let or = |value: i64, default: u64| u64::try_from(value).ok().filter(|v| *v > 0).unwrap_or(default);
    const SECOND: u64 = 1_000_000_000;
    Some(Health {
        test,
        interval_ns: or(check.interval, 30 * SECOND),
        timeout_ns: or(check.timeout, 30 * SECOND),
        start_period_ns: or(check.start_period, 0),
        start_interval_ns: or(check.start_interval, 5 * SECOND),
        retries: u32::try_from(check.retries).ok().filter(|n| *n > 0).unwrap_or(3),
        on_failure: record.host.health_on_failure.clone().unwrap_or_else(|| "none".into()),
        stop_signal: stop_signal(record),
        stop_timeout_ns: patience_of(record, None).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
    })
}
