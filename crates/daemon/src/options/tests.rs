use super::*;

fn parse(words: &[&str]) -> Result<Options, String> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    match Options::parse(&words)? {
        Parsed::Run(options) => Ok(*options),
        Parsed::Say(text) => Err(text),
    }
}

#[test]
fn dockerd_s_flags_are_understood() {
    let options = parse(&[
        "-H",
        "unix:///a.sock",
        "--host=unix:///b.sock",
        "--data-root",
        "/d",
        "--exec-root=/e",
        "--bip",
        "10.8.0.1/16",
        "--bip",
        "10.9.0.1/16",
        "-D",
        "--live-restore",
        "--init=false",
        "--default-address-pool",
        "base=10.0.0.0/8,size=24",
    ])
    .unwrap();
    assert_eq!(options.hosts, ["unix:///a.sock", "unix:///b.sock"]);
    assert_eq!((options.data_root.as_path(), options.pidfile.as_path()), ("/d".as_ref(), "/e/wharf.pid".as_ref()));
    assert_eq!(options.log_level, "debug");
    assert!(!options.init);
    assert_eq!(options.layers, None);
    assert!(options.differs(&options).is_empty());
    let other = parse(&["-H", "unix:///a.sock", "-H", "unix:///b.sock", "--data-root", "/d", "--mtu", "9000"]).unwrap();
    assert!(options.differs(&other).contains(&"mtu") && !options.differs(&other).contains(&"host"));
    assert_eq!(parse(&["--storage-layers", "dirs"]).unwrap().layers, Some(Storage::Dirs));
    assert_eq!(options.pools, [("10.0.0.0/8".to_owned(), 24)]);
}

#[test]
fn what_is_wrong_is_named() {
    for (words, text) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--log-level", "loud"], "loud"),
        (&["--ip6tables=false"], "ip6tables=false"),
        (&["--userns-remap", "default"], "userns-remap 'default' is not supported"),
        (&["--userns-remap=testuser:testgroup"], "`--userns auto`"),
        (&["--default-address-pool", "x"], "address pool"),
        (&["--default-address-pool", "base=x,size=24"], "give a base as 172.30.0.0/16"),
        (&["--default-address-pool", "base=10.0.0.0/8,size=4"], "give a size of 8 to 32"),
        (&["--default-address-pool", "base=fd00::/48,size=129"], "128 bits at most"),
        (&["--dns", "192.0.2.1", "--dns", "x"], "invalid dns 'x'"),
        (&["--config-file", "/nonexistent.json"], "/nonexistent.json"),
        (&["--log-driver", "bogus"], "failed to set log opts: logger: no log driver named 'bogus' is registered"),
        (&["--log-opt", "max-file=0"], "failed to set log opts: max-file cannot be less than 1"),
        (&["--log-opt", "max-file"], "KEY=VALUE"),
        (&["--default-network-opt", "bridge"], "default network option"),
        (&["--default-network-opt", "macvlan=a=b"], "driver macvlan"),
        (&["--host-gateway-ip", "x"], "host-gateway-ip"),
        (&["--cgroup-parent", "../x"], "invalid cgroup parent"),
        (&["--max-concurrent-downloads=0"], "invalid max concurrent downloads: 0"),
        (&["--max-download-attempts=0"], "invalid max download attempts: 0"),
        (&["--storage-layers", "zip"], "give auto, erofs or dirs"),
        (&["--default-ipc-mode", "host"], "IPC mode for containers must be 'private' or 'shareable'"),
        (&["--default-cgroupns-mode=x"], "default cgroup namespace mode (x) is invalid"),
        (&["--default-shm-size", "much"], "invalid default-shm-size 'much'"),
        (&["--seccomp-profile", "/nonexistent.json"], "opening seccomp profile (/nonexistent.json) failed"),
        (&["--ip", "here"], "invalid ip 'here'"),
        (&["--default-gateway", "fd00::1"], "invalid default-gateway 'fd00::1'"),
        (&["--iptables=false", "--icc=false"], "ICC=false uses iptables to function"),
        (&["-b", "br0", "--bip", "10.9.0.1/16"], "mutually exclusive"),
        (&["--default-runtime", "runsc"], "default runtime 'runsc' is not supported"),
        (&["--selinux-enabled"], "selinux-enabled is not supported"),
        (&["--authorization-plugin", "opa"], "authorization plugin 'opa' is not supported"),
        (&["--storage-opt", "overlay2.size=1G"], "--storage-max-bytes"),
    ] {
        let error = parse(words).unwrap_err();
        assert!(error.contains(text), "{words:?}: {error}");
    }
}

#[test]
fn what_is_about_other_programs_is_taken_and_told() {
    let words = ["--containerd", "/c.sock", "--exec-opt", "native.cgroupdriver=systemd", "--experimental"];
    let options = parse(&words).unwrap();
    assert_eq!(options.without_effect, ["--containerd", "--exec-opt", "--experimental"]);
    assert!(parse(&["--live-restore"]).unwrap().without_effect.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    let text = r#"{"live-restore":true,"runtimes":{"a":{"path":"/a"}},"icc":false,"ip":"127.0.0.1",
        "default-shm-size":"128M","no-new-privileges":true,"seccomp-profile":"unconfined"}"#;
    std::fs::write(&path, text).unwrap();
    let options = parse(&["--config-file", path.to_str().unwrap()]).unwrap();
    assert_eq!(options.without_effect, ["runtimes"]);
    assert!(!options.bridge_rules.icc && options.bridge_rules.masquerade && options.containers.no_new_privileges);
    assert_eq!(options.bridge_rules.host_binding, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((options.containers.shm_size, options.containers.seccomp.name()), (128 << 20, "unconfined"));
}

#[test]
fn a_file_fills_in_and_contradicts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    std::fs::write(
        &path,
        r#"{"hosts":["unix:///f.sock"],"mtu":1400,"storage-layers":"erofs","log-opts":{"max-size":"1m"}}"#,
    )
    .unwrap();
    let name = path.to_str().unwrap();
    let options = parse(&["--config-file", name]).unwrap();
    assert_eq!((options.hosts[0].as_str(), options.mtu), ("unix:///f.sock", Some(1400)));
    assert_eq!(options.log_options, ["max-size=1m"]);
    assert_eq!(options.layers, Some(Storage::Erofs));
    let error = parse(&["--config-file", name, "-H", "unix:///x.sock"]).unwrap_err();
    assert!(
        error.contains("in the configuration file: hosts: (from flag: [unix:///x.sock], from file: [unix:///f.sock])"),
        "{error}"
    );
    let proxies = r#"{"proxies":{"https-proxy":"http://u:secret@p:1"},"certs-dirs":["/c"]}"#;
    std::fs::write(&path, proxies).unwrap();
    let options = parse(&["--config-file", name]).unwrap();
    assert_eq!(options.proxies.https.as_deref(), Some("http://u:secret@p:1"));
    assert_eq!(options.certs_dirs, [PathBuf::from("/c")]);
    assert!(!format!("{options:?}").contains("secret"));
    let error = parse(&["--config-file", name, "--https-proxy", "http://v:secret@p:2"]).unwrap_err();
    let both = "https-proxy: (from flag: http://xxxxx:xxxxx@p:2, from file: http://xxxxx:xxxxx@p:1)";
    assert!(error.contains(both), "{error}");
    std::fs::write(&path, r#"{"proxies":{"http":"x"}}"#).unwrap();
    assert!(parse(&["--config-file", name]).unwrap_err().contains("http"));
    std::fs::write(&path, r#"{"userns-remap":"default"}"#).unwrap();
    let error = parse(&["--config-file", name]).unwrap_err();
    assert!(error.contains("userns-remap 'default' is not supported"), "{error}");
    // Nobody, as dockerd has it.
    std::fs::write(&path, r#"{"userns-remap":""}"#).unwrap();
    assert!(parse(&["--config-file", name]).is_ok());
}

#[test]
fn a_byte_budget_has_units() {
    let read = |text: &str| bytes("storage-max-bytes", text).unwrap_or(0);
    assert_eq!((read("1000"), read("20GB"), read("512m"), read("1.5 k")), (1000, 20 << 30, 512 << 20, 1536));
    for bad in ["", "x", "1q", "0", "-1", "1e3"] {
        assert!(bytes("storage-max-bytes", bad).unwrap_err().contains("storage-max-bytes"), "{bad}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon.json");
    for (text, size) in [(r#""2GB""#, 2u64 << 30), ("4096", 4096)] {
        std::fs::write(&path, format!(r#"{{"storage-max-bytes": {text}}}"#)).unwrap();
        let options = parse(&["--config-file", path.to_str().unwrap()]).unwrap();
        assert_eq!(options.storage_max, Some(size));
    }
}
