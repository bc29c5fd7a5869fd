//! What a command has written, in a file, for those who hear it later: each piece after its stream and its length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::frames::Piece;

/// Of a piece in the file: its stream, and its length (32 bits, little endian).
const HEADER: usize = 5;
/// So much is kept: a command that writes without end is not to fill the disk.
const MOST: u64 = 64 << 20;

/// The file as it is written. Nobody else has it, and it goes with the last who has it open.
#[derive(Debug, Default)]
pub(crate) struct Said {
    file: Option<Arc<File>>,
    /// Bytes.
    pub(crate) written: u64,
    /// It has all that it takes: enough, or all that the disk took.
    pub(crate) full: bool,
}

/// Somebody's place in it.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Bytes.
    pub(crate) read: u64,
}

impl Said {
    /// Adds a piece; `dir` takes the file, if it is the first. False when it takes no more.
    pub(crate) fn add(&mut self, piece: &Piece, dir: &Path) -> bool {
        self.full = self.full || self.append(piece, dir).is_err();
        !self.full
    }

    fn append(&mut self, piece: &Piece, dir: &Path) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(nameless(&dir.join("said"))?)),
        };
        let length = u32::try_from(piece.bytes.len()).map_err(io::Error::other)?;
        let bytes = [&[piece.stream][..], &length.to_le_bytes(), &piece.bytes[..]].concat();
        if self.written + bytes.len() as u64 > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.write_all_at(&bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// For a reader that is not at its end.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }
}

impl Place {
    /// The next piece, and where the one after it is; none at the end of what is written.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn peek(&self, file: &File, written: u64) -> io::Result<Option<(Piece, u64)>> {
        if self.read >= written {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, self.read)?;
        let [stream, length @ ..] = header;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact_at(&mut bytes, self.read + HEADER as u64)?;
        let next = self.read + (HEADER + bytes.len()) as u64;
        Ok(Some((Piece { stream, bytes }, next)))
    }

    /// What comes next, up to where the file is written, and no more once they have this many bytes.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn pieces(&mut self, file: &File, written: u64, bytes: usize) -> io::Result<Vec<Piece>> {
        let (mut pieces, mut count) = (Vec::new(), 0);
        while let Some((piece, next)) = self.peek(file, written)?.filter(|_| count < bytes) {
            self.read = next;
            count += piece.bytes.len();
            pieces.push(piece);
        }
        Ok(pieces)
    }
}

fn nameless(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_any_place_and_takes_no_more_than_its_most() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Said::default();
        let piece = |text: &str| Piece { stream: 2, bytes: text.into() };
        assert!(said.add(&piece("one"), dir.path()) && said.add(&piece("two"), dir.path()));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        let (file, mut place) = (said.file().unwrap(), Place::default());
        let texts = |pieces: Vec<Piece>| pieces.into_iter().map(|piece| piece.bytes).collect::<Vec<_>>();
        assert_eq!(texts(place.pieces(&file, said.written, 1).unwrap()), [b"one"]);
        assert_eq!(texts(place.pieces(&file, said.written, 100).unwrap()), [b"two"]);
        assert!(place.pieces(&file, said.written, 100).unwrap().is_empty());
        let large = Piece { stream: 1, bytes: vec![b'x'; MOST as usize] };
        assert!(!said.add(&large, dir.path()) && !said.add(&piece("late"), dir.path()) && said.full);
        assert!(place.pieces(&file, said.written, 100).unwrap().is_empty());
    }
}
