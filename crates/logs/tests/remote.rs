//! Logs on their way to real sockets.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use wharf_logs::remote::{Form, Journald, Syslog, SyslogFormat, Target};
use wharf_logs::{Remote, RemoteConfig, Stream};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(target: Target) -> RemoteConfig {
    let syslog =
        Syslog { format: SyslogFormat::Rfc5424, facility: 3 << 3, hostname: "host".into(), tag: "tag".into(), pid: 1 };
    RemoteConfig {
        target,
        form: Form::Syslog(syslog),
        blocking: true,
        buffer: 64 << 10,
        needed: true,
        retry_ms: 20,
        attempts: None,
        renew_ms: None,
        write_ms: None,
    }
}

fn say(remote: &mut Remote, text: &str) {
    remote.write(Stream::Stdout, text.as_bytes(), Timestamp::now());
}

/// Lets the remote do what it does when its loop waits for it, until it has come that far.
fn until(remote: &mut Remote, mut done: impl FnMut(&mut Remote) -> bool) {
    let began = Instant::now();
    while !done(remote) {
        assert!(began.elapsed() < PATIENCE);
        remote.ready();
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn line(from: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.rsplit_once(" - ").map(|(_, text)| text.trim_end().to_owned()).unwrap_or(line)
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

#[test]
fn datagrams_go_out_whether_somebody_listens_or_not() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = receiver.local_addr().unwrap();
    let mut remote = Remote::open(config(Target::Udp(address))).unwrap();
    // An empty line is no record.
    say(&mut remote, "one\n\ntw");
    say(&mut remote, "o\n");
    let mut buffer = [0; 2000];
    for want in ["one\n", "two\n"] {
        let count = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..count].ends_with(format!(" - {want}").as_bytes()));
    }
    drop(receiver);
    for _ in 0..10 {
        say(&mut remote, "nobody\n");
    }
    let receiver = UdpSocket::bind(address).unwrap();
    receiver.set_nonblocking(true).unwrap();
    until(&mut remote, |remote| {
        say(remote, "again\n");
        receiver.recv(&mut buffer).is_ok()
    });
}

#[test]
fn a_lost_connection_is_made_again_and_nothing_is_sent_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut remote = Remote::open(config(Target::Tcp(address))).unwrap();
    let mut first = accept(&listener);
    say(&mut remote, "one\n");
    assert_eq!(line(&mut first), "one");
    drop((first, listener));
    until(&mut remote, |remote| remote.interest().0.is_none());
    // Nobody is there: what does not fit is lost, the oldest first, and the container goes on.
    for n in 0..5000 {
        say(&mut remote, &format!("{n}\n"));
        assert!(!remote.is_full());
    }
    assert!(remote.lost() > 0);
    let listener = TcpListener::bind(address).unwrap();
    let thread = std::thread::spawn(move || {
        let mut second = accept(&listener);
        let mut all = Vec::new();
        while all.last().is_none_or(|last| last != "4999") {
            all.push(line(&mut second));
        }
        all
    });
    until(&mut remote, |_| thread.is_finished());
    let all = thread.join().unwrap();
    assert_eq!(all.len() as u64, 5000 - remote.lost());
    let want: Vec<String> = (5000 - all.len()..5000).map(|n| n.to_string()).collect();
    assert_eq!(all, want);
}

#[test]
fn a_slow_receiver_holds_the_container_up_unless_it_should_not() {
    for blocking in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let mut remote = Remote::open(RemoteConfig { blocking, ..config(target) }).unwrap();
        let mut receiver = accept(&listener);
        let text = format!("{}\n", "x".repeat(1000));
        let mut said = 0;
        while !remote.is_full() && said < 30_000 {
            say(&mut remote, &text);
            said += 1;
        }
        assert_eq!((remote.is_full(), remote.lost() > 0), (blocking, !blocking));
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            let mut line = String::new();
            while receiver.read_line(&mut line).unwrap() > 0 {
                // None is cut in two.
                assert!(line.starts_with('<') && line.ends_with("x\n"));
                count += 1;
                line.clear();
            }
            count
        });
        until(&mut remote, |remote| !remote.is_full());
        let lost = remote.lost();
        remote.finish(PATIENCE);
        assert_eq!(thread.join().unwrap() + lost, said);
    }
}

#[test]
fn what_was_tried_as_often_as_it_may_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bounded = RemoteConfig { attempts: Some(2), retry_ms: 1, ..config(Target::Tcp(address)) };
    let mut remote = Remote::open(bounded).unwrap();
    drop((accept(&listener), listener));
    until(&mut remote, |remote| remote.interest().0.is_none());
    say(
        &mut remote,
        "lost
lost too
",
    );
    until(&mut remote, |remote| remote.lost() == 2);
    // What comes later is tried anew.
    say(
        &mut remote,
        "kept
",
    );
    let listener = TcpListener::bind(address).unwrap();
    let thread = std::thread::spawn(move || line(&mut accept(&listener)));
    until(&mut remote, |remote| {
        if remote.lost() > 2 {
            say(remote, "kept\n");
        }
        thread.is_finished()
    });
    assert_eq!(thread.join().unwrap(), "kept");
}

#[test]
fn a_connection_is_made_anew_between_two_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    let mut remote = Remote::open(RemoteConfig { renew_ms: Some(1), ..config(target) }).unwrap();
    let mut first = accept(&listener);
    until(&mut remote, |remote| {
        say(
            remote, "x
",
        );
        remote.interest().0.is_some() && listener.set_nonblocking(true).is_ok() && listener.accept().is_ok()
    });
    let mut rest = String::new();
    first.read_to_string(&mut rest).unwrap();
    assert!(
        rest.is_empty()
            || rest.ends_with(
                "x
"
            )
    );
}

#[test]
fn a_receiver_that_takes_nothing_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    let mut remote = Remote::open(RemoteConfig { write_ms: Some(5), ..config(target) }).unwrap();
    let silent = accept(&listener);
    let text = "x".repeat(1000) + "\n";
    let thread = std::thread::spawn(move || line(&mut accept(&listener)).len());
    until(&mut remote, |remote| {
        // Once more and again: the kernel's buffers grow.
        if !remote.is_full() {
            (0..1000).for_each(|_| say(remote, &text));
        }
        thread.is_finished()
    });
    assert_eq!(thread.join().unwrap(), 1000);
    drop(silent);
}

#[test]
fn without_a_receiver_a_container_does_not_start() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Remote::open(config(Target::Tcp(free))).unwrap_err();
    assert_eq!(refused.to_string(), format!("cannot reach the receiver of the log at tcp://{free}"));
    assert!(Remote::open(RemoteConfig { needed: false, ..config(Target::Tcp(free)) }).is_ok());
    assert!(Remote::open(config(Target::Unix("/nonexistent/socket".into()))).is_err());
    assert!(Remote::open(config(Target::Unixgram("/nonexistent/socket".into()))).is_err());
}

/// As the journal takes it (systemd, "Native Journal Protocol").
#[test]
fn an_entry_that_is_too_large_for_a_datagram_comes_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let large = "x".repeat(4 << 20);
    let fields = [("BIG".to_owned(), large.clone())].into();
    let form = Form::Journald(Journald { fields, id: "abc".into() });
    let mut remote = Remote::open(RemoteConfig { form, ..config(Target::Unixgram(path)) }).unwrap();
    say(&mut remote, "a line\n");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&journal, &mut [], &mut control, RecvFlags::empty()).unwrap();
    assert_eq!(received.bytes, 0);
    let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else { panic!("a file comes") };
    let mut file = std::fs::File::from(fds.next().unwrap());
    let mut entry = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut entry).unwrap();
    assert!(entry.starts_with("MESSAGE=a line\n") && entry.ends_with(&format!("BIG={large}\n")));
    assert!(std::io::Write::write(&mut file, b"x").is_err());
    assert_eq!(remote.lost(), 0);
}

#[test]
fn a_slow_receiver_gets_the_last_lines_after_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut remote = Remote::open(config(Target::Tcp(listener.local_addr().unwrap()))).unwrap();
    let (mut slow, _) = listener.accept().unwrap();
    let lines = 200_000;
    let text: String = (0..lines).map(|number| format!("{number:060}\n")).collect();
    say(&mut remote, &text);
    let finishing = std::thread::spawn(move || remote.finish(Duration::from_millis(10)));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!finishing.is_finished());
    let mut all = String::new();
    slow.read_to_string(&mut all).unwrap();
    finishing.join().unwrap();
    assert_eq!(all.lines().count(), lines);
}

#[test]
fn sockets_of_this_host_are_receivers_too() {
    let dir = tempfile::tempdir().unwrap();
    let (datagrams, streams) = (dir.path().join("datagrams"), dir.path().join("streams"));
    let journal = UnixDatagram::bind(&datagrams).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let form = Form::Journald(Journald { fields: [("CONTAINER_ID".into(), "abc".into())].into(), id: "abc".into() });
    let mut remote = Remote::open(RemoteConfig { form, ..config(Target::Unixgram(datagrams)) }).unwrap();
    // Longer than a line may be: in parts.
    say(&mut remote, &format!("{}\n", "y".repeat(20_000)));
    let mut buffer = vec![0; 100_000];
    for (length, last) in [(16 << 10, "false"), (20_000 - (16 << 10), "true")] {
        let count = journal.recv(&mut buffer).unwrap();
        let entry = String::from_utf8_lossy(&buffer[..count]);
        assert!(entry.starts_with(&format!("MESSAGE={}\n", "y".repeat(length))));
        assert!(entry.contains(&format!("CONTAINER_LOG_ORDINAL={}\n", if last == "true" { 2 } else { 1 })));
        assert!(entry.contains(&format!("CONTAINER_PARTIAL_LAST={last}\n")) && entry.contains("CONTAINER_ID=abc\n"));
    }
    let listener = UnixListener::bind(&streams).unwrap();
    let mut remote = Remote::open(config(Target::Unix(streams))).unwrap();
    say(&mut remote, "a line\nthe rest");
    remote.end(Stream::Stdout, Timestamp::now());
    remote.finish(PATIENCE);
    let mut all = String::new();
    listener.accept().unwrap().0.read_to_string(&mut all).unwrap();
    let texts: Vec<&str> = all.lines().map(|line| line.rsplit_once(" - ").unwrap().1).collect();
    assert_eq!(texts, ["a line", "the rest"]);
}
