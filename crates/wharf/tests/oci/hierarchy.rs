//! A group for several containers with limits of its own: none of them gets more than the group has.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_cgroup::{Group, Hierarchies};

use crate::kit::{Bundle, text};

/// The group above; it goes with its test.
struct Above(Group);

impl Above {
    fn new(name: &str, limits: Value) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: groups need root");
            return None;
        }
        let path = format!("/wharf-above-{}-{name}", std::process::id());
        let group = Group::create(&Hierarchies::detect().unwrap(), &path).unwrap();
        let above = Self(group);
        above.0.limit(&serde_json::from_value(limits).unwrap()).unwrap();
        Some(above)
    }

    /// A container below it.
    fn container(&self, name: &str, script: &str, resources: Value) -> Option<Bundle> {
        Bundle::new(name, &["sh", "-c", script], |config| {
            config["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", self.0.path().display()));
            for (key, value) in resources.as_object().unwrap() {
                config["linux"]["resources"][key] = value.clone();
            }
        })
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.remove().unwrap();
    }
}

#[test]
fn two_containers_share_the_cpu_time_of_the_group_above() {
    let Some(above) = Above::new("cpu", json!({ "cpu": { "quota": 20_000, "period": 100_000 } })) else { return };
    // v1 refuses a child more than its parent has; without a limit of its own it asks for all there is.
    let v1 = above.0.v1_dir("cpu").is_some();
    let asked = if v1 { json!({}) } else { json!({ "cpu": { "quota": 100_000, "period": 100_000 } }) };
    let script = "while :; do :; done";
    let Some(one) = above.container("busy-one", script, asked.clone()) else { return };
    let two = above.container("busy-two", script, asked).unwrap();
    for bundle in [&one, &two] {
        bundle.create();
        bundle.start();
    }
    let begin = above.0.usage();
    let deadline = Instant::now() + Duration::from_secs(180);
    while above.0.usage().periods < begin.periods + 15 {
        assert!(Instant::now() < deadline, "the quota's periods do not pass");
        std::thread::sleep(Duration::from_millis(20));
    }
    let end = above.0.usage();
    // 20 ms in each period of 100 ms for both together; slices of 5 ms are handed out to each CPU.
    let most = (end.periods - begin.periods + 2) * 20_000_000 + 40_000_000;
    let used = end.cpu - begin.cpu;
    println!("two containers: {} ms in {} periods of 20 ms", used / 1_000_000, end.periods - begin.periods);
    assert!(used <= most, "{used} ns, at most {most}");
    for bundle in [&one, &two] {
        let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", &bundle.id])).unwrap();
        assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    }
    if v1 {
        let more = json!({ "cpu": { "quota": 100_000, "period": 100_000 } });
        let three = above.container("busy-three", script, more).unwrap();
        let dir = three.dir.path().to_string_lossy().into_owned();
        assert!(three.fails(&["create", "--bundle", &dir, &three.id]).1.contains("cpu.cfs_quota_us"));
    }
}

#[test]
fn a_container_is_out_of_memory_when_the_group_above_is_and_says_whose_limit_it_was() {
    let Some(above) = Above::new("memory", json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } })) else {
        return;
    };
    let more = json!({ "memory": { "limit": 512 << 20, "swap": 512 << 20 } });
    // Its first process stays, and a child of it wants the memory once it is told to.
    let script = "while [ ! -e /go ]; do sleep 0.1; done; head -c 100000000 /dev/zero | busybox tail -c 100000000 \
                  >/dev/null; echo $? >/code; sleep 600";
    let Some(bundle) = above.container("greedy", script, more) else { return };
    bundle.create();
    bundle.start();
    let mut events = bundle.wharf(&["events", "--interval", "1h", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    // The first one comes at once: it watches from now on.
    assert!(lines.next().unwrap().unwrap().contains("\"stats\""));
    std::fs::write(bundle.path("rootfs/go"), "").unwrap();
    // runc's line, and what it does not tell in one of its own.
    assert_eq!(lines.next().unwrap().unwrap(), format!("{{\"type\":\"oom\",\"id\":\"{}\"}}", bundle.id));
    let oom: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&oom["type"], &oom["id"]), (&json!("oomDetails"), &json!(bundle.id)));
    assert_eq!(oom["data"]["cgroup"], json!(format!("/{}", above.0.path().display())), "{oom}");
    bundle.ok(&["delete", "--force", &bundle.id]);
    events.wait().unwrap();
    assert_ne!(std::fs::read_to_string(bundle.path("rootfs/code")).unwrap_or_default().trim(), "0");
}

#[test]
fn containers_share_the_number_of_processes_of_the_group_above() {
    let Some(above) = Above::new("pids", json!({ "pids": { "limit": 8 } })) else { return };
    let more = json!({ "pids": { "limit": 1000 } });
    let Some(first) = above.container("quiet", "sleep 600 & sleep 600 & wait", more.clone()) else { return };
    first.create();
    first.start();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; echo all";
    let second = above.container("many", script, more).unwrap();
    let output = second.run_command().output().unwrap();
    assert!(text(&output.stderr).contains("can't fork"), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("all"));
}
