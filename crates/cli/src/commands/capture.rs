//! `wharf network capture`. Docker has no such command.

use std::io::IsTerminal as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;
use crate::stream;

pub(crate) static CAPTURE: Command = Command::new(
    "[OPTIONS] NETWORK|CONTAINER",
    "Write the packets of a network or a container to STDOUT as a capture file",
    Arity::Exactly(1),
    |app, matches| Box::pin(capture(app, matches)),
)
.long(
    "Write what goes over a network, or over the links of a container, to STDOUT in the form of a capture file (pcap), until \
     CTRL-C, until nobody reads any more, or until it has gone: wharf network capture web | tcpdump -nr -",
)
.flags(&[
    Flag::text("container", "Of a network: only what this container sends and receives there"),
    Flag::int("count", "End after so many packets").short('c'),
    Flag::int("port", "Only from or to this port").short('p'),
    Flag::text("protocol", "Only this protocol (tcp|udp|sctp)"),
    Flag::int("snaplen", "Keep so many bytes of each packet (default 262144)").short('s'),
]);

/// Bytes of the file's header, and of a packet's, in which the number of those that follow stands at 8.
const FILE_HEADER: usize = 24;
const HEADER: usize = 16;
/// How often is looked whether somebody reads.
const LOOK: Duration = Duration::from_millis(500);

async fn capture(app: &App, matches: &Matches) -> Outcome<u8> {
    if std::io::stdout().is_terminal() {
        return Err(
            "cowardly refusing to write packets to a terminal: redirect them, or have them read (| tcpdump -nr -)"
                .into(),
        );
    }
    for flag in ["count", "port", "snaplen"] {
        let least = i64::from(matches.changed(flag));
        let most = if flag == "port" { i64::from(u16::MAX) } else { i64::from(u32::MAX) };
        if !(least..=most).contains(&matches.int(flag)) {
            return Err(
                format!("invalid argument \"{}\" for --{flag}: it is from 1 to {most}", matches.int(flag)).into()
            );
        }
    }
    app.needs_own_engine("network capture").await?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut request = app.client().await?.get(&format!("/networks/{}/capture", matches.argument(0)));
    for flag in ["container", "protocol"] {
        request = request.query_some(flag, matches.some(flag));
    }
    for flag in ["count", "port", "snaplen"] {
        request = request.query_some(flag, matches.int_given(flag));
    }
    let mut response = request.send().await?;
    let mut whole = Whole::default();
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let chunk = tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            _ = looks.tick() => {
                if nobody_reads() {
                    break;
                }
                continue;
            }
            chunk = response.chunk() => chunk?,
        };
        let Some(chunk) = chunk else { break };
        let records = whole.push(&chunk);
        match stream::write(false, records).await {
            // Nobody reads any more, as who looks at a few packets does.
            Err(failure) if failure.text.is_empty() => break,
            written => written?,
        }
    }
    if whole.packets > 0 || !nobody_reads() {
        app.complain(&format!("{} packets captured", whole.packets));
    }
    Ok(0)
}

/// Whether the pipe that we write to has no reader.
fn nobody_reads() -> bool {
    let stdout = std::io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0 && polled[0].revents().contains(PollFlags::ERR))
}

/// What has come, and is given on in whole packets.
#[derive(Debug, Default)]
struct Whole {
    waiting: BytesMut,
    is_begun: bool,
    packets: u64,
}

impl Whole {
    fn push(&mut self, chunk: &[u8]) -> Bytes {
        self.waiting.extend_from_slice(chunk);
        let mut length = 0;
        if !self.is_begun {
            if self.waiting.len() < FILE_HEADER {
                return Bytes::new();
            }
            self.is_begun = true;
            length = FILE_HEADER;
        }
        while let Some(header) = self.waiting.get(length..length + HEADER) {
            let kept = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            let end = length + HEADER + usize::try_from(kept).unwrap_or(usize::MAX - length - HEADER);
            if end > self.waiting.len() {
                break;
            }
            self.packets += 1;
            length = end;
        }
        self.waiting.split_to(length).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_given_on_whole() {
        let mut file = vec![7; FILE_HEADER];
        for length in [5u32, 0, 3] {
            file.extend([0; 8]);
            file.extend(length.to_ne_bytes());
            file.extend([0; 4]);
            file.extend(vec![1; usize::try_from(length).unwrap()]);
        }
        let ends = [24, 24 + 21, 24 + 37, file.len()];
        for size in 1..=file.len() {
            let (mut whole, mut given) = (Whole::default(), 0);
            for chunk in file.chunks(size) {
                given += whole.push(chunk).len();
                assert!(given == 0 || ends.contains(&given), "{size}: {given}");
            }
            assert_eq!((given, whole.packets), (file.len(), 3));
        }
    }
}
