//! Limits of containers as the host has them, and of a group above them.

use serde_json::{Value, json};
use wharf_cgroup::{Group, Hierarchies};

use crate::kit::Daemon;

/// A group above containers; it goes with its test.
struct Above(Group);

impl Above {
    fn new(name: &str, limits: &Value) -> Self {
        let path = format!("/wharf-test-above-{}-{name}", std::process::id());
        let above = Self(Group::create(&Hierarchies::detect().unwrap(), &path).unwrap());
        above.0.limit(&serde_json::from_value(limits.clone()).unwrap()).unwrap();
        above
    }

    /// As `--cgroup-parent` and the engine have it.
    fn path(&self) -> String {
        format!("/{}", self.0.path().display())
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // Who has failed leaves containers below it, which go with their daemon.
        let removed = self.0.remove();
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn inspect(d: &Daemon, name: &str, part: &str) -> Value {
    let all: Value = serde_json::from_str(&d.docker(&format!("inspect {name}")).ok()).unwrap();
    all[0][part].clone()
}

#[test]
fn what_only_some_kernels_have_is_left_out_with_docker_s_warning() {
    let Some(d) = Daemon::start() else { return };
    let hierarchies = Hierarchies::detect().unwrap();
    let said = d.docker("create --memory-swappiness 10 --oom-kill-disable -m 50m --name memory busybox sleep 100");
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = inspect(&d, "memory", "HostConfig");
    let shown = (&shown["MemorySwappiness"], &shown["OomKillDisable"]);
    if hierarchies.v1("memory").is_some() {
        assert!(!said.err.contains("discarded"), "{}", said.err);
        assert_eq!(shown, (&json!(10), &json!(true)));
        d.docker("start memory").ok();
        assert_eq!(d.docker("exec memory cat /sys/fs/cgroup/memory/memory.swappiness").ok(), "10");
        let control = d.docker("exec memory cat /sys/fs/cgroup/memory/memory.oom_control").ok();
        assert!(control.contains("oom_kill_disable 1"), "{control}");
        // Who wants more waits, and that is told.
        let hungry = "head -c 90000000 /dev/zero | tail -c 90000000 >/dev/null";
        assert!(d.client().args(["exec", "-d", "memory", "sh", "-c", hungry]).status().unwrap().success());
        d.eventually("it is told", || inspect(&d, "memory", "State")["OOMKilled"] == json!(true));
        d.eventually("it is an event", || {
            d.docker("events --since 1 --until 0s --filter event=oom").ok().contains(" container oom ")
        });
        d.docker("kill memory").ok();
        let said = d.docker("create --oom-kill-disable busybox true");
        assert!(said.code == 0 && said.err.contains("no memory limit is set"), "{}", said.err);
    } else {
        assert!(said.err.contains("Memory swappiness discarded."), "{}", said.err);
        assert!(said.err.contains("OomKillDisable discarded."), "{}", said.err);
        assert_eq!(shown, (&Value::Null, &Value::Null));
        d.docker("start memory").ok();
    }

    let said = d.docker("create --blkio-weight 300 --name weight busybox true");
    assert_eq!(said.code, 0, "{}", said.err);
    let kept = inspect(&d, "weight", "HostConfig")["BlkioWeight"].clone();
    let discarded = said.err.contains("Weight discarded.");
    assert_eq!(kept, if discarded { json!(0) } else { json!(300) });
    d.docker("start -a weight").ok();

    let said = d.docker("run --rm --blkio-weight-device /dev/null:5 busybox true");
    assert!(said.code != 0 && said.err.to_lowercase().contains("weight"), "{}", said.err);
    let disk = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"].into_iter().find(|disk| std::path::Path::new(disk).exists());
    let Some(disk) = disk else { return eprintln!("skipped: no disk") };
    let said = d.docker(&format!("create --blkio-weight-device {disk}:300 --name disk busybox sleep 100"));
    assert_eq!(said.code, 0, "{}", said.err);
    let kept = inspect(&d, "disk", "HostConfig")["BlkioWeightDevice"].clone();
    let discarded = said.err.contains("Weight-device discarded.");
    assert_eq!(kept, if discarded { json!([]) } else { json!([{ "Path": disk, "Weight": 300 }]) });
    let started = d.docker("start disk");
    let read = "exec disk sh -c cat${IFS}/sys/fs/cgroup/blkio/*weight_device||cat${IFS}/sys/fs/cgroup/io.*weight";
    match started.code {
        // The kernel has no such file, and does not merely say so.
        0 if discarded => assert!(!d.docker(read).out.contains(':')),
        0 => assert!(d.docker(read).ok().lines().any(|line| line.contains(':'))),
        // The kernel has it, the disk's scheduler does not.
        _ => assert!(!discarded && started.err.contains("queue/scheduler"), "{}", started.err),
    }
}

/// A process that wants 50 MB. It and its neighbours in the pipe are those that the kernel ends first.
const WANTS: &str = "(echo 1000 >/proc/self/oom_score_adj; head -c 50000000 /dev/zero | tail -c 50000000 >/dev/null)";

/// A tool that has the host's groups mounted looks there for what `/proc/self/cgroup` tells it.
#[test]
fn who_has_the_host_s_groups_sees_its_own_place_in_them() {
    let Some(d) = Daemon::start() else { return };
    let read = |options: &str| d.docker(&format!("run --rm {options} busybox cat /proc/self/cgroup")).ok();
    let bound = read("-v /sys/fs/cgroup:/sys/fs/cgroup:ro");
    let hidden = |text: &str| text.lines().all(|line| line.ends_with(":/"));
    assert!(hidden(&read("")) && hidden(&read("-v /sys/fs/cgroup:/sys/fs/cgroup:ro --cgroupns private")));
    assert_eq!(hidden(&bound), Hierarchies::detect().unwrap().is_v2(), "{bound}");
}

/// Starts a container that goes on when its script has had, or not, the memory that it wants.
fn greedy(d: &Daemon, options: &str, name: &str, script: &str) {
    let mut client = d.client();
    client.args(["run", "-d", "--network", "none", "--name", name]).args(options.split_whitespace());
    client.args(["busybox", "sh", "-c", script]);
    crate::kit::Said::from(client.output().unwrap()).ok();
}

#[test]
fn two_containers_have_together_what_the_group_above_them_has() {
    let Some(d) = Daemon::start() else { return };
    let limits = json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 }, "pids": { "limit": 12 } });
    let above = Above::new("docker", &limits);
    let options = format!("-m 512m --memory-swap 512m --pids-limit 1000 --cgroup-parent {}", above.path());
    greedy(&d, &options, "keeps", "head -c 40000000 /dev/zero >/dev/shm/kept; echo kept; exec sleep 1000");
    d.eventually("it keeps its memory", || d.docker("logs keeps").out.contains("kept"));
    let wants = format!("{WANTS}; echo $?; exec sleep 1000");
    greedy(&d, &options, "wants", &wants);
    d.eventually("its process has ended", || !d.docker("logs wants").out.is_empty());
    assert_eq!(d.docker("logs wants").out, "137\n", "killed, for the group above had no more");
    d.eventually("it is told", || inspect(&d, "wants", "State")["OOMKilled"] == json!(true));
    let state = inspect(&d, "wants", "State");
    assert_eq!((&state["OOMCgroup"], &state["Running"]), (&json!(above.path()), &json!(true)), "{state}");
    // The client says whole seconds.
    let told = || d.docker("events --since 1 --until 0s --filter event=oom").out;
    d.eventually("an event tells whose limit it was", || told().contains(&format!("cgroup={}", above.path())));

    // Each of them may have a thousand processes, both together twelve.
    let many = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 1000 & done; echo all";
    let mut client = d.client();
    client.args(["exec", "wants", "sh", "-c", many]);
    let said = crate::kit::Said::from(client.output().unwrap());
    assert!(said.err.contains("can't fork") && !said.out.contains("all"), "{} {}", said.out, said.err);
    d.docker("rm -f keeps wants").ok();
}

#[test]
fn a_container_that_is_out_of_its_own_memory_is_told_from_its_neighbours() {
    let Some(d) = Daemon::start() else { return };
    let mut client = d.client();
    // Until the client has its answer the monitor is there to see it.
    client.args(["run", "-i", "--network", "none", "-m", "16m", "--memory-swap", "16m", "--name", "own"]);
    client.args(["busybox", "sh", "-c", &format!("read x; {WANTS}; exit 3")]).stdin(std::process::Stdio::piped());
    let mut child = client.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let id = d.docker("inspect -f {{.Id}} own").ok();
    let state = inspect(&d, "own", "State");
    assert_eq!(state["OOMKilled"], json!(true));
    let group = state["OOMCgroup"].as_str().unwrap_or_default();
    assert!(group.ends_with(&format!("/{id}")), "{state}");
}

#[test]
fn nobody_takes_all_the_processes_of_the_host() {
    let Some(d) = Daemon::start() else { return };
    let number = |name: &str| -> u64 {
        std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap().trim().parse().unwrap()
    };
    let room = number("pid_max").min(number("threads-max"));
    let share = (room / 4).to_string();
    let tops = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|top| format!("{top}/{}/pids.max", d.group()));
    let above = tops.iter().find_map(|file| std::fs::read_to_string(file).ok()).unwrap();
    assert_eq!(above.trim(), (room - room / 8).to_string(), "all containers together");
    let shown = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null";
    assert_eq!(d.sh("", shown).out.trim(), share);
    assert_eq!(d.sh("--pids-limit 77", shown).out.trim(), "77");
    assert_eq!(d.sh("--pids-limit -1", shown).out.trim(), "max", "asked for");
    let dockerfile = format!("FROM busybox\nRUN test \"$({shown})\" = {share}\n");
    let context = crate::build_inputs::context(&d, "share", &[("Dockerfile", &dockerfile)]);
    d.wharf(&format!("build -q {}", context.display())).ok();
}
