//! The registers of a rule, byte by byte: what is not known stays so.

use wharf_netlink::nft::Place;

const SIZE: usize = 64;

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Yes,
    No,
    Unknown,
}

impl Truth {
    pub(crate) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub(crate) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

/// Bytes, some of which may be known.
pub(crate) type Bytes = Vec<Option<u8>>;

pub(crate) fn known(bytes: &[u8]) -> Bytes {
    bytes.iter().copied().map(Some).collect()
}

/// `None` unless all are known.
pub(crate) fn all(bytes: &[Option<u8>]) -> Option<Vec<u8>> {
    bytes.iter().copied().collect()
}

#[derive(Clone, Debug)]
pub(crate) struct Registers {
    bytes: [Option<u8>; SIZE],
    /// Where addresses begin.
    addresses: [bool; SIZE],
}

/// The first byte of loopback's addresses, which nobody out there has (RFC 1122, 3.2.1.3).
const LOOPBACK: u8 = 127;

impl Registers {
    pub(crate) fn new() -> Self {
        Self { bytes: [None; SIZE], addresses: [false; SIZE] }
    }

    pub(crate) fn set(&mut self, place: Place, bytes: &[Option<u8>]) {
        // The kernel fills whole places of four bytes.
        for at in place..(place + bytes.len().next_multiple_of(4)).min(SIZE) {
            self.bytes[at] = bytes.get(at - place).copied().unwrap_or(Some(0));
            self.addresses[at] = false;
        }
    }

    /// Notes that an address of IPv4 begins there.
    pub(crate) fn note_address(&mut self, place: Place, is_address: bool) {
        if let Some(noted) = self.addresses.get_mut(place) {
            *noted = is_address;
        }
    }

    pub(crate) fn is_address(&self, place: Place) -> bool {
        self.addresses.get(place).copied().unwrap_or(false)
    }

    /// Whether what is there, as far as it is known, is an address that `value` is none of: that of somebody out there beside
    /// one of loopback.
    pub(crate) fn cannot_be(&self, place: Place, value: &[u8]) -> bool {
        self.is_address(place) && self.get(place, 1) == [None] && value.first() == Some(&LOOPBACK)
    }

    pub(crate) fn get(&self, place: Place, length: usize) -> Bytes {
        (place..place + length).map(|at| self.bytes.get(at).copied().flatten()).collect()
    }
}
