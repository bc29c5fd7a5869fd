//! Volumes that are something else's content.

use crate::kit::Daemon;

#[test]
fn options_of_a_volume_are_a_mount_while_it_is_used() {
    let Some(mut d) = Daemon::start() else { return };
    let source = d.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "of the host").unwrap();
    d.docker(&format!("volume create -o type=none -o o=bind -o device={} bound", source.display())).ok();
    d.docker("volume create -o type=tmpfs -o device=tmpfs -o o=size=1m memory").ok();
    let mounted = |d: &Daemon| {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&*d.data().join("volumes").to_string_lossy())).count()
    };
    assert_eq!(mounted(&d), 0);
    d.docker("run -d --name user -v bound:/b -v memory:/m busybox sleep 100").ok();
    assert_eq!(mounted(&d), 2);
    assert_eq!(d.docker("exec user cat /b/file").ok(), "of the host");
    d.docker("exec user touch /m/kept").ok();
    // One that is used meanwhile, too, and by a daemon that did not mount it.
    d.docker("run --rm -v memory:/m busybox ls /m/kept").ok();
    d.kill();
    d.launch();
    d.docker("run --rm -v memory:/m busybox ls /m/kept").ok();
    assert_eq!(mounted(&d), 2);
    d.docker("rm -f user").ok();
    assert_eq!(mounted(&d), 0);
    let option = "type=volume,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    d.docker(&format!("run --rm --mount {option} busybox sh -c true")).ok();
    d.docker("volume rm bound memory").ok();
    assert!(source.join("file").exists());

    let wrong = d.docker("volume create -o foo=bar wrong");
    assert!(wrong.err.contains("create wrong: invalid option: \"foo\""), "{}", wrong.err);
    d.docker("volume create -o type=none -o o=bind -o device=/no/such/directory broken").ok();
    let broken = d.docker("run --rm -v broken:/b busybox true");
    assert!(broken.err.contains("failed to mount local volume: mount /no/such/directory:"), "{}", broken.err);
}

#[test]
fn a_volume_of_a_size_is_full_when_it_is() {
    let Some(mut d) = Daemon::start() else { return };
    let made = d.docker("volume create -o size=20m data");
    if made.err.contains("mkfs.ext4") || made.err.contains("no loop device") {
        return eprintln!("skipped: {}", made.err);
    }
    made.ok();
    let status = |d: &Daemon, field: &str| -> u64 {
        d.docker(&format!("volume inspect data --format {{{{.Status.{field}}}}}")).ok().parse::<f64>().unwrap() as u64
    };
    assert_eq!(status(&d, "SizeLimit"), 20 << 20);
    // The image's content comes in, df tells the truth, and too much is refused to who writes it.
    assert!(d.docker("run --rm -v data:/etc busybox cat /etc/passwd").ok().starts_with("root:"));
    d.docker("run -d --name user -v data:/d busybox sleep 1000").ok();
    let df = d.docker("exec user df -k /d").ok();
    let total: u64 = df.lines().last().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((16 << 10..=20 << 10).contains(&total), "{df}");
    let full = d.docker("exec user dd if=/dev/zero of=/d/large bs=1M count=30");
    assert!(full.code != 0 && (full.err.contains("No space left") || full.err.contains("quota")), "{}", full.err);
    assert!(status(&d, "SizeUsed") > 14 << 20);
    // A daemon that comes after a kill finds it mounted, and lets go of it when its last user has ended.
    d.kill();
    d.launch();
    d.docker("exec user rm /d/large").ok();
    d.wharf("run --rm --userns auto -v data:/d busybox touch /d/mapped").ok();
    d.docker("exec user test -O /d/mapped").ok();
    d.wharf("volume snapshot data first").ok();
    d.docker("rm -f user").ok();
    d.wharf("volume clone data@first other").ok();
    assert!(d.docker("run --rm -v other:/d busybox cat /d/passwd").ok().starts_with("root:"));
    assert!(d.wharf("volume restore data@first").err.contains("clone the snapshot"));
    d.docker("volume rm -f data").ok();
    let wrong = d.docker("volume create -o size=much wrong");
    assert!(wrong.err.contains("invalid size: 'much'"), "{}", wrong.err);
}

#[test]
fn a_volume_that_is_there_is_the_answer_to_its_creation() {
    let Some(d) = Daemon::start() else { return };
    d.docker("volume create --label a=b kept").ok();
    assert_eq!(d.docker("volume create -o type=nfs kept").ok(), "kept");
    let kept = d.get("/volumes/kept");
    assert_eq!((&kept["Labels"]["a"], &kept["Options"]), (&"b".into(), &serde_json::Value::Null));
    assert!(d.docker("volume create -o type=nfs new").code != 0, "options of a new one are looked at");
    let driver = d.docker("volume create -d nosuch kept");
    assert!(driver.code != 0, "{}", driver.out);
    // The client says whole seconds, and waits for this one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let soon = (now.as_secs() + 1).to_string();
    let said =
        d.client().args(["events", "--since", "1", "--until", &soon, "--format", "{{.Type}} {{.Action}}"]).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    assert_eq!(said.lines().filter(|line| *line == "volume create").count(), 1, "{said}");
    d.docker("volume rm kept").ok();
}
