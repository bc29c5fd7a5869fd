//! Limits that the kernel really holds, in groups of this test's own.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use wharf_cgroup::{Group, Hierarchies, Oom};

/// A group that goes with its test, also when the test fails.
struct Mine(Group);

impl Mine {
    /// `None` where this process may not make groups.
    fn new(name: &str) -> Option<Self> {
        let hierarchies = Hierarchies::detect().ok()?;
        match Group::create(&hierarchies, &format!("/wharf-test-{}/{name}", std::process::id())) {
            Ok(group) => Some(Self(group)),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn limit(&self, json: &str) {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        self.0.limit(&resources).unwrap();
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.remove().unwrap();
        for dir in self.0.directories() {
            // The parent is shared by the tests of this process; the last one removes it.
            let _ = std::fs::remove_dir(dir.parent().unwrap());
        }
    }
}

#[test]
fn a_group_holds_the_number_of_processes() {
    let Some(mine) = Mine::new("pids") else { return };
    mine.limit(r#"{"pids":{"limit":4}}"#);
    let script = format!("{} ; n=0; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>/dev/null; wait", join(&mine.0));
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() || !output.stderr.is_empty(), "a ninth process must not come to be");
    assert_eq!(mine.0.usage().pids_limit, 4);
}

#[test]
fn a_child_never_gets_past_its_parent_s_memory() {
    let Some(parent) = Mine::new("memory") else { return };
    parent.limit(r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    let child = Mine::new("memory/child").unwrap();
    // It asks for eight times what its parent has.
    child.limit(r#"{"memory":{"limit":268435456,"swap":268435456}}"#);
    let mut watched = [Oom::watch(&child.0), Oom::watch(&parent.0)];
    assert!(!takes_100_mb(&child.0), "100 MB fitted into a parent of 32 MB");
    // The process was the child's, the want the parent's.
    for watch in &mut watched {
        let told = watch.look().unwrap();
        assert!(told.processes > 0);
        assert_eq!(told.group, Some(Path::new("/").join(parent.0.path())));
        assert_eq!(watch.look(), None);
    }
    child.limit(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    assert!(!takes_100_mb(&child.0), "100 MB fitted into 16");
    let told = watched.each_mut().map(|watch| watch.look().unwrap().group);
    // The parent's own limit was not reached.
    assert_eq!(told, [Some(Path::new("/").join(child.0.path())), None]);
}

#[test]
fn a_neighbour_s_want_of_memory_is_not_taken_for_the_own_one() {
    let Some(parent) = Mine::new("shared") else { return };
    parent.limit(r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    let [one, other] = ["shared/one", "shared/other"].map(|name| Mine::new(name).unwrap());
    let mut watch = Oom::watch(&one.0);
    assert!(!takes_100_mb(&other.0), "100 MB fitted into a parent of 32 MB");
    assert_eq!(watch.look(), None, "nobody of its own was ended");
    one.limit(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    assert!(!takes_100_mb(&one.0), "100 MB fitted into 16");
    assert_eq!(watch.look().unwrap().group, Some(Path::new("/").join(one.0.path())));
}

/// Whether a program in the group gets that much memory.
fn takes_100_mb(group: &Group) -> bool {
    let script = format!("{} ; exec head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null", join(group));
    Command::new("bash").args(["-o", "pipefail", "-c", &script]).status().unwrap().success()
}

#[test]
fn children_share_their_parent_s_cpu_time() {
    let Some(parent) = Mine::new("cpu") else { return };
    parent.limit(r#"{"cpu":{"quota":20000,"period":100000}}"#);
    let children: Vec<Mine> = ["cpu/one", "cpu/two"].map(|name| Mine::new(name).unwrap()).into();
    let mut busy = Vec::new();
    for child in &children {
        // v1 refuses what v2 takes and does not give.
        let more: LinuxResources = serde_json::from_str(r#"{"cpu":{"quota":100000,"period":100000}}"#).unwrap();
        let asked = child.0.limit(&more);
        assert_eq!(asked.is_err(), child.0.v1_dir("cpu").is_some(), "{asked:?}");
        let script = format!("{} ; while :; do :; done", join(&child.0));
        busy.push(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap());
    }
    // By the kernel's own count of periods: whatever else the machine does meanwhile.
    let deadline = Instant::now() + Duration::from_secs(180);
    while parent.0.usage().periods < 15 {
        assert!(Instant::now() < deadline, "the quota's periods do not pass");
        std::thread::sleep(Duration::from_millis(20));
    }
    let usage = parent.0.usage();
    for mut one in busy {
        one.kill().unwrap();
        one.wait().unwrap();
    }
    // A quota is handed out in slices of 5 ms to each CPU, and what was begun is finished.
    let most = (usage.periods + 2) * 20_000_000 + 40_000_000;
    assert!(usage.cpu <= most, "{} ns in {} periods of 20 ms", usage.cpu, usage.periods);
    assert!(usage.throttled_periods > 0);
}

#[test]
fn children_share_their_parent_s_number_of_processes() {
    let Some(parent) = Mine::new("many") else { return };
    parent.limit(r#"{"pids":{"limit":4}}"#);
    let child = Mine::new("many/child").unwrap();
    child.limit(r#"{"pids":{"limit":100}}"#);
    let script = format!("{} ; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>/dev/null; wait", join(&child.0));
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() || !output.stderr.is_empty(), "a fifth process must not come to be");
    assert_eq!(child.0.usage().pids_limit, 100);
}

#[test]
fn killing_a_group_ends_what_is_in_it() {
    let Some(mine) = Mine::new("kill") else { return };
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    put(&mine.0, sleeper.id());
    assert_eq!(mine.0.processes().unwrap(), [i32::try_from(sleeper.id()).unwrap()]);
    mine.0.freeze(true).unwrap();
    mine.0.freeze(false).unwrap();
    mine.0.kill().unwrap();
    assert!(!sleeper.wait().unwrap().success());
    if let Some(fd) = mine.0.birth_fd().unwrap() {
        assert!(fd.as_fd().try_clone_to_owned().is_ok());
    }
}

#[test]
fn paths_that_leave_the_hierarchy_are_refused() {
    let Ok(hierarchies) = Hierarchies::detect() else { return };
    for bad in ["", "/", "wharf", "/a/../../b", "/.."] {
        assert!(Group::open(&hierarchies, bad).is_err(), "{bad}");
    }
}

/// Puts another process into the group.
fn put(group: &Group, pid: u32) {
    group.directories().iter().for_each(|dir| std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap());
}

/// Shell words that put the shell itself into the group.
fn join(group: &Group) -> String {
    let files: Vec<String> =
        group.directories().iter().map(|dir| format!("echo $$ > {}", dir.join("cgroup.procs").display())).collect();
    files.join("; ")
}

#[test]
fn who_goes_in_by_itself_is_in_every_v1_group() {
    let Some(mine) = Mine::new("entrance") else { return };
    let entrance = mine.0.entrance(false).unwrap();
    // A thread of this test's own, which on v1 goes alone.
    let lines = std::thread::spawn(move || {
        entrance.enter().unwrap();
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let lines = lines.join().unwrap();
    let path = format!("/{}", mine.0.path().display());
    let v1: Vec<&str> = lines.lines().filter(|line| !line.starts_with("0::")).collect();
    assert!(v1.iter().all(|line| line.ends_with(&path)), "{lines}");
    assert_eq!(v1.is_empty(), mine.0.hierarchies().all_v1().next().is_none());
}

#[test]
fn an_empty_group_goes_at_once_and_a_full_one_not() {
    let Some(mine) = Mine::new("empty") else { return };
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    put(&mine.0, sleeper.id());
    assert!(!mine.0.remove_empty().unwrap());
    assert!(mine.0.is_made());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(mine.0.remove_empty().unwrap() && !mine.0.is_made());
    assert!(mine.0.remove_empty().unwrap());
}

/// What a control file of the group says on either version; `None` where the host has neither.
fn control(group: &Group, (controller, v1): (&str, &str), v2: &str) -> Option<String> {
    let path = group.v1_dir(controller).map(|dir| dir.join(v1)).or_else(|| group.v2_dir().map(|dir| dir.join(v2)))?;
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether the group's controller is of cgroup2.
fn is_v2(group: &Group, controller: &str) -> bool {
    group.v1_dir(controller).is_none()
}

#[test]
fn limits_are_in_the_files_of_their_version() {
    let Some(mine) = Mine::new("files") else { return };
    let group = &mine.0;
    mine.limit(r#"{"memory":{"limit":67108864,"swap":100663296,"reservation":33554432}}"#);
    let memory = |v1, v2| control(group, ("memory", v1), v2).unwrap();
    assert_eq!(memory("memory.limit_in_bytes", "memory.max"), "67108864");
    let both = memory("memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(both, if is_v2(group, "memory") { "33554432" } else { "100663296" });
    assert_eq!(memory("memory.soft_limit_in_bytes", "memory.low"), "33554432");
    // From lower to higher and back, and to none.
    for (limit, swap) in [(268_435_456_i64, 402_653_184_i64), (16_777_216, 16_777_216), (134_217_728, -1), (-1, -1)] {
        mine.limit(&format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#));
        let now = group.usage().memory_limit;
        assert_eq!(now, u64::try_from(limit).unwrap_or(u64::MAX));
    }
    mine.limit(r#"{"memory":{"limit":67108864,"swap":67108864}}"#);
    mine.limit(r#"{"memory":{"limit":-1}}"#);
    assert_eq!(group.usage().memory_limit, u64::MAX);

    mine.limit(r#"{"cpu":{"shares":1024,"quota":50000,"period":100000}}"#);
    let cpu = |v1, v2| control(group, ("cpu", v1), v2).unwrap();
    if is_v2(group, "cpu") {
        assert_eq!((cpu("", "cpu.weight"), cpu("", "cpu.max")), ("39".into(), "50000 100000".into()));
        mine.limit(r#"{"cpu":{"period":20000}}"#);
        assert_eq!(cpu("", "cpu.max"), "50000 20000");
        mine.limit(r#"{"cpu":{"quota":-1}}"#);
        assert_eq!(cpu("", "cpu.max"), "max 20000");
        // More than the quota of before: it can be set only after the new one.
        mine.limit(r#"{"cpu":{"quota":60000,"period":100000,"burst":30000}}"#);
        assert_eq!(cpu("", "cpu.max.burst"), "30000");
        mine.limit(r#"{"cpu":{"burst":0,"idle":1}}"#);
        assert_eq!((cpu("", "cpu.max.burst"), cpu("", "cpu.idle")), ("0".into(), "1".into()));
    } else {
        assert_eq!((cpu("cpu.shares", ""), cpu("cpu.cfs_quota_us", "")), ("1024".into(), "50000".into()));
        mine.limit(r#"{"cpu":{"quota":-1}}"#);
        assert_eq!(cpu("cpu.cfs_quota_us", ""), "-1");
    }
    mine.limit(r#"{"pids":{"limit":7}}"#);
    assert_eq!(group.usage().pids_limit, 7);
    mine.limit(r#"{"pids":{"limit":-1}}"#);
    assert_eq!(group.usage().pids_limit, u64::MAX);
    mine.limit(r#"{"cpu":{"cpus":"0","mems":"0"}}"#);
    assert_eq!(control(group, ("cpuset", "cpuset.cpus"), "cpuset.cpus").unwrap(), "0");
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let Some(mine) = Mine::new("refused") else { return };
    let refused = |json: &str| {
        let error = mine.0.limit(&serde_json::from_str(json).unwrap()).expect_err(json);
        error.to_string()
    };
    let too_many = refused(r#"{"cpu":{"cpus":"0-9999"}}"#);
    assert!(too_many.contains("cpuset"), "{too_many}");
    assert!(refused(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#).contains("hugetlb"));
    assert!(refused(r#"{"unified":{"memory/../x":"1"}}"#).contains("CONTROLLER.PARAMETER"));
    assert!(refused(r#"{"unified":{"frob.max":"1"}}"#).contains("`frob`"));
    assert!(refused(r#"{"memory":{"limit":10000000,"swap":5000000}}"#).contains("memory"));
    let usage = r#"{"memory":{"limit":1,"checkBeforeUpdate":true}}"#;
    let _filled = {
        let script = format!("{} ; exec sleep 60", join(&mine.0));
        let mut sleeper = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        while mine.0.usage().memory == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = refused(usage);
        assert!(text.contains("more than the new limit of 1"), "{text}");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap()
    };
    if is_v2(&mine.0, "memory") {
        assert!(refused(r#"{"memory":{"swappiness":10}}"#).contains("swappiness"));
        assert!(refused(r#"{"memory":{"disableOOMKiller":true}}"#).contains("disableOOMKiller"));
        assert!(refused(r#"{"cpu":{"realtimeRuntime":1000}}"#).contains("real-time"));
        assert!(refused(r#"{"network":{"classID":7}}"#).contains("net_cls"));
    }
}

#[test]
fn cgroup2_has_words_of_its_own() {
    let Some(mine) = Mine::new("unified") else { return };
    if !is_v2(&mine.0, "memory") {
        return eprintln!("skipped: the memory controller is v1's");
    }
    mine.limit(r#"{"unified":{"memory.high":"50000000","pids.max":"9","cgroup.max.depth":"3"}}"#);
    let read = |file: &str| std::fs::read_to_string(mine.0.v2_dir().unwrap().join(file)).unwrap().trim().to_owned();
    // The kernel keeps whole pages.
    assert_eq!((read("memory.high"), read("pids.max")), ("49999872".into(), "9".into()));
    assert_eq!(read("cgroup.max.depth"), "3");
    mine.limit(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    assert_eq!((read("hugetlb.2MB.max"), read("hugetlb.2MB.rsvd.max")), ("4194304".into(), "4194304".into()));
}

#[test]
fn block_devices_are_limited_one_by_one() {
    let Some(mine) = Mine::new("io") else { return };
    let disk = ["vda", "sda", "nvme0n1"].iter().find_map(|disk| {
        std::fs::read_to_string(format!("/sys/block/{disk}/dev")).ok().map(|text| text.trim().to_owned())
    });
    let Some(disk) = disk else { return eprintln!("skipped: no disk") };
    let (major, minor) = disk.split_once(':').unwrap();
    let device = |rate: u64| format!(r#"[{{"major":{major},"minor":{minor},"rate":{rate}}}]"#);
    let (read, write) = (device(1_048_576), device(120));
    mine.limit(&format!(r#"{{"blockIO":{{"throttleReadBpsDevice":{read},"throttleWriteIOPSDevice":{write}}}}}"#));
    let now = || control(&mine.0, ("blkio", "blkio.throttle.read_bps_device"), "io.max").unwrap();
    if is_v2(&mine.0, "blkio") {
        assert_eq!(now(), format!("{disk} rbps=1048576 wbps=max riops=max wiops=120"));
        mine.limit(&format!(r#"{{"blockIO":{{"throttleReadBpsDevice":{},"weight":500}}}}"#, device(0)));
        assert_eq!(now(), format!("{disk} rbps=max wbps=max riops=max wiops=120"));
        let weight = control(&mine.0, ("blkio", ""), "io.bfq.weight").map_or("default 4950", |_| "default 500");
        let shown = control(&mine.0, ("blkio", ""), "io.bfq.weight").or(control(&mine.0, ("blkio", ""), "io.weight"));
        assert_eq!(shown.unwrap(), weight);
    } else {
        assert_eq!(now(), format!("{disk} 1048576"));
    }
}

#[test]
fn a_weight_of_a_device_is_set_or_refused() {
    let Some(mine) = Mine::new("weights") else { return };
    let disk = ["vda", "sda", "nvme0n1"].iter().find_map(|disk| {
        std::fs::read_to_string(format!("/sys/block/{disk}/dev")).ok().map(|text| text.trim().to_owned())
    });
    let Some(disk) = disk else { return eprintln!("skipped: no disk") };
    let (major, minor) = disk.split_once(':').unwrap();
    let weights = format!(r#"{{"blockIO":{{"weightDevice":[{{"major":{major},"minor":{minor},"weight":300}}]}}}}"#);
    let error = match mine.0.limit(&serde_json::from_str(&weights).unwrap()) {
        Ok(()) => {
            assert!(mine.0.weighs_devices());
            let files = [("blkio.bfq.weight_device", "io.bfq.weight"), ("blkio.weight_device", "io.weight")];
            let shown = files.iter().find_map(|(v1, v2)| control(&mine.0, ("blkio", v1), v2)).unwrap();
            assert!(shown.lines().any(|line| line.starts_with(&format!("{disk} "))), "{shown}");
            return;
        }
        Err(error) => error.to_string(),
    };
    // The kernel knows no weights, or the disk's scheduler has none.
    let words = if mine.0.weighs_devices() { "queue/scheduler" } else { "block IO weight" };
    assert!(error.contains(words), "{error}");
}

#[test]
fn devices_are_those_of_the_last_rule() {
    let Some(mine) = Mine::new("devices") else { return };
    let zero = |want: bool, access: &str| {
        let redirect = if access == "r" { "</dev/zero" } else { "<>/dev/zero" };
        let script = format!("{} ; true {redirect}", join(&mine.0));
        let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), want, "/dev/zero for {access}");
    };
    let set = |rules: &str| {
        let resources = serde_json::from_str(&format!(r#"{{"devices":[{rules}]}}"#)).unwrap();
        mine.0.limit(&resources)
    };
    let null = r#"{"allow":true,"type":"c","major":1,"minor":3}"#;
    if let Err(error) = set(&format!(r#"{{"allow":false}},{null}"#)) {
        return eprintln!("skipped: {error}");
    }
    zero(false, "r");
    // Another set takes the place of the first one.
    let read = r#"{"allow":true,"type":"c","major":1,"minor":5,"access":"r"}"#;
    set(&format!(r#"{{"allow":false}},{null},{read}"#)).unwrap();
    zero(true, "r");
    zero(false, "rw");
    set(r#"{"allow":true}"#).unwrap();
    zero(true, "rw");
    set(r#"{"allow":true},{"allow":false,"type":"c","major":1,"minor":5,"access":"w"}"#).unwrap();
    zero(true, "r");
    zero(false, "rw");
}

#[test]
fn a_denial_within_what_is_allowed_holds_or_is_refused() {
    let Some(mine) = Mine::new("denied") else { return };
    let set = |rules: &str| mine.0.limit(&serde_json::from_str(&format!(r#"{{"devices":[{rules}]}}"#)).unwrap());
    let opens = |device: &str| {
        let script = format!("{} ; true <>/dev/{device}", join(&mine.0));
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    };
    let rule = |allow: bool, numbers: &str| format!(r#"{{"allow":{allow},"type":"c",{numbers}"access":"rw"}}"#);
    let all_of = rule(true, r#""major":1,"#);
    let (null, zero) = (r#""major":1,"minor":3,"#, r#""major":1,"minor":5,"#);
    let none = r#"{"allow":false}"#;
    if let Err(error) = set(&format!("{none},{}", rule(true, null))) {
        return eprintln!("skipped: {error}");
    }
    // Docker's default: nodes of all, and a device that is denied again.
    let nodes = r#"{"allow":true,"type":"c","access":"m"}"#;
    set(&format!("{none},{nodes},{},{}", rule(true, null), rule(false, zero))).unwrap();
    assert!(opens("null") && !opens("zero"));
    // What was allowed one by one is taken back together.
    let both = format!("{none},{},{}", rule(true, null), rule(true, zero));
    set(&both).unwrap();
    assert!(opens("null") && opens("zero"));
    set(&format!("{both},{},{}", rule(false, r#""major":1,"#), rule(true, null))).unwrap();
    assert!(opens("null") && !opens("zero"));
    // And what v1 has no words for leaves what was.
    match set(&format!("{none},{all_of},{}", rule(false, null))) {
        Ok(()) => assert!(!opens("null") && opens("zero")),
        Err(error) => {
            assert!(mine.0.v1_dir("devices").is_some(), "{error}");
            assert!(error.to_string().contains("cannot deny `c 1:3 rw` within what `c 1:* rw` allows"), "{error}");
            assert!(opens("null") && !opens("zero"));
        }
    }
}

/// The group above all containers leaves the host its share, and takes nothing back of what an administrator has said.
#[test]
fn the_group_above_is_never_given_more() {
    let Some(mine) = Mine::new("room") else { return };
    let hierarchies = Hierarchies::detect().unwrap();
    if !hierarchies.has("pids") {
        return;
    }
    let path = format!("/{}", mine.0.path().display());
    wharf_cgroup::leave_room(&hierarchies, &path).unwrap();
    let given = mine.0.usage().pids_limit;
    assert!(given > 7 && given < u64::MAX, "{given}");
    mine.limit(r#"{"pids":{"limit":7}}"#);
    wharf_cgroup::leave_room(&hierarchies, &path).unwrap();
    assert_eq!(mine.0.usage().pids_limit, 7);
}
