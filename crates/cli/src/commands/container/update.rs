//! `docker update`.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::each::each;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::texts;
use crate::options::{bandwidth, publish, security};
use crate::parse::Matches;
use crate::values;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    Arity::AtLeast(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::one("bandwidth", "limits", bandwidth::check, bandwidth::HELP),
    Flag::one(
        "blkio-weight",
        "uint16",
        values::check_uint16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::int("cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::int("cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::int("cpu-rt-period", "Limit the CPU real-time period in microseconds"),
    Flag::int("cpu-rt-runtime", "Limit the CPU real-time runtime in microseconds"),
    Flag::int("cpu-shares", "CPU shares (relative weight)").short('c'),
    Flag::one("cpus", "decimal", values::check_cpus, "Number of CPUs"),
    Flag::text("cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::text("cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::bytes("kernel-memory", "Kernel memory limit (deprecated)").hidden(),
    Flag::bytes("memory", "Memory limit").short('m'),
    Flag::bytes("memory-reservation", "Memory soft limit"),
    Flag::bytes("memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
        .check(values::check_swap),
    Flag::int("pids-limit", "Tune container pids limit (set -1 for unlimited)"),
    Flag::list("publish-add", "Publish a port of the container from now on, as --publish of run does"),
    Flag::list("publish-rm", "Take a published port back: PORT[/PROTOCOL], or as it was published"),
    Flag::text("restart", "Restart policy to apply when a container exits"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    if !FLAGS.iter().any(|flag| matches.changed(flag.long)) {
        return Err("you must provide one or more flags when using this command".into());
    }
    let restart = match matches.some("restart") {
        Some(policy) => security::restart(policy)?,
        None => json!({"Name": "", "MaximumRetryCount": 0}),
    };
    let cpus = matches.some("cpus").map(values::parse_cpus).transpose()?.unwrap_or(0);
    let mut update = json!({
        "CpuShares": matches.int("cpu-shares"),
        "Memory": matches.bytes("memory"),
        "NanoCpus": cpus,
        "CgroupParent": "",
        "BlkioWeight": matches.int("blkio-weight"),
        "BlkioWeightDevice": null,
        "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null,
        "BlkioDeviceReadIOps": null,
        "BlkioDeviceWriteIOps": null,
        "CpuPeriod": matches.int("cpu-period"),
        "CpuQuota": matches.int("cpu-quota"),
        "CpuRealtimePeriod": matches.int("cpu-rt-period"),
        "CpuRealtimeRuntime": matches.int("cpu-rt-runtime"),
        "CpusetCpus": matches.text("cpuset-cpus"),
        "CpusetMems": matches.text("cpuset-mems"),
        "Devices": null,
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": matches.bytes("memory-reservation"),
        "MemorySwap": matches.bytes("memory-swap"),
        "MemorySwappiness": null,
        "OomKillDisable": null,
        "PidsLimit": matches.int_given("pids-limit"),
        "Ulimits": null,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "RestartPolicy": restart,
    });
    for (flag, field) in [("publish-add", "PublishAdd"), ("publish-rm", "PublishRemove")] {
        if matches.changed(flag) {
            // Another engine would take no note of it.
            app.needs_own_engine(&format!("--{flag}")).await?;
            update[field] = publish::parse(matches.all(flag), &[])?.bindings.into();
        }
    }
    if let Some(text) = matches.some("bandwidth") {
        app.needs_own_engine("--bandwidth").await?;
        update["Bandwidth"] = bandwidth::update(text)?;
    }
    let warnings = Arc::<Mutex<Vec<String>>>::default();
    let code = each(app, &matches.arguments, |client, name| {
        let (update, warnings) = (update.clone(), Arc::clone(&warnings));
        async move {
            let request = client.post(&format!("/containers/{name}/update")).json(&update)?;
            let answer: Json = request.send().await?.json().await?;
            let told = texts(&answer["Warnings"]).into_iter().map(str::to_owned);
            warnings.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
            Ok(Some(name))
        }
    })
    .await;
    // Where Docker has them, after the names.
    for warning in warnings.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        app.say(warning)?;
    }
    code
}
