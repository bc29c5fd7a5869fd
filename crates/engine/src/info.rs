//! What `info` says.

use crate::engine::{Engine, blocking};
use crate::error::Result;
use crate::record::Status;

/// The engine and its host.
#[derive(Clone, Debug)]
pub struct Info {
    /// Devices by name that files of the host describe.
    pub named_devices: Vec<String>,
    pub id: String,
    pub name: String,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    /// How new layers are kept: EROFS images, or directories.
    pub layers: &'static str,
    /// `local`, and plugins that answer.
    pub volume_drivers: Vec<String>,
    pub kernel: String,
    pub operating_system: String,
    pub architecture: String,
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    pub cgroup_version: &'static str,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub pids_limit: bool,
    pub cpu_quota: bool,
    pub cpuset: bool,
    pub warnings: Vec<String>,
    pub time: String,
}

impl Engine {
    /// The engine and its host as they are now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn info(&self) -> Result<Info> {
        let containers = self.list();
        let count = |status: Status| containers.iter().filter(|c| c.state.status == status).count();
        let (images, volumes, engine) = (self.images().clone(), self.volumes().clone(), self.clone());
        let (images, plugins, devices) =
            blocking(move || Ok((images.list()?.len(), volumes.plugins().names(), engine.named_devices()))).await?;
        let uname = rustix::system::uname();
        let text = |t: &std::ffi::CStr| t.to_string_lossy().into_owned();
        let memory = rustix::system::sysinfo();
        let hierarchies = &self.inner.hierarchies;
        let has = |controller: &str| {
            if hierarchies.is_v2() { hierarchies.v2_has(controller) } else { hierarchies.v1(controller).is_some() }
        };
        let mut warnings = Vec::new();
        for (controller, what) in [("memory", "memory"), ("pids", "pids"), ("cpu", "cpu cfs quota")] {
            if !has(controller) {
                warnings.push(format!("WARNING: No {what} limit support"));
            }
        }
        let (running, paused) = (count(Status::Running) + count(Status::Restarting), count(Status::Paused));
        let layers = match self.images().layers().form() {
            wharf_snapshot::Storage::Erofs => "erofs",
            wharf_snapshot::Storage::Dirs => "directories",
        };
        warnings.extend(devices.warnings());
        Ok(Info {
            named_devices: devices.names().map(str::to_owned).collect(),
            layers,
            volume_drivers: std::iter::once("local".to_owned()).chain(plugins).collect(),
            id: self.id().into(),
            name: text(uname.nodename()),
            containers: containers.len(),
            running,
            paused,
            stopped: containers.len() - running - paused,
            images,
            kernel: text(uname.release()),
            operating_system: os_name(),
            architecture: text(uname.machine()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.totalram * u64::from(memory.mem_unit),
            cgroup_version: if hierarchies.is_v2() { "2" } else { "1" },
            memory_limit: has("memory"),
            swap_limit: self.inner.hierarchies.counts_swap(),
            pids_limit: has("pids"),
            cpu_quota: has("cpu"),
            cpuset: has("cpuset"),
            warnings,
            time: crate::engine::now(),
        })
    }
}

/// os-release(5), `PRETTY_NAME`.
fn os_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}
