//! Where plugins are found: sockets, and files that say where one listens (Docker's "plugin discovery").

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::http::Address;
use super::tls::Tls;

/// The longest file that says where a plugin listens.
const MAX_SPEC: u64 = 64 << 10;

/// The port of `https` (RFC 9110, 4.2.2).
const HTTPS: u16 = 443;

/// `NAME.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Spec {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<Tls>,
}

/// A name that leads out of no folder.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Where the plugin `name` listens, by the first of `dirs` that knows it: `NAME.sock`, `NAME/NAME.sock`, `NAME.spec`,
/// `NAME.json` or the two in a folder `NAME`.
///
/// # Errors
/// When a file is there and cannot be used, with the reason.
pub(super) fn find(dirs: &[PathBuf], name: &str) -> Result<Option<Address>, String> {
    if !is_name(name) {
        return Ok(None);
    }
    for dir in dirs {
        for path in [dir.join(format!("{name}.sock")), dir.join(name).join(format!("{name}.sock"))] {
            if is_socket(&path) {
                return Ok(Some(Address::Unix(path)));
            }
        }
        for ending in ["spec", "json"] {
            for path in [dir.join(format!("{name}.{ending}")), dir.join(name).join(format!("{name}.{ending}"))] {
                if path.is_file() {
                    return read(&path).map(Some).map_err(|why| format!("{}: {why}", path.display()));
                }
            }
        }
    }
    Ok(None)
}

/// The names of all that may be there.
pub(super) fn names(dirs: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for entry in dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = match entry.path().extension().and_then(|ending| ending.to_str()) {
            Some("sock" | "spec" | "json") => {
                name.rsplit_once('.').map(|(name, _)| name.to_owned()).unwrap_or_default()
            }
            _ if entry.path().is_dir() => name,
            _ => continue,
        };
        if matches!(find(dirs, &name), Ok(Some(_)) | Err(_)) {
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    names
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn read(path: &Path) -> Result<Address, String> {
    if fs::metadata(path).map_err(|error| error.to_string())?.len() > MAX_SPEC {
        return Err("too long for the address of a plugin".into());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if path.extension().is_some_and(|ending| ending == "spec") {
        return address(text.trim());
    }
    let spec: Spec = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let address = address(spec.addr.trim())?;
    match (address, spec.tls) {
        (Address::Tls { host, port, place, .. }, Some(tls)) => {
            tls.check()?;
            Ok(Address::Tls { host, port, tls, place })
        }
        // A socket's permissions are enough; Docker has no use for it there either.
        (address @ Address::Unix(_), _) | (address, None) => Ok(address),
        // Docker would speak without TLS, which is not what the file asks for.
        _ => Err(format!("TLSConfig is for TLS, and Addr '{}' for none: give https://HOST:PORT", spec.addr)),
    }
}

/// `unix:///PATH`, `tcp://HOST:PORT` or `https://HOST[:PORT]`; a path behind the latter counts for nothing, as with Docker.
fn address(url: &str) -> Result<Address, String> {
    if let Some(path) = url.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok(Address::Unix(path.into()))
        } else {
            Err(format!("the path of '{url}' is not absolute"))
        };
    }
    if let Some(rest) = url.strip_prefix("https://") {
        let rest = rest.split('/').next().unwrap_or_default();
        let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| format!("'{url}' has no port that is a number"))?),
            None => (rest, HTTPS),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['[', ']', '@']) {
            return Err(format!("'{url}' has no host"));
        }
        return Ok(Address::Tls { host: host.to_owned(), port, tls: Tls::default(), place: None });
    }
    let Some(rest) = url.strip_prefix("tcp://").or_else(|| url.strip_prefix("http://")) else {
        return Err(format!("'{url}' is neither unix:///PATH nor tcp://ADDRESS:PORT nor https://HOST:PORT"));
    };
    let rest = rest.trim_end_matches('/');
    if let Some(port) = rest.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    if let Ok(address) = rest.parse() {
        return Ok(Address::Tcp(address));
    }
    let named = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match named.filter(|(host, _)| !host.is_empty() && !host.contains(['/', ':', '[', ']', '@'])) {
        Some((host, port)) => Ok(Address::Host(host.to_owned(), port)),
        None => Err(format!("'{url}' has no host and port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_found_by_its_socket_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("one.sock")).unwrap();
        fs::create_dir(dir.path().join("two")).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(dir.path().join("two/two.sock")).unwrap();
        fs::write(dir.path().join("three.spec"), "unix:///x/three.sock\n").unwrap();
        fs::write(dir.path().join("four.json"), r#"{"Name":"four","Addr":"tcp://127.0.0.1:80"}"#).unwrap();
        fs::write(dir.path().join("bad.json"), r#"{"Addr":"ftp://h:1"}"#).unwrap();
        fs::write(dir.path().join("tls.json"), r#"{"Addr":"tcp://127.0.0.1:1","TLSConfig":{}}"#).unwrap();
        fs::write(dir.path().join("five.txt"), "unix:///x").unwrap();
        assert_eq!(names(&dirs), ["bad", "four", "one", "three", "tls", "two"]);
        let unix = |path: PathBuf| Some(Address::Unix(path));
        assert_eq!(find(&dirs, "one").unwrap(), unix(dir.path().join("one.sock")));
        assert_eq!(find(&dirs, "two").unwrap(), unix(dir.path().join("two/two.sock")));
        assert_eq!(find(&dirs, "three").unwrap(), unix("/x/three.sock".into()));
        assert_eq!(find(&dirs, "four").unwrap(), Some(Address::Tcp("127.0.0.1:80".parse().unwrap())));
        for (name, why) in [("bad", "is neither unix:///PATH nor"), ("tls", "TLSConfig is for TLS, and Addr")] {
            assert!(find(&dirs, name).unwrap_err().contains(why), "{name}");
        }
        for name in ["five", "../one", "", "none", ".hidden"] {
            assert_eq!(find(&dirs, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn tls_is_as_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let write = |text: &str| fs::write(dir.path().join("one.json"), text).unwrap();
        write(r#"{"Addr":"https://example.com/docker/plugin","TLSConfig":{"InsecureSkipVerify":true,"CAFile":null}}"#);
        let Some(Address::Tls { host, port, tls, place: None }) = find(&dirs, "one").unwrap() else { panic!() };
        assert_eq!((host.as_str(), port, tls == Tls::default()), ("example.com", 443, false));
        write(r#"{"Addr":"https://[::1]:8443"}"#);
        let Some(Address::Tls { host, port, tls, .. }) = find(&dirs, "one").unwrap() else { panic!() };
        assert_eq!((host.as_str(), port, tls == Tls::default()), ("::1", 8443, true));
        for (text, why) in [
            (r#"{"Addr":"https://h:x"}"#, "no port that is a number"),
            (r#"{"Addr":"https://:1"}"#, "has no host"),
            (r#"{"Addr":"https://h","TLSConfig":{"CertFile":"/c"}}"#, "belong together"),
            (r#"{"Addr":"https://h","TLSConfig":{"CAFile":"ca.pem"}}"#, "CAFile `ca.pem` is not an absolute path"),
        ] {
            write(text);
            assert!(find(&dirs, "one").unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address("tcp://localhost:9").unwrap(), Address::Tcp("127.0.0.1:9".parse().unwrap()));
        assert_eq!(address("tcp://[::1]:9").unwrap(), Address::Tcp("[::1]:9".parse().unwrap()));
        assert_eq!(address("tcp://host.example:9/").unwrap(), Address::Host("host.example".into(), 9));
        for bad in ["", "unix://relative", "tcp://host.example", "tcp://:9", "tcp://a/b:9", "tcp://1.2.3.4", "/x.sock"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
