//! The same container as an ordinary user, who has one mapping and no control groups.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::kit::{WHARF, text, wait_until};

const USER: u32 = 54_321;
/// The first ID that the system gives to that user.
const FIRST: u32 = 1_300_000;

/// A user's own bundle, and the binary where that user finds it.
struct Home(tempfile::TempDir);

impl Home {
    fn new(args: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: becoming an ordinary user needs root, and containers busybox-static");
            return None;
        }
        if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|text| text.trim() == "0") {
            eprintln!("skipped: no user namespaces");
            return None;
        }
        let home = Self(tempfile::tempdir().unwrap());
        let bin = home.path("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", Path::new(&bin).join("busybox")).unwrap();
        for applet in ["sh", "id", "cat", "sleep", "touch", "chown", "readlink", "chmod", "mkdir", "ls"] {
            symlink("busybox", Path::new(&bin).join(applet)).unwrap();
        }
        // By another process: what this one has open for writing its children of the same moment would have, too, and
        // then it cannot be executed.
        assert!(Command::new("cp").args([WHARF, &home.path("runc")]).status().unwrap().success());
        fs::set_permissions(home.path("runc"), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["", "rootfs", "rootfs/bin"] {
            chown(home.path(dir), Some(USER), Some(USER)).unwrap();
        }
        assert!(home.runc(&["spec", "--rootless"]).status.success());
        let path = home.path("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["process"]["args"] = json!(args);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        fs::write(path, config.to_string()).unwrap();
        Some(home)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// As the user, whom the system gives 1000 more IDs from [`FIRST`] on: in a mount namespace where its tables are
    /// others. `path` is where programs are looked for.
    fn with_more_ids(&self, path: &str, words: &str) -> Output {
        let more = |table: &str, line: String| {
            let text = fs::read_to_string(Path::new("/etc").join(table)).unwrap_or_default();
            fs::write(self.path(table), format!("{text}{line}\n")).unwrap();
            format!("mount --bind {} /etc/{table}", self.path(table))
        };
        let tables = [
            more("passwd", format!("wharf-user:x:{USER}:{USER}::/:/bin/sh")),
            more("group", format!("wharf-user:x:{USER}:")),
            more("subuid", format!("wharf-user:{FIRST}:1000")),
            more("subgid", format!("wharf-user:{FIRST}:1000")),
        ];
        let script = format!(
            "mount --make-rprivate / && {} && \
             exec setpriv --reuid {USER} --regid {USER} --clear-groups env PATH={path} {} --root {} {words}",
            tables.join(" && "),
            self.path("runc"),
            self.path("state")
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("runc"));
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.0.path());
        // Root's supplementary groups go with the change of the user.
        command.stdin(Stdio::null()).uid(USER).gid(USER);
        command
    }

    fn runc(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

#[test]
fn a_container_of_an_ordinary_user_has_a_root_of_its_own() {
    let Some(home) = Home::new(&["sh", "-c", "id -u; touch /made; cat /proc/self/setgroups"]) else { return };
    let output = home.runc(&["run", &format!("own-{}", std::process::id())]);
    assert_eq!(text(&output.stdout), "0\ndeny\n", "{}", text(&output.stderr));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(home.path("rootfs/made")).unwrap());
    assert_eq!(owner, USER);
}

#[test]
fn its_whole_life_needs_no_privilege() {
    let Some(home) = Home::new(&["sleep", "600"]) else { return };
    let log = fs::File::create(home.path("log")).unwrap();
    let created = home.command(&["create", "b"]).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert!(created.success(), "{}", fs::read_to_string(home.path("log")).unwrap());
    // Before the start, too, when nobody may look at the first process.
    let output = home.runc(&["exec", "b", "sh", "-c", "id -u; cat /proc/1/comm; cat /proc/self/uid_map"]);
    let seen = text(&output.stdout);
    assert!(output.status.success() && seen.starts_with("0\n"), "{seen}{}", text(&output.stderr));
    let map: Vec<&str> = seen.lines().last().unwrap().split_whitespace().collect();
    assert_eq!((map[0], map[2]), ("0", "1"), "{seen}");
    assert!(text(&home.runc(&["state", "b"]).stdout).contains("created"));
    assert!(home.runc(&["start", "b"]).status.success());
    let output = home.runc(&["exec", "b", "id", "-u"]);
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
    assert!(home.runc(&["kill", "b", "KILL"]).status.success());
    wait_until("its end", || text(&home.runc(&["state", "b"]).stdout).contains("stopped"));
    assert!(home.runc(&["delete", "b"]).status.success());
    assert_eq!(fs::read_dir(home.path("state")).unwrap().count(), 0);
}

#[test]
fn a_limit_that_cannot_be_set_is_refused() {
    let Some(home) = Home::new(&["id"]) else { return };
    let path = home.path("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["linux"]["resources"] = json!({ "memory": { "limit": 50_000_000 } });
    fs::write(path, config.to_string()).unwrap();
    let output = home.runc(&["run", "c"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cgroup"), "{}", text(&output.stderr));
}

#[test]
fn more_ids_come_from_the_system_s_tables() {
    let Some(home) = Home::new(&["sh", "-c", "cat /proc/self/setgroups; id -G; touch /made; chown 5:6 /made"]) else {
        return;
    };
    if !["/usr/bin/newuidmap", "/usr/bin/newgidmap", "/usr/bin/setpriv"].iter().all(|path| Path::new(path).exists()) {
        return eprintln!("skipped: more IDs need newuidmap, newgidmap and setpriv");
    }
    let map = |first: u32, count: u32| json!([{ "containerID": 0, "hostID": USER, "size": 1 }, { "containerID": 1, "hostID": first, "size": count }]);
    home.configure(|config| {
        config["linux"]["uidMappings"] = map(FIRST, 1000);
        config["linux"]["gidMappings"] = map(FIRST, 1000);
        config["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [7] });
        // Who may change owners in the container.
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
        }
    });
    let output = home.with_more_ids("/usr/bin:/bin", "run d");
    assert_eq!(text(&output.stdout), "allow\n0 7\n", "{}", text(&output.stderr));
    let made = fs::metadata(home.path("rootfs/made")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((made.uid(), made.gid()), (FIRST + 4, FIRST + 5));
    // Without the programs, and beyond what the tables give.
    let output = home.with_more_ids("/nowhere", "run d");
    assert!(text(&output.stderr).contains("`newuidmap` (package uidmap)"), "{}", text(&output.stderr));
    home.configure(|config| config["linux"]["uidMappings"] = map(FIRST, 2000));
    let output = home.with_more_ids("/usr/bin:/bin", "run d");
    assert!(text(&output.stderr).contains("`newuidmap` refuses"), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(home.path("state")).unwrap().count(), 0);
}

/// Waits for a program that is not the container's own, opens it, lets it end (it waits at the other end of a FIFO), and
/// writes to it by way of that fd.
const OVERWRITE: &str = "
    touch /ready
    while :; do
        for p in /proc/[0-9]*; do
            case \"$(readlink $p/exe)\" in ''|/bin/busybox) continue ;; esac
            (
                exec 3< $p/exe && touch /seen
                chmod 0775 /proc/self/fd/3
                echo x > /proc/self/fd/3
                touch /tried
                cat /fifo
                n=0
                until echo x > /proc/self/fd/3 || [ $n = 30 ]; do n=$((n+1)); sleep 0.02; done
                touch /over
            )
        done
    done 2> /dev/null";

/// CVE-2019-5736 where the runtime's program is the user's own.
#[test]
fn a_user_s_own_runtime_is_not_written_to_by_its_containers() {
    let Some(home) = Home::new(&["sh", "-c", OVERWRITE]) else { return };
    let fifo = home.path("rootfs/fifo");
    assert!(Command::new("mkfifo").args(["-m", "666", &fifo]).status().unwrap().success());
    chown(home.path("runc"), Some(USER), Some(USER)).unwrap();
    let inside = |name: &str| Path::new(&home.path("rootfs")).join(name).exists();
    let untouched = |when: &str| {
        assert!(fs::read(home.path("runc")).unwrap() == fs::read(WHARF).unwrap(), "written to, {when}");
        assert_eq!(fs::metadata(home.path("runc")).unwrap().permissions().mode() & 0o777, 0o755, "{when}");
    };
    // It waits for who opens the FIFO.
    let itself = ["/proc/self/exe", "oci", "--log", "/fifo", "list"];
    let create = |id: &str| {
        let log = fs::File::create(home.path("log")).unwrap();
        let created = home.command(&["create", id]).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        assert!(created.success(), "{}", fs::read_to_string(home.path("log")).unwrap());
    };
    create("e");
    assert!(home.runc(&["start", "e"]).status.success());
    wait_until("it is on the watch", || inside("ready"));
    // By a program that no path leads to any more nothing can be mounted.
    let gone = format!(
        "ln runc gone && exec 3< gone && rm gone && exec /proc/self/fd/3 oci --root {} exec e {}",
        home.path("state"),
        itself.join(" ")
    );
    for (by, mut command) in [
        ("its path", home.command(&[&["exec", "e"], &itself[..]].concat())),
        ("an fd", {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &gone]).current_dir(home.0.path()).stdin(Stdio::null()).uid(USER).gid(USER);
            command
        }),
    ] {
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        wait_until(&format!("an attempt on what was called by {by}: {said}"), || inside("over"));
        assert!(inside("seen"), "it was not opened: {said}");
        untouched(by);
        ["seen", "tried", "over"]
            .iter()
            .for_each(|name| fs::remove_file(home.path("rootfs").to_owned() + "/" + name).unwrap());
    }
    assert!(home.runc(&["delete", "--force", "e"]).status.success());

    // As the first program, which waits, too.
    home.configure(|config| config["process"]["args"] = json!(itself));
    create("f");
    assert!(home.runc(&["start", "f"]).status.success());
    let watching = home.command(&["exec", "--detach", "f", "sh", "-c", OVERWRITE]).stdout(Stdio::null()).status();
    assert!(watching.unwrap().success());
    wait_until("an attempt on the first program", || inside("tried"));
    assert!(inside("seen"));
    untouched("as the first program");
    wait_until("its end", || text(&home.runc(&["state", "f"]).stdout).contains("stopped"));
    assert!(home.runc(&["delete", "f"]).status.success());
    untouched("after its end");
}

/// A group in the unified hierarchy that is given to the user, as systemd gives one to a session.
struct Delegated(PathBuf);

impl Delegated {
    fn new(name: &str) -> Option<Self> {
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let Some(root) = unified.into_iter().find(|root| root.join("cgroup.controllers").exists()) else {
            eprintln!("skipped: no unified hierarchy");
            return None;
        };
        let group = Self(root.join(format!("test-{}-{name}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        for file in ["", "cgroup.procs"] {
            chown(group.0.join(file), Some(USER), Some(USER)).unwrap();
        }
        Some(group)
    }

    fn inside(&self) -> Vec<String> {
        let all = fs::read_dir(&self.0).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
        all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for name in self.inside() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// CVE-2023-25809.
#[test]
fn control_groups_are_shown_and_not_given() {
    let Some(group) = Delegated::new("shown") else { return };
    let name = group.0.file_name().unwrap().to_string_lossy().into_owned();
    let script = format!("cd /sys/fs/cgroup; for at in . * */{name} {name}; do mkdir $at/made; done; ls; true");
    let Some(home) = Home::new(&["sh", "-c", &script]) else { return };
    let as_user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
    // Of a host with cgroup2 alone, where this one is not: in a mount namespace that is as there.
    let alone = if group.0.starts_with("/sys/fs/cgroup/unified") {
        "mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&"
    } else {
        ""
    };
    let run = |before: &str, words: &str| {
        let script = format!("echo $$ > {}/cgroup.procs && {before} exec {as_user} {words}", group.0.display());
        Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(home.0.path()).output().unwrap()
    };
    let made = run("", &format!("mkdir {}/outside", group.0.display()));
    assert!(made.status.success(), "it is not the user's: {}", text(&made.stderr));
    for (sys, namespace) in [("rro", false), ("ro", false), ("ro", true)] {
        home.configure(|config| {
            for mount in config["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/sys" {
                    let options = mount["options"].as_array_mut().unwrap();
                    assert!(sys == "ro" || options.contains(&json!("rro")), "{options:?}");
                    // As `runc spec --rootless` has it.
                    options.retain(|option| option != "rro");
                    options.push(json!(sys));
                }
            }
            if namespace {
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
            }
        });
        for before in ["", alone] {
            let output = run(before, &format!("./runc --root {}/state run g", home.0.path().display()));
            assert!(output.status.success(), "{sys} {namespace} {before}: {}", text(&output.stderr));
            let (shown, said) = (text(&output.stdout), text(&output.stderr));
            assert!(!shown.contains("made") && said.contains("Read-only file system"), "{shown}{said}");
            let all: &[&str] =
                if before.is_empty() && !alone.is_empty() { &["memory", "pids"] } else { &["cgroup.procs", "outside"] };
            assert!(
                all.iter().all(|name| shown.lines().any(|line| line == *name)),
                "{sys} {namespace} {before}: {shown}"
            );
            assert_eq!(group.inside(), ["outside"], "{sys} {namespace} {before}");
        }
    }
    // Without a mount of its own for them: what comes with the host's.
    home.configure(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys" {
                mount["options"].as_array_mut().unwrap().push(json!("rro"));
            }
        }
    });
    let output = run("", &format!("./runc --root {}/state run g", home.0.path().display()));
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", text(&output.stderr));
    assert_eq!(group.inside(), ["outside"]);
}

#[test]
fn a_group_that_was_asked_for_and_cannot_be_made_is_an_error() {
    let Some(home) = Home::new(&["id"]) else { return };
    home.configure(|config| config["linux"]["cgroupsPath"] = json!("/wharf-not-this-user-s"));
    let output = home.runc(&["run", "e"]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for words in
        ["rootless needs no limits + no cgrouppath when no permission is granted for cgroups", "ermission denied"]
    {
        assert!(errors.contains(words), "{errors}");
    }
    assert_eq!(fs::read_dir(home.path("state")).unwrap().count(), 0);
}

#[test]
fn a_terminal_s_multiplexer_among_the_devices_is_the_container_s_own() {
    let Some(home) = Home::new(&["sh", "-c", "id -u; echo /dev/ptm*"]) else { return };
    home.configure(|config| {
        config["linux"]["devices"] = json!([{ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }]);
    });
    let output = home.runc(&["run", "f"]);
    assert_eq!(text(&output.stdout), "0\n/dev/ptmx\n", "{}", text(&output.stderr));
}

/// As rootless podman runs all its containers: the user namespace is podman's own, and the configuration names none.
#[test]
fn in_a_user_s_own_namespace_a_container_needs_no_other() {
    let Some(home) = Home::new(&["sh", "-c", "id -u; echo > /dev/null; ls /dev/full; cat /mnt/given"]) else { return };
    fs::create_dir(home.path("src")).unwrap();
    fs::write(home.path("src/given"), "given\n").unwrap();
    home.configure(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        for key in ["uidMappings", "gidMappings"] {
            config["linux"].as_object_mut().unwrap().remove(key);
        }
        let mount =
            json!({ "destination": "/mnt", "type": "bind", "source": home.path("src"), "options": ["rbind", "rw"] });
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    let runc = home.path("runc");
    let words = ["-U", "-r", "-m", &runc, "--root", &home.path("state"), "run", "g"];
    let mut command = Command::new("unshare");
    let output =
        command.args(words).current_dir(home.0.path()).stdin(Stdio::null()).uid(USER).gid(USER).output().unwrap();
    assert_eq!(text(&output.stdout), "0\n/dev/full\ngiven\n", "{}", text(&output.stderr));
}
