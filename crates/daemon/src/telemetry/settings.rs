//! What the environment says of the export (OpenTelemetry specification, "Environment Variable Specification" and
//! "OpenTelemetry Protocol Exporter").

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use wharf_server::trace::Sampler;

/// Where spans go, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    /// Further header fields: there may be a password in them.
    pub(crate) headers: Secret<Vec<(String, String)>>,
    pub(crate) timeout: Duration,
    /// Who may have signed the collector's certificate; the host's authorities without one.
    pub(crate) authority: Option<PathBuf>,
    /// Certificate and key of our own.
    pub(crate) own: Option<(PathBuf, PathBuf)>,
    pub(crate) sampler: Sampler,
    /// Of the process: `service.name` and what else is said.
    pub(crate) resource: Vec<(String, String)>,
    /// Spans that wait, spans in one message, and how long a span waits for others.
    pub(crate) queue: usize,
    pub(crate) batch: usize,
    pub(crate) delay: Duration,
}

/// Not shown.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret<T>(pub(crate) T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The address of the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    /// An IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With the query.
    pub(crate) path: String,
}

impl Endpoint {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return None,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let whole = |c: char| c.is_ascii_graphic();
        if host.is_empty() || !host.chars().all(plain) || !path.chars().all(whole) {
            return None;
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { tls, host: host.to_owned(), port, path })
    }

    /// Host and port, as the field `Host` has them.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the query: there may be a key in it.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl Settings {
    /// `None`: nothing is to be exported.
    ///
    /// # Errors
    /// The message for the user, when something else is asked for than can be had.
    pub(crate) fn of(value: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        // Empty is as not set.
        let value = |name: &str| value(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        // What is said of traces alone wins.
        let either = |what: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            names.into_iter().find_map(|name| Some((value(&name)?, name)))
        };
        if value("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = match (value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), value("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(whole), _) => whole,
            (None, Some(base)) => format!("{}/v1/traces", base.trim_end_matches('/')),
            (None, None) => return Ok(None),
        };
        match value("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is '{other}': only otlp and none are known here")),
        }
        let only = |what: &str, known: &str| match either(what) {
            Some((text, name)) if text != known => Err(format!("{name} is '{text}': only {known} is known here")),
            _ => Ok(()),
        };
        only("PROTOCOL", "http/json")?;
        only("COMPRESSION", "none")?;
        let endpoint = Endpoint::parse(&endpoint)
            .ok_or("the OTLP endpoint is no http:// or https:// address without a user's name")?;
        let number = |name: &str, default: u64| match value(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<u64>()
                .ok()
                .filter(|number| (1..=MOST).contains(number))
                .ok_or_else(|| format!("{name} is '{text}': give a number from 1 to {MOST}")),
        };
        let timeout = match either("TIMEOUT") {
            Some((_, name)) => number(&name, 0)?,
            None => 10_000,
        };
        let file = |what: &str| either(what).map(|(path, _)| PathBuf::from(path));
        let own = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("a client's certificate needs its key: OTEL_EXPORTER_OTLP_CLIENT_KEY".into()),
        };
        let headers = match either("HEADERS") {
            None => Vec::new(),
            Some((text, name)) => {
                let headers = pairs(&text).filter(|headers| headers.iter().all(|(key, value)| is_field(key, value)));
                // Not the value.
                headers.ok_or_else(|| format!("{name} has what is no header field: give NAME=VALUE,…"))?
            }
        };
        let mut resource = match value("OTEL_RESOURCE_ATTRIBUTES") {
            None => Vec::new(),
            Some(text) => pairs(&text).ok_or("OTEL_RESOURCE_ATTRIBUTES is not KEY=VALUE,…")?,
        };
        let service = value("OTEL_SERVICE_NAME");
        if service.is_some() || !resource.iter().any(|(key, _)| key == "service.name") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".into(), service.unwrap_or_else(|| "wharf".into())));
        }
        let small = |name: &str, default: u64| Ok::<_, String>(usize::try_from(number(name, default)?).unwrap_or(1));
        let queue = small("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        Ok(Some(Self {
            endpoint,
            headers: Secret(headers),
            timeout: Duration::from_millis(timeout),
            authority: file("CERTIFICATE"),
            own,
            sampler: sampler(value("OTEL_TRACES_SAMPLER"), value("OTEL_TRACES_SAMPLER_ARG"))?,
            resource,
            queue,
            batch: small("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue),
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
        }))
    }
}

/// Of the numbers of the export none is larger: spans and milliseconds.
const MOST: u64 = 1_000_000;

fn sampler(name: Option<String>, argument: Option<String>) -> Result<Sampler, String> {
    let name = name.unwrap_or_else(|| "parentbased_always_on".into());
    let (parent_based, rest) = match name.strip_prefix("parentbased_") {
        Some(rest) => (true, rest),
        None => (false, name.as_str()),
    };
    let ratio = match (rest, argument) {
        ("always_on", _) | ("traceidratio", None) => 1.0,
        ("always_off", _) => 0.0,
        ("traceidratio", Some(text)) => text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| format!("OTEL_TRACES_SAMPLER_ARG is '{text}': give a number from 0 to 1"))?,
        _ => return Err(format!("OTEL_TRACES_SAMPLER is '{name}', which is not known here")),
    };
    Ok(Sampler { parent_based, ratio })
}

/// `KEY=VALUE,…`, as W3C Baggage has it: values may be escaped.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let fields = text.split(',').map(str::trim).filter(|field| !field.is_empty());
    fields
        .map(|field| {
            let (key, value) = field.split_once('=')?;
            let key = key.trim();
            (!key.is_empty()).then_some((key.to_owned(), unescaped(value.trim())?))
        })
        .collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn is_field(name: &str, value: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    name.chars().all(token) && value.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::of(|name| list.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/");

    #[test]
    fn where_nothing_is_asked_for_nothing_is_exported() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap(), None);
        assert_eq!(of(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap(), None);
        assert_eq!(of(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(), None);
    }

    #[test]
    fn the_specification_s_variables_are_read() {
        let plain = of(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(plain.endpoint.to_string(), "http://localhost:4318/v1/traces");
        assert_eq!(plain.resource, [("service.name".to_owned(), "wharf".to_owned())]);
        assert_eq!((plain.queue, plain.batch, plain.delay.as_secs(), plain.timeout.as_secs()), (2048, 512, 5, 10));
        assert_eq!(plain.sampler, Sampler { parent_based: true, ratio: 1.0 });
        let all = of(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://[::1]/traces?key=secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YQ%3D%3D, x = y"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,host.name=here"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
        ]);
        let all = all.unwrap().unwrap();
        assert_eq!((all.endpoint.tls, all.endpoint.port, all.endpoint.host.as_str()), (true, 443, "::1"));
        assert_eq!(all.endpoint.path, "/traces?key=secret");
        assert!(!format!("{} {:?}", all.endpoint, all.headers).contains("secret"));
        assert_eq!(all.headers.0[0], ("authorization".to_owned(), "Basic YQ==".to_owned()));
        assert_eq!(all.headers.0[1], ("x".to_owned(), "y".to_owned()));
        assert_eq!(all.resource[1], ("service.name".to_owned(), "mine".to_owned()));
        assert_eq!((all.queue, all.batch, all.timeout.as_millis()), (16, 16, 250));
        assert_eq!(all.sampler, Sampler { parent_based: false, ratio: 0.25 });
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        for (name, value, words) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/json is known here"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "only none is known here"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "only otlp and none"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "not known here"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1 to"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "x", "from 1 to"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c", "no header field"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0d%0ac", "no header field"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key", "needs its key"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4317", "no http:// or https://"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:word@host/", "without a user's name"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/b c", "no http:// or https://"),
        ] {
            let error = of(&[ENDPOINT, (name, value)]).unwrap_err();
            assert!(error.contains(words) && !error.contains("word@"), "{error}");
        }
    }
}
