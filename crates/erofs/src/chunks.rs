//! The map of a file with holes: for each chunk its first block, or that it is a hole.

use crate::format::BLOCK;

/// What stands for a hole in place of a block.
const HOLE: u32 = u32::MAX;
/// Chunks of a file at most, so that a map takes 64 KiB: up to 64 MiB a chunk is a block, of larger files several.
const MAX_CHUNKS: u64 = 16 << 10;

#[derive(Debug)]
pub(crate) struct Chunks {
    bits: u32,
    map: Vec<u8>,
}

/// Bytes of a chunk of a file of `size` bytes, as a power of two of blocks.
fn bits(size: u64) -> u32 {
    (0..).find(|bits| size.div_ceil((BLOCK as u64) << bits) <= MAX_CHUNKS).unwrap_or_default()
}

/// Bytes of a chunk of a file of `size` bytes.
pub(crate) fn length(size: u64) -> u64 {
    (BLOCK as u64) << bits(size)
}

impl Chunks {
    /// The map of a file of `size` bytes, `done` of which are in blocks from `start` on, one after the other.
    pub(crate) fn new(size: u64, start: u32, done: u64) -> Self {
        let bits = bits(size);
        let mut chunks = Self { bits, map: Vec::new() };
        for number in 0..done.div_ceil(length(size)) {
            chunks.push(start + ((number as u32) << bits));
        }
        chunks
    }

    pub(crate) fn push(&mut self, block: u32) {
        self.map.extend(block.to_le_bytes());
    }

    pub(crate) fn push_hole(&mut self) {
        self.push(HOLE);
    }

    /// The form that the inode tells, and what follows it.
    pub(crate) fn finish(self) -> (u32, Vec<u8>) {
        (self.bits, self.map)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_map_has_its_bound_whatever_the_size() {
        for (size, length) in [(1, 1 << 12), (64 << 20, 1 << 12), ((64 << 20) + 1, 1 << 13), (1 << 44, 1 << 30)] {
            assert_eq!(super::length(size), length, "{size}");
        }
    }
}
