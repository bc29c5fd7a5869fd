//! Holding a host's port while a container has it.
//!
//! The rules send what comes for a published port to its container before any socket sees it. So a program of the
//! host that listens there would silently get nothing: it must not be able to, and where one listens already the port
//! is not to be had. Docker keeps a socket bound for that, and so do we: a bound socket that does not listen, one per
//! port, no process.
//!
//! The sockets die with the daemon; the rules do not. The next daemon binds them again (`recover`). A program that
//! took the port in between keeps its socket, the container its traffic, and the log says so.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_recv_buffer_size, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};

use crate::{NetworkError, Protocol, Result, sysctl};

/// Binds a socket to a port of the host's. `None` for SCTP, which is not held: its sockets need a module that most
/// hosts do not load.
///
/// # Errors
/// `PortTaken` when a program of the host has it; `Bind` when the address is none of the host's, or the daemon may
/// open no more sockets.
pub(crate) fn hold(protocol: Protocol, address: IpAddr, port: u16) -> Result<Option<OwnedFd>> {
    bound(protocol, address, port, false).map_err(|errno| refused(protocol, address, port, errno))
}

/// Binds a port of the namespace that the calling thread is in, for the relay of a daemon that is in another one
/// ([`HostPorts`]). UDP of IPv4 is had by a socket of IPv6, by which the relay learns where each datagram came to.
///
/// # Errors
/// As when the daemon publishes a port; `Bind` for SCTP, which the relay does not pass on.
pub fn bind_for_relay(protocol: Protocol, address: IpAddr, port: u16) -> Result<OwnedFd> {
    match bound(protocol, address, port, true) {
        Ok(Some(socket)) => Ok(socket),
        Ok(None) => {
            let why = "ports that are relayed are of TCP and UDP, and none of SCTP".into();
            Err(NetworkError::Bind { address, port, why })
        }
        Err(errno) => Err(refused(protocol, address, port, errno)),
    }
}

fn refused(protocol: Protocol, address: IpAddr, port: u16, errno: Errno) -> NetworkError {
    match errno {
        Errno::ADDRINUSE => {
            let owner = owner(protocol, port).unwrap_or_else(|| "by a program of the host".into());
            NetworkError::PortTaken { address, port, owner }
        }
        errno => NetworkError::Bind { address, port, why: why(errno) },
    }
}

fn why(errno: Errno) -> String {
    match errno {
        Errno::ACCESS => {
            let first = sysctl::read("ipv4/ip_unprivileged_port_start").unwrap_or_default();
            let first = first.trim();
            let first = if first.is_empty() { "1024" } else { first };
            format!(
                "ports below {first} are root's alone; publish another one, or have root lower \
                 net.ipv4.ip_unprivileged_port_start"
            )
        }
        Errno::ADDRNOTAVAIL => "the host has no such address".into(),
        Errno::MFILE => "the daemon has no more file descriptors: one is needed per published port".into(),
        errno => std::io::Error::from(errno).to_string(),
    }
}

fn bound(protocol: Protocol, address: IpAddr, port: u16, relayed: bool) -> rustix::io::Result<Option<OwnedFd>> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => return Ok(None),
    };
    let mapped = relayed && protocol == Protocol::Udp;
    let family = if address.is_ipv4() && !mapped { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if address.is_ipv6() {
        // The port of IPv4 is held by a socket of its own, or is another's.
        set_ipv6_v6only(&socket, true)?;
    }
    let place = match address {
        IpAddr::V4(address) if mapped => SocketAddr::new(address.to_ipv6_mapped().into(), port),
        address => SocketAddr::new(address, port),
    };
    if protocol == Protocol::Tcp {
        // Older kernels (6.1 has been seen to) remember of a port that it was taken with the permission below, and give
        // it to the next one who has that too: it is asked for only where it is needed.
        match bind(&socket, &place) {
            // What is left of closed connections (TIME_WAIT) is in nobody's way; who listens is all the same. Afterwards
            // the permission is taken back, so that nobody who asks for it can listen beside us.
            Err(Errno::ADDRINUSE) => {
                set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &place)?;
                set_socket_reuseaddr(&socket, false)?;
            }
            bound => bound?,
        }
    } else {
        bind(&socket, &place)?;
        // What goes astray here is read by nobody.
        let _ = set_socket_recv_buffer_size(&socket, 0);
    }
    Ok(Some(socket))
}

/// The program that has a port, for a message.
fn owner(protocol: Protocol, port: u16) -> Option<String> {
    let inode = ["", "6"].into_iter().find_map(|family| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}")).ok()?;
        table.lines().skip(1).find_map(|line| socket_inode(line, protocol, port)).map(str::to_owned)
    })?;
    let target = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may end, or not be ours to look at.
        let Ok(fds) = fs::read_dir(process.path().join("fd")) else { continue };
        let has = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == &*target));
        if has {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("by process {pid}, {}", name.trim_end()));
        }
    }
    None
}

/// The inode in a line of `/proc/net/tcp` or `udp` (proc_pid_net(5)), when it is of a socket that has the port.
fn socket_inode(line: &str, protocol: Protocol, port: u16) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let local = words.get(1)?.rsplit_once(':')?.1;
    // TCP_LISTEN; of UDP every bound socket has TCP_CLOSE.
    let listens = protocol != Protocol::Tcp || *words.get(3)? == "0A";
    if u16::from_str_radix(local, 16) == Ok(port) && listens { words.get(9).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn a_line_of_the_kernel_s_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100";
        assert_eq!(socket_inode(line, Protocol::Tcp, 8080), Some("4711"));
        assert_eq!(socket_inode(line, Protocol::Tcp, 8081), None);
        assert_eq!(socket_inode(&line.replace(" 0A ", " 01 "), Protocol::Tcp, 8080), None);
        assert_eq!(socket_inode("", Protocol::Tcp, 8080), None);
    }

    #[test]
    fn a_port_for_the_relay_excludes_others() {
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let socket = bind_for_relay(Protocol::Udp, ANY, 0).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let error = std::net::UdpSocket::bind((local, address.port())).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(bind_for_relay(Protocol::Udp, local, address.port()).unwrap_err().to_string().contains("by process"));
        let error = bind_for_relay(Protocol::Sctp, ANY, 0).unwrap_err().to_string();
        assert!(error.contains("none of SCTP"), "{error}");
        assert!(why(Errno::ACCESS).contains("net.ipv4.ip_unprivileged_port_start"));
    }

    #[test]
    fn a_listener_of_the_host_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = hold(Protocol::Tcp, ANY, port).unwrap_err().to_string();
        assert!(error.starts_with(&format!("Bind for 0.0.0.0:{port} failed: port is already allocated")), "{error}");
        assert!(error.contains(&format!("by process {}", std::process::id())), "{error}");
        drop(listener);
        let held = hold(Protocol::Tcp, ANY, port).unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err(), "nobody listens beside us");
        drop(held);
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
