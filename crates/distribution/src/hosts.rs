//! `hosts.toml`: which hosts serve a registry's images, and how they are reached (containerd's `docs/hosts.md`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use toml::de::{DeTable, DeValue};

use crate::address::Address;
use crate::error::{DistributionError, Result};
use crate::tls::OwnTls;

/// What holds for registries without a folder of their own.
const DEFAULT: &str = "_default";
/// More is no configuration.
const MAX_FILE: u64 = 1 << 20;

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Content by its digest.
    pub(crate) pull: bool,
    /// What a tag means.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
}

impl Capabilities {
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true };
    pub(crate) const READ: Self = Self { push: false, ..Self::ALL };
}

/// A host, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) tls: bool,
    pub(crate) address: Address,
    /// What takes the place of `/v2` in paths.
    pub(crate) base: String,
    pub(crate) capabilities: Capabilities,
    pub(crate) header: HeaderMap,
    pub(crate) own: Option<OwnTls>,
}

/// What a file says of a registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    /// In the file's order: asked before the registry itself.
    pub(crate) mirrors: Vec<Host>,
    /// The registry itself, where the file says something of it.
    pub(crate) server: Option<Host>,
}

/// Finds and reads the file of the registry `authority` (`HOST[:PORT]`).
///
/// # Errors
/// `Hosts` for one that cannot be used; it is not passed over, or images would come from where they should not.
pub(crate) fn of_registry(folders: &[PathBuf], authority: &str, default: &Address) -> Result<Option<Hosts>> {
    match of_host(folders, authority, default)? {
        Some(hosts) => Ok(Some(hosts)),
        None => first(folders.iter().map(|folder| folder.join(DEFAULT)), default),
    }
}

/// As [`of_registry`], from the folders of this one alone.
///
/// # Errors
/// `Hosts`.
pub(crate) fn of_host(folders: &[PathBuf], authority: &str, default: &Address) -> Result<Option<Hosts>> {
    // A colon is no letter of a file's name everywhere.
    let names = [authority.replace(':', "_") + if authority.contains(':') { "_" } else { "" }, authority.into()];
    first(folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))), default)
}

/// The first file that is there.
fn first(folders: impl Iterator<Item = PathBuf>, default: &Address) -> Result<Option<Hosts>> {
    for folder in folders {
        let path = folder.join("hosts.toml");
        match fs::metadata(&path).map(|found| found.len()) {
            Ok(0..=MAX_FILE) => {}
            Ok(_) => return Err(wrong(&path, "it is too large".into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(wrong(&path, error.to_string())),
        }
        let text = fs::read_to_string(&path).map_err(|error| wrong(&path, error.to_string()))?;
        return parse(&text, &folder, default).map(Some).map_err(|why| wrong(&path, why));
    }
    Ok(None)
}

fn wrong(path: &Path, reason: String) -> DistributionError {
    DistributionError::Hosts { path: path.display().to_string(), reason }
}

/// A line `key = value`.
struct Setting<'a> {
    key: &'a str,
    value: &'a DeValue<'a>,
    /// From 1.
    line: usize,
}

/// What is in a table, in the file's order.
fn settings<'a>(table: &'a DeTable<'a>, text: &str) -> Vec<Setting<'a>> {
    let mut all: Vec<_> = table.iter().map(|(key, value)| (key.span().start, key.get_ref(), value.get_ref())).collect();
    all.sort_by_key(|(at, ..)| *at);
    all.into_iter().map(|(at, key, value)| Setting { key, value, line: line_of(text, at) }).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

/// `default` is where the registry is that the file does not name.
fn parse(text: &str, folder: &Path, default: &Address) -> Result<Hosts, String> {
    let document = DeTable::parse(text).map_err(|error| {
        format!("line {}: {}", line_of(text, error.span().map_or(0, |span| span.start)), error.message())
    })?;
    let mut hosts = Hosts::default();
    let (mut own, mut header) = (Vec::new(), Vec::new());
    let mut server = None;
    for setting in settings(document.get_ref(), text) {
        match (setting.key, setting.value) {
            ("server", _) => server = Some(text_of(&setting)?),
            ("header", DeValue::Table(table)) => header = settings(table, text),
            ("host", DeValue::Table(table)) => {
                for mirror in settings(table, text) {
                    let DeValue::Table(table) = mirror.value else {
                        return Err(format!("line {}: the host `{}` is a table", mirror.line, mirror.key));
                    };
                    let mut own = settings(table, text);
                    let header = match own.iter().position(|setting| setting.key == "header") {
                        Some(at) => headers_of(&own.remove(at), text)?,
                        None => Vec::new(),
                    };
                    hosts.mirrors.push(host(mirror.key, &own, &header, folder)?);
                }
            }
            (name, DeValue::Table(_)) => return Err(format!("line {}: the table {name} is not known", setting.line)),
            _ => own.push(setting),
        }
    }
    if server.is_some() || !own.is_empty() || !header.is_empty() {
        let url = server.unwrap_or_else(|| format!("https://{default}"));
        hosts.server = Some(host(&url, &own, &header, folder)?);
    }
    Ok(hosts)
}

fn headers_of<'a>(setting: &Setting<'a>, text: &str) -> Result<Vec<Setting<'a>>, String> {
    match setting.value {
        DeValue::Table(table) => Ok(settings(table, text)),
        _ => Err(format!("line {}: `header` is a table", setting.line)),
    }
}

fn host(url: &str, settings: &[Setting<'_>], header: &[Setting<'_>], folder: &Path) -> Result<Host, String> {
    let bad = || format!("`{url}` is no address of a host");
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(bad()),
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let address = Address::parse(authority).map_err(|_| bad())?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    if !path.bytes().all(letter) || path.contains("/..") {
        return Err(bad());
    }
    let mut given = HeaderMap::new();
    for setting in header {
        let name = setting.key;
        let name = HeaderName::try_from(name).map_err(|_| format!("line {}: `{name}` is no header", setting.line))?;
        for text in texts_of(setting)? {
            let mut value =
                HeaderValue::try_from(text).map_err(|_| format!("line {}: no header's value", setting.line))?;
            // It may be a secret.
            value.set_sensitive(true);
            given.append(name.clone(), value);
        }
    }
    let mut capabilities = Capabilities::ALL;
    let (mut ca, mut clients, mut skip_verify, mut whole) = (Vec::new(), Vec::new(), false, false);
    for setting in settings {
        match setting.key {
            "capabilities" => {
                let all = texts_of(setting)?;
                if let Some(other) = all.iter().find(|word| !["pull", "resolve", "push"].contains(&word.as_str())) {
                    return Err(format!("line {}: the capability `{other}` is not known", setting.line));
                }
                let has = |name: &str| all.iter().any(|word| word == name);
                capabilities = Capabilities { pull: has("pull"), resolve: has("resolve"), push: has("push") };
            }
            "ca" => ca = texts_of(setting)?.iter().map(|path| folder.join(path)).collect(),
            "client" => clients = identities(setting, folder)?,
            "skip_verify" => skip_verify = flag_of(setting)?,
            "override_path" => whole = flag_of(setting)?,
            // How long a connection may take is known here already.
            "dial_timeout" => drop(text_of(setting)?),
            unknown => return Err(format!("line {}: the key `{unknown}` is not known", setting.line)),
        }
    }
    let path = path.trim_end_matches('/');
    let base = if whole || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    let own = (!ca.is_empty() || !clients.is_empty() || skip_verify).then_some(OwnTls { ca, clients, skip_verify });
    Ok(Host { tls, address, base, capabilities, header: given, own: own.filter(|_| tls) })
}

/// A file with both, several of them, or pairs of a certificate and its key.
fn identities(setting: &Setting<'_>, folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let bad =
        || format!("line {}: `client` is a file, a list of them, or of pairs of certificate and key", setting.line);
    let one = |value: &DeValue<'_>| {
        let parts: Option<Vec<&str>> = match value {
            DeValue::String(path) => Some(vec![path]),
            DeValue::Array(pair) => pair.iter().map(|part| part.get_ref().as_str()).collect(),
            _ => None,
        };
        match parts.as_deref() {
            Some([both] | [both, ""]) => Ok((folder.join(both), folder.join(both))),
            Some([certificate, key]) => Ok((folder.join(certificate), folder.join(key))),
            _ => Err(bad()),
        }
    };
    match setting.value {
        DeValue::Array(all) => all.iter().map(|value| one(value.get_ref())).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn text_of(setting: &Setting<'_>) -> Result<String, String> {
    let text = setting.value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("line {}: `{}` is a text", setting.line, setting.key))
}

fn flag_of(setting: &Setting<'_>) -> Result<bool, String> {
    setting.value.as_bool().ok_or_else(|| format!("line {}: `{}` is true or false", setting.line, setting.key))
}

fn texts_of(setting: &Setting<'_>) -> Result<Vec<String>, String> {
    let bad = || format!("line {}: `{}` is a text, or a list of texts", setting.line, setting.key);
    let one = |value: &DeValue<'_>| value.as_str().map(str::to_owned).ok_or_else(bad);
    match setting.value {
        DeValue::Array(all) => all.iter().map(|value| one(value.get_ref())).collect(),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Hosts, String> {
        parse(text, Path::new("/certs/x"), &Address::parse("x.example").unwrap())
    }

    #[test]
    fn hosts_are_those_of_containerd() {
        let hosts = parsed(
            "server = 'https://up.example'\n[host.'https://m.example/proxy']\ncapabilities = ['pull']\nca = 'ca.crt'\n\
             client = [['a.cert', '/b.key'], ['c.pem', '']]\n[host.'https://m.example/proxy'.header]\nx-a = ['1', '2']\n\
             [host.'http://n.example:5000/v2/x']\noverride_path = true\nskip_verify = true\n[host.'o.example/v2/']\n",
        )
        .unwrap();
        let [m, n, o] = &hosts.mirrors[..] else { panic!("{hosts:?}") };
        assert_eq!((m.base.as_str(), m.tls, m.address.host.as_str()), ("/proxy/v2", true, "m.example"));
        assert_eq!(m.capabilities, Capabilities { pull: true, resolve: false, push: false });
        assert_eq!(m.header.get_all("x-a").iter().count(), 2);
        let own = m.own.as_ref().unwrap();
        assert_eq!(own.ca, [PathBuf::from("/certs/x/ca.crt")]);
        assert_eq!(own.clients[0], ("/certs/x/a.cert".into(), "/b.key".into()));
        assert_eq!(own.clients[1], ("/certs/x/c.pem".into(), "/certs/x/c.pem".into()));
        // Without TLS there is nothing to verify.
        assert_eq!((n.base.as_str(), n.tls, n.own.is_none()), ("/v2/x", false, true));
        assert_eq!((o.base.as_str(), o.capabilities), ("/v2", Capabilities::ALL));
        assert_eq!(hosts.server.unwrap().address.host, "up.example");
        let server = parsed("skip_verify = true\n[header]\na = 'b'").unwrap().server.unwrap();
        assert!(server.own.unwrap().skip_verify && server.address.host == "x.example" && server.header.len() == 1);
        assert!(parsed("").unwrap().server.is_none());
        // What TOML has beside that: tables in lines, dotted keys, and tables that only their own tables name.
        let inline = parsed(
            "host.'z.example' = { capabilities = ['pull'], header = { x-b = 'c' } }\n[host.'a.example'.header]\nx-a = \"\"\"1\"\"\"\n",
        );
        let [z, a] = &inline.unwrap().mirrors[..] else { panic!("in the file's order") };
        assert_eq!(
            (z.address.host.as_str(), z.capabilities.push, z.header["x-b"].as_bytes()),
            ("z.example", false, &b"c"[..])
        );
        assert_eq!((a.address.host.as_str(), a.header["x-a"].as_bytes()), ("a.example", &b"1"[..]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("[host.'ftp://x']", "`ftp://x` is no address"),
            ("[host.'https://x/a b']", "no address"),
            ("[host.'https://x/../y']", "no address"),
            ("[host.'https://u:p@x']", "no address"),
            ("[other]", "the table other is not known"),
            ("[host.x]\nfoo = 1", "line 2: the key `foo` is not known"),
            ("[host.x]\ncapabilities = ['run']", "the capability `run`"),
            ("[host.x]\nca = true", "`ca` is a text, or a list"),
            ("[host.x]\nskip_verify = 'yes'", "true or false"),
            ("[host.x]\nclient = [[1]]", "pairs of certificate"),
            ("[host.x]\nheader = 1", "line 2: `header` is a table"),
            ("host = 1", "the key `host` is not known"),
            ("[host]\nx = 1", "line 2: the host `x` is a table"),
            ("[[host]]", "the key `host` is not known"),
            ("server = 'a'\nserver = 'b'", "line 2: duplicate key"),
            ("[host.x]\n[host.x]", "line 2: duplicate key"),
            ("\nserver = \"x", "line 2: "),
            ("[host.x]\n[host.x.header]\n'a b' = 'b'", "`a b` is no header"),
            ("server = 1", "`server` is a text"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
