//! What an entry has beside its name and content.

use std::collections::BTreeMap;

/// Owner, permissions, time and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-ID and sticky; others are left out.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds. EROFS has one time for modification, change and access.
    pub mtime: (i64, u32),
    /// Extended attributes by their full names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is neither file nor directory nor link. Devices have a major and a minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}
