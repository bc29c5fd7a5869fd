//! Images are built from Dockerfiles.

use crate::kit::{Daemon, WHARF};

fn context(d: &Daemon, files: &[(&str, &str)]) -> String {
    let dir = d.path().join("context");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
    dir.to_string_lossy().into_owned()
}

const STAGES: &str = "\
FROM busybox AS one
ARG V=1
RUN mkdir /out && echo $V > /out/v
FROM busybox
ENV X=y
WORKDIR /srv
COPY --from=one /out/ ./
COPY a.txt .
RUN test -f /srv/a.txt
USER web
HEALTHCHECK --interval=1s CMD true
CMD [\"cat\", \"/srv/v\", \"/srv/a.txt\"]
";

#[test]
fn labels_of_the_request_are_the_last_steps() {
    let Some(d) = Daemon::start() else { return };
    let dir = d.path().join("labels");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM scratch\nENV A=1\n").unwrap();
    let said = d.docker(&format!("build --label b=2 --label a=1 -t labelled {}", dir.display())).ok();
    let steps: Vec<&str> = said.lines().filter(|line| line.starts_with("Step ")).collect();
    let wanted = ["Step 1/4 : FROM scratch", "Step 2/4 : ENV A=1", "Step 3/4 : LABEL a=1", "Step 4/4 : LABEL b=2"];
    assert_eq!(steps, wanted, "{said}");
    // What the last step has made is the image.
    let last = said.lines().filter_map(|line| line.strip_prefix(" ---> ")).next_back().unwrap();
    assert!(said.contains(&format!("Successfully built {last}")), "{said}");
    assert_eq!(d.docker("inspect -f {{.Config.Labels.a}}{{.Config.Labels.b}} labelled").ok(), "12");

    std::fs::write(dir.join("Dockerfile"), "FROM scratch\n").unwrap();
    // Nothing at all is an image too.
    d.docker(&format!("build -t nothing {}", dir.display())).ok();
    assert_eq!(d.docker("inspect -f {{.Config.WorkingDir}}{{.RootFS.Layers}} nothing").ok(), "/[]");
    d.docker(&format!("build --label a=1 {}", dir.display())).ok();
}

#[test]
fn stages_and_the_cache() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, &[("Dockerfile", STAGES), ("a.txt", "content\n")]);
    d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert_eq!(d.docker("run --rm app").ok(), "42\ncontent");
    assert_eq!(d.docker("inspect -f {{.Config.User}}{{.Config.WorkingDir}} app").ok(), "web/srv");
    let first = d.docker("images -q --no-trunc app").ok();
    let again = d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert!(again.contains("Using cache") && !again.contains("Running in"), "{again}");
    assert_eq!(d.docker("images -q --no-trunc app").ok(), first, "the same input is the same image");
    std::fs::write(format!("{dir}/a.txt"), "other\n").unwrap();
    d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert_eq!(d.docker("run --rm app").ok(), "42\nother");
}

#[test]
fn mistakes_are_named_with_their_line() {
    let Some(d) = Daemon::start() else { return };
    let dir =
        context(&d, &[("Dockerfile", "FROM busybox\nRUNN x\n"), ("fails", "FROM busybox\nRUN echo said; exit 3\n")]);
    let said = d.docker(&format!("build {dir}"));
    assert_ne!(said.code, 0);
    assert!(
        said.err.contains("line 2") && said.err.contains("RUNN") && said.err.contains("did you mean RUN?"),
        "{}",
        said.err
    );
    let said = d.docker(&format!("build -f {dir}/fails {dir}"));
    assert_eq!(said.code, 3, "the client's code is the command's");
    let message = "The command '/bin/sh -c echo said; exit 3' returned a non-zero code: 3";
    assert!(said.err.trim_end().ends_with(message) && said.out.contains("said"), "{}{}", said.out, said.err);
    let said = d.docker(&format!("build -f {dir}/none {dir}"));
    assert_ne!(said.code, 0);
}

/// What a build under way has on the disk.
fn traces(d: &Daemon) -> Vec<std::path::PathBuf> {
    let list = |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let all = list(d.data().join("build")).chain(list(d.path().join("run/build"))).map(|entry| entry.path());
    all.filter(|path| !path.ends_with("build/cache") && !path.ends_with("build/contexts")).collect()
}

/// Starts a build of this command, and waits until it runs.
fn begin(d: &Daemon, options: &str, command: &str) -> std::process::Child {
    let dir = context(d, &[("Dockerfile", &format!("FROM busybox\nRUN {command}\n"))]);
    let own = options == "wharf";
    let mut client = if own { std::process::Command::new(WHARF) } else { d.client() };
    if own {
        client.env("DOCKER_HOST", format!("unix://{}", d.socket().display()));
    }
    client
        .arg("build")
        .args(options.split_whitespace().filter(|_| !own))
        .args(["--no-cache", &dir])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let child = client.spawn().unwrap();
    d.eventually("the command runs", || {
        std::fs::read_dir(d.path().join("run/build"))
            .is_ok_and(|mut dir| dir.any(|entry| entry.is_ok_and(|entry| entry.path().join("monitor.sock").exists())))
    });
    // Its first process has begun.
    std::thread::sleep(std::time::Duration::from_millis(100));
    child
}

#[test]
fn a_silent_build_ends_with_its_client() {
    let Some(d) = Daemon::start() else { return };
    for options in ["", "-q", "wharf"] {
        let mut client = begin(&d, options, "sleep 1000");
        client.kill().unwrap();
        client.wait().unwrap();
        let gone = std::time::Instant::now();
        d.eventually("nothing of it is left", || traces(&d).is_empty());
        assert!(gone.elapsed() < std::time::Duration::from_secs(2), "{options}: {:?}", gone.elapsed());
    }
}

#[test]
fn a_daemon_that_was_killed_in_a_build_starts_again() {
    let Some(mut d) = Daemon::start() else { return };
    for _ in 0..3 {
        let command = "i=0; mkdir /d; while :; do echo $i > /d/$i; i=$((i+1)); done";
        let mut client = begin(&d, "", command);
        d.kill();
        client.wait().unwrap();
        d.launch();
        assert!(traces(&d).is_empty(), "{:?}", traces(&d));
    }
    assert_eq!(d.sh("", "echo alive").ok(), "alive");
}

#[test]
fn pruning_beside_builds_spares_what_they_make() {
    let Some(d) = Daemon::start() else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                d.docker("builder prune -af").ok();
                d.docker("image prune -f").ok();
            }
        });
        for round in 0..8 {
            let text = format!("FROM busybox AS a\nRUN echo {round} > /a\nFROM busybox\nCOPY --from=a /a /b\n");
            let dir = context(&d, &[("Dockerfile", &text)]);
            d.docker(&format!("build -t round{round} {dir}")).ok();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for round in 0..8 {
        assert_eq!(d.docker(&format!("run --rm round{round} cat /b")).ok(), round.to_string());
    }
}

#[test]
fn an_image_is_as_old_as_its_build() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, &[("Dockerfile", "FROM busybox\nCOPY old /\nLABEL a=b\n"), ("old", "x")]);
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 24 * 3600);
    for name in ["Dockerfile", "old"] {
        std::fs::File::open(format!("{dir}/{name}")).unwrap().set_modified(past).unwrap();
    }
    d.docker(&format!("build -t new {dir}")).ok();
    d.docker("image prune -af --filter until=24h").ok();
    assert_eq!(d.docker("run --rm new cat /old").ok(), "x");
}

#[test]
fn parameters_of_dockers_clients_are_taken() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, &[("Dockerfile", "FROM busybox\nEXPOSE 80:90\nRUN cat /proc/self/cgroup > /group\n")]);
    let parent = format!("wharf-test-{}-parent", std::process::id());
    d.docker(&format!("build -t p --rm --force-rm --cache-from a,b --cgroup-parent /{parent} {dir}")).ok();
    assert_eq!(d.docker("inspect -f {{.Config.ExposedPorts}} p").ok(), "map[90/tcp:{}]");
    // Inside, a step sees its own group as the root of all; the parent stays, as it may be somebody's.
    assert!(d.docker("run --rm p cat /group").ok().lines().all(|line| line.ends_with(":/")));
    let groups = std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &parent]).output().unwrap();
    let groups = String::from_utf8_lossy(&groups.stdout).into_owned();
    assert!(!groups.is_empty(), "the step was in a group below another one");
    for group in groups.lines() {
        std::fs::remove_dir(group).unwrap();
    }
}

#[test]
fn archives_of_bzip2_are_unpacked() {
    if std::process::Command::new("bzip2").arg("--help").output().is_err() {
        return eprintln!("skipped: there is no bzip2 on this machine");
    }
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, &[("Dockerfile", "FROM busybox\nADD a.tar.bz2 /there/\n"), ("file", "packed\n")]);
    let tar = std::process::Command::new("tar").args(["-cjf", "a.tar.bz2", "file"]).current_dir(&dir).status();
    assert!(tar.unwrap().success());
    d.docker(&format!("build -t packed {dir}")).ok();
    assert_eq!(d.docker("run --rm packed cat /there/file").ok(), "packed");
    let import = d
        .client()
        .args(["import", "-", "imported"])
        .stdin(std::fs::File::open(format!("{dir}/a.tar.bz2")).unwrap())
        .output();
    crate::kit::Said::from(import.unwrap()).ok();
}

/// A server that has one file for everybody.
fn serve(content: &'static str) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT";
            let _ = write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{content}", content.len());
        }
    });
    address
}

#[test]
fn files_of_the_web_are_added() {
    let Some(d) = Daemon::start() else { return };
    let address = serve("from afar\n");
    let text = format!("FROM busybox\nADD http://{address}/dir/name.txt /there/\n");
    let dir = context(&d, &[("Dockerfile", &text)]);
    d.docker(&format!("build -t web {dir}")).ok();
    let script = "cat /there/name.txt; stat -c %a:%Y /there/name.txt";
    let said = d.client().args(["run", "--rm", "web", "sh", "-c", script]).output().unwrap();
    assert_eq!(crate::kit::Said::from(said).ok(), "from afar\n600:1445412480");
    let dir = context(&d, &[("Dockerfile", "FROM busybox\nADD http://127.0.0.1:1/x /\n")]);
    let said = d.docker(&format!("build {dir}"));
    assert!(
        said.code == 1 && said.err.contains("ADD failed") && said.err.contains("connection refused"),
        "{}",
        said.err
    );
}
