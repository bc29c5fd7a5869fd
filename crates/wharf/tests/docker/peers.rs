//! Debian's registry with TLS and with tokens, and the tools of others that read and write archives of images.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::kit::{Daemon, Said};
use crate::run::free_port;
use crate::token_server::{ISSUER, SERVICE, TokenServer, openssl};

/// Debian's registry, as long as this lives.
struct Peer {
    child: Child,
    address: String,
}

impl Peer {
    /// With more of its configuration under `http`, and beside it.
    fn start(d: &Daemon, http: &str, more: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let root = d.path().join("peer");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: {address}\n{http}{more}",
            root.display(),
        );
        let settings = d.path().join("peer.yml");
        std::fs::write(&settings, text).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        d.eventually("the registry answers", || std::net::TcpStream::connect(&address).is_ok());
        Self { child, address }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has(programs: &[&str]) -> bool {
    let there = |program: &&&str| {
        let path = std::env::var("PATH").unwrap_or_default();
        !path.split(':').any(|dir| Path::new(dir).join(program).exists())
    };
    match programs.iter().find(there) {
        Some(program) => {
            println!("skipped: there is no {program} on this machine");
            false
        }
        None => true,
    }
}

/// Pushes an image under a name, forgets it, and has it back, by Docker's client and by our own.
fn there_and_back(d: &Daemon, name: &str) {
    let id = d.docker("images -q --no-trunc busybox").ok();
    for wharf in [false, true] {
        let run = |words: &str| if wharf { d.wharf(words) } else { d.docker(words) };
        run(&format!("tag busybox {name}")).ok();
        run(&format!("push -q {name}")).ok();
        run(&format!("rmi {name}")).ok();
        assert!(run(&format!("pull {name}")).ok().contains("Status: Downloaded newer image"));
        assert_eq!(run(&format!("images -q --no-trunc {name}")).ok(), id);
        run(&format!("rmi {name}")).ok();
    }
}

#[test]
fn a_registry_with_a_certificate_of_its_own_authority() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let certs: &'static str = Box::leak(dir.path().join("certs.d").display().to_string().into_boxed_str());
    let options: &'static [&'static str] = Box::leak(vec!["--certs-dir", certs].into_boxed_slice());
    let Some(d) = Daemon::start_given(options) else { return };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    std::fs::write(dir.path().join("san"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(dir.path(), &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
    openssl(dir.path(), &format!("req -x509 {key} -keyout other.key -out other.crt -days 2 -subj /CN=other"));
    openssl(dir.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=here"));
    let sign = "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san";
    openssl(dir.path(), sign);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let peer =
        Peer::start(&d, &format!("  tls: {{certificate: {}, key: {}}}\n", at("server.crt"), at("server.key")), "");
    let own = Path::new(certs).join(&peer.address);
    std::fs::create_dir_all(&own).unwrap();
    let name = format!("{}/team/app:1", peer.address);
    std::fs::copy(dir.path().join("other.crt"), own.join("ca.crt")).unwrap();
    d.docker(&format!("tag busybox {name}")).ok();
    let refused = d.docker(&format!("push {name}"));
    assert!(refused.code == 1 && refused.err.contains("certificate signed by unknown authority"), "{}", refused.err);
    std::fs::copy(dir.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    there_and_back(&d, &name);
}

#[test]
fn a_registry_that_wants_tokens() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let Some(d) = Daemon::start() else { return };
    let tokens = TokenServer::start(d.path());
    let auth = format!(
        "auth: {{token: {{realm: \"http://{}/token\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
        tokens.address,
        tokens.certificate.display()
    );
    let peer = Peer::start(&d, "", &auth);
    let (at, public) = (&peer.address, format!("{}/public/app:1", peer.address));
    d.docker(&format!("tag busybox {public}")).ok();
    let refused = d.docker(&format!("push {public}"));
    assert!(
        refused.code == 1 && refused.err.contains("denied") || refused.err.contains("unauthorized"),
        "{}",
        refused.err
    );
    let wrong = d.docker(&format!("login -u ann -p other {at}"));
    assert!(wrong.code == 1 && wrong.err.contains("unauthorized"), "{}", wrong.err);
    d.docker(&format!("login -u ann -p secret {at}")).ok();
    there_and_back(&d, &format!("{at}/team/app:1"));
    there_and_back(&d, &public);
    let scopes = tokens.asked.lock().unwrap().clone();
    assert!(scopes.iter().any(|(scope, user)| scope == "repository:team/app:pull,push" && user == "ann"), "{scopes:?}");
    assert!(scopes.iter().any(|(scope, user)| scope == "repository:team/app:pull" && user == "ann"), "{scopes:?}");
    // From one repository into another nothing is sent.
    d.docker(&format!("pull -q {at}/team/app:1")).ok();
    let other = format!("{at}/team/other:1");
    d.docker(&format!("tag {at}/team/app:1 {other}")).ok();
    assert!(d.docker(&format!("push {other}")).ok().contains("Mounted from team/app"));
    // Whoever has logged out has what is everybody's.
    d.docker(&format!("logout {at}")).ok();
    d.docker(&format!("pull -q {public}")).ok();
    let refused = d.docker(&format!("pull {at}/team/secret:1"));
    assert!(refused.code == 1 && !refused.err.is_empty(), "{}", refused.err);
}

/// `podman` with a store of its own. It refuses hosts with hierarchies of both versions: cgroup2's is out of its sight.
fn podman(d: &Daemon, words: &str) -> Said {
    let store = d.path().join("podman");
    let hide = "mount -t tmpfs none /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", hide, "sh", "podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--events-backend", "none"]).args(words.split_whitespace()).stdin(Stdio::null());
    command.output().unwrap().into()
}

#[test]
fn podman_and_we_load_what_the_other_saves() {
    if !has(&["podman", "unshare"]) {
        return;
    }
    let Some(d) = Daemon::start() else { return };
    d.docker("tag busybox localhost/app:1").ok();
    let id = d.docker("images -q --no-trunc busybox").ok();
    let hex = id.strip_prefix("sha256:").unwrap();
    let ours = d.path().join("ours.tar");
    d.wharf(&format!("save -o {} localhost/app:1", ours.display())).ok();
    let loaded = podman(&d, &format!("load -i {}", ours.display())).ok();
    assert!(loaded.contains("localhost/app:1"), "{loaded}");
    assert_eq!(podman(&d, "images -q --no-trunc").ok(), id);
    d.docker("rmi localhost/app:1").ok();
    for format in ["docker-archive", "oci-archive"] {
        let theirs = d.path().join(format!("{format}.tar"));
        podman(&d, &format!("save --format {format} -o {} localhost/app:1", theirs.display())).ok();
        let loaded = d.wharf(&format!("load -i {}", theirs.display())).ok();
        assert_eq!(loaded, "Loaded image: localhost/app:1", "{format}");
        // The configuration is the image's own in the one, and podman's words for it in the other.
        assert_eq!(d.docker("run --rm localhost/app:1 echo runs").ok(), "runs", "{format}");
        if format == "docker-archive" {
            assert_eq!(d.docker("images -q --no-trunc localhost/app:1").ok(), format!("sha256:{hex}"));
        }
        d.docker("rmi localhost/app:1").ok();
    }
    // Some of several.
    podman(&d, "tag localhost/app:1 localhost/second:2").ok();
    let both = d.path().join("both.tar");
    podman(&d, &format!("save -m -o {} localhost/app:1 localhost/second:2", both.display())).ok();
    let loaded = d.wharf(&format!("load -i {}", both.display())).ok();
    let mut lines: Vec<&str> = loaded.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: localhost/app:1", "Loaded image: localhost/second:2"]);
}

/// What is in a root, but for the directories themselves, whose sizes are the file system's, and what a container is given.
const LISTING: &str = "cd / && find bin etc home lib root sbin usr var -xdev ! -path etc/hosts ! -path etc/hostname \
                       ! -path etc/resolv.conf ! -path etc/mtab ! -type d -printf '%y %m %U %G %s %n %l %T@ %p\\n' | sort";

#[test]
fn a_real_debian_that_podman_saves_is_the_same_here() {
    if !has(&["podman", "unshare", "mmdebstrap"]) {
        return;
    }
    let Some(d) = Daemon::start() else { return };
    let tar = d.path().join("debian.tar");
    let made =
        Command::new("mmdebstrap").args(["--variant=minbase", "--quiet", "bookworm"]).arg(&tar).output().unwrap();
    if !made.status.success() {
        return println!("skipped: no Debian to be had: {}", String::from_utf8_lossy(&made.stderr));
    }
    let root = d.path().join("debian");
    std::fs::create_dir(&root).unwrap();
    assert!(Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&root).status().unwrap().success());
    let listed = Command::new("chroot").arg(&root).args(["sh", "-c", LISTING]).output().unwrap();
    let expected = Said::from(listed).ok();
    assert!(expected.lines().count() > 3000, "{}", expected.lines().count());
    podman(&d, &format!("import {} localhost/debian:bookworm", tar.display())).ok();
    for format in ["docker-archive", "oci-archive"] {
        let saved = d.path().join(format!("{format}.tar"));
        podman(&d, &format!("save --format {format} -o {} localhost/debian:bookworm", saved.display())).ok();
        let loaded = d.wharf(&format!("load -i {}", saved.display())).ok();
        assert_eq!(loaded, "Loaded image: localhost/debian:bookworm", "{format}");
        let mut command = d.client();
        let here: Said =
            command.args(["run", "--rm", "localhost/debian:bookworm", "sh", "-c", LISTING]).output().unwrap().into();
        let here = here.ok();
        let differs = here.lines().zip(expected.lines()).find(|(here, expected)| here != expected);
        assert!(here == expected, "{format}: {differs:?}");
        assert_eq!(d.docker("run --rm localhost/debian:bookworm dpkg --audit").ok(), "", "{format}");
        // And back.
        if format == "docker-archive" {
            let ours = d.path().join("ours.tar");
            d.wharf(&format!("save -o {} localhost/debian:bookworm", ours.display())).ok();
            let id = d.docker("images -q --no-trunc localhost/debian:bookworm").ok();
            podman(&d, "rmi localhost/debian:bookworm").ok();
            podman(&d, &format!("load -i {}", ours.display())).ok();
            assert_eq!(podman(&d, "images -q --no-trunc localhost/debian:bookworm").ok(), id);
        }
        d.docker("rmi localhost/debian:bookworm").ok();
    }
}

#[test]
fn skopeo_and_umoci_read_what_is_saved_and_we_what_they_write() {
    if !has(&["skopeo", "umoci"]) {
        return;
    }
    let Some(d) = Daemon::start() else { return };
    d.docker("tag busybox app:1").ok();
    let id = d.docker("images -q --no-trunc busybox").ok();
    let saved = d.path().join("saved.tar");
    d.wharf(&format!("save -o {} app:1", saved.display())).ok();
    d.docker("rmi app:1").ok();
    let skopeo = |from: &str, to: &str| {
        let mut command = Command::new("skopeo");
        let output = command.args(["--insecure-policy", "copy", "-q", from, to]).output().unwrap();
        Said::from(output).ok();
    };
    let dir = d.path().display().to_string();
    // As a Docker archive, and as an OCI one: it is both.
    skopeo(&format!("docker-archive:{dir}/saved.tar:app:1"), &format!("docker-archive:{dir}/docker.tar:app:1"));
    skopeo(&format!("oci-archive:{dir}/saved.tar:1"), &format!("oci-archive:{dir}/oci.tar:app:1"));
    for file in ["docker.tar", "oci.tar"] {
        let loaded = d.wharf(&format!("load -i {dir}/{file}")).ok();
        assert!(loaded.starts_with("Loaded image: app:1"), "{file}: {loaded}");
        assert_eq!(d.docker("images -q --no-trunc app:1").ok(), id, "{file}");
        d.docker("rmi app:1").ok();
    }
    // The archive unpacked is an OCI layout.
    let layout = d.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    assert!(Command::new("tar").arg("-xf").arg(&saved).arg("-C").arg(&layout).status().unwrap().success());
    let umoci = |words: &str| Said::from(Command::new("umoci").args(words.split_whitespace()).output().unwrap()).ok();
    assert_eq!(umoci(&format!("ls --layout {dir}/layout")), "1");
    umoci(&format!("unpack --image {dir}/layout:1 {dir}/bundle"));
    let unpacked = std::fs::read(d.path().join("bundle/rootfs/bin/busybox")).unwrap();
    assert!(unpacked == std::fs::read("/bin/busybox").unwrap());
    // With a layer of its own, back to us.
    std::fs::write(d.path().join("bundle/rootfs/added"), "by umoci").unwrap();
    std::fs::remove_file(d.path().join("bundle/rootfs/etc/group")).unwrap();
    umoci(&format!("repack --image {dir}/layout:2 {dir}/bundle"));
    umoci(&format!("config --image {dir}/layout:2 --config.env MADE=umoci --config.cmd cat --config.cmd /added"));
    let written = d.path().join("layout.tar");
    // What Docker alone reads does not know of it.
    std::fs::remove_file(layout.join("manifest.json")).unwrap();
    assert!(Command::new("tar").arg("-cf").arg(&written).arg("-C").arg(&layout).arg(".").status().unwrap().success());
    let loaded = d.wharf(&format!("load -i {}", written.display())).ok();
    // It has taken the first one's annotations, and with them its name.
    let lines: Vec<&str> = loaded.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "Loaded image: app:1", "Loaded image: app:1"), "{loaded}");
    assert_eq!(d.docker("run --rm app:1").ok(), "by umoci");
    assert_eq!(d.docker("run --rm app:1 ls /etc").ok().lines().filter(|line| *line == "group").count(), 0);
    let config: Value = d.get("/v1.51/images/app:1/json");
    assert!(config["Config"]["Env"].as_array().unwrap().iter().any(|pair| pair == "MADE=umoci"), "{config}");
}
