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
    // A clone has the limit of the other one, another, or none.
    let limit = |name: &str| d.get(&format!("/volumes/{name}"))["Status"]["SizeLimit"].clone();
    assert_eq!(limit("other"), limit("data"));
    d.wharf("volume clone -o size=64m data@first larger").ok();
    assert_eq!(limit("larger"), 64 << 20);
    d.wharf("volume clone -o size=none data@first free").ok();
    assert!(limit("free").is_null());
    let refused = d.wharf("volume clone -o type=tmpfs data wrong");
    assert!(refused.err.contains("a clone has a size alone"), "{}", refused.err);
    assert!(d.wharf("volume restore data@first").err.contains("clone the snapshot"));
    d.docker("volume rm -f data").ok();
    let wrong = d.docker("volume create -o size=much wrong");
    assert!(wrong.err.contains("invalid size: 'much'"), "{}", wrong.err);
}

#[test]
fn binds_that_cannot_be_had_are_refused() {
    let Some(d) = Daemon::start() else { return };
    let dir = d.path().join("host");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(d.path().join("file"), "x").unwrap();
    let run = |bind: &str| d.docker(&format!("run --rm -v {bind} busybox true"));
    for (bind, words) in [
        (format!("{}/file:/tmp", d.path().display()), "mount a file on the directory `/tmp`"),
        (format!("{}:/etc/passwd", dir.display()), "mount a directory on the file `/etc/passwd`"),
    ] {
        let said = run(&bind);
        assert!(said.code != 0 && said.err.contains(words), "{}", said.err);
        assert!(said.err.contains("mount a directory onto a file (or vice-versa)?"), "{}", said.err);
    }

    // What is mounted on the host later is seen where both want it so.
    let mount = |words: &[&str]| {
        let done = std::process::Command::new(words[0]).args(&words[1..]).arg(&dir).status().unwrap();
        assert!(done.success());
    };
    mount(&["mount", "-t", "tmpfs", "host"]);
    mount(&["mount", "--make-private"]);
    let refused: Vec<String> =
        ["rshared", "rslave"].iter().map(|how| run(&format!("{}:/m:{how}", dir.display())).err).collect();
    mount(&["mount", "--make-shared"]);
    d.docker(&format!("run -d --name sees -v {}:/m:rslave busybox sleep 1000", dir.display())).ok();
    d.docker(&format!("run -d --name blind -v {}:/m busybox sleep 1000", dir.display())).ok();
    std::fs::create_dir(dir.join("later")).unwrap();
    let later = dir.join("later").display().to_string();
    assert!(std::process::Command::new("mount").args(["-t", "tmpfs", "later", &later]).status().unwrap().success());
    let count = |name: &str| d.docker(&format!("exec {name} grep -c /m/later /proc/self/mounts")).out.trim().to_owned();
    let seen = (count("sees"), count("blind"));
    d.docker("rm -f sees blind").ok();
    mount(&["umount", "-R"]);
    assert!(refused[0].contains("but it is not a shared mount"), "{}", refused[0]);
    assert!(refused[1].contains("but it is not a shared or slave mount"), "{}", refused[1]);
    assert_eq!(seen, ("1".into(), "0".into()));
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

#[test]
fn servers_of_volumes_are_known_by_their_names() {
    let Some(d) = Daemon::start() else { return };
    // Whatever the kernel says of the mount, it got an address. That of the loopback needs no server of names.
    d.docker("volume create -o type=nfs -o o=addr=localhost,ro -o device=:/exports far").ok();
    let said = d.docker("run --rm -v far:/far busybox true");
    assert!(said.code != 0 && said.err.contains("data: addr=127.0.0.1"), "{}", said.err);
    d.docker("volume create -o type=cifs -o o=username=u,password=secret -o device=//localhost/share near").ok();
    let said = d.docker("run --rm -v near:/near busybox true");
    assert!(said.code != 0 && said.err.contains("mount //127.0.0.1/share:"), "{}", said.err);
    assert!(!said.err.contains("secret"), "{}", said.err);
    d.docker("volume rm far near").ok();
}
