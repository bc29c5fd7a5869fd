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
