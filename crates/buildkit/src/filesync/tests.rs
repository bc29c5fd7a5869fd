use std::collections::HashMap;

use super::*;
use crate::grpc::Messages;
use crate::grpc::server;
use crate::proto::session::Stat;

/// A client whose files are served by `serve`.
async fn client<F>(serve: impl Fn(Messages, Sender) -> F + Clone + Send + Sync + 'static) -> Session
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(server::serve(theirs, move |call| {
        let serve = serve.clone();
        async move { call.both(move |_, messages, sender| serve(messages, sender)) }
    }));
    Session::over_connection(ours, &[METHOD]).await
}

fn stat(path: &str, size: i64) -> Packet {
    let stat = Stat { path: path.into(), mode: 0o644, size, ..Stat::default() };
    Packet { kind: PACKET_STAT, stat: Some(stat), ..Packet::default() }
}

fn data(id: u32, bytes: &'static [u8]) -> Packet {
    Packet { kind: PACKET_DATA, id, data: Bytes::from_static(bytes), ..Packet::default() }
}

const END: Packet = Packet { kind: PACKET_STAT, stat: None, id: 0, data: Bytes::new() };

/// Answers each question for a file with what `files` has of it.
async fn honest(files: HashMap<u32, Vec<u8>>, mut messages: Messages, sender: Sender) -> Result<(), Status> {
    let mut names: Vec<&u32> = files.keys().collect();
    names.sort();
    for id in names {
        sender.send(&stat(&format!("f{id:02}"), files[id].len() as i64)).await;
    }
    sender.send(&END).await;
    while let Some(packet) = messages.next::<Packet>().await? {
        match packet.kind {
            PACKET_REQ => {
                for piece in files[&packet.id].chunks(1000) {
                    let data = Bytes::copy_from_slice(piece);
                    sender.send(&Packet { kind: PACKET_DATA, id: packet.id, data, ..Packet::default() }).await;
                }
                sender.send(&data(packet.id, b"")).await;
            }
            _ => {
                sender.send(&Packet { kind: PACKET_FIN, ..Packet::default() }).await;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A client that has these files, whatever it is asked for.
pub(crate) async fn serving(files: &'static [(&'static str, &'static [u8])]) -> Session {
    client(move |mut messages, sender| async move {
        for (name, text) in files {
            sender.send(&stat(name, text.len() as i64)).await;
        }
        sender.send(&END).await;
        while let Some(packet) = messages.next::<Packet>().await?.filter(|packet| packet.kind == PACKET_REQ) {
            let text = files[packet.id as usize].1;
            if !text.is_empty() {
                sender.send(&data(packet.id, text)).await;
            }
            sender.send(&data(packet.id, b"")).await;
        }
        sender.send(&Packet { kind: PACKET_FIN, ..Packet::default() }).await;
        Ok(())
    })
    .await
}

fn wanted() -> Wanted {
    Wanted { name: "context".into(), ..Wanted::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_come_in_the_order_in_which_they_are_asked_for() {
    let files: HashMap<u32, Vec<u8>> = (0..200).map(|id| (id, vec![id as u8; 100 * id as usize])).collect();
    let served = files.clone();
    let session = client(move |messages, sender| honest(served.clone(), messages, sender)).await;
    let mut directory = Directory::list(&session, &wanted(), false).await.unwrap();
    assert!(directory.listed().starts_with(b"WHARFLS3"));
    let handle = Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        directory.contents(&handle, &[3..5, 100..200]).read_to_end(&mut bytes).unwrap();
        (directory, bytes)
    });
    let (directory, bytes) = read.await.unwrap();
    let mut expected = Vec::new();
    for id in (3..5).chain(100..200) {
        // No extended attributes come before a content.
        expected.push(0);
        expected.extend(&files[&id]);
    }
    assert_eq!(bytes, expected);
    directory.end().await;
}

/// As a log does while it is sent.
#[tokio::test]
async fn what_grows_is_as_long_as_it_was_when_it_was_listed() {
    let session = client(|mut messages, sender| async move {
        for packet in [stat("a", 3), stat("b", 2), END] {
            sender.send(&packet).await;
        }
        messages.next::<Packet>().await?;
        messages.next::<Packet>().await?;
        let pieces = [data(1, b"xyz"), data(0, b"fo"), data(0, b"ur"), data(0, b"more"), data(1, b"more")];
        for packet in pieces.into_iter().chain([data(1, b""), data(0, b"")]) {
            sender.send(&packet).await;
        }
        sender.closed().await;
        Ok(())
    })
    .await;
    let mut directory = Directory::list(&session, &wanted(), true).await.unwrap();
    let mut queue: VecDeque<u32> = directory.listing.files.keys().copied().collect();
    queue.make_contiguous().sort_unstable();
    let mut bytes = Vec::new();
    while let Some(piece) = directory.piece(&mut queue).await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    // Before each, that it has no extended attributes.
    assert_eq!(bytes, b"\0fou\0xy");
}

async fn refused(packets: Vec<Packet>, answers: Vec<Packet>) -> String {
    let session = client(move |mut messages, sender| {
        let (packets, answers) = (packets.clone(), answers.clone());
        async move {
            for packet in &packets {
                sender.send(packet).await;
            }
            messages.next::<Packet>().await?;
            for packet in &answers {
                sender.send(packet).await;
            }
            // Until nobody listens any more.
            sender.closed().await;
            Ok(())
        }
    })
    .await;
    let mut directory = match Directory::list(&session, &wanted(), true).await {
        Ok(directory) => directory,
        Err(status) => return status.message().to_owned(),
    };
    directory.text("a").await.unwrap_err().message().to_owned()
}

#[tokio::test]
async fn a_client_that_lies_is_refused() {
    let one = || vec![stat("a", 3), END];
    for (packets, answers, why) in [
        (vec![stat("../a", 3), END], vec![], "no path"),
        (vec![stat("a", -1), END], vec![], "a size of -1"),
        (vec![data(0, b"x")], vec![], "nobody has asked for"),
        (one(), vec![data(0, b"tw"), data(0, b"")], "2 of 3 bytes came"),
        (one(), vec![data(7, b"x")], "nobody has asked for"),
        (one(), vec![stat("b", 1)], "after the end of its list"),
        (vec![stat("a", 1 << 40), END], vec![], "more than"),
        (
            vec![Packet { kind: PACKET_ERR, data: Bytes::from_static(b"no access"), ..Packet::default() }],
            vec![],
            "no access",
        ),
        (vec![Packet { kind: PACKET_FIN, ..Packet::default() }], vec![], "has ended its files"),
    ] {
        let said = refused(packets, answers).await;
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// Each message is small, and there is no end of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_lists_for_ever_is_refused() {
    let session = client(|_, sender| async move {
        let xattrs: HashMap<String, Vec<u8>> = (0..255).map(|id| (format!("user.{id}"), vec![0; 60_000])).collect();
        let mut id = 0u64;
        loop {
            let mut packet = stat(&format!("f{id:020}"), 1);
            packet.stat.as_mut().unwrap().xattrs.clone_from(&xattrs);
            if !sender.send(&packet).await {
                return Ok(());
            }
            id += 1;
        }
    })
    .await;
    let refused = Directory::list(&session, &wanted(), true).await.unwrap_err();
    assert!(refused.is(Code::ResourceExhausted) && refused.message().contains(".dockerignore"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_come_before_their_turn_come_whole() {
    let session = client(|mut messages, sender| async move {
        for packet in [stat("a", 2), stat("b", 3), END] {
            sender.send(&packet).await;
        }
        messages.next::<Packet>().await?;
        messages.next::<Packet>().await?;
        for packet in [data(1, b"b1"), data(0, b"a"), data(1, b"2"), data(1, b""), data(0, b"A"), data(0, b"")] {
            sender.send(&packet).await;
        }
        sender.closed().await;
        Ok(())
    })
    .await;
    let mut directory = Directory::list(&session, &wanted(), false).await.unwrap();
    let handle = Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        directory.contents(&handle, &[0..1, 1..2]).read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(read.await.unwrap(), b"\0aA\0b12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_reader_has_left_is_nobody_s() {
    let session = client(|mut messages, sender| async move {
        for packet in [stat("a", 2), stat("b", 3), END] {
            sender.send(&packet).await;
        }
        messages.next::<Packet>().await?;
        for packet in [data(0, b"aA"), data(0, b"")] {
            sender.send(&packet).await;
        }
        sender.closed().await;
        Ok(())
    })
    .await;
    let mut directory = Directory::list(&session, &wanted(), false).await.unwrap();
    let handle = Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        directory.contents(&handle, std::slice::from_ref(&(0..1))).read_exact(&mut [0; 2]).unwrap();
        directory.contents(&handle, std::slice::from_ref(&(1..2))).read_to_end(&mut Vec::new()).unwrap_err().to_string()
    });
    assert!(read.await.unwrap().contains("has ended in the middle"));
}
