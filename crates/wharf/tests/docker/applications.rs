//! Applications with Dockerfiles as people write them (`applications/`), on Debian, with the package managers of their
//! languages. What comes of them runs and answers. Those that take minutes want `WHARF_SLOW` (`make test-slow`).

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::kit::Daemon;

/// Certificates of the host, which may have one of its own network's: the base image trusts whom the host trusts.
const TRUST: &str = "/etc/ssl/certs/ca-certificates.crt";
const BASE: &str = "FROM plain\nCOPY trust.crt /etc/ssl/certs/ca-certificates.crt\n\
                    ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
                    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt\n";

/// An archive of Debian as it is when it is new, made once, in a file without a name: nobody comes to remove what is static.
/// None without a network.
fn debian() -> Option<File> {
    static MADE: OnceLock<Option<File>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let archive = tempfile::tempfile().unwrap();
        let mut make = Command::new("mmdebstrap");
        make.args(["--variant=minbase", "--quiet", "--include=ca-certificates", "bookworm", "-"]);
        match make.stdout(archive.try_clone().unwrap()).output() {
            Ok(made) if made.status.success() => Some(archive),
            Ok(made) => {
                println!("skipped: no Debian to be had: {}", String::from_utf8_lossy(&made.stderr));
                None
            }
            Err(error) => {
                println!("skipped: mmdebstrap: {error}");
                None
            }
        }
    });
    // Opened anew, as each test reads from the beginning.
    made.as_ref().map(|archive| File::open(format!("/proc/self/fd/{}", archive.as_raw_fd())).unwrap())
}

fn is_slow() -> bool {
    let asked = std::env::var_os("WHARF_SLOW").is_some();
    if !asked {
        println!("skipped: takes minutes; `make test-slow` runs it");
    }
    asked
}

fn ask(at: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: hello\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Builds and runs `applications/NAME`, and has `says` from its port; once more all of it comes from the cache. The
/// image's size in bytes.
#[track_caller]
fn works(name: &str, says: &str) -> Option<u64> {
    let archive = debian()?;
    let d = Daemon::start()?;
    let mut import = d.client();
    import.args(["import", "-", "plain"]).stdin(archive);
    assert!(import.output().unwrap().status.success());
    let base = d.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::copy(TRUST, base.join("trust.crt")).unwrap();
    std::fs::write(base.join("Dockerfile"), BASE).unwrap();
    d.wharf(&format!("build -q -t debian:bookworm {}", base.display())).ok();
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/applications").join(name);
    let build = format!("build --progress plain -t hello {}", context.display());
    let built = d.wharf(&build);
    assert!(built.code == 0, "{}{}", built.out, built.err);
    let id = d.docker("inspect -f {{.Id}} hello").ok();
    d.wharf(&build).ok();
    assert_eq!(d.docker("inspect -f {{.Id}} hello").ok(), id);
    d.docker("run -d --name hello --init --read-only --tmpfs /tmp -p 127.0.0.1::8080 hello").ok();
    let at = d.docker("port hello 8080/tcp").ok();
    d.eventually("it answers", || ask(&at).is_ok_and(|answer| answer.contains(says)));
    assert_ne!(d.docker("exec hello id -u").out.trim(), "0", "not as root, where there is an `id` to ask");
    if !d.docker("inspect -f {{.Config.Healthcheck}} hello").ok().contains("nil") {
        d.eventually("it is healthy", || d.docker("inspect -f {{.State.Health.Status}} hello").out.trim() == "healthy");
    }
    d.docker("stop hello").ok();
    let code = d.docker("inspect -f {{.State.ExitCode}} hello").ok();
    assert_ne!(code, "137", "it ends when it is told to");
    d.docker("rm hello").ok();
    Some(d.docker("inspect -f {{.Size}} hello").ok().parse().unwrap())
}

#[test]
fn a_program_in_c_with_make() {
    if let Some(size) = works("c", "hello from C") {
        assert!(size < 4_000_000, "a static program and nothing else: {size}");
    }
}

#[test]
fn an_application_in_python_with_pip() {
    works("python", "hello from Python");
}

#[test]
fn an_application_for_node_with_npm() {
    if is_slow() {
        works("node", "hello from Node");
    }
}

#[test]
fn a_program_in_rust_with_cargo() {
    if is_slow() {
        works("rust", "hello from Rust");
    }
}

#[test]
fn an_application_in_java_with_maven() {
    if is_slow() {
        works("java", "hello from Java");
    }
}
