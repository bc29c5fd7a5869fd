//! Files as block devices (loop(4)).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::{Result, check};

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` (`linux/loop.h`).
const GET_FREE: libc::c_ulong = 0x4c82;
const CONFIGURE: libc::c_ulong = 0x4c0a;
/// `LO_FLAGS_AUTOCLEAR`: the device lets go of the file when nobody has it open or mounted any more.
const AUTOCLEAR: u32 = 4;
const CONTROL: &CStr = c"/dev/loop-control";
/// Somebody else may be given the same free device at the same moment.
const TRIES: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 128],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Makes `file`, which is open to be written, a block device, and answers with that and its path. It is one until the last who
/// has it open or mounted lets go.
///
/// # Errors
/// `ENOENT` where there are no loop devices, `EPERM` without CAP_SYS_ADMIN.
pub fn attach(file: BorrowedFd<'_>) -> Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = openat(CWD, CONTROL, flags, Mode::empty())?;
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument; the kernel gives a number back.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) }.into())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = openat(CWD, &path, flags, Mode::empty())?;
        let info = Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: AUTOCLEAR,
            names: [0; 128],
            key: [0; 32],
            init: [0; 2],
        };
        let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
        let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
        // SAFETY: the kernel reads one `struct loop_config`, which a test holds the size of, from a struct that lives across
        // the call; it takes a reference of its own to the file.
        match check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) }.into()) {
            Ok(_) => return Ok((device, path)),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::BUSY)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_is_a_device_for_as_long_as_somebody_has_it() {
        assert_eq!((size_of::<Info>(), size_of::<Config>()), (232, 304));
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &[7; 1 << 20]).unwrap();
        let Ok((device, path)) = attach(file.as_fd()) else {
            return eprintln!("skipped: no loop devices here");
        };
        let mut device = std::fs::File::from(device);
        assert_eq!(device.seek(SeekFrom::End(0)).unwrap(), 1 << 20);
        device.rewind().unwrap();
        let mut start = [0; 512];
        device.read_exact(&mut start).unwrap();
        assert_eq!(start, [7; 512]);
        assert!(path.starts_with("/dev"));
    }
}
