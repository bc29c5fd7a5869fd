//! What the first process is, and what is mounted for it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use serde_json::{Value, json};

use crate::kit::{Bundle, WHARF, text};

#[test]
fn scheduling_and_personality_are_as_asked() {
    let script = "busybox cut -d' ' -f19 /proc/self/stat; uname -m; grep -E 'Cpus_allowed_list' /proc/self/status";
    let Some(bundle) = Bundle::new("scheduling", &["sh", "-c", script], |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
        config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    }) else {
        return;
    };
    let output = bundle.run();
    let seen = text(&output.stdout);
    assert!(seen.starts_with("7\ni686\n") || seen.starts_with("7\narmv8l\n"), "{seen}{}", text(&output.stderr));
    bundle.configure(|config| config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "priority": 7 }));
    assert!(text(&bundle.run().stderr).contains("invalid configuration: scheduler"));
}

#[test]
fn an_exec_s_cpus_are_its_own() {
    let Some(bundle) = Bundle::sleeper("cpus", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let process = bundle.path("process.json");
    let config = json!({ "cwd": "/", "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"],
        "execCPUAffinity": { "initial": "0", "final": "0" } });
    fs::write(&process, config.to_string()).unwrap();
    let seen = bundle.ok(&["exec", "--process", &process.to_string_lossy(), &bundle.id]);
    assert_eq!(seen, "Cpus_allowed_list:\t0\n");
}

#[test]
fn a_tmpfs_begins_with_what_it_covers_when_asked() {
    let mount = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"] });
    let script = "cat /data/d/f; readlink /data/l; stat -c '%a %u' /data /data/d/f; touch /data/x";
    let Some(bundle) = Bundle::new("copyup", &["sh", "-c", script], |config| {
        config["mounts"].as_array_mut().unwrap().push(mount);
    }) else {
        return;
    };
    let data = bundle.path("rootfs/data");
    fs::create_dir_all(data.join("d")).unwrap();
    fs::write(data.join("d/f"), "text\n").unwrap();
    fs::set_permissions(data.join("d/f"), fs::Permissions::from_mode(0o604)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
    chown(data.join("d/f"), Some(3), Some(3)).unwrap();
    std::os::unix::fs::symlink("/etc/x", data.join("l")).unwrap();
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "text\n/etc/x\n711 0\n604 3\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("Read-only"));
}

#[test]
fn owners_are_mapped_through_a_bind() {
    let Some(bundle) = Bundle::new("idmap", &["sh", "-c", "stat -c %u /v/f; touch /v/new"], |_| {}) else { return };
    let source = bundle.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "").unwrap();
    chown(source.join("f"), Some(1_000), Some(1_000)).unwrap();
    chown(&source, Some(1_000), Some(1_000)).unwrap();
    let map = json!([{ "containerID": 1_000, "hostID": 0, "size": 1 }]);
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/v", "type": "bind",
            "source": source, "options": ["rbind", "idmap"], "uidMappings": map, "gidMappings": map }));
    });
    let output = bundle.run();
    if text(&output.stderr).contains("map the owners of") {
        return eprintln!("skipped: this file system has no id-mapped mounts");
    }
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
    assert_eq!(fs::metadata(source.join("new")).unwrap().uid(), 1_000);
    bundle.configure(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.last_mut().unwrap().as_object_mut().unwrap().remove("gidMappings");
    });
    assert!(text(&bundle.run().stderr).contains("both uidMappings and gidMappings"));
}

#[test]
fn memory_comes_from_the_nodes_asked_for() {
    let first = ["sh", "-c", "head -n 1 /proc/self/numa_maps"];
    let Some(bundle) = Bundle::new("numa", &first, |config| {
        config["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    }) else {
        return;
    };
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        assert!(text(&bundle.run().stderr).contains("set the memory policy"));
        return eprintln!("skipped: a kernel without NUMA");
    }
    let output = bundle.run();
    assert!(text(&output.stdout).contains(" bind=static:0"), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// What is told is what is recognized: all of it, and no other word.
#[test]
fn the_memory_policies_that_are_told_are_recognized() {
    let output = Command::new(WHARF).args(["oci", "features"]).output().unwrap();
    let features: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = |part: &str| features["linux"]["memoryPolicy"][part].as_array().unwrap().clone();
    let (modes, flags) = (told("modes"), told("flags"));
    assert_eq!((modes.len(), flags.len()), (7, 3));
    // A list of nodes that is none is what is refused first of one that is known, before the kernel is asked.
    let mut tries: Vec<(Value, &str)> = Vec::new();
    for mode in &modes {
        let takes_none = ["MPOL_DEFAULT", "MPOL_LOCAL"].iter().any(|none| mode == none);
        let why = if takes_none { "takes no nodes" } else { "is no list of nodes" };
        tries.push((json!({ "mode": mode, "nodes": "x" }), why));
    }
    tries
        .extend(flags.iter().map(|f| (json!({ "mode": "MPOL_BIND", "nodes": "x", "flags": [f] }), "no list of nodes")));
    tries.push((json!({ "mode": "MPOL_FROB" }), "MPOL_FROB"));
    tries.push((json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FROB"] }), "MPOL_F_FROB"));
    for (policy, why) in tries {
        let Some(bundle) = Bundle::new("policies", &["true"], |c| c["linux"]["memoryPolicy"] = policy.clone()) else {
            return;
        };
        let said = text(&bundle.run().stderr);
        assert!(said.contains(why), "{policy}: {said}");
    }
}

#[test]
fn users_and_filters_are_as_asked() {
    let Some(bundle) =
        Bundle::new("identity", &["sh", "-c", "grep -E 'Groups|Umask|Seccomp:' /proc/self/status"], |config| {
            config["process"]["user"] = json!({ "uid": 4, "gid": 5, "additionalGids": [6, 7], "umask": 0o027 });
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
        })
    else {
        return;
    };
    let output = bundle.run();
    let seen = text(&output.stdout);
    for want in ["Umask:\t0027", "Groups:\t6 7", "Seccomp:\t2"] {
        assert!(seen.contains(want), "{seen}{}", text(&output.stderr));
    }
}

#[test]
fn a_container_has_its_group_s_cpus_whatever_the_caller_has() {
    let script = ["sh", "-c", "grep Cpus_allowed_list /proc/self/status; exec sleep 600"];
    let Some(bundle) = Bundle::new("cpus", &script, |_| {}) else { return };
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        return eprintln!("skipped: there is one CPU");
    }
    let on_one = |words: &[&str]| {
        let command = bundle.wharf(words);
        let mut one = std::process::Command::new("taskset");
        let log = std::fs::File::create(bundle.path("out")).unwrap();
        one.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
        assert!(one.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap().success(), "{}", bundle.shown());
        bundle.shown()
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    on_one(&["run", "--detach", "--bundle", &dir, &bundle.id]);
    crate::kit::wait_until("its CPUs", || bundle.shown().contains('\n'));
    assert_eq!(bundle.shown(), format!("{own}\n"));
    assert_eq!(on_one(&["exec", &bundle.id, "grep", "Cpus_allowed_list", "/proc/self/status"]), format!("{own}\n"));
}

#[test]
fn unknown_values_are_refused_before_anything_is_made() {
    type Change = fn(&mut Value);
    let wrong: [(Change, &str); 13] = [
        (|c| c["ociVersion"] = json!("2.0.0"), "is not 1.x"),
        (|c| c["linux"]["namespaces"][0] = json!({ "type": "frob" }), "frob"),
        (|c| c["process"]["rlimits"] = json!([{ "type": "RLIMIT_FROB", "soft": 1, "hard": 1 }]), "RLIMIT_FROB"),
        (|c| c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_FROB" }), "SCMP_ACT_FROB"),
        (|c| c["linux"]["sysctl"] = json!({ "kernel.core_pattern": "|/x" }), "not in a separate kernel namespace"),
        (|c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND" }), "MPOL_BIND needs nodes"),
        (|c| c["process"]["selinuxLabel"] = json!("a:b:c:s0"), "`a:b:c:s0`"),
        (|c| c["process"]["selinuxLabel"] = json!("container_t"), "is no SELinux context"),
        (|c| c["linux"]["mountLabel"] = json!("a:b:c:s0"), "mount"),
        (|c| c["process"]["apparmorProfile"] = json!("not a name"), "no name of an AppArmor profile"),
        (|c| c["linux"]["intelRdt"] = json!({ "closID": "x" }), "intelRdt"),
        (|c| c["linux"]["intelRdt"] = json!({ "schemata": ["L3:0=f"] }), "intelRdt"),
        (|c| c["linux"]["intelRdt"] = json!({ "enableMonitoring": true }), "intelRdt"),
    ];
    for (change, want) in wrong {
        let Some(bundle) = Bundle::new("wrong", &["true"], change) else { return };
        let output = bundle.run();
        assert_eq!(output.status.code(), Some(1), "{want}");
        assert!(text(&output.stderr).contains(want), "{want}: {}", text(&output.stderr));
    }
}

#[test]
fn an_ambient_capability_needs_an_inheritable_one() {
    let set = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let words = ["sh", "-c", "grep -E 'Cap(Inh|Prm|Amb)' /proc/self/status"];
    let Some(bundle) = Bundle::new("ambient", &words, |config| {
        // As `runc spec` and `crun spec` have it.
        config["process"]["capabilities"] =
            json!({ "bounding": set, "effective": set, "permitted": set, "ambient": set });
    }) else {
        return;
    };
    let none = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000420\nCapAmb:\t0000000000000000\n";
    assert_eq!(text(&bundle.run().stdout), none);
    bundle.configure(|config| config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]));
    let one = "CapInh:\t0000000000000020\nCapPrm:\t0000000000000420\nCapAmb:\t0000000000000020\n";
    assert_eq!(text(&bundle.run().stdout), one);
}

#[cfg(target_arch = "x86_64")]
mod by_system_calls {
    use std::path::Path;
    use std::process::{Command, Output};

    use serde_json::json;

    use crate::kit::{Bundle, text};
    use crate::program::{Arg, call, once};

    fn answers(output: &Output) -> Vec<i32> {
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout.chunks_exact(4).map(|bytes| i32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }

    /// unistd.h, `keyctl` and `add_key`; keyctl.h, `KEYCTL_SEARCH`, `KEY_SPEC_SESSION_KEYRING`.
    const KEYCTL: u64 = 250;
    const ADD_KEY: u64 = 248;
    const SEARCH: Arg<'_> = Arg::Number(10);
    const SESSION: Arg<'_> = Arg::Number(0xffff_fffd);
    const ENOKEY: i32 = -126;

    #[test]
    fn keys_of_the_session_are_not_inherited_unless_asked() {
        if !Path::new("/proc/keys").exists() {
            return eprintln!("skipped: a kernel without keys");
        }
        let Some(bundle) = Bundle::new("keys", &["/find"], |_| {}) else { return };
        let (kind, name) = (Arg::Bytes(b"user"), Arg::Bytes(b"wharf-test"));
        let add = bundle.path("add");
        once(&add, &[call(ADD_KEY, &[kind, name, Arg::Bytes(b"secret"), Arg::Number(6), SESSION])]);
        once(&bundle.path("rootfs/find"), &[call(KEYCTL, &[SEARCH, SESSION, kind, name, Arg::Number(0)])]);
        // This thread's own, which what it starts inherits.
        wharf_sys::process::join_new_session_keyring().unwrap();
        let key = answers(&Command::new(&add).output().unwrap());
        assert!(key[0] > 0, "{key:?}");
        assert_eq!(answers(&Command::new(bundle.path("rootfs/find")).output().unwrap()), key);
        assert_eq!(answers(&bundle.run()), [ENOKEY]);
        let mut command = bundle.wharf(&["run", "--no-new-keyring", "--bundle"]);
        assert_eq!(answers(&command.arg(bundle.dir.path()).arg(&bundle.id).output().unwrap()), key);
        bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
        bundle.create();
        bundle.start();
        assert_eq!(answers(&bundle.output(&["exec", &bundle.id, "/find"])), [ENOKEY]);
    }

    /// prctl(2).
    const PRCTL: u64 = 157;
    const GET_SECUREBITS: Arg<'_> = Arg::Number(27);

    #[test]
    fn secure_bits_of_the_caller_are_not_the_container_s() {
        let Some(bundle) = Bundle::new("bits", &["/bits"], |_| {}) else { return };
        let program = bundle.path("rootfs/bits");
        once(&program, &[call(PRCTL, &[GET_SECUREBITS])]);
        let with = |bits: &str, command: &Command| {
            let mut with = Command::new("setpriv");
            with.args(["--securebits", bits]).arg(command.get_program()).args(command.get_args());
            with.output().unwrap()
        };
        assert_eq!(answers(&with("+no_setuid_fixup", &Command::new(&program))), [4]);
        assert_eq!(answers(&with("+no_setuid_fixup", &bundle.run_command())), [0]);
        // What cannot be taken away is told.
        let locked = with("+no_setuid_fixup,+no_setuid_fixup_locked", &bundle.run_command());
        assert!(
            text(&locked.stderr).contains("cannot clear the secure bits of the caller"),
            "{}",
            text(&locked.stderr)
        );
        bundle.assert_nothing_is_left();
        bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
        bundle.create();
        bundle.start();
        assert_eq!(answers(&with("+no_setuid_fixup", &bundle.wharf(&["exec", &bundle.id, "/bits"]))), [0]);
        assert_eq!(answers(&with("+no_setuid_fixup", &bundle.wharf(&["exec", "-u", "5:5", &bundle.id, "/bits"]))), [0]);
    }
}

/// crun(1), "run.oci.keep_original_groups".
#[test]
fn an_annotation_keeps_the_caller_s_groups() {
    let Some(bundle) = Bundle::new("groups", &["id", "-G"], |config| {
        config["process"]["user"]["additionalGids"] = json!([9]);
    }) else {
        return;
    };
    let as_member = |command: &Command| {
        let mut member = Command::new("setpriv");
        member.args(["--groups", "1,2,3"]).arg(command.get_program()).args(command.get_args());
        let output = member.output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    for (value, want) in [("0", "0 9\n"), ("1", "0 1 2 3\n")] {
        bundle.configure(|config| config["annotations"] = json!({ "run.oci.keep_original_groups": value }));
        assert_eq!(as_member(&bundle.run_command()), want);
    }
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
    bundle.create();
    bundle.start();
    assert_eq!(as_member(&bundle.wharf(&["exec", &bundle.id, "id", "-G"])), "0 1 2 3\n");
}

/// CVE-2024-40635: the last number of 32 bits means "as it was" to the kernel, and that is root.
#[test]
fn an_id_that_means_none_is_refused() {
    let Some(bundle) = Bundle::sleeper("no-id", |_| {}) else { return };
    for (key, value) in [
        ("uid", json!(4_294_967_295_u32)),
        ("gid", json!(4_294_967_295_u32)),
        ("uid", json!(2_147_483_648_u32)),
        ("additionalGids", json!([5, 4_294_967_295_u32])),
    ] {
        bundle.configure(|config| {
            config["process"]["user"] = json!({ "uid": 1, "gid": 1 });
            config["process"]["user"][key] = value.clone();
        });
        let errors = text(&bundle.run().stderr);
        assert!(errors.contains("uids and gids must be in range 0-2147483647"), "{key} {value}: {errors}");
    }
    bundle.configure(|config| config["process"]["user"] = json!({ "uid": 0, "gid": 0 }));
    bundle.create();
    bundle.start();
    let config: Value = serde_json::from_slice(&fs::read(bundle.path("config.json")).unwrap()).unwrap();
    let mut process = config["process"].clone();
    process["user"]["uid"] = json!(4_294_967_295_u32);
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    let file = bundle.path("process.json");
    let errors = bundle.fails(&["exec", "--process", &file.to_string_lossy(), &bundle.id]).1;
    assert!(errors.contains("uids and gids must be in range"), "{errors}");
}

#[test]
fn what_keeps_a_program_from_running_is_told() {
    let Some(bundle) = Bundle::new("words", &["true"], |_| {}) else { return };
    let bin = bundle.path("rootfs/bin");
    fs::write(bin.join("lost"), "#!/no/such/interpreter\n").unwrap();
    fs::write(bin.join("plain"), "").unwrap();
    std::process::Command::new("chmod").arg("755").arg(bin.join("lost")).status().unwrap();
    std::os::unix::fs::symlink("round", bundle.path("rootfs/round")).unwrap();
    std::os::unix::fs::symlink("../round", bin.join("loop")).unwrap();
    for (command, words) in [
        ("", "exec: \"\": executable file not found in $PATH"),
        ("plain", "exec: \"plain\": executable file not found in $PATH"),
        ("/bin/plain", "exec: \"/bin/plain\": permission denied"),
        ("loop", "exec: \"loop\": executable file not found in $PATH"),
        ("/bin/lost", "exec: \"/bin/lost\": no such file or directory: the program is there"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
    ] {
        bundle.configure(|config| config["process"]["args"] = json!([command]));
        let output = bundle.run();
        // In the log they are quoted.
        let errors = text(&output.stderr).replace("\\\"", "\"");
        assert!(!output.status.success() && errors.contains(words), "{command}: {errors}");
    }
    // A loop in the path is passed by.
    bundle.configure(|config| {
        config["process"]["args"] = json!(["true"]);
        config["process"]["env"] = json!(["PATH=/round:/bin"]);
    });
    let output = bundle.run();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
