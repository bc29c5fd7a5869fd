//! What an index makes of archives, honest and other.

use super::*;

/// Entries as a client would send them: name, kind, link or content.
fn index(entries: &[(&str, u8, &str)]) -> Result<Index> {
    let mut bytes = Vec::new();
    for (name, flag, text) in entries {
        let (size, link) = if *flag == b'0' { (text.len(), "") } else { (0, *text) };
        let mut block = [0u8; 512];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000007\0");
        put(116, b"0000007\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000100\0");
        put(148, b"        ");
        put(156, &[*flag]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(block);
        if size > 0 {
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    Index::read(bytes.as_slice(), tempfile::tempfile().unwrap(), &Cancel::new().unwrap())
}

fn text(index: &Index, path: &str) -> String {
    let mut text = String::new();
    index.open(Path::new(path)).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn files_are_found_and_links_stay_inside() {
    let index = index(&[
        ("./", b'5', ""),
        ("./a/b/file", b'0', "content"),
        ("second", b'1', "a/b/file"),
        ("link", b'2', "/a/b"),
        ("a/up", b'2', "../../../../second"),
        ("loop", b'2', "loop"),
        ("empty", b'0', ""),
        ("link again", b'1', "link"),
    ])
    .unwrap();
    // Another name for a link is a link.
    assert_eq!(index.look(Path::new("link again"), false).unwrap().unwrap().link, "/a/b");
    for path in ["a/b/file", "link/file", "a/up", "second", "/a/./b/../b/file", "no/where/../../second"] {
        assert_eq!(text(&index, path), "content", "{path}");
    }
    let look = |path: &str, follow| index.look(Path::new(path), follow);
    let file = look("a/b/file", false).unwrap().unwrap();
    assert_eq!((file.attributes.owner, file.size, file.inode.is_some()), ((0, 0), 7, true));
    assert_eq!(file.inode, look("second", true).unwrap().unwrap().inode);
    assert_eq!(look("link", false).unwrap().unwrap().attributes.kind, Kind::Symlink);
    assert_eq!(look("link", true).unwrap().unwrap().attributes.kind, Kind::Directory);
    assert!(look("nope", true).unwrap().is_none() && look("a/b/file/x", true).unwrap().is_none());
    assert!(look("loop", true).unwrap().is_none() && look("loop", false).unwrap().is_some());
    assert_eq!(index.names(Path::new("link")).unwrap(), ["file"]);
    assert!(index.names(Path::new("empty")).unwrap().is_empty() && index.open(Path::new("link")).is_err());
    assert_eq!(index.digest(file.body.unwrap()).unwrap(), sum(&wharf_reference::Digest::sha256(b"content")));
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let index =
        index(&[("x/y", b'0', "1"), ("x", b'0', "2"), ("d/", b'5', ""), ("d/f", b'0', "3"), ("d/", b'5', "")]).unwrap();
    assert_eq!(text(&index, "x"), "2");
    assert!(index.look(Path::new("x/y"), false).unwrap().is_none());
    assert_eq!(text(&index, "d/f"), "3");
}

#[test]
fn hostile_archives_are_refused() {
    for (entries, why) in [
        (&[("a", b'2', "/etc"), ("a/evil", b'0', "x")][..], "no directory"),
        (&[("..", b'0', "x")], "replace the root"),
        (&[("a", b'0', "x"), ("a/evil", b'0', "x")], "no directory"),
        (&[("a", b'1', "../../etc/passwd")], "links to something outside"),
        (&[("a", b'1', "not/there")], "links to what is not there"),
        (&[("d/", b'5', ""), ("a", b'1', "d")], "links to what is not there"),
        (&[("a", b'Z', "")], "type"),
    ] {
        let error = index(entries).unwrap_err();
        assert!(error.message.contains(why), "{error}");
    }
    let escaped = index(&[("../evil", b'0', "x"), ("a/../../other", b'0', "y")]).unwrap();
    assert_eq!((text(&escaped, "evil"), text(&escaped, "other")), ("x".into(), "y".into()));
    assert!(Index::read(&b"this is no archive"[..], tempfile::tempfile().unwrap(), &Cancel::new().unwrap()).is_err());
}
