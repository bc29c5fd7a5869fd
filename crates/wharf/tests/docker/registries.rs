//! Registries that want to know who asks, and lists of images for several platforms, through our own command line.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::kit::{Daemon, Said, WHARF};
use crate::run::free_port;
use crate::ship::Registry;

/// Our own command line, whatever else is installed.
fn own(d: &Daemon, words: &str) -> Said {
    fed(d, words, "")
}

fn fed(d: &Daemon, words: &str, input: &str) -> Said {
    use std::io::Write as _;
    let path = format!("{}:{}", d.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new(WHARF)
        .arg("-H")
        .arg(format!("unix://{}", d.socket().display()))
        .args(words.split_whitespace())
        .env("DOCKER_CONFIG", d.path().join("config"))
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// Debian's registry, as long as this lives.
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("skipped: there is no {program} on this machine");
    }
    there
}

/// bcrypt's of `secret`.
const SECRET: &str = "$2y$04$tU4kJPGNAJ6HSC5TnkvdtOy73Z3CcNEIt9IW9J0C8SCQHDKZ.u6E6";

/// With the user `ann` and her password `secret`.
pub(crate) fn peer(d: &Daemon) -> Option<Peer> {
    if !has("docker-registry") {
        return None;
    }
    let passwords = d.path().join("htpasswd");
    std::fs::write(&passwords, format!("ann:{SECRET}\n")).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n\
         auth: {{htpasswd: {{realm: here, path: {}}}}}\n",
        d.path().join("peer").display(),
        passwords.display()
    );
    let settings = d.path().join("registry.yml");
    std::fs::write(&settings, text).unwrap();
    let mut command = Command::new("docker-registry");
    let child = command.arg("serve").arg(settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    d.eventually("the registry answers", || std::net::TcpStream::connect(&address).is_ok());
    Some(Peer { child, address })
}

/// A helper that keeps what it is given in files, by the protocol of Docker's.
fn helper(d: &Daemon) -> PathBuf {
    let (bin, kept) = (d.path().join("bin"), d.path().join("kept"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&kept).unwrap();
    let path = bin.join("docker-credential-files");
    let script = format!(
        "#!/bin/sh\nread -r line\ncd {}\nname=$(printf %s \"$line\" | sed 's/.*\"ServerURL\":\"\\([^\"]*\\)\".*/\\1/' | tr / _)\n\
         case $1 in\nstore) printf %s \"$line\" >\"$name\";;\n\
         get) [ -e \"$name\" ] && cat \"$name\" || {{ echo 'credentials not found in native keychain'; exit 1; }};;\n\
         erase) rm -f \"$name\";;\nlist) echo '{{}}';;\nesac\n",
        kept.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    kept
}

#[test]
fn who_logs_in_may_push_and_pull() {
    let Some(d) = Daemon::start() else { return };
    let Some(peer) = peer(&d) else { return };
    let (at, config) = (&peer.address, d.path().join("config/config.json"));
    let name = format!("{at}/team/app:1");
    own(&d, &format!("tag busybox {name}")).ok();
    let refused = own(&d, &format!("push {name}"));
    assert!(
        refused.code == 1 && refused.err.contains("no basic auth credentials") || refused.err.contains("unauthorized"),
        "{}",
        refused.err
    );
    let wrong = fed(&d, &format!("login -u ann --password-stdin {at}"), "other\n");
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("401 Unauthorized"), "{}", wrong.err);
    assert!(!config.exists(), "nothing is kept of it");
    let said = fed(&d, &format!("login -u ann --password-stdin {at}"), "secret\n");
    assert!(said.err.contains("stored unencrypted"), "{}", said.err);
    assert_eq!(said.ok(), "Login Succeeded");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("YW5uOnNlY3JldA==") && text.contains(at), "{text}");
    assert!(own(&d, &format!("push {name}")).ok().contains("Pushed"));
    own(&d, &format!("rmi {name}")).ok();
    assert!(own(&d, &format!("pull {name}")).ok().contains("Status: Downloaded newer image"));
    // And a build has the base images of who asks for it.
    let context = d.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nENV BUILT=1\n")).unwrap();
    let build = format!("build --pull {}", context.display());
    for built in [own(&d, &build), d.docker(&build)] {
        own(&d, &format!("rmi {name}"));
        assert!(built.ok().contains("Successfully built"));
    }
    assert_eq!(own(&d, &format!("logout {at}")).ok(), format!("Removing login credentials for {at}"));
    let refused = d.docker(&build);
    assert!(refused.code != 0 && refused.err.contains("unauthorized"), "{}{}", refused.out, refused.err);
    assert_ne!(own(&d, &format!("pull {name}")).code, 0);
    // By a helper, for this registry alone.
    let kept = helper(&d);
    std::fs::write(&config, format!(r#"{{"credHelpers":{{"{at}":"files"}},"other":1}}"#)).unwrap();
    let said = fed(&d, &format!("login -u ann --password-stdin {at}"), "secret");
    assert!(!said.err.contains("unencrypted"), "{}", said.err);
    assert_eq!(said.ok(), "Login Succeeded");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(!text.contains("YW5u") && text.contains("\"other\""), "{text}");
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
    own(&d, &format!("pull {name}")).ok();
    own(&d, &format!("logout {at}")).ok();
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
    std::fs::write(&config, r#"{"credsStore":"nowhere"}"#).unwrap();
    let missing = own(&d, &format!("pull {name}"));
    assert!(missing.err.contains("docker-credential-nowhere"), "{}", missing.err);
}

/// An address of this host that is none of its loopback network's, which needs no leave.
#[test]
fn a_registry_without_tls_needs_leave() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let port = registry.address.rsplit(':').next().unwrap();
    let name = format!("0.0.0.0:{port}/app:1");
    d.docker(&format!("tag busybox {name}")).ok();
    let refused = d.docker(&format!("push {name}"));
    assert!(refused.code == 1 && refused.err.contains("server gave HTTP response to HTTPS client"), "{}", refused.err);
    let Some(d) = Daemon::start_given(&["--insecure-registry", "0.0.0.0/31"]) else { return };
    let registry = Registry::start(&d);
    let name = format!("{}/app:1", registry.address.replace("127.0.0.1", "0.0.0.0"));
    d.docker(&format!("tag busybox {name}")).ok();
    d.docker(&format!("push {name}")).ok();
    d.docker(&format!("rmi {name}")).ok();
    d.docker(&format!("pull {name}")).ok();
    assert!(d.docker("info").ok().contains("0.0.0.0/31"));
}

#[test]
fn a_list_of_images_is_made_and_pushed() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let at = &registry.address;
    // The same image as of two platforms: what a list says counts.
    for name in ["app:one", "other:two"] {
        own(&d, &format!("tag busybox {at}/{name}")).ok();
        own(&d, &format!("push {at}/{name}")).ok();
    }
    let list = format!("{at}/app:all");
    let created = own(&d, &format!("manifest create {list} {at}/app:one {at}/other:two")).ok();
    assert_eq!(created, format!("Created manifest list {list}"));
    let again = own(&d, &format!("manifest create {list} {at}/app:one"));
    assert_eq!((again.code, again.err.trim()), (1, "refusing to amend an existing manifest list with no --amend flag"));
    own(&d, &format!("manifest create --amend {list} {at}/app:one")).ok();
    own(&d, &format!("manifest annotate --os linux --arch arm --variant v7 {list} {at}/other:two")).ok();
    let bad = own(&d, &format!("manifest annotate --arch nonsense {list} {at}/other:two"));
    assert_eq!(bad.err.trim(), "manifest entry for image has unsupported os/arch combination: linux/nonsense");
    let none = own(&d, &format!("manifest annotate --arch arm {list} {at}/third:1"));
    assert_eq!(none.err.trim(), format!("manifest for image {at}/third:1 does not exist in {list}"));
    let shown: serde_json::Value = serde_json::from_str(&own(&d, &format!("manifest inspect {list}")).ok()).unwrap();
    assert_eq!(shown["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(
        shown["manifests"][1]["platform"],
        serde_json::json!({"architecture": "arm", "os": "linux", "variant": "v7"})
    );
    let verbose = own(&d, &format!("manifest inspect -v {list} {at}/other:two")).ok();
    assert!(verbose.starts_with("{\n\t\"Ref\"") && verbose.contains("OCIManifest"), "{verbose}");
    let pushed = own(&d, &format!("manifest push --purge {list}")).ok();
    let lines: Vec<&str> = pushed.lines().collect();
    assert!(lines[0].starts_with(&format!("Pushed ref {at}/app@sha256:")), "{pushed}");
    let digest = lines.last().unwrap().to_string();
    let gone = own(&d, &format!("manifest push {list}"));
    assert_eq!(gone.err.trim(), format!("{list} not found"));
    assert_eq!(own(&d, &format!("manifest rm {list}")).err.trim(), format!("No such manifest: {list}"));
    // It is what the registry has, and pulled by platform.
    let remote: serde_json::Value = serde_json::from_str(&own(&d, &format!("manifest inspect {list}")).ok()).unwrap();
    assert_eq!(remote, shown);
    own(&d, &format!("rmi -f {at}/app:one {at}/other:two")).ok();
    let pulled = own(&d, &format!("pull {list}")).ok();
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    let missing = own(&d, &format!("pull --platform linux/s390x {list}"));
    assert!(missing.err.contains("no matching manifest for linux/s390x"), "{}", missing.err);
    let elsewhere = own(&d, &format!("manifest create {at}/x:1 {list}"));
    assert!(elsewhere.err.contains("is a manifest list"), "{}", elsewhere.err);
    let of_image = own(&d, &format!("manifest inspect {at}/app:one")).ok();
    assert!(of_image.contains("\"layers\""), "{of_image}");
}
