//! Files with holes, as GNU tar stores them: what is between the holes, and a map of where it belongs (tar(5); GNU tar's
//! manual, "Storing Sparse Files").
//!
//! What a map says is believed when it fits the content that was stored, and no hole is written as zeroes.

use std::io::Read;

use crate::header::{BLOCK, numeric};
use crate::reader::Records;
use crate::{ArchiveError, Result};

/// A map that is longer serves no file and fills our memory.
const MAX_MAP: usize = 1 << 20;

/// The first of a map's places in a header of GNU's old form, how many it has, and what follows them.
const OLD_MAP: usize = 386;
const OLD_PLACES: usize = 4;
const OLD_MORE: usize = 482;
const OLD_SIZE: std::ops::Range<usize> = 483..495;
/// The same of the blocks that go on with it.
const MORE_PLACES: usize = 21;
const MORE_MORE: usize = 504;
/// An offset and a length of twelve bytes each.
const PLACE: usize = 24;

/// Where the stored content belongs, and how far it has been read.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// Offsets and lengths, in order.
    map: Vec<(u64, u64)>,
    next: usize,
    position: u64,
    size: u64,
}

/// What comes next in a file with holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Hole(u64),
    Stored(u64),
    End,
}

/// What the headers of an entry say of its holes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    None,
    /// The map is in the headers.
    Mapped {
        map: Vec<(u64, u64)>,
        size: u64,
    },
    /// The map is before the content.
    Leading {
        size: u64,
    },
}

impl Form {
    /// By the records of an extended header.
    pub(crate) fn of(records: &Records) -> Result<Self> {
        let text = |name: &str| {
            let value = records.get(format!("GNU.sparse.{name}").as_bytes())?;
            Some(std::str::from_utf8(value).unwrap_or("?"))
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let size = || text("realsize").or(text("size")).ok_or_else(bad).and_then(number);
        match (text("major"), text("minor")) {
            (Some("1"), Some("0")) => Ok(Self::Leading { size: size()? }),
            (Some("0"), Some("0" | "1")) | (None, None) => {
                let places = if let Some(map) = text("map") {
                    let numbers = map.split(',').map(number).collect::<Result<Vec<_>>>()?;
                    if numbers.len() % 2 != 0 {
                        return Err(bad());
                    }
                    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
                } else if let (Some(offsets), Some(lengths)) = (text("offset"), text("numbytes")) {
                    let offsets = offsets.split(',').map(number).collect::<Result<Vec<_>>>()?;
                    let lengths = lengths.split(',').map(number).collect::<Result<Vec<_>>>()?;
                    if offsets.len() != lengths.len() {
                        return Err(bad());
                    }
                    offsets.into_iter().zip(lengths).collect()
                } else if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
                    // A hole from the beginning to the end.
                    Vec::new()
                } else {
                    return Ok(Self::None);
                };
                Ok(Self::Mapped { map: places, size: size()? })
            }
            _ => Err(ArchiveError::Damaged("a sparse file is of a form that is not known")),
        }
    }

    /// By a header of GNU's old form, and the blocks that follow it.
    pub(crate) fn old(block: &[u8; BLOCK], input: &mut impl Read) -> Result<Self> {
        let field = |field: &[u8]| u64::try_from(numeric(field)?).map_err(|_| bad());
        let mut map = Vec::new();
        let mut take = |fields: &[u8]| -> Result<()> {
            for place in fields.chunks_exact(PLACE) {
                let (offset, length) = place.split_at(PLACE / 2);
                if offset[0] == 0 {
                    break;
                }
                map.push((field(offset)?, field(length)?));
            }
            Ok(())
        };
        take(&block[OLD_MAP..OLD_MAP + OLD_PLACES * PLACE])?;
        let mut more = block[OLD_MORE] != 0;
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks * BLOCK > MAX_MAP {
                return Err(long());
            }
            let mut block = [0; BLOCK];
            input.read_exact(&mut block).map_err(ArchiveError::Read)?;
            take(&block[..MORE_PLACES * PLACE])?;
            more = block[MORE_MORE] != 0;
        }
        Ok(Self::Mapped { map, size: field(&block[OLD_SIZE])? })
    }

    /// The map of an entry with so many bytes in the archive, and how many of them it takes itself.
    pub(crate) fn map(self, stored: u64, input: &mut impl Read) -> Result<Option<(Sparse, u64)>> {
        let (map, size, taken) = match self {
            Self::None => return Ok(None),
            Self::Mapped { map, size } => (map, size, 0),
            Self::Leading { size } => {
                let (map, taken) = leading(stored, input)?;
                (map, size, taken)
            }
        };
        i64::try_from(size).map_err(|_| bad())?;
        let mut end = 0;
        let mut total = 0u64;
        for (offset, length) in &map {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size).ok_or_else(bad)?;
            (end, total) = (next, total + length);
        }
        if total != stored - taken {
            return Err(bad());
        }
        Ok(Some((Sparse { map, next: 0, position: 0, size }, taken)))
    }
}

/// Decimal numbers, a line for each, in whole blocks: how many places, and each place's offset and length.
fn leading(stored: u64, input: &mut impl Read) -> Result<(Vec<(u64, u64)>, u64)> {
    let mut bytes: Vec<u8> = Vec::new();
    let (mut numbers, mut at) = (Vec::new(), 0);
    let mut wanted = None;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') else {
            if bytes.len() + BLOCK > MAX_MAP {
                return Err(long());
            }
            if (bytes.len() + BLOCK) as u64 > stored {
                return Err(bad());
            }
            let mut block = [0; BLOCK];
            input.read_exact(&mut block).map_err(ArchiveError::Read)?;
            bytes.extend(block);
            continue;
        };
        let text = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| bad())?;
        numbers.push(text.parse::<u64>().map_err(|_| bad())?);
        at += end + 1;
        if numbers.len() == 1 {
            let places = usize::try_from(numbers[0]).ok().filter(|places| *places <= MAX_MAP).ok_or_else(long)?;
            wanted = Some(1 + 2 * places);
        }
    }
    Ok((numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), bytes.len() as u64))
}

fn bad() -> ArchiveError {
    ArchiveError::Damaged("the map of a sparse file does not fit its content")
}

fn long() -> ArchiveError {
    ArchiveError::Damaged("the map of a sparse file is larger than 1 MiB")
}

impl Sparse {
    /// Bytes of the file with its holes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn piece(&mut self) -> Piece {
        while let Some((offset, length)) = self.map.get(self.next) {
            if self.position < *offset {
                return Piece::Hole(offset - self.position);
            }
            if self.position < offset + length {
                return Piece::Stored(offset + length - self.position);
            }
            self.next += 1;
        }
        if self.position < self.size { Piece::Hole(self.size - self.position) } else { Piece::End }
    }

    pub(crate) fn advance(&mut self, count: u64) {
        self.position += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pairs: &[(&str, &str)]) -> Records {
        pairs.iter().map(|(key, value)| (format!("GNU.sparse.{key}").into_bytes(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        let map = |map: &str, size: &str, stored| {
            Form::of(&records(&[("map", map), ("size", size)]))?.map(stored, &mut &b""[..]).map(Option::unwrap)
        };
        let (mut sparse, _) = map("2,3,8,1", "10", 4).unwrap();
        let mut pieces = Vec::new();
        loop {
            let piece = sparse.piece();
            pieces.push(piece);
            match piece {
                Piece::Hole(count) | Piece::Stored(count) => sparse.advance(count),
                Piece::End => break,
            }
        }
        use Piece::{End, Hole, Stored};
        assert_eq!(pieces, [Hole(2), Stored(3), Hole(3), Stored(1), Hole(1), End]);
        for (text, size, stored) in [
            ("2,3,8,1", "8", 4),
            ("2,3,4,1", "10", 4),
            ("2,3", "10", 4),
            ("2", "10", 2),
            ("18446744073709551615,2", "10", 2),
            ("0,1", "18446744073709551615", 1),
            ("x,1", "10", 1),
        ] {
            assert!(map(text, size, stored).is_err(), "{text} {size}");
        }
        assert!(Form::of(&records(&[("major", "2"), ("minor", "0"), ("size", "1")])).is_err());
        assert_eq!(Form::of(&Records::new()).unwrap(), Form::None);
    }

    #[test]
    fn a_leading_map_is_bounded() {
        let block = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            bytes
        };
        let bytes = block("1\n4\n2\n");
        assert_eq!(leading(514, &mut bytes.as_slice()).unwrap(), (vec![(4, 2)], 512));
        assert!(leading(100, &mut bytes.as_slice()).is_err(), "longer than what is there");
        for text in ["99999999999999\n", "x\n", "1\n4\n-2\n", "2\n1\n1\n"] {
            assert!(leading(512, &mut block(text).as_slice()).is_err(), "{text}");
        }
        assert!(leading(u64::MAX, &mut std::io::repeat(b'1')).is_err());
    }
}
