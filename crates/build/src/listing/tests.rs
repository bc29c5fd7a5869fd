//! What listings become, honest and other.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Mutex;

use super::*;

/// Answers from what it was given, and counts what was asked for.
struct Client {
    contents: Vec<(u32, Vec<u8>)>,
    asked: Mutex<Vec<u32>>,
}

impl Answers for Client {
    fn ask(
        &self,
        _: usize,
        wanted: &[std::ops::Range<u32>],
        read: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        for entry in wanted.iter().cloned().flatten() {
            self.asked.lock().unwrap().push(entry);
            let found = self.contents.iter().find(|(number, _)| *number == entry);
            bytes.extend(&found.unwrap().1);
        }
        read(&mut Cursor::new(bytes))
    }

    fn ask_whole(&self, _: usize) -> Result<Box<dyn Read + Send>> {
        Err(BuildError::invalid("there is no more"))
    }
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text);
}

fn time(bytes: &mut Vec<u8>, seconds: i64) {
    bytes.extend(seconds.to_be_bytes());
    bytes.extend([0; 4]);
}

fn head() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    text(&mut bytes, b"key");
    text(&mut bytes, b"/place");
    time(&mut bytes, 1000);
    bytes.push(0);
    bytes
}

/// An entry: kind, depth, name, and for a link where it leads.
fn entry(bytes: &mut Vec<u8>, kind: u8, depth: u16, name: &str, link: &str) {
    bytes.push(kind);
    bytes.extend(depth.to_be_bytes());
    text(bytes, name.as_bytes());
    if kind == b'h' {
        return text(bytes, link.as_bytes());
    }
    if kind == b'i' {
        return;
    }
    bytes.extend(0o644u16.to_be_bytes());
    time(bytes, 7);
    match kind {
        b'l' => text(bytes, link.as_bytes()),
        b'f' => {
            bytes.extend((link.len() as u64).to_be_bytes());
            time(bytes, 8);
            bytes.extend([0; 17]);
        }
        _ => {}
    }
}

/// As they are sent: with a capability before them, or nothing.
fn content(xattr: &str, of: &str) -> Vec<u8> {
    let mut bytes = vec![u8::from(!xattr.is_empty())];
    if !xattr.is_empty() {
        text(&mut bytes, b"security.capability");
        text(&mut bytes, xattr.as_bytes());
    }
    bytes.write_all(of.as_bytes()).unwrap();
    bytes
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn read(&self, bytes: Vec<u8>, contents: Vec<(u32, Vec<u8>)>) -> (Result<Index>, Arc<Client>) {
        let client = Arc::new(Client { contents, asked: Mutex::default() });
        let answers: Arc<dyn Answers> = Arc::clone(&client) as Arc<dyn Answers>;
        let contexts = Arc::new(KeptContexts::new(self.dir.path().to_owned()));
        (read(Box::new(Cursor::new(bytes)), 0, &answers, &contexts, &Cancel::new().unwrap()), client)
    }
}

fn place() -> Place {
    Place { dir: tempfile::tempdir().unwrap() }
}

#[test]
fn a_listing_is_a_tree_and_what_has_come_is_not_asked_for_again() {
    let place = place();
    let mut bytes = head();
    for (kind, depth, name, link) in [
        (b'd', 0, "a", ""),
        (b'f', 1, "file", "content"),
        (b'l', 1, "link", "file"),
        (b'i', 0, "b", ""),
        (b'i', 1, "c", ""),
        (b'f', 2, "empty", ""),
        (b'h', 0, "second", "a/file"),
        (b'h', 0, "second link", "a/link"),
    ] {
        entry(&mut bytes, kind, depth, name, link);
    }
    let contents = vec![(1, content("caps", "content")), (5, content("", ""))];
    for round in 0..2 {
        let (index, client) = place.read(bytes.clone(), contents.clone());
        let index = index.unwrap();
        let look = |path: &str| index.look(Path::new(path), false).unwrap().unwrap();
        let all = ["a/file", "b/c/empty"].map(|path| look(path).body.unwrap());
        index.bring(all).unwrap();
        assert_eq!(*client.asked.lock().unwrap(), if round == 0 { vec![1, 5] } else { Vec::new() });
        let mut text = String::new();
        index.open(Path::new("second")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        for path in ["a/file", "second"] {
            assert_eq!(look(path).attributes.xattrs, [("security.capability".into(), b"caps".to_vec())], "{path}");
        }
        assert_eq!(look("second link").link, "file");
        assert_eq!((look("a").attributes.mode, look("b/c").attributes.mode), (0o644, 0o755));
        assert!(look("b/c/empty").attributes.xattrs.is_empty());
    }
}

#[test]
fn hostile_listings_are_refused() {
    for (entries, why) in [
        (&[(b'f', 1, "x", "")][..], "no place"),
        (&[(b'f', 0, "x", ""), (b'f', 1, "y", "")], "no place"),
        (&[(b'd', 0, "x", ""), (b'd', 0, "y", ""), (b'f', 2, "z", "")], "no place"),
        (&[(b'f', 0, "a/b", "")], "no place"),
        (&[(b'f', 0, "..", "")], "no place"),
        (&[(b'f', 0, "", "")], "no place"),
        (&[(b'h', 0, "x", "../../etc/passwd")], "links to something outside"),
        (&[(b'h', 0, "x", "nowhere")], "links to what is not there"),
        (&[(b'd', 0, "d", ""), (b'h', 0, "x", "d")], "links to what is not there"),
        (&[(b'?', 0, "x", "")], "no kind"),
    ] {
        let mut bytes = head();
        entries.iter().for_each(|(kind, depth, name, link)| entry(&mut bytes, *kind, *depth, name, link));
        let error = place().read(bytes, Vec::new()).0.unwrap_err();
        assert!(error.message.contains(why), "{error}");
    }
    let mut whole = head();
    entry(&mut whole, b'f', 0, "file", "content");
    for length in head().len() + 1..whole.len() {
        assert!(place().read(whole[..length].to_vec(), Vec::new()).0.is_err(), "{length}");
    }
    assert!(place().read(b"WHARFLS1".to_vec(), Vec::new()).0.unwrap_err().message.contains("another version"));
    // Half an answer is none.
    let (index, _) = place().read(whole.clone(), vec![(0, content("x", "cont"))]);
    assert!(index.unwrap().bring([0]).is_err());
    let (index, _) = place().read(whole, vec![(0, content("x", "content and more"))]);
    assert!(index.unwrap().bring([0]).is_err());
}

#[test]
fn what_is_in_a_file_that_became_a_directory_is_its_own() {
    let place = place();
    let mut bytes = head();
    entry(&mut bytes, b'd', 0, "x", "");
    entry(&mut bytes, b'f', 1, "y", "1");
    entry(&mut bytes, b'f', 0, "x", "2");
    let index = place.read(bytes, Vec::new()).0.unwrap();
    assert_eq!(index.look(Path::new("x"), false).unwrap().unwrap().attributes.kind, Kind::File);
    assert!(index.look(Path::new("x/y"), false).unwrap().is_none());
}
