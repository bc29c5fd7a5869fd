//! What a container inherits from its image, and the defaults of this engine.

use std::collections::BTreeMap;

use wharf_image::RunConfig;

use crate::error::{EngineError, Result};
use crate::spec::{Config, Empty, Healthcheck, HostConfig};

/// Bytes of `/dev/shm` when nobody says otherwise, as Docker has it.
pub(crate) const DEFAULT_SHM: i64 = 64 << 20;

/// Paths of procfs and sysfs that a container does not see. Docker 29's list.
pub(crate) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths of procfs that a container cannot write. Docker 29's list.
pub(crate) const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Fills what the user left open with the image's answers.
///
/// # Errors
/// When neither names a command.
pub(crate) fn merge_image(config: &mut Config, image: &RunConfig) -> Result<()> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    merge_set(&mut config.exposed_ports, image.exposed_ports.keys());
    merge_set(&mut config.volumes, image.volumes.keys());
    config.env = Some(merge_env(&image.env, config.env.take().unwrap_or_default()));
    let mut labels: BTreeMap<String, String> = image.labels.clone().into_iter().collect();
    labels.extend(config.labels.take().unwrap_or_default());
    config.labels = Some(labels);
    if config.stop_signal.is_none() {
        config.stop_signal = image.stop_signal.clone().filter(|s| !s.is_empty());
    }
    if config.shell.is_none() && !image.shell.is_empty() {
        config.shell = Some(image.shell.clone());
    }
    merge_healthcheck(config, image);

    // An entrypoint of the user's makes the image's command meaningless: it was that entrypoint's arguments.
    let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if config.entrypoint.is_none() {
        if none(&config.cmd) {
            config.cmd = Some(image.cmd.clone()).filter(|c| !c.is_empty());
        }
        config.entrypoint = Some(image.entrypoint.clone()).filter(|e| !e.is_empty());
    } else if config.entrypoint.as_deref() == Some(&[String::new()]) {
        // `--entrypoint ""` arrives as one empty word and resets the image's.
        config.entrypoint = None;
    }
    if none(&config.entrypoint) && none(&config.cmd) {
        return Err(EngineError::invalid("no command specified"));
    }
    Ok(())
}

fn merge_set<'a>(set: &mut Option<BTreeMap<String, Empty>>, more: impl Iterator<Item = &'a String>) {
    let mut merged = set.take().unwrap_or_default();
    merged.extend(more.map(|key| (key.clone(), Empty {})));
    *set = Some(merged).filter(|m| !m.is_empty());
}

/// The image's variables first, those of the same name replaced by the user's.
fn merge_env(image: &[String], user: Vec<String>) -> Vec<String> {
    let key = |pair: &str| pair.split_once('=').map_or(pair, |(k, _)| k).to_owned();
    let mut merged = user;
    for pair in image {
        if !merged.iter().any(|have| key(have) == key(pair)) {
            merged.push(pair.clone());
        }
    }
    if !merged.iter().any(|have| key(have) == "PATH") {
        merged.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
    merged
}

fn merge_healthcheck(config: &mut Config, image: &RunConfig) {
    let Some(theirs) = &image.healthcheck else { return };
    let theirs: Healthcheck = match serde_json::to_value(theirs).and_then(serde_json::from_value) {
        Ok(check) => check,
        Err(_) => return,
    };
    match &mut config.healthcheck {
        None => config.healthcheck = Some(theirs),
        Some(ours) => {
            if ours.test.as_ref().is_none_or(Vec::is_empty) {
                ours.test = theirs.test;
            }
            let inherit = |mine: &mut i64, their: i64| {
                if *mine == 0 {
                    *mine = their;
                }
            };
            inherit(&mut ours.interval, theirs.interval);
            inherit(&mut ours.timeout, theirs.timeout);
            inherit(&mut ours.start_period, theirs.start_period);
            inherit(&mut ours.start_interval, theirs.start_interval);
            inherit(&mut ours.retries, theirs.retries);
        }
    }
}

/// Writes the engine's defaults where the user said nothing, so that `inspect` shows what holds.
pub(crate) fn host_defaults(host: &mut HostConfig, v2: bool) {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".into();
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".into();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".into();
    }
    if host.cgroupns_mode.is_empty() {
        // As Docker: private where v2 makes it meaningful, the host's on v1.
        host.cgroupns_mode = if v2 { "private" } else { "host" }.into();
    }
    if host.shm_size <= 0 {
        host.shm_size = DEFAULT_SHM;
    }
    if host.runtime.is_empty() {
        host.runtime = "wharf".into();
    }
    if host.privileged {
        host.masked_paths.get_or_insert_default();
        host.readonly_paths.get_or_insert_default();
    }
    let list = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect());
    if host.masked_paths.is_none() {
        host.masked_paths = list(MASKED);
    }
    if host.readonly_paths.is_none() {
        host.readonly_paths = list(READONLY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> RunConfig {
        RunConfig {
            env: vec!["A=1".into(), "PATH=/bin".into()],
            cmd: vec!["serve".into()],
            entrypoint: vec!["/entry".into()],
            working_dir: "/app".into(),
            user: "web".into(),
            ..RunConfig::default()
        }
    }

    #[test]
    fn the_user_s_word_wins_over_the_image_s() {
        let mut config = Config { env: Some(vec!["A=2".into()]), user: "root".into(), ..Config::default() };
        merge_image(&mut config, &image()).unwrap();
        assert_eq!(config.env.unwrap(), ["A=2", "PATH=/bin"]);
        assert_eq!(config.user, "root");
        assert_eq!(config.working_dir, "/app");
        assert_eq!(config.cmd.unwrap(), ["serve"]);
        assert_eq!(config.entrypoint.unwrap(), ["/entry"]);
    }

    #[test]
    fn an_entrypoint_of_the_user_s_drops_the_image_s_command() {
        let mut config = Config { entrypoint: Some(vec!["/bin/sh".into()]), ..Config::default() };
        merge_image(&mut config, &image()).unwrap();
        assert_eq!(config.cmd, None);
        let mut reset =
            Config { entrypoint: Some(vec![String::new()]), cmd: Some(vec!["ls".into()]), ..Config::default() };
        merge_image(&mut reset, &image()).unwrap();
        assert_eq!(reset.entrypoint, None);
    }

    #[test]
    fn no_command_at_all_is_refused() {
        let error = merge_image(&mut Config::default(), &RunConfig::default()).unwrap_err();
        assert_eq!(error.message, "no command specified");
    }
}
