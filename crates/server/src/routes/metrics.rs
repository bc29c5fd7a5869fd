//! `GET /metrics`: the engine and its containers, for Prometheus (text exposition format 0.0.4).
//!
//! What dockerd has too has dockerd's names, so that its dashboards go on; what containers use is ours.

use std::fmt::Write as _;
use std::future::Future;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::Mutex;
use wharf_engine::Engine;
use wharf_engine::record::{Container, Status};

use super::{Call, Result};
use crate::http::{ApiError, text};

/// What is written, family by family: a family's samples stand together.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: &[(Vec<(&str, String)>, f64)]) {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.text, "{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, &[(Vec::new(), value)]);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A page that has just been made is everybody's: however many ask, and however often, the groups of all containers are
/// read once in this time. Prometheus asks four times a minute.
const FRESH: Duration = Duration::from_secs(1);

/// The page that was made last, and when.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<(Instant, String)>>);

impl Kept {
    /// The page, made anew when it is no longer fresh. Who comes while it is made waits for it.
    async fn page<E>(
        &self,
        make: impl Future<Output = std::result::Result<String, E>>,
    ) -> std::result::Result<String, E> {
        let mut kept = self.0.lock().await;
        if let Some((made, page)) = &*kept
            && made.elapsed() < FRESH
        {
            return Ok(page.clone());
        }
        let page = make.await?;
        *kept = Some((Instant::now(), page.clone()));
        Ok(page)
    }
}

pub(super) async fn metrics(call: &Call) -> Result {
    let mut answer = text(StatusCode::OK, call.api.metrics.page(made(&call.api.engine)).await?);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(answer)
}

async fn made(engine: &Engine) -> std::result::Result<String, ApiError> {
    let info = engine.info().await?;
    let mut page = Page::default();
    let labels = vec![
        ("architecture", info.architecture.clone()),
        ("commit", String::new()),
        ("daemon_id", info.id.clone()),
        ("graphdriver", "overlay2".to_owned()),
        ("kernel", info.kernel.clone()),
        ("os", info.operating_system.clone()),
        ("os_type", "linux".to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let about = "The information related to the engine and the OS it is running on";
    page.family("engine_daemon_engine_info", "gauge", about, &[(labels, 1.0)]);
    page.one("engine_daemon_engine_cpus_cpus", "gauge", "The number of cpus of the host", info.cpus as f64);
    page.one(
        "engine_daemon_engine_memory_bytes",
        "gauge",
        "The number of bytes of the host's memory",
        info.memory as f64,
    );
    let states = [("paused", info.paused), ("running", info.running), ("stopped", info.stopped)];
    let states = states.map(|(state, count)| (vec![("state", state.to_owned())], count as f64));
    page.family(
        "engine_daemon_container_states_containers",
        "gauge",
        "The count of containers in various states",
        &states,
    );
    page.one("engine_daemon_images_images", "gauge", "The number of images", info.images as f64);
    let listeners = engine.events().listeners() as f64;
    page.one(
        "engine_daemon_events_subscribers_total",
        "gauge",
        "The number of current subscribers to events",
        listeners,
    );
    process(&mut page);
    let records = engine.list();
    of_records(&mut page, &records);
    let mut readings = Vec::new();
    for record in records.iter().filter(|record| matches!(record.state.status, Status::Running | Status::Paused)) {
        // One that ends meanwhile has none.
        if let Ok(reading) = engine.stats(&record.id).await {
            readings.push((labels_of(record), reading));
        }
    }
    of_readings(&mut page, &readings);
    Ok(page.text)
}

/// The daemon's own process, by the names that all exporters use.
fn process(page: &mut Page) {
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as f64;
    page.one("process_open_fds", "gauge", "Number of open file descriptors.", files);
    // proc_pid_status(5): `VmRSS:     1234 kB`.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let bytes = resident.unwrap_or(0.0) * 1024.0;
    page.one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", bytes);
}

type Labels = Vec<(&'static str, String)>;

fn labels_of(record: &Container) -> Labels {
    vec![("id", record.id.clone()), ("image", record.config.image.clone()), ("name", record.name.clone())]
}

fn of_records<C: std::ops::Deref<Target = Container>>(page: &mut Page, records: &[C]) {
    let each = |value: &dyn Fn(&Container) -> Option<f64>| -> Vec<(Labels, f64)> {
        records.iter().filter_map(|record| Some((labels_of(record), value(record)?))).collect()
    };
    let running = each(&|record| Some(f64::from(u8::from(record.state.status == Status::Running))));
    page.family("wharf_container_running", "gauge", "Whether it runs.", &running);
    let restarts = each(&|record| Some(record.restart_count as f64));
    page.family("wharf_container_restarts_total", "counter", "How often its policy has started it again.", &restarts);
    let oom = each(&|record| Some(f64::from(u8::from(record.state.oom_killed))));
    page.family("wharf_container_oom_killed", "gauge", "Whether memory ran out in its last run.", &oom);
    let codes = each(&|record| (record.state.status == Status::Exited).then(|| record.state.exit_code.into()));
    page.family("wharf_container_exit_code", "gauge", "The exit code of its last run.", &codes);
    let healthy = each(&|record| {
        let status = record.state.health.as_ref().filter(|_| record.state.status == Status::Running)?.status.as_str();
        (status != "none").then(|| f64::from(u8::from(status == "healthy")))
    });
    page.family("wharf_container_healthy", "gauge", "Whether its health check succeeds, if it has one.", &healthy);
}

fn of_readings(page: &mut Page, readings: &[(Labels, Value)]) {
    let each = |value: &dyn Fn(&Value) -> Option<f64>| -> Vec<(Labels, f64)> {
        readings.iter().filter_map(|(labels, reading)| Some((labels.clone(), value(reading)?))).collect()
    };
    let cpu = each(&|reading| Some(reading["cpu_stats"]["cpu_usage"]["total_usage"].as_f64()? / 1e9));
    page.family("wharf_container_cpu_seconds_total", "counter", "Time of CPUs that it has used.", &cpu);
    let throttled = each(&|reading| Some(reading["cpu_stats"]["throttling_data"]["throttled_time"].as_f64()? / 1e9));
    let help = "Time that it was held back by its CPU quota.";
    page.family("wharf_container_cpu_throttled_seconds_total", "counter", help, &throttled);
    let memory = each(&|reading| reading["memory_stats"]["usage"].as_f64());
    page.family("wharf_container_memory_usage_bytes", "gauge", "Memory that it uses, page cache too.", &memory);
    let limit = each(&|reading| reading["memory_stats"]["limit"].as_f64());
    page.family("wharf_container_memory_limit_bytes", "gauge", "Memory that it may use.", &limit);
    let pids = each(&|reading| reading["pids_stats"]["current"].as_f64());
    page.family("wharf_container_pids", "gauge", "Its processes and threads.", &pids);
    for (key, name, help) in [
        ("rx_bytes", "wharf_container_network_receive_bytes_total", "Bytes that it has received."),
        ("tx_bytes", "wharf_container_network_transmit_bytes_total", "Bytes that it has sent."),
        ("rx_packets", "wharf_container_network_receive_packets_total", "Packets that it has received."),
        ("tx_packets", "wharf_container_network_transmit_packets_total", "Packets that it has sent."),
    ] {
        let samples: Vec<(Labels, f64)> = readings
            .iter()
            .flat_map(|(labels, reading)| {
                reading["networks"].as_object().into_iter().flatten().filter_map(|(device, counts)| {
                    let labels = labels.iter().cloned().chain([("interface", device.clone())]).collect();
                    Some((labels, counts[key].as_f64()?))
                })
            })
            .collect();
        page.family(name, "counter", help, &samples);
    }
    for (op, name, help) in [
        ("read", "wharf_container_block_read_bytes_total", "Bytes that it has read from disks."),
        ("write", "wharf_container_block_write_bytes_total", "Bytes that it has written to disks."),
    ] {
        let samples = each(&|reading| {
            let all = reading["blkio_stats"]["io_service_bytes_recursive"].as_array()?.iter();
            let of_op = all.filter(|entry| entry["op"].as_str().is_some_and(|word| word.eq_ignore_ascii_case(op)));
            Some(of_op.filter_map(|entry| entry["value"].as_f64()).sum())
        });
        page.family(name, "counter", help, &samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_made_once_for_all_who_ask() {
        let (kept, made) = (Kept::default(), std::sync::atomic::AtomicU32::new(0));
        let ask = || {
            kept.page(async {
                // The others come meanwhile.
                tokio::task::yield_now().await;
                Ok::<_, ()>(made.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string())
            })
        };
        let pages = tokio::join!(ask(), ask(), ask());
        assert_eq!(pages, (Ok("0".to_owned()), Ok("0".to_owned()), Ok("0".to_owned())));
        // What cannot be made is not kept.
        *kept.0.lock().await = None;
        assert_eq!(kept.page(async { Err::<String, _>(()) }).await, Err(()));
        assert_eq!(ask().await, Ok("1".to_owned()));
    }

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.family(
            "a_total",
            "counter",
            "Help.",
            &[(vec![("name", "x\"y\\z\n".to_owned())], 1.5), (Vec::new(), 2e12)],
        );
        page.family("none", "gauge", "Nothing.", &[]);
        assert_eq!(
            page.text,
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{name=\"x\\\"y\\\\z\\n\"} 1.5\na_total 2000000000000\n"
        );
    }
}
