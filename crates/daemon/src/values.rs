//! Values of flags and keys, as Docker writes them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use wharf_engine::spec::LogConfig;
use wharf_engine::{ContainerDefaults, SeccompDefault};

/// Containers take these over unseen: what makes no sense is refused here, with dockerd's words.
pub(crate) fn check_log(driver: &str, options: &[String]) -> Result<(), String> {
    let pairs = options.iter().map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    let options = pairs.collect::<Option<_>>().ok_or("invalid log-opt: give KEY=VALUE")?;
    let config = LogConfig { driver: driver.to_owned(), options };
    wharf_engine::log_options::check(&config).map_err(|e| format!("failed to set log opts: {e}"))
}

/// Where files of the Container Device Interface are. As with dockerd one empty name means nowhere.
pub(crate) fn cdi_dirs(given: Option<Vec<String>>) -> Vec<PathBuf> {
    match given.as_deref() {
        None => wharf_engine::CDI_DIRS.map(PathBuf::from).to_vec(),
        Some([one]) if one.is_empty() => Vec::new(),
        Some(dirs) => dirs.iter().map(PathBuf::from).collect(),
    }
}

/// What containers get that do not say.
///
/// # Errors
/// dockerd's words for a value that makes no sense, and a profile that cannot be read.
pub(crate) fn container_defaults(
    shm_size: Option<String>,
    ipc_mode: Option<String>,
    cgroupns_mode: Option<String>,
    no_new_privileges: bool,
    seccomp: Option<String>,
) -> Result<ContainerDefaults, String> {
    let standard = ContainerDefaults::default();
    let shm_size = match shm_size {
        Some(text) => i64::try_from(bytes("default-shm-size", &text)?).unwrap_or(i64::MAX),
        None => standard.shm_size,
    };
    let ipc_mode = ipc_mode.filter(|mode| !mode.is_empty()).unwrap_or(standard.ipc_mode);
    if !matches!(ipc_mode.as_str(), "private" | "shareable") {
        return Err(format!(
            "invalid default IPC mode ({ipc_mode}): IPC mode for containers must be 'private' or 'shareable'"
        ));
    }
    let cgroupns_mode = cgroupns_mode.filter(|mode| !mode.is_empty());
    if let Some(mode) = cgroupns_mode.as_deref().filter(|mode| !matches!(*mode, "private" | "host")) {
        return Err(format!("default cgroup namespace mode ({mode}) is invalid; use \"host\" or \"private\""));
    }
    let seccomp = match seccomp.as_deref() {
        None | Some("" | "builtin") => SeccompDefault::Builtin,
        Some("unconfined") => SeccompDefault::Unconfined,
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("opening seccomp profile ({path}) failed: {e}"))?;
            SeccompDefault::file(path, &text).map_err(|e| format!("seccomp profile {path}: {e}"))?
        }
    };
    Ok(ContainerDefaults { shm_size, ipc_mode, cgroupns_mode, no_new_privileges, seccomp })
}

/// An address of one family or of either; an empty text is none.
pub(crate) fn address<T: FromStr>(name: &str, text: Option<String>) -> Result<Option<T>, String> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| format!("invalid {name} '{text}': give an IP address"))).transpose()
}

/// A proxy by an option, or by the environment (in capitals or not), as it can be shown.
pub(crate) fn proxy(variable: &str, option: Option<&String>) -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let own = option.cloned().or_else(|| named(variable)).or_else(|| named(&variable.to_ascii_lowercase()));
    masked(&own.unwrap_or_default())
}

/// Without the name and the password before a host's name (moby, `config.MaskURLCredentials`).
pub(crate) fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://xxxxx:xxxxx@{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// `base=172.30.0.0/16,size=24`.
pub(crate) fn pool(text: &str) -> Result<(String, u8), String> {
    let bad = || format!("invalid default address pool '{text}': give base=CIDR,size=N");
    let (mut base, mut size) = (None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("base", value)) => base = Some(value.to_owned()),
            Some(("size", value)) => size = value.parse().ok(),
            _ => return Err(bad()),
        }
    }
    base.zip(size).ok_or_else(bad)
}

/// A pool that networks can be taken from.
///
/// # Errors
/// The message for the user, as [`name_servers`].
pub(crate) fn check_pool((base, size): &(String, u8)) -> Result<(), String> {
    let invalid = |why: &str| Err(format!("invalid default address pool '{base}': {why}"));
    let parsed =
        base.split_once('/').and_then(|(ip, bits)| Some((ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?)));
    let Some((ip, bits)) = parsed else { return invalid("give a base as 172.30.0.0/16") };
    let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
    if bits > most || *size > most {
        return invalid(&format!("a prefix has {most} bits at most"));
    }
    if bits > *size {
        return invalid(&format!(
            "its own prefix, /{bits}, is longer than that of the networks in it, /{size}: give a size of {bits} to {most}"
        ));
    }
    Ok(())
}

/// What containers ask names of: they would be told it as it is.
///
/// # Errors
/// The message for the user.
pub(crate) fn name_servers(list: Vec<String>) -> Result<Vec<String>, String> {
    match list.iter().find(|text| text.parse::<IpAddr>().is_err()) {
        Some(bad) => Err(format!("invalid dns '{bad}': give an IP address")),
        None => Ok(list),
    }
}

/// `bridge=com.docker.network.driver.mtu=1400`: the driver, and a pair.
pub(crate) fn network_option(text: &str) -> Result<(String, (String, String)), String> {
    let parsed = text.split_once('=').and_then(|(driver, pair)| {
        let (key, value) = pair.split_once('=')?;
        (!driver.is_empty() && !key.is_empty()).then(|| (driver.to_owned(), (key.to_owned(), value.to_owned())))
    });
    parsed.ok_or_else(|| format!("invalid default network option '{text}': give DRIVER=KEY=VALUE"))
}

/// A size as Docker's own flags have it: `512m`, `20GB`; units are powers of 1024.
pub(crate) fn bytes(name: &str, text: &str) -> Result<u64, String> {
    let bad = || format!("invalid {name} '{text}': give a number of bytes, or one with a unit, such as 20GB");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| bad())?;
    let power = match lower[digits..].trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let size = number * 1024f64.powi(power);
    // Less holds no image, and a daemon that can do nothing is nobody's wish.
    if !(1.0..1e18).contains(&size) {
        return Err(bad());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(size as u64)
}
