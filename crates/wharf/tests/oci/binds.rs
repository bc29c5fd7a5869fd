//! Binds: where their source is, and what flags they have (runc's mounts_sshfs.bats, and mount(8)).

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::kit::{Bundle, text};

/// The first ID of the host's that a user namespace has here.
const FIRST: u32 = 100_000;

fn add(config: &mut Value, source: &str, options: &str) {
    let options: Vec<&str> = options.split(',').collect();
    let mount = json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options });
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// A container that shows the flags of `/mnt`, and of what is mounted below it.
fn bundle(name: &str) -> Option<Bundle> {
    let bundle = Bundle::new(name, &["sh", "-c", "grep ' /mnt' /proc/self/mounts"], |_| {})?;
    fs::create_dir(bundle.path("src")).unwrap();
    chown(bundle.path("rootfs"), Some(FIRST), Some(FIRST)).unwrap();
    Some(bundle)
}

/// Runs it in a mount namespace of its own, in which its source is a file system that has `flags` itself, and not by the
/// file system: a bind could not take those off.
fn run(bundle: &Bundle, flags: &str, options: &str, users: bool) -> Output {
    configure(bundle, options, users);
    let on = |place: &str| {
        format!(
            "mkdir -p {place} && mount -t tmpfs -o rw,suid,dev,exec,diratime,strictatime tmpfs {place} && \
             mount --bind -o remount,diratime,strictatime {place} && mount --bind -o remount,{flags} {place}"
        )
    };
    let source = bundle.path("src").to_string_lossy().into_owned();
    let below = bundle.path("below").to_string_lossy().into_owned();
    let script = format!(
        "mount -t tmpfs tmpfs {source} && mkdir {source}/sub && {} && mount --bind {below} {source}/sub && \
         mount --bind -o remount,{flags} {source}/sub && \
         mount --bind -o remount,diratime,strictatime {source} && mount --bind -o remount,{flags} {source} && \
         exec \"$@\"",
        on(&below)
    );
    in_mounts(bundle, &script)
}

fn in_mounts(bundle: &Bundle, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(bundle.run_command().get_program());
    command.args(bundle.run_command().get_args()).output().unwrap()
}

fn configure(bundle: &Bundle, options: &str, users: bool) {
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/mnt");
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        let maps = if users { json!([{ "containerID": 0, "hostID": FIRST, "size": 65_536 }]) } else { json!([]) };
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps;
        if users {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        }
        add(config, &bundle.path("src").to_string_lossy(), options);
    });
}

/// The flags of `place`.
fn shown(output: &Output, place: &str) -> Vec<String> {
    let all = text(&output.stdout);
    let line = all.lines().find(|line| line.split(' ').nth(1) == Some(place));
    let line = line.unwrap_or_else(|| panic!("{place}: {all}{}", text(&output.stderr)));
    line.split(' ').nth(3).unwrap().split(',').map(str::to_owned).collect()
}

/// `want`: those that it has, and after a `!` those that it has not.
fn assert_flags(flags: &[String], want: &str, what: &str) {
    for word in want.split(',') {
        let (word, has) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
        assert_eq!(flags.iter().any(|flag| flag == word), has, "{what}: {word} of {flags:?}");
    }
}

#[test]
fn with_a_flag_a_bind_has_those_that_are_named_and_no_others() {
    let Some(bundle) = bundle("binds") else { return };
    for (flags, options, want) in [
        ("ro,noexec,nosymfollow,nodiratime", "bind,rprivate", "ro,!rw,noexec,nodiratime,nosymfollow"),
        ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "rw,!ro,!noexec,!nosymfollow,nodiratime"),
        ("ro", "bind,nosuid,nodev,rprivate", "rw,!ro,nosuid,nodev"),
        ("ro", "bind,rw,nosuid,nodev,rprivate", "rw,!ro,nosuid,nodev"),
        ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,!nosuid,!nodev,!noexec,noatime"),
        ("nosuid,nodev,noexec,noatime", "bind,sync", "rw,!nosuid,!nodev,!noexec,noatime"),
        ("rw,nodev,nosuid,noexec,noatime", "bind,ro", "ro,!nosuid,!nodev,!noexec,noatime"),
        ("rw,nodev,nosymfollow", "bind,ro,symfollow", "ro,!nodev,!nosymfollow"),
        ("rw", "bind,ro,rw", "rw,!ro"),
        ("noatime", "bind,norelatime", "noatime,!relatime"),
        ("noatime", "bind,relatime", "relatime,!noatime"),
        ("noatime", "bind,nodiratime", "nodiratime,relatime,!noatime"),
        ("nodiratime", "bind,strictatime", "!nodiratime,!relatime,!noatime"),
        ("noatime", "bind,nodiratime,strictatime", "nodiratime,!relatime,!noatime"),
        ("relatime", "bind,noatime,strictatime", "!relatime,!noatime"),
        ("relatime", "bind,strictatime,noatime", "noatime,!relatime"),
        ("relatime", "bind,noatime,atime", "relatime"),
    ] {
        let output = run(&bundle, flags, options, false);
        assert_flags(&shown(&output, "/mnt"), want, &format!("{flags} {options}"));
    }
    bundle.assert_nothing_is_left();
}

#[test]
fn flags_of_all_below_are_set_and_taken_off() {
    let Some(bundle) = bundle("recursive") else { return };
    for (flags, options, want) in [
        ("ro,noexec,noatime", "rbind,rrw,ratime,rexec", "rw,!ro,!noexec,relatime,!noatime"),
        ("rw,relatime", "rbind,rnoatime,rro,rnoexec", "ro,noexec,noatime"),
        ("rw,noatime", "rbind,rstrictatime", "rw,!noatime,!relatime"),
        ("rw,strictatime", "rbind,rrelatime,rro,rrw", "rw,relatime"),
    ] {
        let output = run(&bundle, flags, options, false);
        for place in ["/mnt", "/mnt/sub"] {
            assert_flags(&shown(&output, place), want, &format!("{place} {flags} {options}"));
        }
    }
}

#[test]
fn in_a_user_namespace_what_the_source_has_is_kept_or_the_opposite_refused() {
    let Some(bundle) = bundle("locked") else { return };
    for (flags, options, want) in [
        ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nodiratime,nosymfollow"),
        ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "ro,noexec,nodiratime,!nosymfollow"),
        ("ro", "bind,nosuid,nodev,rprivate", "ro,nosuid,nodev"),
        ("rw,nodev,nosuid,noexec,noatime", "bind,ro", "ro,nosuid,nodev,noexec,noatime"),
        ("rw,nodev,nosymfollow", "bind,rw", "rw,nodev,!nosymfollow"),
        ("noatime,nodiratime", "bind,norelatime", "noatime,nodiratime"),
        ("noatime", "bind,noatime,ro", "noatime,ro"),
        ("nodiratime,relatime", "bind,nodiratime", "nodiratime,relatime"),
    ] {
        let output = run(&bundle, flags, options, true);
        assert_flags(&shown(&output, "/mnt"), want, &format!("{flags} {options}"));
    }
    for (flags, options) in [
        ("ro", "bind,rw,nosuid,nodev,rprivate"),
        ("nodev,nosuid,noatime", "bind,dev,suid,exec,atime"),
        ("nodiratime", "bind,strictatime"),
        ("relatime", "bind,noatime"),
        ("relatime", "bind,nodiratime"),
        ("strictatime", "bind,relatime"),
        ("noatime", "bind,relatime"),
    ] {
        let output = run(&bundle, flags, options, true);
        let errors = text(&output.stderr);
        assert!(!output.status.success() && errors.contains("operation not permitted"), "{flags} {options}: {errors}");
    }
    bundle.assert_nothing_is_left();
}

#[test]
fn what_is_read_only_below_its_mount_may_be_bound_writable() {
    let Some(bundle) = bundle("below") else { return };
    configure(&bundle, "bind,rw", true);
    let source = bundle.path("src").to_string_lossy().into_owned();
    let read_only = format!("mount -t tmpfs -o ro tmpfs {source}");
    let output = in_mounts(&bundle, &format!("{read_only} && mount --bind -o remount,rw {source} && exec \"$@\""));
    assert_flags(&shown(&output, "/mnt"), "ro", "the file system is");
    let output = in_mounts(&bundle, &format!("{read_only} && exec \"$@\""));
    assert!(text(&output.stderr).contains("operation not permitted"), "{}", text(&output.stderr));
}

#[test]
fn a_relative_source_is_in_the_bundle() {
    let Some(bundle) = Bundle::new("relative", &["cat", "/mnt/file"], |config| add(config, "src", "rbind,ro")) else {
        return;
    };
    fs::create_dir(bundle.path("src")).unwrap();
    fs::write(bundle.path("src/file"), "in the bundle\n").unwrap();
    let output = bundle.run_command().current_dir("/").output().unwrap();
    assert_eq!(text(&output.stdout), "in the bundle\n", "{}", text(&output.stderr));
}

#[test]
fn a_word_that_means_nothing_on_a_bind_is_refused() {
    for word in ["frobnicate", "size=5", "RO"] {
        let Some(bundle) = Bundle::new("word", &["true"], |config| add(config, "/", &format!("bind,{word}"))) else {
            return;
        };
        let output = bundle.run();
        let errors = text(&output.stderr);
        let key = word.split('=').next().unwrap();
        assert!(errors.contains(&format!("unknown option `{key}` of the bind on `/mnt`")), "{errors}");
    }
}

#[test]
fn of_flags_that_contradict_each_other_a_new_file_system_has_the_last() {
    let mount =
        json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "noexec", "rw", "exec"] });
    let Some(bundle) = Bundle::new("last", &["grep", " /mnt ", "/proc/self/mounts"], |config| {
        config["mounts"].as_array_mut().unwrap().push(mount);
    }) else {
        return;
    };
    assert_flags(&shown(&bundle.run(), "/mnt"), "rw,!ro,!noexec", "tmpfs");
}

/// What covers masked files is another one then.
#[test]
fn a_file_takes_the_place_of_the_null_device() {
    let Some(bundle) = Bundle::new("null", &["sh", "-c", "cat /dev/null; cat /proc/keys"], |_| {}) else { return };
    fs::write(bundle.path("src"), "mine\n").unwrap();
    bundle.configure(|config| add(config, &bundle.path("src").to_string_lossy(), "bind"));
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().last_mut().unwrap()["destination"] = json!("/dev/null");
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "mine\n", "{}", text(&output.stderr));
}

#[test]
fn a_bind_takes_the_place_of_a_default_device() {
    let Some(bundle) = Bundle::new("device", &["cat", "/dev/full"], |config| {
        let mount = json!({ "destination": "/dev/full", "type": "bind", "source": "/dev/null", "options": ["bind"] });
        config["mounts"].as_array_mut().unwrap().push(mount);
    }) else {
        return;
    };
    let output = bundle.run();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
}

/// By this word engines tell their users what they did.
#[test]
fn a_directory_on_a_file_and_the_other_way_round_is_told() {
    let Some(bundle) = Bundle::new("kinds", &["true"], |_| {}) else { return };
    fs::create_dir_all(bundle.path("rootfs/directory")).unwrap();
    fs::write(bundle.path("rootfs/file"), "").unwrap();
    for (source, destination) in [("rootfs/directory", "/file"), ("rootfs/file", "/directory")] {
        bundle.configure(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "bind");
            let source = bundle.path(source);
            let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] });
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let output = bundle.run();
        assert!(text(&output.stderr).contains("not a directory"), "{destination}: {}", text(&output.stderr));
    }
}

#[test]
fn the_directory_of_control_groups_is_not_everybody_s() {
    let Some(bundle) = Bundle::new("groups-mode", &["stat", "-c", "%a", "/sys/fs/cgroup"], |config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev"]);
            }
        }
    }) else {
        return;
    };
    let output = bundle.run();
    assert!(
        ["755\n", "555\n"].contains(&text(&output.stdout).as_str()),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
