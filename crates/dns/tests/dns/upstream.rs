//! A name server out there, which does what a name says.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers on a port of the loopback, over UDP and TCP, until it goes.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    mute: AtomicBool,
    /// The address that it gives everything.
    answer: [u8; 4],
    /// Each query: its name in small letters, its number, its source port, whether over TCP.
    asked: Mutex<Vec<(String, u16, u16, bool)>>,
}

impl Upstream {
    pub(crate) fn new(answer: [u8; 4]) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), answer).unwrap()
    }

    /// `None` where there is no such address.
    pub(crate) fn at(host: IpAddr, answer: [u8; 4]) -> Option<Self> {
        let tcp = TcpListener::bind((host, 0)).ok()?;
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            answer,
            asked: Mutex::default(),
        });
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || serve_udp(&for_udp, &udp)),
            std::thread::spawn(move || serve_tcp(&for_tcp, &tcp)),
        ];
        Some(Self { address, shared, threads })
    }

    /// Says nothing any more, or answers again.
    pub(crate) fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::Relaxed);
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|(asked, ..)| asked == name).count()
    }

    /// How many different numbers and ports there were.
    pub(crate) fn spread(&self) -> (usize, usize, usize) {
        let asked = self.shared.asked.lock().unwrap();
        let ids: HashSet<u16> = asked.iter().map(|(_, id, ..)| *id).collect();
        let ports: HashSet<u16> = asked.iter().map(|(_, _, port, _)| *port).collect();
        (asked.len(), ids.len(), ports.len())
    }

    pub(crate) fn over_tcp(&self) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|(.., tcp)| *tcp).count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A port that takes everything and says nothing; held by the socket.
pub(crate) fn dead() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A port that nobody has.
pub(crate) fn closed() -> SocketAddr {
    dead().1
}

fn serve_udp(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    while !shared.ends.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        for message in answers(shared, &buffer[..length], peer, false) {
            socket.send_to(&message, peer).unwrap();
        }
    }
}

fn serve_tcp(shared: &Shared, listener: &TcpListener) {
    while !shared.ends.load(Ordering::Relaxed) {
        let Ok((mut stream, peer)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).unwrap();
        for message in answers(shared, &message, peer, true) {
            let length = u16::try_from(message.len()).unwrap().to_be_bytes();
            // In pieces, as a network may have it.
            for piece in [&length[..1], &length[1..], &message[..5], &message[5..]] {
                let _ = stream.write_all(piece);
                let _ = stream.flush();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn answers(shared: &Shared, query: &[u8], peer: SocketAddr, tcp: bool) -> Vec<Vec<u8>> {
    let mut end = 12;
    let mut name = String::new();
    while query[end] != 0 {
        let label = &query[end + 1..end + 1 + usize::from(query[end])];
        name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
        name.push('.');
        end += 1 + label.len();
    }
    let name = name.trim_end_matches('.').to_owned();
    let question = &query[12..end + 5];
    let id = u16::from_be_bytes([query[0], query[1]]);
    shared.asked.lock().unwrap().push((name.clone(), id, peer.port(), tcp));
    let reply = |id: u16, flags: [u8; 2], counts: [u8; 2], question: &[u8], records: &[u8]| {
        let mut message = id.to_be_bytes().to_vec();
        message.extend(flags);
        message.extend([0, 1, 0, counts[0], 0, counts[1], 0, 0]);
        message.extend(question);
        message.extend(records);
        message
    };
    let record = |ttl: u8| [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4][..], &shared.answer].concat();
    let zone = [&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0][..], &[0; 16], &[0, 0, 0, 30]].concat();
    let good = |id, ttl| reply(id, [0x81, 0x80], [1, 0], question, &record(ttl));
    if shared.mute.load(Ordering::Relaxed) {
        return Vec::new();
    }
    match name.split('.').next().unwrap_or_default() {
        "nx" => vec![reply(id, [0x81, 0x83], [0, 1], question, &zone)],
        "servfail" => vec![reply(id, [0x81, 0x82], [0, 0], question, &[])],
        "short" => vec![good(id, 2)],
        "silent" => vec![],
        "late" => {
            std::thread::sleep(Duration::from_millis(400));
            vec![good(id, 60)]
        }
        "big" if !tcp => vec![reply(id, [0x83, 0x80], [0, 0], question, &[])],
        "big" => vec![reply(id, [0x81, 0x80], [100, 0], question, &record(60).repeat(100))],
        "liar" if !tcp => vec![reply(id, [0x83, 0x80], [0, 0], question, &[])],
        // Cut off in the middle of a record.
        "liar" => vec![reply(id, [0x81, 0x80], [2, 0], question, &record(60))],
        "spoofed" => {
            let mut wrong = question.to_vec();
            wrong[1] ^= 1;
            let poison = [&record(60)[..12], &[6, 6, 6, 6]].concat();
            vec![
                reply(id ^ 1, [0x81, 0x80], [1, 0], question, &poison),
                reply(id, [0x81, 0x80], [1, 0], &wrong, &poison),
                reply(id, [0x01, 0x80], [1, 0], question, &poison),
                reply(id, [0x81, 0x80], [9, 0], question, &poison),
                vec![1, 2, 3],
                good(id, 60),
            ]
        }
        _ => vec![good(id, 60)],
    }
}
