//! `--dry-run` says what would be done, which is what is done without it, and does nothing.

use std::collections::BTreeSet;

use crate::kit::{Daemon, Said};
use crate::run::free_port;

/// All that there is, as lists show it.
fn world(daemon: &Daemon) -> String {
    let lists = ["ps -aq --no-trunc", "images -aq --no-trunc", "volume ls -q", "network ls -q", "system df"];
    lists.iter().map(|list| daemon.docker(list).ok()).collect()
}

/// The lines of a prune without its headings.
fn things(said: Said) -> (BTreeSet<String>, String) {
    let all = said.ok();
    let (total, lines): (Vec<&str>, Vec<&str>) = all.lines().partition(|line| line.starts_with("Total "));
    let lines = lines.iter().filter(|line| !line.is_empty() && !line.ends_with(':')).map(|line| (*line).to_owned());
    (lines.collect(), total.concat().rsplit(": ").next().unwrap_or_default().to_owned())
}

#[test]
fn a_prune_says_what_it_would_remove() {
    let Some(daemon) = Daemon::start() else { return };
    daemon.docker("volume create named").ok();
    daemon.docker("network create idle").ok();
    daemon.docker("network create kept").ok();
    daemon.docker("run --network kept --name ended -v /anonymous busybox true").ok();
    daemon.docker("run -d --network kept --name running busybox sleep 1000").ok();
    daemon.import("loose", 3 << 20).ok();
    daemon.docker("tag busybox other:1").ok();
    let context = daemon.path().join("context");
    std::fs::create_dir(&context).unwrap();
    for step in ["one", "two"] {
        std::fs::write(context.join("Dockerfile"), format!("FROM loose\nCOPY Dockerfile /{step}\n")).unwrap();
        let build = daemon.client().args(["build", "-t", "built"]).arg(&context).output().unwrap();
        Said::from(build).ok();
    }
    daemon.docker("run --name of-built --entrypoint /nothing built");
    let before = world(&daemon);

    // Each by itself, and all together: a network is idle once its container has gone.
    for prune in [
        "container prune",
        "network prune",
        "volume prune",
        "volume prune -a",
        "image prune",
        "image prune -a",
        "builder prune -a",
        "system prune",
        "system prune -a --volumes",
    ] {
        things(daemon.wharf(&format!("{prune} --dry-run")));
    }
    assert_eq!(world(&daemon), before);

    let prunes = [
        "network prune",
        "volume prune",
        "container prune",
        "image prune",
        "system prune --volumes",
        "system prune -a",
    ];
    for prune in prunes {
        let said = things(daemon.wharf(&format!("{prune} --dry-run")));
        assert_eq!(said, things(daemon.wharf(&format!("{prune} -f"))), "{prune}");
        // Some more for the next.
        daemon.docker("run --name ended -v /anonymous busybox true");
        daemon.docker("network create idle");
    }
    // Labels choose among what has some, and are nothing against the rest.
    for filter in ["label=none", "label!=none"] {
        daemon.docker(&format!("system prune -f --filter {filter}")).ok();
    }
    // The client says whole seconds, and waits for this one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let soon = now.as_secs() + 1;
    let events =
        daemon.docker(&format!("events --since 1h --until {soon} --filter event=prune --format {{{{.Type}}}}")).ok();
    assert!(events.lines().count() > 0);
}

#[test]
fn a_run_says_what_it_would_make() {
    let Some(daemon) = Daemon::start() else { return };
    daemon.docker("volume create here").ok();
    let port = free_port();
    daemon.docker(&format!("run -d --name holder -p 127.0.0.1:{port}:80 busybox sleep 1000")).ok();
    let missing = daemon.path().join("missing");
    let before = world(&daemon);
    let options = format!(
        "--name web -p 18080:80 -v here:/here -v new:/new -v /anonymous -v {}:/host:ro --tmpfs /scratch",
        missing.display()
    );
    let said = daemon.wharf(&format!("run --dry-run --rm {options} busybox sh -c true"));
    let lines = said.ok();
    for line in [
        "Would create volume new",
        &format!("Would create directory {}", missing.display()),
        "Would create container web from busybox (sha256:",
        "  command: sh -c true",
        "  network: bridge",
        "  port: 18080->80/tcp",
        "  mount: volume here at /here",
        "  mount: a new anonymous volume at /anonymous",
        &format!("  mount: bind {} at /host (read-only)", missing.display()),
        "  mount: tmpfs at /scratch",
        "Would start it",
        "Would remove it with its anonymous volumes when it ends",
    ] {
        assert!(lines.contains(line), "{line}\n{lines}");
    }
    assert!(!lines.contains("create volume here"), "{lines}");
    let created = daemon.wharf("create --dry-run busybox true").ok();
    assert!(created.contains("with a name of the engine's choice") && !created.contains("start"), "{created}");

    // What would keep it from starting.
    let said = daemon.wharf("run --dry-run --network nowhere busybox true");
    assert!(said.code == 0 && said.err.contains("network nowhere not found"), "{}", said.err);
    let said = daemon.wharf(&format!("run --dry-run -p {port}:80 busybox true"));
    let held = format!("port {port}/tcp is published by container holder");
    assert!(said.code == 0 && said.err.contains(&held), "{}", said.err);
    // What is refused is refused in the same words.
    for bad in ["--name holder", "-v new:/proc", "--memory 1k", "-v bad/name:/x"] {
        let (dry, real) = (
            daemon.wharf(&format!("run --dry-run {bad} busybox true")),
            daemon.wharf(&format!("run {bad} busybox true")),
        );
        assert!(dry.code == 125 && real.code == 125 && dry.err == real.err, "{bad}\n{}{}", dry.err, real.err);
    }
    let said = daemon.wharf("run --dry-run --pull never nosuch");
    assert!(said.code == 125 && said.err.contains("No such image"), "{}", said.err);
    assert!(daemon.wharf("run --dry-run nosuch").ok().starts_with("Would pull image nosuch:latest"));
    assert_eq!(world(&daemon), before);
    assert!(!missing.exists());
}

#[test]
fn a_removal_says_what_would_go() {
    let Some(daemon) = Daemon::start() else { return };
    daemon.docker("run -d --name running -v /anonymous -v named:/named busybox sleep 1000").ok();
    let inspected = daemon.get("/containers/running/json");
    let mut mounts = inspected["Mounts"].as_array().unwrap().iter();
    let anonymous = mounts.find(|mount| mount["Destination"] == "/anonymous").unwrap()["Name"].as_str().unwrap();
    let before = world(&daemon);
    let (dry, real) = (daemon.wharf("rm --dry-run running"), daemon.wharf("rm running"));
    assert!(dry.code == 1 && dry.err == real.err, "{}{}", dry.err, real.err);
    let said = daemon.wharf("rm --dry-run -fv running").ok();
    assert!(said.starts_with("Would kill container running\nWould remove container running ("), "{said}");
    assert!(said.ends_with(&format!("Would remove anonymous volume {anonymous}")) && !said.contains("named"), "{said}");
    assert_eq!(world(&daemon), before);
    assert_eq!(daemon.docker("inspect -f {{.State.Running}} running").ok(), "true");
    let absent = daemon.wharf("rm --dry-run nobody");
    assert!(absent.code == 1 && absent.err.contains("No such container: nobody"), "{}", absent.err);
}
