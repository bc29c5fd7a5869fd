//! Further programs in running containers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use tokio::net::UnixStream;
use tokio::sync::watch;
use wharf_monitor::{ExecState, client};

use crate::attach::pair;
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::record::{Container, Status};
use crate::slot::lock;
use crate::spec::ExecConfig;
use crate::{bundle, names};

/// One exec, as it is now.
#[derive(Clone, Debug)]
pub struct ExecRecord {
    pub id: String,
    pub container: String,
    pub config: ExecConfig,
    pub running: bool,
    /// `None` until it has ended.
    pub exit_code: Option<i32>,
    pub pid: i32,
}

#[derive(Debug)]
struct ExecSlot {
    record: Mutex<ExecRecord>,
    started: Mutex<bool>,
    ended: watch::Sender<bool>,
    /// A daemon before this one has started it.
    adopted: bool,
}

impl ExecSlot {
    /// It was to run and did not.
    fn fail(&self, error: &EngineError) {
        lock(&self.record).exit_code = Some(failure_code(&error.message));
        self.ended.send_replace(true);
    }
}

/// The code of an exec that could not be started, by the words of the failure (moby's `translateContainerdStartErr`).
fn failure_code(text: &str) -> i32 {
    let missing = ["executable file not found", "no such file or directory"];
    if missing.iter().any(|words| text.contains(words)) { 127 } else { 126 }
}

/// The program and its arguments, as events tell them: a blank follows the program, whatever there is after it.
fn words(config: &ExecConfig) -> String {
    let mut words = config.cmd.iter().flatten();
    let program = words.next().map_or("", String::as_str);
    format!("{program} {}", words.map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// All execs of this daemon's life, and those that it has found running.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    inner: Mutex<BTreeMap<String, Arc<ExecSlot>>>,
}

/// Puts one in its place. `adopted`: another daemon has started it, and whether it has ended.
fn put(inner: &mut BTreeMap<String, Arc<ExecSlot>>, record: ExecRecord, adopted: Option<bool>) {
    if inner.len() >= KEPT {
        let ended = inner.iter().find(|(_, slot)| lock(&slot.record).exit_code.is_some()).map(|(id, _)| id.clone());
        ended.and_then(|id| inner.remove(&id));
    }
    let slot = ExecSlot {
        record: Mutex::new(record.clone()),
        started: Mutex::new(adopted.is_some()),
        ended: watch::channel(adopted == Some(true)).0,
        adopted: adopted.is_some(),
    };
    inner.insert(record.id, Arc::new(slot));
}

/// Execs that have ended are kept so that their code can be asked for; the oldest beyond this number go.
const KEPT: usize = 1000;

impl Execs {
    fn find(&self, id: &str) -> Result<Arc<ExecSlot>> {
        let inner = lock(&self.inner);
        let mut fitting = inner.range(id.to_owned()..).take_while(|(key, _)| !id.is_empty() && key.starts_with(id));
        match (fitting.next(), fitting.next()) {
            (Some((_, slot)), None) => Ok(Arc::clone(slot)),
            (Some((key, slot)), _) if key == id => Ok(Arc::clone(slot)),
            _ => Err(EngineError::not_found(format!("No such exec instance: {id}"))),
        }
    }

    /// A container has gone, and its execs with it.
    pub(crate) fn forget(&self, container: &str) {
        lock(&self.inner).retain(|_, slot| lock(&slot.record).container != container);
    }

    /// A container has ended: what was to run in it and has not is not any more.
    pub(crate) fn forget_waiting(&self, container: &str) {
        lock(&self.inner).retain(|_, slot| *lock(&slot.started) || lock(&slot.record).container != container);
    }

    fn insert(&self, record: ExecRecord) {
        put(&mut lock(&self.inner), record, None);
    }

    /// What a monitor tells of an exec that another daemon has started: that it runs, or has ended. The record of one whose end
    /// is news.
    fn adopt(&self, container: &str, told: ExecState) -> Option<ExecRecord> {
        let mut inner = lock(&self.inner);
        if let Some(slot) = inner.get(&told.id) {
            let mut record = lock(&slot.record);
            // Of its own this daemon hears by itself.
            let code = told.exit.filter(|_| slot.adopted && record.exit_code.is_none())?;
            (record.running, record.exit_code) = (false, Some(code));
            slot.ended.send_replace(true);
            return Some(record.clone());
        }
        let record = ExecRecord {
            id: told.id,
            container: container.to_owned(),
            config: serde_json::from_value(told.note).unwrap_or_default(),
            running: told.exit.is_none(),
            exit_code: told.exit,
            pid: told.pid,
        };
        put(&mut inner, record.clone(), Some(told.exit.is_some()));
        Some(record).filter(|record| record.exit_code.is_some())
    }

    /// IDs of a container's execs that have not ended.
    pub(crate) fn of(&self, container: &str) -> Vec<String> {
        let inner = lock(&self.inner);
        let of = |slot: &ExecSlot| {
            let record = lock(&slot.record);
            record.container == container && record.exit_code.is_none()
        };
        inner.iter().filter(|(_, slot)| of(slot)).map(|(id, _)| id.clone()).collect()
    }
}

impl Engine {
    /// Prepares a program; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when the container does not run, `InvalidParameter` without a command, and for a user whom
    /// the container does not know.
    pub async fn exec_create(&self, name: &str, config: ExecConfig) -> Result<String> {
        let slot = self.inner.slots.find(name)?;
        let record = slot.record();
        match record.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(EngineError::conflict(format!(
                    "Container {name} is paused, unpause the container before exec"
                )));
            }
            Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    slot.id
                )));
            }
            _ => return Err(EngineError::conflict(format!("container {} is not running", slot.id))),
        }
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(EngineError::invalid("No exec command specified"));
        }
        let all = [&config.cmd, &config.env].into_iter().flat_map(|list| list.iter().flatten());
        if all.chain([&config.user, &config.working_dir]).any(|text| text.contains('\0')) {
            return Err(EngineError::invalid("a NUL in the request"));
        }
        if !config.user.is_empty() {
            let (engine, record, user) = (self.clone(), Arc::clone(&record), config.user.clone());
            blocking(move || engine.identity_of(&record, &user).map(drop)).await?;
        }
        let id = names::random_id()?;
        let words = words(&config);
        self.inner.execs.insert(ExecRecord {
            id: id.clone(),
            container: slot.id.clone(),
            config,
            running: false,
            exit_code: None,
            pid: 0,
        });
        self.tell_with(&record, &format!("exec_create: {words}"), &[("execID", &id)]);
        Ok(id)
    }

    /// Runs it. With `detach` there is no stream.
    ///
    /// # Errors
    /// `Conflict` when it ran already or the container has ended, `InvalidParameter` for a command that cannot be
    /// found or executed; its exit code is then 127 or 126.
    pub async fn exec_start(&self, id: &str, detach: bool, size: Option<(u16, u16)>) -> Result<Option<UnixStream>> {
        let (engine, id) = (self.clone(), id.to_owned());
        to_its_end(async move { engine.exec_start_now(&id, detach, size).await }).await
    }

    async fn exec_start_now(&self, id: &str, detach: bool, size: Option<(u16, u16)>) -> Result<Option<UnixStream>> {
        let exec = self.inner.execs.find(id)?;
        // Refused for what may change, it can still be run when that has changed.
        self.exec_can_run(&lock(&exec.record).container.clone())?;
        {
            let mut started = lock(&exec.started);
            if *started {
                return Err(EngineError::exec_began(id, lock(&exec.record).running));
            }
            *started = true;
        }
        let launched = self.exec_launch(&exec, detach, size).await;
        launched.inspect_err(|error| exec.fail(error))
    }

    /// Whether something can be run in the container now.
    ///
    /// # Errors
    /// `Conflict` when it does not run, or is paused.
    pub fn exec_can_run(&self, container: &str) -> Result<()> {
        let container = self.inner.slots.find(container)?.record();
        match container.state.status {
            Status::Running => Ok(()),
            Status::Paused => Err(EngineError::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                container.id
            ))),
            _ => Err(EngineError::conflict(format!("Container {} is not running", container.id))),
        }
    }

    /// An exec whose turn it is. The caller notes a failure.
    async fn exec_launch(
        &self,
        exec: &Arc<ExecSlot>,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<UnixStream>> {
        let record = lock(&exec.record).clone();
        let slot = self.inner.slots.find(&record.container)?;
        let container = slot.record();
        if container.state.status != Status::Running {
            return Err(EngineError::conflict(format!("Container {} is not running", container.id)));
        }
        let (ours, theirs) = if detach { (None, None) } else { pair().map(|(a, b)| (Some(a), Some(b)))? };
        let (engine, dir) = (self.clone(), self.exec_dir(&slot.id));
        let (config, own_id) = (record.config.clone(), record.id.clone());
        let stdin = config.attach_stdin && !detach;
        let launched = blocking(move || {
            let identity = match config.user.as_str() {
                "" => engine.identity(&container)?,
                user => engine.identity_of(&container, user)?,
            };
            let size = size.or(config
                .console_size
                .map(|[rows, columns]| (u16::try_from(rows).unwrap_or(0), u16::try_from(columns).unwrap_or(0))));
            // Of links that have gone meanwhile nothing is said.
            let linked = engine.linked(&container, &container.networks).unwrap_or_default().env;
            let process = bundle::exec_process(&container, &identity, engine.rights(), &config, &linked, size)?;
            let request = client::ExecRequest {
                id: own_id,
                process,
                stdin,
                stdout: config.attach_stdout && !detach,
                stderr: config.attach_stderr && !detach,
                detach_keys: Some(config.detach_keys.clone()).filter(|keys| !keys.is_empty()),
                // For the daemon after this one.
                note: serde_json::to_value(&config).unwrap_or_default(),
            };
            Ok(client::exec(&dir, &request, theirs.as_ref().map(AsFd::as_fd)))
        })
        .await?;
        let container = slot.record();
        let words = words(&record.config);
        match launched {
            Ok(running) => {
                let pid = running.pid();
                {
                    let mut record = lock(&exec.record);
                    record.running = true;
                    record.pid = pid;
                }
                self.tell_with(&container, &format!("exec_start: {words}"), &[("execID", &record.id)]);
                let (engine, exec) = (self.clone(), Arc::clone(exec));
                tokio::task::spawn_blocking(move || {
                    // A monitor that has gone has taken the exec with it.
                    let code = running.wait().unwrap_or(137);
                    let record = {
                        let mut record = lock(&exec.record);
                        record.running = false;
                        record.exit_code = Some(code);
                        record.clone()
                    };
                    exec.ended.send_replace(true);
                    let code = code.to_string();
                    if let Ok(container) = engine.inspect(&record.container) {
                        engine.tell_with(&container, "exec_die", &[("execID", &record.id), ("exitCode", &code)]);
                    }
                });
                Ok(ours)
            }
            Err(error) => {
                let text = format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {}",
                    wharf_report::chain(&error)
                );
                // The user's words are at fault, not this engine.
                let invalid = matches!(error.exit_code(), 126 | 127) || failure_code(&text) == 127;
                Err(if invalid { EngineError::invalid(text) } else { EngineError::system(text) })
            }
        }
    }

    /// A monitor tells of execs that this daemon may not know.
    pub(crate) fn adopt_execs(&self, container: &Container, told: Vec<ExecState>) {
        for exec in told {
            if let Some(record) = self.inner.execs.adopt(&container.id, exec) {
                let code = record.exit_code.unwrap_or_default().to_string();
                self.tell_with(container, "exec_die", &[("execID", &record.id), ("exitCode", &code)]);
            }
        }
    }

    /// An exec as it is now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecRecord> {
        Ok(lock(&self.inner.execs.find(id)?.record).clone())
    }

    /// IDs of a container's execs, as `inspect` lists them.
    pub fn exec_ids(&self, container: &str) -> Vec<String> {
        self.inner.execs.of(container)
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    /// `NotFound`, or when it does not run.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let record = self.exec_inspect(id)?;
        if !record.running {
            return Err(EngineError::conflict(format!("exec {id} is not running")));
        }
        let dir = self.exec_dir(&record.container);
        blocking(move || {
            client::exec_resize(&dir, &record.id, rows, columns)
                .map_err(|e| EngineError::from_source("cannot resize the terminal", &e))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_docker_s_codes() {
        for (text, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("chdir to cwd (\"/x\") set in config.json failed: no such file or directory", 127),
            ("chdir to cwd (\"/x\") set in config.json failed: not a directory", 126),
            ("unable to find user x: no matching entries in passwd file", 126),
        ] {
            assert_eq!(failure_code(text), code, "{text}");
        }
    }
}
