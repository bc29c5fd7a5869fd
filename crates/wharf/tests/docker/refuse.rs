//! What cannot be is refused when it is asked for, in Docker's words.

use crate::kit::Daemon;

#[test]
fn requests_that_make_no_sense() {
    let Some(d) = Daemon::start() else { return };
    for (options, words) in [
        (&["--storage-opt", "size=1G"][..], "--storage-opt is supported only for overlay over xfs with 'pquota'"),
        (&["--security-opt", "bogus=1"], "invalid --security-opt 2: \"bogus=1\""),
        (&["--cpuset-cpus", "0\n1"], "for cpuset cpus"),
        (&["--cpuset-cpus", "8000"], "Requested CPUs are not available - requested 8000, available: "),
        (&["--cpuset-mems", "x"], "for cpuset mems"),
        (&["--log-opt", "max-size=-5m"], "invalid size: '-5m'"),
        (&["--log-opt", "max-file=-1"], "max-file cannot be less than 1"),
        (&["--log-driver", "bogus"], "logger: no log driver named 'bogus' is registered"),
        (&["--cgroup-parent", "../x"], "invalid cgroup parent"),
        (&["--hostname", "a\nb"], "invalid hostname"),
        (&["--domainname", "a\nb"], "invalid domainname"),
        (&["--dns-option", "a\nb"], "invalid DNS option"),
        (&["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"], "not allowed in host network namespace"),
        (&["--device-cgroup-rule", "c 1:1 rwmq"], "rule"),
        (&["-v", "/etc:/x:ro,rw"], "invalid mode: ro,rw"),
        (&["-v", "/etc:/proc/sys"], "cannot be mounted because it is inside /proc"),
        (&["-v", "/etc:/x", "-v", "/tmp:/x"], "Duplicate mount point: /x"),
        (&["-v", "/etc:/x", "-v", "named:/x/"], "Duplicate mount point: /x"),
        (&["-v", "/etc:/x", "--mount", "type=volume,source=named,target=/x"], "Duplicate mount point: /x"),
        (&["-v", "/a", "-v", "/proc/x"], "cannot be mounted because it is inside /proc"),
        (&["-v", "/etc:/proc"], "cannot be mounted because it is not of type proc"),
        (&["-w", "rel"], "the working directory 'rel' is invalid, it needs to be an absolute path"),
        (&["--tmpfs", "/x:foo"], "invalid tmpfs option \"foo\""),
        (&["-v", "vs:/proc"], "error mounting \"vs\" to rootfs at \"/proc\""),
        (&["--tmpfs", "/proc/x"], "cannot be mounted because it is inside /proc"),
    ] {
        let mut client = d.client();
        client.arg("create").args(options).args(["busybox", "true"]);
        let said = crate::kit::Said::from(client.output().unwrap());
        assert!(said.code != 0 && said.err.contains(words), "{options:?}: {} {}", said.code, said.err);
    }
    assert_eq!(d.docker("ps -aq").ok(), "");
    assert_eq!(d.docker("volume ls -q").ok(), "");
    assert_eq!(std::fs::read_dir(d.data().join("containers")).unwrap().count(), 0);
}

#[test]
fn requests_that_docker_s_client_would_not_send() {
    let Some(d) = Daemon::start() else { return };
    for (host, words) in [
        (r#""Annotations":{"":"a"}"#, "invalid Annotations: the empty string is not permitted as an annotation key"),
        (r#""CpuShares":-1"#, "invalid CPU shares (-1): value must be a positive integer"),
        (r#""PidMode":"container:nosuch""#, "No such container: nosuch"),
        (r#""ShmSize":-1"#, "SHM size can not be less than 0"),
        (r#""Memory":"1g""#, "cannot unmarshal string into Go struct field .HostConfig.Memory of type int64"),
        (r#""CpuShares":-1"#, "invalid CPU shares (-1): value must be a positive integer"),
        (r#""CpuRealtimePeriod":1000,"CpuRealtimeRuntime":2000"#, "runtime cannot be higher than cpu real-time period"),
        (r#""IOMaximumIOps":1"#, "QoS maximum IOPs configuration is not supported on linux"),
        (r#""Annotations":{"":"x"}"#, "the empty string is not permitted as an annotation key"),
        (r#""PidMode":"container:nope""#, "No such container: nope"),
        (r#""CapAdd":["x"]"#, r#"invalid CapAdd: unknown capability: \"CAP_X\""#),
        (r#""MemorySwappiness":300"#, "Invalid value: 300, valid memory swappiness range is 0-100"),
        (r#""Sysctls":{"kernel.core_pattern":"x"}"#, "sysctl 'kernel.core_pattern' is not allowed"),
        (r#""SecurityOpt":["seccomp=default"]"#, "Decoding seccomp profile failed"),
        (r#""Ulimits":[{"Name":"nosuch","Soft":1,"Hard":1}]"#, "invalid ulimit type: nosuch"),
        (r#""Ulimits":[{"Name":"nofile","Soft":2,"Hard":1}]"#, "soft limit must be less than or equal to hard limit"),
        (r#""DnsSearch":["a\nnameserver 1.2.3.4"]"#, "invalid DNS search domain"),
        (r#""Dns":["1.2.3.4\noptions x"]"#, "invalid DNS server"),
        (r#""ExtraHosts":["a\n1.2.3.4 b:1.2.3.4"]"#, "invalid extra host"),
        (
            r#""Mounts":[{"Type":"bind","Source":"/etc","Target":"/x","BindOptions":{"Propagation":"odd"}}]"#,
            "invalid mount config for type \\\"bind\\\": invalid propagation mode: odd",
        ),
        (
            r#""Mounts":[{"Type":"bind","Source":"/etc","Target":"/x","BindOptions":{"ReadOnlyForceRecursive":true}}]"#,
            "mount options conflict: !ReadOnly \\u0026\\u0026 BindOptions.ReadOnlyForceRecursive",
        ),
    ] {
        let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{{host}}}}}"#);
        let (status, said) = d.post("/containers/create", &body, true).unwrap();
        let said = said.replace("&", "\\u0026");
        assert!(status == 400 && said.contains(words), "{host}: {status} {said}");
    }
    for body in [r#""Cmd":["a\u0000b"]"#, r#""Cmd":["true"],"Env":["A=\u0000"]"#] {
        let (status, said) = d.post("/containers/create", &format!(r#"{{"Image":"busybox",{body}}}"#), true).unwrap();
        assert!(status == 400 && said.contains("has a NUL in it"), "{body}: {status} {said}");
    }
}

#[test]
fn a_group_file_that_is_too_large_is_no_empty_one() {
    let Some(d) = Daemon::start() else { return };
    d.client()
        .args(["run", "--name", "large", "busybox", "sh", "-c", "yes '# a group file' | head -c 2000000 > /etc/group"])
        .output()
        .unwrap();
    let said = d.docker("start -a large");
    assert!(said.err.contains("/etc/group") && said.err.contains("file too large"), "{}", said.err);
}
