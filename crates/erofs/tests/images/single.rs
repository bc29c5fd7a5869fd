//! One thing each, with figures.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use tempfile::TempDir;
use wharf_erofs::{Attributes, ErofsError, Node, Refusal, Writer};

use crate::{kernel, reading};

/// A place for an image.
pub(crate) struct Place {
    _dir: TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn begin() -> (Place, Writer) {
    let dir = kernel::scratch();
    let path = dir.path().join("image");
    let writer = Writer::new(File::create_new(&path).unwrap()).unwrap();
    (Place { _dir: dir, path }, writer)
}

pub(crate) fn plain() -> Attributes {
    Attributes { mode: 0o644, mtime: (1_700_000_000, 0), ..Attributes::default() }
}

pub(crate) fn file(writer: &mut Writer, path: &str, content: &[u8]) -> Vec<Range<u64>> {
    let mut file = writer.file(path.as_bytes(), &plain(), content.len() as u64).unwrap();
    file.write_all(content).unwrap();
    file.finish().unwrap()
}

fn refusal(done: wharf_erofs::Result<()>) -> Refusal {
    match done {
        Err(ErofsError::Entry { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn small_files_are_packed() {
    let (place, mut writer) = begin();
    for number in 0..1000 {
        file(&mut writer, &format!("{number}"), &[b'x'; 400]);
    }
    let summary = writer.finish([0; 16]).unwrap();
    assert_eq!(summary.inodes, 1001);
    // 432 bytes each of 448 in whole slots, 9 of them in a block; and the directory's names.
    assert!(summary.bytes < 1000 * 460 + 30_000, "{}", summary.bytes);
    kernel::fsck(&place.path);
}

#[test]
fn ends_of_files_of_all_lengths_leave_little_unused() {
    let (place, mut writer) = begin();
    let mut content = 0;
    for number in 0..2000usize {
        let length = number * 2_654_435_761 % 4000;
        content += length as u64;
        file(&mut writer, &format!("{number}"), &vec![b'x'; length]);
    }
    let summary = writer.finish([0; 16]).unwrap();
    // Blocks of their own would make 8 MB of 4.
    let inodes_and_names = 2000 * (32 + 16 + 16);
    assert!(summary.bytes < (content + inodes_and_names) * 108 / 100, "{} for {content}", summary.bytes);
    kernel::fsck(&place.path);
}

#[test]
fn content_is_found_in_the_image_also_when_it_was_replaced() {
    let (place, mut writer) = begin();
    let content: Vec<u8> = (0..10_000u32).map(|at| (at / 7) as u8).collect();
    let first = file(&mut writer, "f", &content);
    file(&mut writer, "f", b"later");
    let mut sparse = writer.file(b"s", &plain(), 1 << 20).unwrap();
    for piece in content.chunks(1000) {
        sparse.append(piece).unwrap();
        sparse.hole(60_000).unwrap();
    }
    sparse.hole((1 << 20) - 610_000).unwrap();
    let second = sparse.finish().unwrap();
    writer.finish([0; 16]).unwrap();
    let image = File::open(&place.path).unwrap();
    for ranges in [first, second] {
        let mut found = Vec::new();
        for range in ranges {
            let mut piece = vec![0; (range.end - range.start) as usize];
            image.read_exact_at(&mut piece, range.start).unwrap();
            found.extend(piece);
        }
        assert!(found == content);
    }
}

#[test]
fn holes_stay_holes() {
    const SIZE: u64 = 5 << 30;
    let (place, mut writer) = begin();
    let mut sparse = writer.file(b"sparse", &plain(), SIZE).unwrap();
    sparse.append(b"begin").unwrap();
    sparse.hole(SIZE - 8).unwrap();
    sparse.append(b"end").unwrap();
    sparse.finish().unwrap();
    let mut empty = writer.file(b"empty", &plain(), SIZE).unwrap();
    empty.hole(SIZE).unwrap();
    empty.finish().unwrap();
    let summary = writer.finish([0; 16]).unwrap();
    let taken = fs::metadata(&place.path).unwrap().blocks() * 512;
    assert!(summary.bytes < 2 << 20 && taken < 200 << 10, "{summary:?}, {taken} on the disk");
    let Some(root) = kernel::mount(&place.path) else { return };
    let mut sparse = File::from(openat(&root, "sparse", OFlags::RDONLY, Mode::empty()).unwrap());
    assert_eq!(sparse.metadata().unwrap().len(), SIZE);
    let mut bytes = [0; 8];
    sparse.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"begin\0\0\0");
    sparse.seek(SeekFrom::Start(SIZE - 8)).unwrap();
    sparse.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0\0end");
    // Who copies the file finds the hole, and does not write 5 GiB.
    let hole = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Hole(0)).unwrap();
    let data = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(hole)).unwrap();
    println!("hole from {hole} to {data}");
    assert!(hole <= 1 << 20 && data >= SIZE - (1 << 20), "hole from {hole} to {data}");
}

#[test]
fn a_file_without_a_whole_hole_may_pass_four_gib() {
    // A chunk is 512 KiB at this size; holes begin after its first byte, so none covers a whole one.
    const CHUNK: u64 = 512 << 10;
    const CHUNKS: u64 = (4 << 30) / CHUNK + 3;
    let (place, mut writer) = begin();
    let mut long = writer.file(b"long", &plain(), CHUNK * CHUNKS + 5).unwrap();
    for number in 0..CHUNKS {
        long.append(&[number as u8]).unwrap();
        long.hole(CHUNK - 1).unwrap();
    }
    long.append(b"short").unwrap();
    long.finish().unwrap();
    file(&mut writer, "after", b"what is behind 4 GiB");
    writer.finish([0; 16]).unwrap();
    let Some(root) = kernel::mount(&place.path) else { return };
    let long = File::from(openat(&root, "long", OFlags::RDONLY, Mode::empty()).unwrap());
    assert_eq!(long.metadata().unwrap().len(), CHUNK * CHUNKS + 5);
    let mut bytes = [0; 2];
    for number in [0, 1, CHUNKS / 2, CHUNKS - 1] {
        long.read_exact_at(&mut bytes, number * CHUNK).unwrap();
        assert_eq!(bytes, [number as u8, 0]);
    }
    let mut end = [0; 5];
    long.read_exact_at(&mut end, CHUNKS * CHUNK).unwrap();
    assert_eq!(&end, b"short");
    let mut after = String::new();
    let file = openat(&root, "after", OFlags::RDONLY, Mode::empty()).unwrap();
    File::from(file).read_to_string(&mut after).unwrap();
    assert_eq!(after, "what is behind 4 GiB");
}

#[test]
fn lists_of_access_and_capabilities_come_through() {
    let (place, mut writer) = begin();
    // acl(5) as it is in extended attributes: version 2; owner, a user 1000, group, mask, others.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [tag.to_le_bytes().as_slice(), &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [entry(1, 6, none), entry(2, 4, 1000), entry(4, 4, none), entry(16, 4, none), entry(32, 0, none)];
    let acl = [2u32.to_le_bytes().as_slice(), &entries.concat()].concat();
    // CAP_NET_RAW, permitted and effective, revision 2.
    let capability = [0x0200_0001u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    let mut attributes = plain();
    attributes.xattrs.insert(b"system.posix_acl_access".to_vec(), acl.clone());
    attributes.xattrs.insert(b"security.capability".to_vec(), capability.clone());
    writer.file(b"f", &attributes, 0).unwrap().finish().unwrap();
    attributes.xattrs.remove(b"security.capability".as_slice());
    attributes.xattrs.insert(b"system.posix_acl_default".to_vec(), acl.clone());
    writer.directory(b"d", &attributes).unwrap();
    writer.finish([0; 16]).unwrap();
    kernel::fsck(&place.path);
    let Some(root) = kernel::mount(&place.path) else { return };
    let of = |name: &[u8], key: &str| kernel::look(root.as_fd(), name).1.xattrs.get(key.as_bytes()).cloned();
    assert_eq!(of(b"f", "security.capability"), Some(capability));
    // A kernel may be built without them.
    if let Some(found) = of(b"f", "system.posix_acl_access") {
        assert_eq!(found, acl);
        assert_eq!(of(b"d", "system.posix_acl_default"), Some(acl));
    }
}

#[test]
fn long_attributes_have_their_place_also_at_the_root() {
    let (place, mut writer) = begin();
    let mut attributes = plain();
    for number in 0..3u8 {
        attributes.xattrs.insert(format!("user.{number}").into_bytes(), vec![b'0' + number; 65_535]);
    }
    writer.directory(b"", &attributes).unwrap();
    writer.directory(b"d", &attributes).unwrap();
    let mut content = writer.file(b"f", &attributes, 5000).unwrap();
    content.append(&[b'c'; 5000]).unwrap();
    content.finish().unwrap();
    attributes.xattrs.remove(b"user.0".as_slice());
    writer.directory(b"d/e", &attributes).unwrap();
    let mut names = plain();
    for number in 0..250 {
        names.xattrs.insert(format!("user.{number}").into_bytes(), b"many".to_vec());
    }
    writer.file(b"g", &names, 0).unwrap().finish().unwrap();
    writer.finish([0; 16]).unwrap();
    kernel::fsck(&place.path);
    let seen = reading::tree(&fs::read(&place.path).unwrap());
    assert_eq!(seen[b"".as_slice()].xattrs.len(), 3);
    if let Some(root) = kernel::mount(&place.path) {
        assert!(kernel::tree(root) == seen);
    }
}

#[test]
fn what_cannot_be_is_refused_with_words() {
    let (_place, mut writer) = begin();
    let told = plain();
    file(&mut writer, "f", b"f");
    writer.directory(b"d", &told).unwrap();
    writer.symlink(b"loop", b"loop", &told).unwrap();
    writer.symlink(b"dangling", b"nowhere", &told).unwrap();
    let with = |name: &[u8], length: usize| {
        let mut told = plain();
        told.xattrs.insert(name.to_vec(), vec![0; length]);
        told
    };
    assert_eq!(refusal(writer.directory(b"a/../b", &told)), Refusal::BadName);
    assert_eq!(refusal(writer.directory(b"a/..", &told)), Refusal::BadName);
    assert_eq!(refusal(writer.directory(b"a\0b", &told)), Refusal::BadName);
    assert_eq!(refusal(writer.directory(b"f/x", &told)), Refusal::NotADirectory);
    assert_eq!(refusal(writer.directory(b"dangling/x", &told)), Refusal::NotADirectory);
    assert_eq!(refusal(writer.directory(b"loop/x", &told)), Refusal::Loop);
    assert_eq!(refusal(writer.hard_link(b"x", b"gone")), Refusal::LinkToNothing);
    assert_eq!(refusal(writer.hard_link(b"x", b"d")), Refusal::LinkToDirectory);
    assert_eq!(refusal(writer.hard_link(b"f", b"./f")), Refusal::LinkToItself);
    assert_eq!(refusal(writer.symlink(b"", b"x", &told)), Refusal::Root);
    assert_eq!(refusal(writer.whiteout(b"/")), Refusal::Root);
    assert_eq!(refusal(writer.opaque(b"f")), Refusal::NotADirectory);
    for target in [b"".as_slice(), b"a\0b", &[b'a'; 4096]] {
        assert_eq!(refusal(writer.symlink(b"l", target, &told)), Refusal::BadTarget);
    }
    for device in [(4096, 0), (0, 1 << 20)] {
        let node = Node::BlockDevice(device.0, device.1);
        assert_eq!(refusal(writer.node(b"n", node, &told)), Refusal::BadDevice);
    }
    let late = Attributes { mtime: (0, 1_000_000_000), ..plain() };
    assert_eq!(refusal(writer.directory(b"late", &late)), Refusal::BadTime);
    assert_eq!(refusal(writer.directory(b"x", &with(b"user.a", 65_536))), Refusal::XattrTooLong("user.a".into()));
    for name in ["user.", "btrfs.compression", "system.posix_acl_access.x", "system.x"] {
        assert_eq!(refusal(writer.directory(b"x", &with(name.as_bytes(), 1))), Refusal::XattrName(name.into()));
    }
    let long = [b"user.".as_slice(), &[b'n'; 256]].concat();
    assert!(matches!(refusal(writer.directory(b"x", &with(&long, 1))), Refusal::XattrName(_)));
    let mut many = plain();
    for number in 0..5 {
        many.xattrs.insert(format!("user.{number}").into_bytes(), vec![0; 65_000]);
    }
    assert!(matches!(refusal(writer.file(b"x", &many, 0).map(drop)), Refusal::XattrsTooLong(_)));

    let mut short = writer.file(b"short", &told, 3).unwrap();
    short.append(b"12").unwrap();
    assert_eq!(refusal(short.hole(2)), Refusal::ContentTooLong(3));
    let error = short.write(b"34").unwrap_err();
    assert_eq!(error.to_string(), "`short`: its content is longer than the 3 bytes that were announced");
    assert_eq!(refusal(short.finish().map(drop)), Refusal::ContentTooShort { has: 2, wanted: 3 });
    assert!(matches!(writer.file(b"huge", &told, u64::MAX), Err(ErofsError::TooLarge(_))));
    let mut huge = writer.file(b"huge", &told, 1 << 44).unwrap();
    let filled = (0..1 << 14).try_for_each(|_| huge.append(b"x").and_then(|()| huge.hole((1 << 30) - 1)));
    assert!(matches!(filled, Err(ErofsError::TooLarge(_))));
}

#[test]
fn a_file_that_is_not_empty_is_not_overwritten() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"precious").unwrap();
    assert!(matches!(Writer::new(file), Err(ErofsError::NotEmpty(8))));
}

#[test]
fn a_full_disk_is_told_and_stays_told() {
    let fs = match fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(errno) => return eprintln!("skipped: no file system can be mounted here: {errno}"),
        Ok(fs) => fs,
    };
    fsconfig_set_string(&fs, "size", "1M").unwrap();
    fsconfig_create(&fs).unwrap();
    let root = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let image = openat(&root, "image", OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o600)).unwrap();
    let mut writer = Writer::new(image.into()).unwrap();
    let mut content = writer.file(b"f", &plain(), 8 << 20).unwrap();
    let error = io::copy(&mut io::repeat(7).take(8 << 20), &mut content).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    drop(content);
    let error = writer.finish([0; 16]).unwrap_err();
    let ErofsError::Write { written, source } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!((512 << 10..=1 << 20).contains(&written), "{written}");
}
