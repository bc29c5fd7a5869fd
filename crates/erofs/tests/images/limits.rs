//! The format's limits, and ours.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use wharf_erofs::{ErofsError, Refusal};

use crate::single::{begin, file, plain};
use crate::{kernel, reading};

#[test]
fn names_have_255_bytes() {
    let (place, mut writer) = begin();
    let name = "n".repeat(255);
    file(&mut writer, &format!("{name}/{name}/{name}"), b"deep");
    let longer = "n".repeat(256);
    for path in [longer.clone(), format!("{longer}/x")] {
        let refused = writer.file(path.as_bytes(), &plain(), 0).map(drop);
        assert!(matches!(refused, Err(ErofsError::Entry { why: Refusal::NameTooLong, .. })));
    }
    // Names of which 15 make a block.
    for number in 0..100 {
        file(&mut writer, &format!("long/{number:0255}"), b"");
    }
    writer.finish([0; 16]).unwrap();
    kernel::fsck(&place.path);
    let seen = reading::tree(&fs::read(&place.path).unwrap());
    assert_eq!(seen.len(), 1 + 3 + 1 + 100);
    if let Some(root) = kernel::mount(&place.path) {
        assert!(kernel::tree(root).keys().eq(seen.keys()));
    }
}

#[test]
fn blocks_of_directories_are_filled_to_the_last_byte() {
    let (place, mut writer) = begin();
    let mut paths = std::collections::BTreeSet::from([Vec::new()]);
    for (count, longer) in (124..128).flat_map(|count| (0..64).map(move |longer| (count, longer))) {
        // `.` and `..` take 27 bytes, the others 32, the last up to 76: some fill 4096 bytes to the last, others nearly.
        let dir = format!("{count}-{longer}");
        let longer = "x".repeat(longer);
        writer.directory(dir.as_bytes(), &plain()).unwrap();
        paths.insert(dir.clone().into_bytes());
        for name in (0..count).map(|number| format!("{number:020}")).chain([format!("0{longer}")]) {
            let path = format!("{dir}/{name}");
            writer.whiteout(path.as_bytes()).unwrap();
            paths.insert(path.into_bytes());
        }
    }
    writer.finish([0; 16]).unwrap();
    kernel::fsck(&place.path);
    assert!(reading::tree(&fs::read(&place.path).unwrap()).keys().eq(&paths));
    if let Some(root) = kernel::mount(&place.path) {
        assert!(kernel::tree(root).keys().eq(&paths));
    }
}

#[test]
fn a_directory_has_a_hundred_thousand_names() {
    const COUNT: u32 = 100_000;
    let (place, mut writer) = begin();
    for number in 0..COUNT {
        // Not in the order in which they are listed.
        file(&mut writer, &format!("d/{:x}", number.wrapping_mul(0x9e37_79b1)), &number.to_le_bytes());
    }
    let summary = writer.finish([0; 16]).unwrap();
    assert_eq!(summary.inodes, 2 + u64::from(COUNT));
    kernel::fsck(&place.path);
    let Some(root) = kernel::mount(&place.path) else { return };
    let dir = openat(&root, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    assert_eq!(kernel::names(&dir).len(), COUNT as usize);
    for number in 0..COUNT {
        let name = format!("{:x}", number.wrapping_mul(0x9e37_79b1));
        assert_eq!(statat(&dir, name.as_str(), AtFlags::empty()).unwrap().st_size, 4, "{name}");
        if number % 997 == 0 {
            assert_eq!(kernel::look(dir.as_fd(), name.as_bytes()).1.content, number.to_le_bytes());
        }
    }
    assert!(statat(&dir, "absent", AtFlags::empty()).is_err());
}

#[test]
fn a_tree_may_be_deeper_than_any_path() {
    const DEPTH: usize = 20_000;
    let (place, mut writer) = begin();
    file(&mut writer, &format!("{}f", "d/".repeat(DEPTH)), b"bottom");
    // Goes as it came, all at once.
    file(&mut writer, &format!("gone/{}f", "d/".repeat(DEPTH)), b"bottom");
    file(&mut writer, "gone", b"");
    let summary = writer.finish([0; 16]).unwrap();
    assert_eq!(summary.inodes, DEPTH as u64 + 3);
    let Some(mut here) = kernel::mount(&place.path) else { return };
    for _ in 0..DEPTH {
        here = openat(&here, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    assert_eq!(kernel::look(here.as_fd(), b"f").1.content, b"bottom");
}

#[test]
fn a_file_has_65535_names() {
    let (place, mut writer) = begin();
    file(&mut writer, "f", b"one");
    for number in 1..65_535 {
        writer.hard_link(format!("d/{number}").as_bytes(), b"f").unwrap();
    }
    let refused = writer.hard_link(b"more", b"f");
    assert!(matches!(refused, Err(ErofsError::Entry { why: Refusal::TooManyLinks(65_536), .. })), "{refused:?}");
    // What is replaced makes room.
    file(&mut writer, "d/1", b"another");
    writer.hard_link(b"more", b"f").unwrap();
    let summary = writer.finish([0; 16]).unwrap();
    assert_eq!(summary.inodes, 4);
    kernel::fsck(&place.path);
    if let Some(root) = kernel::mount(&place.path) {
        assert_eq!(statat(&root, "f", AtFlags::empty()).unwrap().st_nlink, 65_535);
        assert_eq!(statat(&root, "d/1", AtFlags::empty()).unwrap().st_nlink, 1);
    }
}

#[test]
fn a_directory_has_more_than_65535_directories() {
    let (place, mut writer) = begin();
    for number in 0..66_000 {
        writer.directory(format!("d/{number}").as_bytes(), &plain()).unwrap();
    }
    writer.finish([0; 16]).unwrap();
    kernel::fsck(&place.path);
    if let Some(root) = kernel::mount(&place.path) {
        assert_eq!(statat(&root, "d", AtFlags::empty()).unwrap().st_nlink, 66_002);
    }
}

#[test]
fn zeroes_take_no_room() {
    let (place, mut writer) = begin();
    let mut content = vec![0; 4 << 20];
    content[..3].copy_from_slice(b"one");
    content[(3 << 20) - 1] = b'2';
    for (name, piece) in [("large", 1 << 20), ("small", 5000)] {
        let mut to = writer.file(name.as_bytes(), &plain(), content.len() as u64).unwrap();
        content.chunks(piece).for_each(|piece| std::io::Write::write_all(&mut to, piece).unwrap());
        to.finish().unwrap();
    }
    writer.finish([0; 16]).unwrap();
    let metadata = fs::metadata(&place.path).unwrap();
    // Two of the four large pieces have something, and of the small ones little more than that.
    let taken = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    assert!(metadata.len() > 8 << 20 && taken < 4 << 20, "{taken} of {}", metadata.len());
    kernel::fsck(&place.path);
    let Some(root) = kernel::mount(&place.path) else { return };
    for name in ["large", "small"] {
        let file = openat(root.as_fd(), name, OFlags::RDONLY, Mode::empty()).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(file), &mut read).unwrap();
        assert!(read == content, "{name}");
    }
}
