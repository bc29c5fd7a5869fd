//! What Docker's own tests and users' habits expect, where it was found to be otherwise here.

use std::os::unix::fs::FileTypeExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kit::{Daemon, Said, WHARF};

/// Our own command line for a daemon.
fn wharf(d: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(words);
    command.env("DOCKER_CONFIG", d.path().join("config")).stdin(Stdio::null());
    command
}

#[test]
fn a_device_is_not_replaced_by_what_is_copied() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name ctr busybox sleep 600").ok();
    let (device, file) = (d.path().join("null"), d.path().join("file"));
    assert!(Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap().success());
    let said = d.wharf(&format!("cp ctr:/bin/busybox {}", device.display()));
    assert!(said.code == 1 && said.err.contains("got a device"), "{}", said.err);
    assert!(std::fs::metadata(&device).unwrap().file_type().is_char_device());
    std::fs::write(&file, "own").unwrap();
    let said = d.wharf(&format!("cp ctr:/bin/busybox {}/", file.display()));
    assert!(said.code == 1 && said.err.contains("not a directory"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "own");
    let said = d.wharf(&format!("cp {} ctr:/dev/null", file.display()));
    assert!(said.code == 1 && said.err.contains("got a device"), "{}", said.err);
    d.docker("exec ctr test -c /dev/null").ok();
}

#[test]
fn who_gives_only_input_has_the_containers_exit_code() {
    let Some(d) = Daemon::start() else { return };
    let mut command = wharf(&d, &["run", "-a", "stdin", "--rm", "busybox", "sh", "-c", "exit 7"]);
    let began = Instant::now();
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // The input stays open.
    let input = child.stdin.take();
    while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.try_wait().unwrap().and_then(|status| status.code()), Some(7));
    drop(input);
}

#[test]
fn volumes_that_nobody_has_named_go_with_the_last_of_several_containers() {
    let Some(d) = Daemon::start() else { return };
    for round in 0..5 {
        d.docker("run --name one -v /data busybox true").ok();
        d.docker("run --name two --volumes-from one:rw,z busybox true").ok();
        d.docker("run --name three --volumes-from one:ro busybox true").ok();
        assert_eq!(d.docker("volume ls -q --filter label=com.docker.volume.anonymous").ok().lines().count(), 1);
        d.docker("rm -v one two three").ok();
        assert_eq!(d.docker("volume ls -q").ok(), "", "round {round}");
    }
}

#[test]
fn what_a_link_leads_to_has_to_run() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name db busybox sleep 600").ok();
    d.docker("create --name web --link db busybox true").ok();
    d.docker("rm -f db").ok();
    assert_eq!(d.docker("inspect -f {{.HostConfig.Links}} web").ok(), "[/db:/web/db]");
    let words = "Cannot link to a non running container: /db AS /web/db";
    let said = d.docker("start web");
    assert!(said.code == 1 && said.err.contains(words), "{}", said.err);
    let said = d.docker("restart web");
    assert!(said.err.contains(&format!("Cannot restart container web: {words}")), "{}", said.err);
}

#[test]
fn events_say_how_long_it_ran_and_what_was_made() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run --name ctr busybox sleep 1.2").ok();
    d.docker("commit ctr made").ok();
    // Clients ask by whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let said = d.docker("events --since 1 --until 0s --filter event=die").ok();
    assert!(said.contains("execDuration=1"), "{said}");
    let images = d.docker("events --since 1 --until 0s --filter type=image").ok();
    let id = d.docker("inspect -f {{.Id}} made").ok();
    assert!(images.contains(&format!("image create {id}")), "{images}");
    // Nothing was written: no layer. Older clients are shown what it was made of.
    assert_eq!(d.get("/images/made/json")["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    let old = d.get("/v1.44/images/made/json");
    assert_eq!(old["ContainerConfig"]["Image"], "busybox", "{old:#}");
    assert_eq!(old["Container"], d.docker("inspect -f {{.Id}} ctr").ok().as_str());
}

#[test]
fn health_is_nobodys_while_nobody_asks() {
    let Some(d) = Daemon::start() else { return };
    let health = || d.docker("inspect -f {{.State.Health.Status}} ctr").ok();
    d.client()
        .args([
            "run",
            "-d",
            "--name",
            "ctr",
            "--health-cmd",
            "true",
            "--health-interval",
            "300ms",
            "busybox",
            "sleep",
            "600",
        ])
        .output()
        .unwrap();
    d.eventually("it is well", || health() == "healthy");
    d.docker("pause ctr").ok();
    assert_eq!(health(), "unhealthy");
    d.docker("unpause ctr").ok();
    d.eventually("it is well again", || health() == "healthy");
    d.docker("stop -t 0 ctr").ok();
    assert_eq!(health(), "unhealthy");
}

#[test]
fn names_addresses_and_words() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create net").ok();
    d.docker("run -d --name one --network net --network-alias al busybox sleep 600").ok();
    d.docker("rename one two").ok();
    let two = d.get("/containers/two/json");
    let names = two["NetworkSettings"]["Networks"]["net"]["DNSNames"].clone();
    assert_eq!((&names[0], &names[1]), (&json!("two"), &json!("al")), "{names}");
    // A subnet of a family that the network does not have: its addresses are of no use, and no error.
    d.docker("network create --subnet 2001:db8:389::/64 six").ok();
    d.docker("run --rm --network six --ip6 2001:db8:389::f00d busybox true").ok();
    let said = d.docker("network connect --alias x host two");
    assert!(said.err.contains("network-scoped alias is supported only"), "{}", said.err);
    let bad = |method: &str, path: &str| {
        let curl = Command::new("curl")
            .args(["-s", "-X", method, "--unix-socket"])
            .arg(d.socket())
            .arg(format!("http://localhost{path}"))
            .output()
            .unwrap();
        let said: Value = serde_json::from_str(&Said::from(curl).ok()).unwrap();
        said["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(bad("DELETE", "/v1.51/containers/"), "invalid name or ID supplied: \"\"");
    assert_eq!(bad("POST", "/v1.51/containers/two/exec"), "No exec command specified");
    assert!(bad("POST", "/v1.51/session").starts_with("no upgrade"));
    assert_eq!(bad("POST", "/v1.51/build?securityopt=x"), "security options are not supported on linux");
    assert_eq!(bad("POST", "/v1.51/build?isolation=x"), "unsupported isolation: \"x\"");
    assert_eq!(bad("POST", "/v1.51/build?memory=1"), "Minimum memory limit allowed is 6MB");
    let words = bad("POST", "/v1.51/build?labels=x");
    assert_eq!(words, "error reading labels: invalid character 'x' looking for beginning of value");
}

#[test]
fn the_command_line_keeps_to_what_is_there() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name ctr busybox sleep 600").ok();
    let said = |variables: &[(&str, &str)], words: &[&str]| {
        let mut command = wharf(&d, words);
        Said::from(command.envs(variables.iter().copied()).output().unwrap())
    };
    // A heading that cannot be made is no reason to list nothing.
    let table = said(&[], &["ps", "--format", "table {{range split .Ports \",\"}}{{.}}{{end}}\t{{.Names}}"]);
    assert!(table.code == 0 && table.out.contains("ctr"), "{} {}", table.out, table.err);
    let info = said(&[], &["info", "-f", "{{.NCPU}} {{.ClientInfo.Context}}"]).ok();
    assert!(!info.starts_with('0') && info.ends_with(" default"), "{info}");
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        let created = said(&[("TZ", "Asia/Tokyo")], &["ps", "--format", "{{.CreatedAt}}"]).ok();
        assert!(created.ends_with("+0900 JST"), "{created}");
    }
    // A helper that is not installed, and a registry that nobody answers for: the latter is the error.
    let config = d.path().join("config-of-a-desktop");
    std::fs::create_dir(&config).unwrap();
    std::fs::write(config.join("config.json"), r#"{"credsStore":"not-installed"}"#).unwrap();
    let pulled = said(&[("DOCKER_CONFIG", config.to_str().unwrap())], &["pull", "localhost:1/x"]);
    assert!(pulled.code == 1 && pulled.err.contains("connection refused"), "{}", pulled.err);
    let refused = said(&[], &["create", "-l", "a b=c", "busybox"]);
    assert!(refused.code == 125 && refused.err.contains("label 'a b' contains whitespaces"), "{}", refused.err);
    let refused = said(&[], &["create", "--cpu-count", "2", "busybox"]);
    assert!(refused.code == 1 && refused.err.contains("only supported on a Docker daemon running on windows"));
}

#[test]
fn who_attaches_with_the_log_has_each_line_once() {
    let Some(d) = Daemon::start() else { return };
    let script = "i=0; while true; do echo $i; i=$((i+1)); done";
    d.client().args(["run", "-d", "--name", "ctr", "busybox", "sh", "-c", script]).output().unwrap();
    for _ in 0..4 {
        let said = Command::new("curl")
            .args(["-s", "-m", "1", "-X", "POST", "--unix-socket"])
            .arg(d.socket())
            .arg("http://localhost/v1.51/containers/ctr/attach?logs=1&stream=1&stdout=1")
            .output()
            .unwrap();
        let mut rest = said.stdout.as_slice();
        let mut text = Vec::new();
        while let [_, _, _, _, a, b, c, e, tail @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *e]) as usize;
            text.extend_from_slice(&tail[..length.min(tail.len())]);
            rest = &tail[length.min(tail.len())..];
        }
        let text = String::from_utf8(text).unwrap();
        // The last one may be cut off.
        let whole = &text[..text.rfind('\n').unwrap_or(0)];
        let lines: Vec<u32> = whole.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "some lines came twice");
    }
}

#[test]
fn a_killed_daemon_leaves_no_volume_of_a_container_that_is_none() {
    let Some(mut d) = Daemon::start() else { return };
    for round in 0..6 {
        let socket = d.socket();
        let storm: Vec<_> = (0..4)
            .map(|number| {
                let socket = socket.clone();
                std::thread::spawn(move || {
                    for count in 0..200 {
                        let name = format!("c{round}-{number}-{count}");
                        let curl = |method: &str, path: String, body: &str| {
                            let done = Command::new("curl")
                                .args(["-s", "-o", "/dev/null", "-X", method, "-H", "Content-Type: application/json"])
                                .args(["-d", body, "--unix-socket"])
                                .arg(&socket)
                                .arg(format!("http://localhost/v1.51/containers/{path}"))
                                .status();
                            done.is_ok_and(|status| status.success())
                        };
                        let body = r#"{"Image":"busybox","Volumes":{"/anon":{}},"HostConfig":{"AutoRemove":true}}"#;
                        if !curl("POST", format!("create?name={name}"), body)
                            || !curl("DELETE", format!("{name}?v=1&force=1"), "")
                        {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300 + 70 * round));
        d.kill();
        storm.into_iter().for_each(|one| one.join().unwrap());
        d.launch();
    }
    let containers = d.docker("ps -aq").ok();
    if !containers.is_empty() {
        d.docker(&format!("rm -fv {}", containers.replace('\n', " "))).ok();
    }
    assert_eq!(d.docker("volume ls -q").ok(), "");
    // Killed between its row and the end of the note, and once more while it goes without its volumes.
    let id = d.docker("create --name whole -v /data busybox true").ok();
    let volume = d.docker("volume ls -q").ok();
    let dir = d.data().join("containers").join(&id);
    std::fs::write(dir.join("new-volumes"), format!("{volume}\n")).unwrap();
    d.kill();
    d.launch();
    assert_eq!(d.docker("volume ls -q").ok(), volume);
    d.docker("rm whole").ok();
    d.kill();
    d.launch();
    assert_eq!(d.docker("volume ls -q").ok(), volume);
    d.docker(&format!("volume rm {volume}")).ok();
    assert_eq!(d.wharf("system fsck").code, 0);
}

#[test]
fn what_is_ended_for_its_health_is_asked_as_it_wants_to_be() {
    let Some(mut d) = Daemon::start() else { return };
    let script = "trap 'echo INT; exit 5' INT; trap 'echo TERM' TERM; touch /up; while :; do sleep 0.1; done";
    let health = "--health-interval 200ms --health-retries 1 --health-start-period 0s";
    let mut begun = wharf(&d, &["run", "-d", "--name", "ill", "--stop-signal", "INT", "--health-on-failure", "stop"]);
    begun.args(health.split(' ')).args(["--health-cmd", "test ! -e /up", "busybox", "sh", "-c", script]);
    Said::from(begun.output().unwrap()).ok();
    assert_eq!(d.docker("wait ill").ok(), "5");
    assert_eq!(d.docker("logs ill").ok(), "INT");
    let why = d.wharf("why ill").ok();
    assert!(why.contains("--health-on-failure stop"), "{why}");
    // What probes find while no daemon is there is told by the next one.
    let mut begun = d.client();
    begun.args(["run", "-d", "--name", "well"]).args(health.split(' '));
    begun.args(["--health-cmd", "test -e /ok", "busybox", "sh", "-c", "sleep 1.5; touch /ok; sleep 1000"]);
    Said::from(begun.output().unwrap()).ok();
    let status = |d: &Daemon| d.docker("inspect -f {{.State.Health.Status}} well").ok();
    d.eventually("it is unhealthy", || status(&d) == "unhealthy");
    d.kill();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    d.launch();
    assert_eq!(status(&d), "healthy");
    let mut asked = d.client();
    asked.args(["events", "--since", "0", "--until", "0s", "--filter", "container=well", "--format", "{{.Action}}"]);
    // The client asks for whole seconds.
    d.eventually("both changes are told", || {
        let told = Said::from(asked.output().unwrap()).ok();
        let told: Vec<_> = told.lines().filter(|line| line.starts_with("health_status")).collect();
        told == ["health_status: unhealthy", "health_status: healthy"]
    });
    d.docker("rm -f ill well").ok();
}

#[test]
fn the_host_is_at_one_address_whatever_a_container_s_network_is() {
    let Some(d) = Daemon::start() else { return };
    let bridge = d.get("/networks/bridge")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    let line = format!("{bridge}\thost.docker.internal");
    d.docker("network create --internal inner").ok();
    d.docker("network create own").ok();
    for network in ["bridge", "host", "none", "inner", "own"] {
        let words =
            format!("run --rm --network {network} --add-host host.docker.internal:host-gateway busybox cat /etc/hosts");
        let hosts = d.docker(&words).ok();
        assert!(hosts.lines().any(|own| own == line), "{network}: {hosts}");
    }
    d.docker("network rm inner own").ok();
}

#[test]
fn labels_of_images_are_in_their_events_and_memory_is_nobody_else_s() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run --label who=me --name one --tmpfs /mem:size=1m -v /data busybox true").ok();
    d.docker("commit one made").ok();
    d.docker(&format!("save -o {} made", d.path().join("made.tar").display())).ok();
    d.docker("rmi made").ok();
    d.eventually("all are told with the label", || {
        let mut asked = d.client();
        asked.args(["events", "--since", "0", "--until", "0s", "--filter", "type=image", "--filter", "label=who=me"]);
        let told = Said::from(asked.args(["--format", "{{.Action}}"]).output().unwrap()).ok();
        ["create", "tag", "save", "untag"].iter().all(|action| told.lines().any(|line| line == *action))
    });
    d.docker("run --name two --volumes-from one:ro busybox sh -c true").ok();
    let shown = d.docker("inspect -f {{range.Mounts}}{{.Type}}-{{.Destination}}-{{.Mode}}-{{.RW}}{{end}} two").ok();
    assert_eq!(shown, "volume-/data--false");
    d.docker("rm -v one two").ok();
}

#[test]
fn processes_of_anybody_are_shown() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name of-1000 --user 1000 busybox sleep 1000").ok();
    for options in ["", " -o pid,args", " aux"] {
        let shown = d.docker(&format!("top of-1000{options}"));
        assert!(shown.code == 0 && shown.out.contains("sleep 1000"), "{options}: {}{}", shown.out, shown.err);
    }
}
