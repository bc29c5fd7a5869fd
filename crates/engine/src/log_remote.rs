//! The log drivers `syslog`, `gelf`, `fluentd` and `journald`: what their options say, and what becomes of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use wharf_image::registry::Resolver;
use wharf_logs::RemoteConfig;
use wharf_logs::remote::{Fluentd, Form, Gelf, Journald, Syslog, Target};

use crate::error::{EngineError, Result};
use crate::log_attributes::tag_of;
use crate::record::Container;
use crate::spec::LogConfig;

mod values;

use values::{attempts, buffer, compression, duration, facility, flag, option, retry, syslog_format};

/// Where programs of this host write to syslog, in the order in which they are tried.
const SYSLOG_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Where the journal takes entries in its native protocol.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
const SYSLOG_PORT: u16 = 514;
const FLUENTD_PORT: u16 = 24224;
const COMMON: [&str; 11] = [
    "mode",
    "max-buffer-size",
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "tag",
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];

/// How moby begins what it says of a start that fails.
pub(crate) const NOT_CREATED: &str = "failed to create task for container";
/// And of one that fails for the log, also in a monitor's words.
pub(crate) const NO_DRIVER: &str = "failed to initialize logging driver";

/// A receiver whose name has not been looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Receiver {
    Host { stream: bool, host: String, port: u16 },
    Socket { stream: bool, path: PathBuf },
}

/// Whether lines go somewhere else.
pub(crate) fn is_remote(driver: &str) -> bool {
    matches!(driver, "syslog" | "gelf" | "fluentd" | "journald")
}

/// Whether a copy of what is sent is kept, so that `logs` can show it.
pub(crate) fn is_cached(config: &LogConfig) -> bool {
    !flag(config, "cache-disabled").unwrap_or(false)
}

/// Refuses options that make no sense.
///
/// # Errors
/// `InvalidParameter`, where Docker has them with its words.
pub(crate) fn check(config: &LogConfig) -> Result<()> {
    let own: &[&str] = match config.driver.as_str() {
        "syslog" => &[
            "syslog-address",
            "syslog-facility",
            "syslog-format",
            "syslog-tls-ca-cert",
            "syslog-tls-cert",
            "syslog-tls-key",
            "syslog-tls-skip-verify",
        ],
        "gelf" => &[
            "gelf-address",
            "gelf-compression-type",
            "gelf-compression-level",
            "gelf-tcp-max-reconnect",
            "gelf-tcp-reconnect-delay",
        ],
        "fluentd" => &[
            "fluentd-address",
            "fluentd-async",
            "fluentd-async-connect",
            "fluentd-async-reconnect-interval",
            "fluentd-buffer-limit",
            "fluentd-max-retries",
            "fluentd-read-timeout",
            "fluentd-request-ack",
            "fluentd-retry-wait",
            "fluentd-sub-second-precision",
            "fluentd-write-timeout",
        ],
        _ => &[],
    };
    let known = |key: &String| COMMON.contains(&key.as_str()) || own.contains(&key.as_str());
    if let Some(unknown) = config.options.keys().find(|key| !known(key)) {
        return Err(EngineError::invalid(format!("unknown log opt '{unknown}' for {} log driver", config.driver)));
    }
    match option(config, "mode") {
        None | Some("blocking" | "non-blocking") => {}
        Some(other) => return Err(EngineError::invalid(format!("logger: logging mode not supported: {other}"))),
    }
    if option(config, "max-buffer-size").is_some() && option(config, "mode") != Some("non-blocking") {
        let text = "logger: max-buffer-size option is only supported with 'mode=non-blocking'";
        return Err(EngineError::invalid(text));
    }
    for key in ["cache-disabled", "cache-compress", "fluentd-async", "fluentd-async-connect"] {
        flag(config, key)?;
    }
    buffer(config)?;
    let stream = matches!(receiver(config)?, Receiver::Host { stream: true, .. });
    form(config, &Subject::default(), stream)?;
    if option(config, "fluentd-async").is_some() && option(config, "fluentd-async-connect").is_some() {
        let text = "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'";
        return Err(EngineError::invalid(text));
    }
    if let Some(interval) = duration(config, "fluentd-async-reconnect-interval")?
        && !(100..=10_000).contains(&interval)
    {
        let text = "invalid value for fluentd-async-reconnect-interval: it must be between 100ms and 10s";
        return Err(EngineError::invalid(text));
    }
    attempts(config)?;
    retry(config).map(drop)
}

/// What is told of a container.
#[derive(Clone, Debug, Default)]
struct Subject<'a> {
    id: &'a str,
    name: String,
    image: &'a str,
    image_id: String,
    command: String,
    created: &'a str,
    tag: String,
    hostname: String,
    /// Chosen labels and variables.
    extra: BTreeMap<String, String>,
}

/// Where a container's log is sent, if it is. Blocking: the receiver's name is looked up.
///
/// # Errors
/// `System` when it cannot be, `InvalidParameter` for a tag that is none.
pub(crate) fn of(record: &Container, attributes: &BTreeMap<String, String>) -> Result<Option<RemoteConfig>> {
    let driver = record.host.log_config.driver.as_str();
    if !is_remote(driver) {
        return Ok(None);
    }
    let failed = |reason: String| EngineError::system(format!("{NOT_CREATED}: {NO_DRIVER}: {reason}"));
    if driver == "journald" && !Path::new(JOURNAL_SOCKET).exists() {
        return Err(failed("journald is not enabled on this host".into()));
    }
    let look_up = |host: &str| {
        let found = tokio::runtime::Handle::current().block_on(Resolver::system().lookup(host));
        let found = found.map_err(|error| failed(wharf_report::chain(&error)))?;
        found.first().copied().ok_or_else(|| failed(format!("{host} has no address")))
    };
    remote(record, attributes, tag_of(record)?, look_up).map(Some)
}

/// What a monitor needs to send a container's log. `attributes` are those that the options choose, the tag too.
///
/// # Errors
/// `System` when the receiver's name cannot be looked up.
fn remote(
    record: &Container,
    attributes: &BTreeMap<String, String>,
    tag: String,
    look_up: impl FnOnce(&str) -> Result<IpAddr>,
) -> Result<RemoteConfig> {
    let config = &record.host.log_config;
    let target = match receiver(config)? {
        Receiver::Socket { stream: true, path } => Target::Unix(path),
        Receiver::Socket { stream: false, path } => Target::Unixgram(path),
        Receiver::Host { stream, host, port } => {
            let address = SocketAddr::new(look_up(&host)?, port);
            if stream { Target::Tcp(address) } else { Target::Udp(address) }
        }
    };
    let mut extra = attributes.clone();
    extra.remove("tag");
    let command = [std::slice::from_ref(&record.path), &record.args].concat().join(" ");
    let subject = Subject {
        id: &record.id,
        name: format!("/{}", record.name),
        image: &record.config.image,
        image_id: record.image.to_string(),
        command,
        created: &record.created,
        tag,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        extra,
    };
    let form = form(config, &subject, target.is_stream())?;
    let asynchronous = flag(config, "fluentd-async")? || flag(config, "fluentd-async-connect")?;
    Ok(RemoteConfig {
        target,
        form,
        blocking: option(config, "mode") != Some("non-blocking") && !asynchronous,
        buffer: usize::try_from(buffer(config)?).unwrap_or(usize::MAX),
        needed: !asynchronous,
        retry_ms: retry(config)?,
        attempts: attempts(config)?,
        renew_ms: duration(config, "fluentd-async-reconnect-interval")?.filter(|_| asynchronous),
        write_ms: duration(config, "fluentd-write-timeout")?,
    })
}

fn form(config: &LogConfig, subject: &Subject<'_>, stream: bool) -> Result<Form> {
    let (short, name) = (subject.id.get(..12).unwrap_or(subject.id), subject.name.trim_start_matches('/'));
    Ok(match config.driver.as_str() {
        "syslog" => Form::Syslog(Syslog {
            format: syslog_format(config)?,
            facility: facility(option(config, "syslog-facility"))?,
            hostname: subject.hostname.clone(),
            tag: subject.tag.clone(),
            pid: std::process::id(),
        }),
        "gelf" => {
            let own = [
                ("_container_id", subject.id),
                ("_container_name", name),
                ("_image_id", &subject.image_id),
                ("_image_name", subject.image),
                ("_command", &subject.command),
                ("_tag", &subject.tag),
                ("_created", subject.created),
            ];
            let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let extra = subject.extra.iter().map(|(key, value)| (format!("_{key}"), value.clone()));
            let extra = Map::from_iter(extra.chain(own).map(|(key, value)| (key, Value::from(value))));
            let (compression, level) = compression(config, stream)?;
            Form::Gelf(Gelf { hostname: subject.hostname.clone(), extra, compression, level })
        }
        "fluentd" => {
            let own = [("container_id", subject.id), ("container_name", &subject.name)];
            let mut record = subject.extra.clone();
            record.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
            let precise = flag(config, "fluentd-sub-second-precision")?;
            if flag(config, "fluentd-request-ack")? {
                return Err(EngineError::invalid("fluentd-request-ack is not supported: leave it out"));
            }
            Form::Fluentd(Fluentd { tag: subject.tag.clone(), record, precise, id: subject.id.to_owned() })
        }
        _ => {
            let own = [
                ("CONTAINER_ID", short),
                ("CONTAINER_ID_FULL", subject.id),
                ("CONTAINER_NAME", name),
                ("CONTAINER_TAG", &subject.tag),
                ("IMAGE_NAME", subject.image),
                ("SYSLOG_IDENTIFIER", &subject.tag),
            ];
            let extra = subject.extra.iter().filter_map(|(key, value)| Some((journal_field(key)?, value.clone())));
            let mut fields: BTreeMap<String, String> = extra.collect();
            fields.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
            Form::Journald(Journald { fields, id: subject.id.to_owned() })
        }
    })
}

/// A name that the journal takes: upper-case letters, digits and underscores, none of which is the first.
fn journal_field(key: &str) -> Option<String> {
    let upper = key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = upper.collect();
    let name = name.trim_start_matches('_');
    (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then(|| name.to_owned())
}

fn receiver(config: &LogConfig) -> Result<Receiver> {
    let (key, port) = match config.driver.as_str() {
        "syslog" => ("syslog-address", Some(SYSLOG_PORT)),
        "gelf" => ("gelf-address", None),
        "fluentd" => ("fluentd-address", Some(FLUENTD_PORT)),
        _ => return Ok(Receiver::Socket { stream: false, path: JOURNAL_SOCKET.into() }),
    };
    let bad = |text: String| Err(EngineError::invalid(text));
    let Some(address) = option(config, key) else {
        return match config.driver.as_str() {
            "syslog" => {
                let found = SYSLOG_SOCKETS.into_iter().find(|path| Path::new(path).exists());
                Ok(Receiver::Socket { stream: false, path: found.unwrap_or(SYSLOG_SOCKETS[0]).into() })
            }
            "gelf" => bad("gelf-address is a required parameter".into()),
            _ => Ok(Receiver::Host { stream: true, host: "127.0.0.1".into(), port: FLUENTD_PORT }),
        };
    };
    let (scheme, rest) = match address.split_once("://") {
        Some(parts) => parts,
        None if config.driver == "fluentd" => ("tcp", address),
        None => return bad(format!("{key} should be in form proto://address, got {address}")),
    };
    let stream = match (scheme, config.driver.as_str()) {
        ("unix", "syslog" | "fluentd") => return Ok(Receiver::Socket { stream: true, path: rest.into() }),
        ("unixgram", "syslog") => return Ok(Receiver::Socket { stream: false, path: rest.into() }),
        ("tcp", _) => true,
        ("udp", "syslog" | "gelf") => false,
        ("tcp+tls", "syslog") | ("tls", "fluentd") => {
            return bad(format!("{key}: connections with TLS are not supported yet, got {address}"));
        }
        _ => return bad(format!("{key}: unsupported scheme: '{scheme}'")),
    };
    let rest = rest.trim_end_matches('/');
    let bad_port = || EngineError::invalid(format!("{key}: invalid port in '{address}'"));
    let (host, port) = match (rest.parse::<SocketAddr>(), rest.rsplit_once(':'), port) {
        (Ok(whole), ..) => (whole.ip().to_string(), whole.port()),
        (_, Some((host, number)), _) if !host.contains(':') => {
            (host.to_owned(), number.parse().map_err(|_| bad_port())?)
        }
        (_, _, Some(usual)) => (rest.trim_matches(['[', ']']).to_owned(), usual),
        _ => return bad(format!("{key}: please provide it as proto://host:port, got {address}")),
    };
    if host.is_empty() {
        return bad(format!("{key}: there is no host in '{address}'"));
    }
    Ok(Receiver::Host { stream, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { driver: driver.into(), options }
    }

    #[test]
    fn receivers_are_read_as_docker_does() {
        let of = |driver: &str, key: &str, address: &str| receiver(&config(driver, &[(key, address)]));
        let host = |stream, host: &str, port| Receiver::Host { stream, host: host.into(), port };
        assert_eq!(of("syslog", "syslog-address", "udp://1.2.3.4:1111").unwrap(), host(false, "1.2.3.4", 1111));
        assert_eq!(
            of("syslog", "syslog-address", "tcp://logs.example.com").unwrap(),
            host(true, "logs.example.com", 514)
        );
        assert_eq!(of("syslog", "syslog-address", "tcp://[::1]:99").unwrap(), host(true, "::1", 99));
        assert_eq!(of("syslog", "syslog-address", "udp://[::1]").unwrap(), host(false, "::1", 514));
        let socket = Receiver::Socket { stream: true, path: "/a/b".into() };
        assert_eq!(of("syslog", "syslog-address", "unix:///a/b").unwrap(), socket);
        assert_eq!(of("fluentd", "fluentd-address", "unix:///a/b").unwrap(), socket);
        assert_eq!(of("fluentd", "fluentd-address", "somewhere:5").unwrap(), host(true, "somewhere", 5));
        assert_eq!(receiver(&config("fluentd", &[])).unwrap(), host(true, "127.0.0.1", 24224));
        assert_eq!(of("gelf", "gelf-address", "udp://x:12201").unwrap(), host(false, "x", 12201));
        for (driver, key, address) in [
            ("gelf", "gelf-address", "udp://x"),
            ("gelf", "gelf-address", "unix:///x"),
            ("gelf", "gelf-address", "x:1"),
            ("syslog", "syslog-address", "tcp+tls://x:1"),
            ("syslog", "syslog-address", "udp://x:port"),
            ("syslog", "syslog-address", "http://x"),
            ("syslog", "syslog-address", "udp://:1"),
        ] {
            assert!(of(driver, key, address).is_err(), "{address}");
        }
        assert_eq!(check(&config("gelf", &[])).unwrap_err().message, "gelf-address is a required parameter");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let gelf = ("gelf-address", "udp://1.2.3.4:5");
        let tcp = ("gelf-address", "tcp://1.2.3.4:5");
        for (driver, options) in [
            ("syslog", &[("max-size", "1m")][..]),
            ("syslog", &[("syslog-facility", "nosuch")]),
            ("syslog", &[("syslog-facility", "24")]),
            ("syslog", &[("syslog-format", "rfc1")]),
            ("syslog", &[("mode", "fast")]),
            ("syslog", &[("max-buffer-size", "1m")]),
            ("gelf", &[gelf, ("gelf-compression-level", "10")]),
            ("gelf", &[gelf, ("gelf-compression-type", "xz")]),
            ("gelf", &[gelf, ("gelf-tcp-max-reconnect", "1")]),
            ("gelf", &[tcp, ("gelf-compression-type", "gzip")]),
            ("fluentd", &[("fluentd-async", "maybe")]),
            ("fluentd", &[("fluentd-request-ack", "true")]),
            ("fluentd", &[("fluentd-retry-wait", "soon")]),
            ("fluentd", &[("fluentd-max-retries", "-1")]),
            ("fluentd", &[("fluentd-async", "true"), ("fluentd-async-connect", "true")]),
            ("fluentd", &[("fluentd-async-reconnect-interval", "50ms")]),
            ("gelf", &[tcp, ("gelf-tcp-max-reconnect", "some")]),
            ("journald", &[("syslog-address", "udp://x")]),
        ] {
            assert!(check(&config(driver, options)).is_err(), "{driver} {options:?}");
        }
        for (driver, options) in [
            ("syslog", &[("syslog-facility", "local7"), ("mode", "non-blocking"), ("max-buffer-size", "4m")][..]),
            ("gelf", &[tcp, ("gelf-tcp-reconnect-delay", "5")]),
            ("fluentd", &[("fluentd-retry-wait", "500ms"), ("fluentd-async", "true"), ("tag", "{{.Name}}")]),
            ("journald", &[("labels", "a"), ("cache-disabled", "true")]),
        ] {
            check(&config(driver, options)).unwrap();
        }
        assert_eq!(facility(Some("local0")).unwrap(), 16 << 3);
        assert_eq!(attempts(&config("fluentd", &[("fluentd-max-retries", "4294967295")])).unwrap(), None);
        assert_eq!(attempts(&config("gelf", &[tcp, ("gelf-tcp-max-reconnect", "3")])).unwrap(), Some(3));
        assert_eq!(retry(&config("fluentd", &[("fluentd-retry-wait", "500ms")])).unwrap(), 500);
        assert_eq!((journal_field("com.example/x"), journal_field("_1")), (Some("COM_EXAMPLE_X".into()), None));
    }
}
