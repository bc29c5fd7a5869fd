//! Files whose content the kernel checks whenever it reads it (fs-verity).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// `FS_IOC_ENABLE_VERITY`, `_IOW('f', 133, struct fsverity_enable_arg)` (`include/uapi/linux/fsverity.h`).
const ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
const SHA256: u32 = 1;

/// `struct fsverity_enable_arg`.
#[repr(C)]
#[derive(Default)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// Makes `file` read-only for good and has the kernel keep hashes of its blocks, by which it finds out what the disk has
/// changed. The file must be open for reading, and nobody may have it open for writing.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the kernel or the file system has no such thing, `ETXTBSY` when it is open for writing,
/// `EEXIST` when it is so already.
pub fn enable(file: BorrowedFd<'_>) -> Result<()> {
    let arg = EnableArg { version: 1, hash_algorithm: SHA256, block_size: 4096, ..EnableArg::default() };
    // SAFETY: `arg` is a plain struct of the size that the request's number has in it (128), lives across the call, and
    // its pointers are null with sizes of 0.
    let returned = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE_VERITY, &raw const arg) };
    check(returned.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::fd::AsFd;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_file_becomes_read_only_or_the_file_system_says_that_it_cannot() {
        assert_eq!(size_of::<EnableArg>(), 128);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut writer = std::fs::File::create(&path).unwrap();
        writer.write_all(&[7; 10_000]).unwrap();
        let reader = std::fs::File::open(&path).unwrap();
        match enable(reader.as_fd()) {
            Err(Errno::NOTTY | Errno::OPNOTSUPP) => return eprintln!("skipped: no fs-verity here"),
            busy => assert_eq!(busy, Err(Errno::TXTBSY)),
        }
        drop(writer);
        enable(reader.as_fd()).unwrap();
        assert_eq!(enable(reader.as_fd()), Err(Errno::EXIST));
        assert!(std::fs::File::options().write(true).open(&path).is_err());
        let mut reader = reader;
        reader.rewind().unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap().len(), 10_000);
    }
}
