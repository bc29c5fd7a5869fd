//! Syslog (RFC 3164, RFC 5424), as Docker's driver writes it.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Line;
use crate::entry::Stream;

/// RFC 5424, section 6.2.1.
const ERR: u8 = 3;
const INFO: u8 = 6;

/// How a message begins (`syslog-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// Without a host name, as the C library's `syslog` has it.
    #[default]
    Unix,
    Rfc3164,
    Rfc5424,
    /// With microseconds.
    Rfc5424Micro,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    pub format: SyslogFormat,
    /// RFC 5424, section 6.2.1, times eight.
    pub facility: u8,
    pub hostname: String,
    pub tag: String,
    /// Docker has the daemon's number here.
    pub pid: u32,
}

impl Syslog {
    pub(super) fn encode(&self, line: &Line<'_>) -> Vec<u8> {
        let severity = if line.stream == Stream::Stderr { ERR } else { INFO };
        let priority = self.facility | severity;
        let Self { hostname, tag, pid, .. } = self;
        let stamp = |format: &str, time: Timestamp| time.to_zoned(TimeZone::system()).strftime(format).to_string();
        // One message is one line for whoever reads a stream; the time is that of the sending, as Docker's.
        let mut message = match self.format {
            SyslogFormat::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp("%b %e %H:%M:%S", line.time)),
            SyslogFormat::Rfc3164 => {
                format!("<{priority}>{} {hostname} {tag}[{pid}]: ", stamp("%b %e %H:%M:%S", line.time))
            }
            SyslogFormat::Rfc5424 => {
                let time = stamp("%Y-%m-%dT%H:%M:%S%:z", line.time);
                format!("<{priority}>1 {time} {hostname} {tag} {pid} {tag} - ")
            }
            SyslogFormat::Rfc5424Micro => {
                let time = stamp("%Y-%m-%dT%H:%M:%S%.6f%:z", line.time);
                format!("<{priority}>1 {time} {hostname} {tag} {pid} {tag} - ")
            }
        }
        .into_bytes();
        message.extend_from_slice(line.text);
        message.push(b'\n');
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_as_docker_s() {
        let time: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let zone = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string();
        let of = |format, stream| {
            let syslog = Syslog { format, facility: 3 << 3, hostname: "host".into(), tag: "abc".into(), pid: 7 };
            String::from_utf8(syslog.encode(&Line { text: b"hello", stream, time, part: None })).unwrap()
        };
        let unix = of(SyslogFormat::Unix, Stream::Stdout);
        assert!(unix.starts_with("<30>Jan  2 ") && unix.ends_with(":05 abc[7]: hello\n"), "{unix}");
        let bsd = of(SyslogFormat::Rfc3164, Stream::Stderr);
        assert!(bsd.starts_with("<27>Jan  2 ") && bsd.ends_with(":05 host abc[7]: hello\n"), "{bsd}");
        assert_eq!(of(SyslogFormat::Rfc5424Micro, Stream::Stdout), format!("<30>1 {zone} host abc 7 abc - hello\n"));
        assert_eq!(
            of(SyslogFormat::Rfc5424, Stream::Stdout),
            format!("<30>1 {} host abc 7 abc - hello\n", zone.replace(".678901", ""))
        );
    }
}
