//! Where a file has holes, and the map that GNU tar writes of them (GNU tar's manual, "PAX Format, Version 1.0").

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::header::BLOCK;

/// With more pieces than this the map would be longer than readers take; such a file is written with its holes as zeroes.
const MOST: usize = 16_384;

/// Offsets and lengths of what is stored of a file of `size` bytes; nothing where it has no holes, or its file system does not
/// tell (lseek(2), `SEEK_DATA`).
pub(crate) fn stored(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            // Nothing but a hole up to the end.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let end = match seek(file, SeekFrom::Hole(begin)) {
            Ok(end) => end.min(size),
            // It has become shorter meanwhile: what is missing is written as zeroes.
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        pieces.push((begin, end - begin));
        if pieces.len() > MOST {
            return Ok(None);
        }
        at = end;
    }
    let whole = pieces.iter().map(|(_, length)| length).sum::<u64>() == size;
    if whole {
        return Ok(None);
    }
    if at < size {
        // The end of the file, as GNU tar has it.
        pieces.push((size, 0));
    }
    Ok(Some(pieces))
}

/// The map, in whole blocks.
pub(crate) fn map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut text = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_between_holes_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        assert_eq!(stored(&file, 0).unwrap(), None);
        file.set_len(9 << 20).unwrap();
        file.write_all_at(b"x", 4 << 20).unwrap();
        let pieces = stored(&file, 9 << 20).unwrap().unwrap();
        assert_eq!((pieces.len(), pieces[0].0, pieces[1]), (2, 4 << 20, (9 << 20, 0)));
        file.write_all_at(b"y", (9 << 20) - 1).unwrap();
        let pieces = stored(&file, 9 << 20).unwrap().unwrap();
        let (begin, length) = pieces[1];
        assert_eq!((pieces.len(), begin + length), (2, 9 << 20));
        file.write_all_at(&vec![1; 9 << 20], 0).unwrap();
        assert_eq!(stored(&file, 9 << 20).unwrap(), None);
        assert_eq!(map(&[(1, 2), (9, 0)]).len(), BLOCK);
        assert!(map(&[(1, 2), (9, 0)]).starts_with(b"2\n1\n2\n9\n0\n\0"));
    }
}
