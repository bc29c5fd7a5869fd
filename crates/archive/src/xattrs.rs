//! Extended attributes that the kernel gives a meaning. It looks at them when they are set; in an image nobody sets them.

use rustix::io::Errno;

use crate::header::Kind;

/// Revisions of `security.capability` with the length that each has (Linux, `include/uapi/linux/capability.h`).
const CAPABILITY: [(u32, usize); 3] = [(0x0100_0000, 12), (0x0200_0000, 20), (0x0300_0000, 24)];
const CAPABILITY_REVISION: u32 = 0xff00_0000;
/// An access control list's version, and the tags of its entries of eight bytes (`include/uapi/linux/posix_acl_xattr.h`).
const ACL_VERSION: u32 = 2;
const ACL_TAGS: [u16; 6] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20];

/// Whether a file of a kind can have an attribute; those that it cannot have are left out, as by every tar.
///
/// # Errors
/// What setxattr(2) says of a value that makes no sense.
pub(crate) fn check(kind: Kind, key: &[u8], value: &[u8]) -> Result<bool, Errno> {
    let valid = match key {
        _ if kind == Kind::Symlink => return Ok(false),
        b"security.capability" => is_capability(value),
        b"system.posix_acl_default" if kind != Kind::Directory => return Err(Errno::ACCESS),
        b"system.posix_acl_access" | b"system.posix_acl_default" => is_acl(value),
        _ => return Ok(matches!(kind, Kind::File | Kind::Directory)),
    };
    if valid { Ok(true) } else { Err(Errno::INVAL) }
}

fn is_capability(value: &[u8]) -> bool {
    let revision = value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) & CAPABILITY_REVISION);
    CAPABILITY.iter().any(|(known, length)| Some(*known) == revision && value.len() == *length)
}

/// Without a look at which entries it has to have: one that lacks them is refused when it is asked for.
fn is_acl(value: &[u8]) -> bool {
    let Some((version, entries)) = value.split_first_chunk() else { return false };
    let known = |entry: &[u8]| ACL_TAGS.contains(&u16::from_le_bytes([entry[0], entry[1]])) && entry[2] < 8;
    u32::from_le_bytes(*version) == ACL_VERSION && entries.len() % 8 == 0 && entries.chunks_exact(8).all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_sense_are_refused() {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255];
        let file = |key: &str, value: &[u8]| check(Kind::File, key.as_bytes(), value);
        assert_eq!(file("security.capability", &capability), Ok(true));
        assert_eq!(file("security.capability", &capability[..19]), Err(Errno::INVAL));
        assert_eq!(file("security.capability", b""), Err(Errno::INVAL));
        assert_eq!(file("system.posix_acl_access", &acl), Ok(true));
        assert_eq!(file("system.posix_acl_access", &acl[..11]), Err(Errno::INVAL));
        assert_eq!(file("system.posix_acl_access", &[1, 0, 0, 0]), Err(Errno::INVAL));
        assert_eq!(file("system.posix_acl_default", &acl), Err(Errno::ACCESS));
        assert_eq!(check(Kind::Directory, b"system.posix_acl_default", &acl), Ok(true));
        assert_eq!(file("user.anything", b""), Ok(true));
        for kind in [Kind::Symlink, Kind::Fifo, Kind::CharacterDevice] {
            assert_eq!(check(kind, b"user.anything", b"x"), Ok(false));
        }
    }
}
