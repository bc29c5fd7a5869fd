//! What the tests of other clients ask for: docker-py's, moby's, Compose.

use crate::kit::{Daemon, Said};

#[test]
fn an_exec_s_answer_is_framed_as_its_start_says() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name box busybox sleep 100").ok();
    let run = |terminal: bool, plain: bool| {
        let body = format!(r#"{{"Cmd":["echo","hi"],"AttachStdout":true,"Tty":{terminal}}}"#);
        let (_, made) = d.post("/containers/box/exec", &body, true).unwrap();
        let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned();
        d.post(&format!("/exec/{id}/start"), &format!(r#"{{"Tty":{plain}}}"#), true).unwrap().1
    };
    for (terminal, plain, wanted) in [
        (false, false, "\u{1}\0\0\0\0\0\0\u{3}hi\n"),
        (true, false, "\u{1}\0\0\0\0\0\0\u{4}hi\r\n"),
        (false, true, "hi\n"),
    ] {
        let said = run(terminal, plain);
        // Its end is that of a chunked body.
        assert!(said.contains(wanted), "{terminal} {plain}: {said:?}");
        assert_eq!(said.contains('\u{1}'), !plain, "{said:?}");
    }
    // What was to run in a container that has ended is not there any more.
    let (_, made) = d.post("/containers/box/exec", r#"{"Cmd":["true"]}"#, true).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned();
    d.docker("restart -t 0 box").ok();
    assert_eq!(d.post(&format!("/exec/{id}/start"), r#"{"Detach":true}"#, true).unwrap().0, 404);
}

#[test]
fn a_restart_is_no_end() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --rm --name brief busybox sleep 100").ok();
    d.docker("restart -t 0 brief").ok();
    assert_eq!(d.docker("inspect -f {{.State.Running}} brief").ok(), "true");
    d.docker("kill brief").ok();
    d.eventually("it has gone", || d.docker("inspect brief").code != 0);
    // But for those who wait for a container's end it is one.
    d.docker("run -d --name again --restart always busybox sleep 1").ok();
    assert_eq!(d.docker("wait again").ok(), "0");
    d.docker("rm -f again").ok();
}

#[test]
fn links_are_names() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name first busybox sleep 100").ok();
    d.docker("run -d --name second --link first:/db busybox sleep 100").ok();
    let id = d.docker("inspect -f {{.Id}} first").ok();
    d.docker("rename second third").ok();
    assert_eq!(d.docker("inspect -f {{.Id}} third/db").ok(), id);
    assert!(d.docker("ps --no-trunc --filter name=first").ok().contains("first,third/db"));
    // On a network of the user's a link is a name that is looked up, also of one who comes later.
    d.docker("network create net").ok();
    d.docker("run -d --name asks --network net busybox sleep 100").ok();
    d.docker("network disconnect net asks").ok();
    d.docker("network connect --link later:alias net asks").ok();
    d.docker("run -d --name later --network net busybox sleep 100").ok();
    d.docker("exec asks nslookup alias").ok();
    let shown = d.get("/containers/asks/json");
    assert_eq!(shown["NetworkSettings"]["Networks"]["net"]["DNSNames"][0], "asks");
}

#[test]
fn ports_are_published_where_they_can_be_reached() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create --internal inner").ok();
    d.docker("network create outer").ok();
    d.docker("create --name web --network inner -p 127.0.0.1::80 busybox sleep 100").ok();
    d.docker("network connect outer web").ok();
    d.docker("start web").ok();
    assert!(d.docker("port web 80").ok().starts_with("127.0.0.1:"));
    d.docker("run -d --name late --network inner -p 127.0.0.1::80 busybox sleep 100").ok();
    assert_ne!(d.docker("port late 80").code, 0);
    d.docker("network connect outer late").ok();
    let place = d.docker("port late 80").ok();
    let port = place.rsplit_once(':').unwrap().1;
    assert_eq!(d.docker(&format!("ps -q --filter publish={port}")).ok().lines().count(), 1);
    assert_eq!(d.docker("ps -q --filter publish=80").ok(), "");
}

#[test]
fn limits_can_be_taken_away() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name box --pids-limit 32 --cpu-quota 20000 busybox sleep 100").ok();
    d.docker("update --pids-limit -1 --cpu-quota -1 box").ok();
    assert_eq!(d.docker("inspect -f {{.HostConfig.PidsLimit}} box").ok(), "0");
    let script = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || \
                  cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    let mut shown = d.client();
    let shown = shown.args(["exec", "box", "sh", "-c", script]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let quotas: Vec<&str> = shown.split_whitespace().collect();
    assert!(quotas.starts_with(&["max", "-1"]) || quotas.starts_with(&["max", "max"]), "{shown}");
}

#[test]
fn a_volume_without_a_name_goes_with_its_last_user() {
    let Some(d) = Daemon::start() else { return };
    d.docker("volume create named").ok();
    d.docker("create --name parent -v named:/foo -v /bar busybox true").ok();
    d.docker("create --name child --volumes-from parent busybox true").ok();
    d.docker("rm -v parent").ok();
    assert_eq!(d.docker("volume ls -q").ok().lines().count(), 2);
    d.docker("rm -v child").ok();
    assert_eq!(d.docker("volume ls -q").ok(), "named");
}

#[test]
fn a_build_knows_its_network_and_tells_its_streams_apart() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create net").ok();
    d.docker("run -d --name target --network net busybox sleep 100").ok();
    let dir = d.path().join("context");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN nslookup target >/dev/null && echo told >&2\n").unwrap();
    let build = |options: &str| d.docker(&format!("build --network net {options} {}", dir.display())).ok();
    let said = build("-t made");
    assert!(said.contains("\u{1b}[91mtold\n\u{1b}[0m"), "{said:?}");
    assert!(build("--cache-from made").contains("Using cache"));
    assert!(!build("--cache-from nosuch").contains("Using cache"));
}

#[test]
fn what_contradicts_itself_is_said_in_docker_s_words() {
    let Some(d) = Daemon::start() else { return };
    let (status, said) = d.post("/containers/create", "{invalid json", true).unwrap();
    let words = "invalid JSON: invalid character 'i' looking for beginning of object key string";
    assert!(status == 400 && said.contains(words), "{said}");
    assert!(d.post("/volumes/create", "{} x", true).unwrap().1.contains("unexpected content after JSON"));
    d.docker("run -d --name box busybox sleep 100").ok();
    let root = d.data();
    let root = root.display();
    for (options, words) in [
        ("--network container:box --expose 80", "port exposing and the container type network mode"),
        ("--name self --network container:self", "cannot join own network"),
        ("-m 100m --memory-reservation 1k", "Minimum memory reservation allowed is 6MB"),
        ("-u 2147483648", "uids and gids must be in range 0-2147483647"),
        (&format!("-v {root}:/x:rprivate"), "must use either propagation mode"),
        ("--mount type=bind,dst=/x", "Source must not be empty"),
    ] {
        let said = d.docker(&format!("run --rm {options} busybox true"));
        assert!(said.code != 0 && said.err.contains(words), "{options}: {}", said.err);
    }
    let host = d.docker("network connect host box");
    assert!(host.err.contains("container must be created in host network mode"), "{}", host.err);
    assert_eq!(d.docker("run --rm --network container:box busybox hostname").ok(), d.docker("exec box hostname").ok());
    assert!(d.get("/networks/").is_array());
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert_eq!(d.docker("run --rm --network host busybox cat /etc/hosts").ok(), hosts.trim_end());
}

/// The names of a network that two containers share, and what is written of them, are the same for both.
#[test]
fn who_has_another_s_network_has_its_files_of_etc() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create own").ok();
    d.docker("run -d --name peer --network own busybox sleep 1000").ok();
    d.docker("run -d --name first --network own --add-host q:192.0.2.9 busybox sleep 1000").ok();
    d.docker("run -d --name second --network container:first busybox sleep 1000").ok();
    // Of one that has it from another in turn, too.
    d.docker("create --name third --network container:second busybox ping -c 1 -W 5 peer").ok();
    d.docker("start -a third").ok();
    let paths = "inspect --format {{.HostsPath}},{{.ResolvConfPath}},{{.HostnamePath}} ";
    for name in ["second", "third"] {
        assert_eq!(d.docker(&format!("{paths}{name}")).ok(), d.docker(&format!("{paths}first")).ok());
    }
    let files = "cat /etc/hosts /etc/resolv.conf /etc/hostname";
    let shown = d.docker(&format!("exec second {files}")).ok();
    assert_eq!(shown, d.docker(&format!("exec first {files}")).ok());
    assert!(shown.contains("192.0.2.9\tq") && shown.contains("nameserver 127.0.0.11"), "{shown}");
    let script = "echo 192.0.2.8 r >>/etc/hosts";
    Said::from(d.client().args(["exec", "second", "sh", "-c", script]).output().unwrap()).ok();
    assert!(d.docker("exec first cat /etc/hosts").ok().contains("192.0.2.8 r"));
    // What has ended shows the same to whoever copies from it, and what begins anew has what is written then.
    d.docker("restart -t 0 first").ok();
    let copied = d.docker("cp third:/etc/hosts -").ok();
    assert!(copied.contains("192.0.2.9\tq") && !copied.contains("192.0.2.8 r"), "{copied}");
    d.docker("restart -t 0 second").ok();
    assert_eq!(d.docker("exec second cat /etc/hosts").ok(), d.docker("exec first cat /etc/hosts").ok());
    // One whose giver is gone cannot start, and can be looked at and removed.
    d.docker("rm -f first").ok();
    assert_ne!(d.docker("start third").code, 0);
    d.docker("cp third:/etc/passwd -").ok();
    d.docker("rm third").ok();
}

#[test]
fn what_moby_s_command_line_tests_ask_for() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name box busybox sleep 100").ok();
    // An exec that was refused because the container was paused runs when it is not any more.
    let (_, made) = d.post("/containers/box/exec", r#"{"Cmd":["true"]}"#, true).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned();
    d.docker("pause box").ok();
    for body in [r#"{"Detach":true}"#, "{}"] {
        let (status, said) = d.post(&format!("/exec/{id}/start"), body, true).unwrap();
        assert!(status == 409 && said.contains("is paused, unpause the container before exec"), "{status} {said}");
    }
    d.docker("unpause box").ok();
    assert_eq!(d.post(&format!("/exec/{id}/start"), r#"{"Detach":true}"#, true).unwrap().0, 200);
    // One that cannot get its devices goes when it was to go.
    let said = d.docker("run --rm --name gone --gpus all busybox true");
    assert!(said.code == 125 && said.err.contains("could not select device driver"), "{}", said.err);
    assert_eq!(d.docker("ps -aq --filter name=gone").ok(), "");
    // Whose namespaces are shared is known by its ID: names change.
    let id = d.docker("inspect box --format {{.Id}}").ok();
    d.docker("create --name shares --network container:box --ipc container:box --pid container:box busybox true").ok();
    let modes = d.docker("inspect shares --format {{.HostConfig.NetworkMode}},{{.HostConfig.PidMode}}").ok();
    assert_eq!(modes, format!("container:{id},container:{id}"));
    // A list is no object, also further in.
    for body in
        [r#"{"Image":"busybox","HostConfig":[]}"#, r#"{"Image":"busybox","HostConfig":{"RestartPolicy":["no",1]}}"#]
    {
        let (status, said) = d.post("/containers/create", body, true).unwrap();
        assert!(
            status == 400 && said.contains("cannot unmarshal array into Go struct field .HostConfig"),
            "{status} {said}"
        );
    }
    // A size is told of a container without a terminal, too.
    assert_eq!(d.post("/containers/box/resize?h=80&w=24", "", true).unwrap().0, 200);
    d.eventually("the event", || {
        let told = d.docker("events --since 1h --until 0s --filter event=resize --format {{.Actor.Attributes.height}}");
        told.ok() == "80"
    });
    for options in ["-p 5000:5000", "-P"] {
        let said = d.docker(&format!("run --rm --network container:box {options} busybox true")).err;
        assert!(said.contains("port publishing and the container type network mode"), "{said}");
    }
    // A build's command in another container's network.
    let build = |options: &str, text: &str| {
        let dir = tempfile::tempdir_in(d.path()).unwrap();
        std::fs::write(dir.path().join("Dockerfile"), text).unwrap();
        d.docker(&format!("build {options} {}", dir.path().display()))
    };
    let own = d.docker("exec box readlink /proc/self/ns/net").ok();
    let said = build("--network container:box", "FROM busybox\nRUN readlink /proc/self/ns/net\n").ok();
    assert!(said.contains(&own), "{said}");
    let said = build("--network container:nobody", "FROM busybox\nRUN true\n").err;
    assert!(said.contains("No such container: nobody"), "{said}");
    let said = build("", "FROM busybox\nENV foo=\"\"\nVOLUME $foo\n").err;
    assert!(said.contains("VOLUME specified can not be an empty string"), "{said}");
    // What older readers than `manifest.json` look for.
    d.docker("tag busybox some.example/name:tag").ok();
    let archive = d.path().join("saved.tar");
    d.docker(&format!("save -o {} busybox some.example/name:tag", archive.display())).ok();
    let top = d.docker("inspect -f {{range.RootFS.Layers}}{{.}}{{end}} busybox").ok();
    let top = top.strip_prefix("sha256:").unwrap();
    let read = std::process::Command::new("tar").arg("-xOf").arg(&archive).arg("repositories").output().unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&read.stdout).unwrap(),
        serde_json::json!({"busybox": {"latest": top}, "some.example/name": {"tag": top}})
    );
}

#[test]
fn the_default_context_is_where_the_flag_leads() {
    let Some(d) = Daemon::start() else { return };
    let host = format!("unix://{}", d.socket().display());
    for list in [
        d.wharf("context ls --format {{.Name}}={{.DockerEndpoint}}"),
        d.docker("context ls --format {{.Name}}={{.DockerEndpoint}}"),
    ] {
        assert!(list.ok().lines().any(|line| line == format!("default={host}")));
    }
    assert_eq!(d.wharf("context inspect -f {{.Endpoints.docker.Host}} default").ok(), host);
}
