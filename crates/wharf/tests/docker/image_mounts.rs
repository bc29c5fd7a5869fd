//! Images, and parts of volumes, among a container's mounts.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::kit::Daemon;

/// An image without a program: `/tools/hello`, `/data/deep/file`, links, and a file of another owner.
fn tools(d: &Daemon) {
    let root = d.path().join("tools-root");
    for dir in ["tools", "data/deep"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::write(root.join("tools/hello"), "of the image").unwrap();
    std::fs::write(root.join("data/deep/file"), "deep").unwrap();
    std::os::unix::fs::chown(root.join("data/deep/file"), Some(33), Some(33)).unwrap();
    for (link, target) in [("current", "data/deep"), ("top", "/"), ("out", "../../etc")] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    let tar = d.path().join("tools.tar");
    assert!(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").status().unwrap().success());
    d.docker(&format!("import {} tools:1", tar.display())).ok();
}

#[test]
fn an_image_is_mounted_read_only() {
    let Some(d) = Daemon::start() else { return };
    tools(&d);
    let run = |options: &str, script: &str| {
        let mut words: Vec<&str> = vec!["run", "--rm"];
        words.extend(options.split_whitespace());
        words.extend(["busybox", "sh", "-c", script]);
        let mut command = Command::new(crate::kit::WHARF);
        command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(words);
        crate::kit::Said::from(command.output().unwrap())
    };
    let try_it = "cat /x/tools/hello; echo x 2>/dev/null >/x/new || echo refused; stat -c %u /x/data/deep/file";
    assert_eq!(run("--mount type=image,src=tools:1,dst=/x", try_it).ok(), "of the imagerefused\n33");
    let own_ids = "--userns auto --mount type=image,src=tools:1,dst=/x,ro";
    assert_eq!(run(own_ids, try_it).ok(), "of the imagerefused\n33");
    // The same image twice, a part, a link, a single file, and two layers.
    let twice = "--mount type=image,src=tools:1,dst=/a --mount type=image,source=tools:1,target=/b,image-subpath=data";
    assert_eq!(run(twice, "ls /a; cat /b/deep/file; ls /").ok().lines().filter(|line| *line == "data").count(), 1);
    let link = "--mount type=image,src=tools:1,dst=/x,image-subpath=current";
    assert_eq!(run(link, "cat /x/file").ok(), "deep");
    let file = "--mount type=image,src=tools:1,dst=/etc/one,image-subpath=tools/hello";
    assert_eq!(run(file, "cat /etc/one").ok(), "of the image");
    d.docker("run --name more busybox sh -c 'true'");
    std::fs::create_dir(d.path().join("more")).unwrap();
    std::fs::write(d.path().join("more/Dockerfile"), "FROM tools:1\nCOPY Dockerfile /tools/second\n").unwrap();
    d.docker(&format!("build -t more {}", d.path().join("more").display())).ok();
    d.docker("rm more").ok();
    let both = "--mount type=image,src=more,dst=/x,image-subpath=tools";
    assert_eq!(run(both, "ls /x").ok(), "hello\nsecond");

    for (options, code, text) in [
        ("type=image,src=nosuch,dst=/x", 125, "No such image: nosuch"),
        ("type=image,dst=/x", 125, "invalid mount config for type \"image\": field Source must not be empty"),
        ("type=image,src=tools:1,dst=/x,image-subpath=/etc", 125, "subpath must be a relative path within the volume"),
        ("type=image,src=tools:1,dst=/x,image-subpath=../etc", 125, "subpath must be a relative path"),
        ("type=image,src=tools:1,dst=/x,image-subpath=none/here", 127, "cannot access path"),
        ("type=image,src=tools:1,dst=/x,image-subpath=none/here", 127, "no such file or directory"),
        ("type=image,src=tools:1,dst=/x,image-subpath=top", 125, "path concatenation escapes the base directory"),
        ("type=image,src=tools:1,dst=/x,image-subpath=out", 125, "path concatenation escapes the base directory"),
        ("type=image,src=tools:1,dst=/proc/x", 125, "inside /proc"),
        ("type=bind,src=/,dst=/x,image-subpath=a", 125, "cannot mix 'image-*' options with mount type 'bind'"),
    ] {
        let said = run(&format!("--mount {options}"), "true");
        assert!(said.code == code && said.err.contains(text), "{options}: {} {}", said.code, said.err);
    }
    // A client from before there were such mounts.
    let body = r#"{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"image","Source":"tools:1","Target":"/x"}]}}"#;
    let (status, text) = d.post("/v1.47/containers/create", body, true).unwrap();
    assert!(status == 400 && text.contains("needs API v1.48 or newer"), "{status} {text}");
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","ImageOptions":{}}]}}"#;
    let (status, text) = d.post("/v1.51/containers/create", body, true).unwrap();
    assert!(status == 400 && text.contains("must not be specified on mount type"), "{status} {text}");
}

#[test]
fn a_mounted_image_stays_and_outlives_the_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    tools(&d);
    let id = d.docker("images -q --no-trunc tools:1").ok();
    let script = "cat /x/tools/hello >/said; exec sleep 100";
    let mut run = Command::new(crate::kit::WHARF);
    run.arg("-H").arg(format!("unix://{}", d.socket().display()));
    run.args(["run", "-d", "--name", "user", "--restart", "always", "--mount", "type=image,src=tools:1,dst=/x"]);
    crate::kit::Said::from(run.args(["busybox", "sh", "-c", script]).output().unwrap()).ok();
    let shown: serde_json::Value = d.get("/v1.51/containers/user/json");
    let mount = &shown["Mounts"][0];
    for (key, value) in
        [("Type", "image"), ("Name", "tools:1"), ("Source", id.as_str()), ("Destination", "/x"), ("Mode", "")]
    {
        assert_eq!(mount[key], value, "{mount}");
    }
    assert_eq!((&mount["RW"], mount.as_object().unwrap().len()), (&serde_json::json!(false), 7), "{mount}");
    assert_eq!(shown["HostConfig"]["Mounts"][0]["Source"], "tools:1");

    for (words, text) in [
        ("rmi tools:1", "(must force) - container "),
        (&format!("rmi {id}"), "(cannot be forced) - image is being used by running container "),
        (&format!("rmi -f {id}"), "(cannot be forced) - image is being used by running container "),
    ] {
        let said = d.docker(words);
        assert!(said.code == 1 && said.err.contains(text), "{words}: {}", said.err);
    }
    assert!(!d.docker("image prune -af").ok().contains("tools"));
    d.kill();
    d.launch();
    assert_eq!(d.docker("exec user cat /x/data/deep/file").ok(), "deep");
    // Its monitor starts it again, with no daemon there.
    let pid = d.docker("inspect -f {{.State.Pid}} user").ok();
    d.kill();
    let process = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    d.launch();
    d.eventually("it runs again", || d.docker("inspect -f {{.State.Pid}} user").ok() != pid);
    d.eventually("it sees the image", || d.docker("exec user cat /x/tools/hello").out == "of the image");
    d.docker("stop -t 0 user").ok();
    // Copied from, but not to.
    let copied = d.path().join("copied");
    d.docker(&format!("cp user:/x/data/deep/file {}", copied.display())).ok();
    assert_eq!(std::fs::read(&copied).unwrap(), b"deep");
    assert_eq!(std::fs::metadata(&copied).unwrap().uid(), 0);
    let refused = d.docker(&format!("cp {} user:/x/new", copied.display()));
    assert!(refused.code != 0 && refused.err.contains("read-only"), "{}", refused.err);
    // Forced, the name goes; the layers stay as long as the container.
    d.docker("rmi -f tools:1").ok();
    assert_eq!(d.docker("images -q tools").ok(), "");
    d.wharf("system fsck").ok();
    d.docker("start user").ok();
    assert_eq!(d.docker("exec user cat /x/tools/hello").ok(), "of the image");
    // What a new container has of it is what that one has.
    d.docker("run --rm --volumes-from user busybox ls /x/tools/hello").ok();
    d.docker("rm -f user").ok();
    let layers = std::fs::read_dir(d.data().join("layers")).unwrap().count();
    d.docker("image prune -f").ok();
    assert!(std::fs::read_dir(d.data().join("layers")).unwrap().count() <= layers);
    assert_eq!(std::fs::read_dir(d.data().join("layers")).unwrap().count(), 1, "busybox's alone");
}

#[test]
fn a_part_of_a_volume_is_mounted() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("volume create vol").ok();
    let fill = "mkdir -p /v/sub /v/bin /v/hack; echo in sub >/v/sub/hello; echo one >/v/one; ln -s ../sub /v/hack/good; \
                ln -s / /v/hack/root; ln -s root /v/hack/bad; ln -s ../../../../../../etc /v/hack/up";
    d.sh("-v vol:/v", fill).ok();
    let own = |options: &str, words: &str| {
        d.wharf(&format!("run --rm --mount type=volume,src=vol,{options} busybox {words}"))
    };
    assert_eq!(own("dst=/x,volume-subpath=sub", "cat /x/hello").ok(), "in sub");
    assert_eq!(own("dst=/x,volume-subpath=hack/good", "cat /x/hello").ok(), "in sub");
    assert_eq!(own("dst=/x,volume-subpath=one", "cat /x").ok(), "one");
    assert_eq!(own("dst=/x,volume-subpath=sub,ro", "touch /x/no").code, 1);
    own("dst=/x,volume-subpath=sub", "touch /x/written").ok();
    assert!(d.data().join("volumes/vol/_data/sub/written").exists());
    // An empty part is filled with what the image has there, and the rest of the volume is left alone.
    own("dst=/bin,volume-subpath=bin", "ls /bin/busybox").ok();
    assert!(d.data().join("volumes/vol/_data/bin/busybox").exists());
    assert_eq!(d.sh("-v vol:/v", "cat /v/sub/hello /v/one").ok(), "in sub\none");
    for (options, code, text) in [
        ("dst=/x,volume-subpath=/sub", 125, "subpath must be a relative path within the volume"),
        ("dst=/x,volume-subpath=../../etc", 125, "subpath must be a relative path within the volume"),
        ("dst=/x,volume-subpath=none", 127, "cannot access path"),
        ("dst=/x,volume-subpath=hack/root", 125, "path concatenation escapes the base directory"),
        ("dst=/x,volume-subpath=hack/bad", 125, "path concatenation escapes the base directory"),
        ("dst=/x,volume-subpath=hack/up", 125, "path concatenation escapes the base directory"),
    ] {
        let said = own(options, "true");
        assert!(said.code == code && said.err.contains(text), "{options}: {} {}", said.code, said.err);
    }
    let anonymous = d.wharf("run --rm --mount type=volume,dst=/x,volume-subpath=a busybox true");
    assert!(anonymous.err.contains("must not set Subpath when using anonymous volumes"), "{}", anonymous.err);
    // A container that runs keeps its part; one that starts later sees what is there by then.
    d.wharf("run -d --name user --mount type=volume,src=vol,dst=/x,volume-subpath=sub busybox sleep 100").ok();
    let volumes = d.data().join("volumes/vol/_data");
    std::fs::rename(volumes.join("sub"), volumes.join("old")).unwrap();
    std::os::unix::fs::symlink("/etc", volumes.join("sub")).unwrap();
    d.kill();
    d.launch();
    assert_eq!(d.docker("exec user cat /x/hello").ok(), "in sub");
    d.docker("stop -t 0 user").ok();
    let escaped = d.docker("start user");
    assert!(escaped.code == 1 && escaped.err.contains("escapes the base directory"), "{}", escaped.err);
    let copied = d.docker(&format!("cp user:/x/passwd {}", d.path().join("stolen").display()));
    assert!(copied.code != 0 && !d.path().join("stolen").exists(), "{}", copied.err);
    std::fs::remove_file(volumes.join("sub")).unwrap();
    std::fs::rename(volumes.join("old"), volumes.join("sub")).unwrap();
    d.docker("start user").ok();
    assert_eq!(d.docker("exec user cat /x/hello").ok(), "in sub");
    let refused = d.docker("volume rm vol");
    assert!(refused.code == 1 && refused.err.contains("volume is in use"), "{}", refused.err);
    d.docker("rm -f user").ok();
    // In a user namespace of its own, too.
    let own = d.wharf(
        "run --rm --userns auto --mount type=volume,src=vol,dst=/x,volume-subpath=sub busybox stat -c %u /x/hello",
    );
    assert_eq!(own.ok(), "0");
}

/// What `--mount` has beside `-v`: the image's content stays out of a volume, and a source is made where that is asked for.
#[test]
fn a_volume_stays_empty_and_a_source_is_made_when_asked_for() {
    let Some(d) = Daemon::start() else { return };
    for (name, options, filled) in [
        ("one", "--mount type=volume,src=one,dst=/bin", true),
        ("two", "--mount type=volume,src=two,dst=/bin,volume-nocopy", false),
        ("three", "-v three:/bin:nocopy", false),
    ] {
        d.docker(&format!("create --name c-{name} {options} busybox true")).ok();
        d.docker(&format!("start c-{name}"));
        let place = d.docker(&format!("volume inspect -f {{{{.Mountpoint}}}} {name}")).ok();
        assert_eq!(std::fs::read_dir(&place).unwrap().next().is_some(), filled, "{options}");
    }
    let source = d.path().join("made/by/asking");
    let bind = format!("--mount type=bind,src={},dst=/x", source.display());
    let said = d.docker(&format!("run --rm {bind} busybox true"));
    assert_eq!(said.code, 125, "{}", said.err);
    assert!(said.err.contains("bind source path does not exist"), "{}", said.err);
    assert!(!source.exists());
    d.wharf(&format!("run --rm {bind},bind-create-src=true busybox touch /x/file")).ok();
    assert!(source.join("file").exists());
}

/// What a container with IDs of its own has written has the IDs that it knows itself, wherever it goes.
#[test]
fn what_is_made_of_shifted_ids_is_not_shifted() {
    let Some(d) = Daemon::start() else { return };
    let script = "mkdir /made; echo x > /made/f; chown 7:8 /made/f; rm /etc/passwd";
    let made = d.wharf("run --name own --userns auto busybox true");
    assert_eq!(made.code, 0, "{}", made.err);
    let mut run = Command::new(crate::kit::WHARF);
    run.arg("-H").arg(format!("unix://{}", d.socket().display())).env("WHARF_CONFIG", d.path());
    run.args(["run", "--name", "writes", "--userns", "auto", "busybox", "sh", "-c", script]);
    assert!(run.status().unwrap().success());
    d.docker("commit writes committed").ok();
    let shown = d.docker("run --rm committed stat -c %u:%g /made /made/f").ok();
    assert_eq!(shown, "0:0\n7:8");
    assert_ne!(d.docker("run --rm committed cat /etc/passwd").code, 0);
    // Which such a container has, too.
    let shown = d.wharf("run --rm --userns auto committed stat -c %u:%g /made /made/f").ok();
    assert_eq!(shown, "0:0\n7:8");
}
