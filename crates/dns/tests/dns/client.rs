//! A container's program that asks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use wharf_netlink::namespace;

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(labels(name));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// The same from a client that takes `size` bytes.
pub(crate) fn query_edns(id: u16, name: &str, kind: u16, size: u16) -> Vec<u8> {
    let mut message = query(id, name, kind);
    message[11] = 1;
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend([0; 6]);
    message
}

pub(crate) fn labels(name: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        all.push(u8::try_from(label.len()).unwrap());
        all.extend(label.as_bytes());
    }
    all.push(0);
    all
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: u16,
    pub(crate) code: u8,
    pub(crate) truncated: bool,
    /// The question's name as it came.
    pub(crate) spelled: Vec<u8>,
    /// TTLs and data.
    pub(crate) records: Vec<(u32, Vec<u8>)>,
}

impl Reply {
    pub(crate) fn parse(message: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        let name_end = |mut at: usize| loop {
            match message[at] {
                0 => return at + 1,
                192.. => return at + 2,
                length => at += 1 + usize::from(length),
            }
        };
        assert_eq!(message[2] & 0x80, 0x80, "it is a response");
        let mut records = Vec::new();
        let mut spelled = Vec::new();
        let mut at = 12;
        if word(4) == 1 {
            let end = name_end(12);
            spelled = message[12..end].to_vec();
            at = end + 4;
        }
        for _ in 0..word(6) {
            let fixed = name_end(at);
            let ttl = u32::from_be_bytes(message[fixed + 4..fixed + 8].try_into().unwrap());
            let end = fixed + 10 + usize::from(word(fixed + 8));
            records.push((ttl, message[fixed + 10..end].to_vec()));
            at = end;
        }
        Self { id: word(0), code: message[3] & 15, truncated: message[2] & 2 != 0, spelled, records }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.records
            .iter()
            .filter_map(|(_, data)| <[u8; 4]>::try_from(&data[..]).ok())
            .map(|a| Ipv4Addr::from(a).to_string())
            .collect()
    }
}

/// A UDP socket in a namespace that hears the resolver only.
pub(crate) fn udp(netns: &OwnedFd) -> UdpSocket {
    let socket = namespace::within(netns.as_fd(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(RESOLVER).unwrap();
        socket
    });
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    socket
}

pub(crate) fn tcp(netns: &OwnedFd) -> TcpStream {
    let stream = namespace::within(netns.as_fd(), || TcpStream::connect(RESOLVER).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream
}

/// The bytes of an answer to `message`.
pub(crate) fn exchange(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    socket.send(message).unwrap();
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer.truncate(length);
    buffer
}

/// Asks once, over UDP.
pub(crate) fn ask(netns: &OwnedFd, name: &str, kind: u16) -> Reply {
    Reply::parse(&exchange(&udp(netns), &query(0x1234, name, kind)))
}

pub(crate) fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, message].concat()).unwrap();
}

/// The next answer over TCP; `None` at the end.
pub(crate) fn receive(stream: &mut TcpStream) -> Option<Reply> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("the whole answer");
    Some(Reply::parse(&message))
}

/// Asks once, over TCP.
pub(crate) fn ask_tcp(netns: &OwnedFd, name: &str, kind: u16) -> Reply {
    let mut stream = tcp(netns);
    send(&mut stream, &query(0x4321, name, kind));
    receive(&mut stream).expect("an answer")
}
