//! Binary interfaces of the kernel: how a filter sees them, and the numbers of their calls.

use crate::numbers::{NONE, NUMBERS};

/// One way of calling the kernel. A machine has its native one, and may have others beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Abi {
    /// 32-bit code of Intel's, also on a 64-bit kernel.
    X86,
    X86_64,
    /// 64-bit registers and 32-bit pointers, under the same architecture as `X86_64` (`CONFIG_X86_X32`).
    X32,
    Arm,
    Aarch64,
}

/// What marks a number as one of x32 (`__X32_SYSCALL_BIT`, asm/unistd.h).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// The first of ARM's private calls (`__ARM_NR_BASE`, asm/unistd.h): they stand far above all others.
pub(crate) const ARM_PRIVATE: u32 = 0x000f_0000;

impl Abi {
    /// The one of the machine that this was compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The ABIs beside `self` that a kernel of this ABI may run.
    pub fn companions(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Arm],
            Self::X86 | Self::X32 | Self::Arm => &[],
        }
    }

    /// The one that programs for this architecture use beside the native one, by Go's name as images have it; `None`
    /// where they use the native one, or the machine does not run them.
    pub fn beside_the_native(architecture: &str) -> Option<Self> {
        let abi = match architecture {
            "386" => Self::X86,
            "arm" => Self::Arm,
            _ => return None,
        };
        Self::NATIVE.companions().contains(&abi).then_some(abi)
    }

    /// `arch` of `struct seccomp_data` (`AUDIT_ARCH_*`, linux/audit.h).
    pub fn token(self) -> u32 {
        match self {
            Self::X86 => 0x4000_0003,
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::Arm => 0x4000_0028,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Whether arguments are compared in 64 bits. In the others only the low half counts, as libseccomp has it.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// The number by which the call `name` is made directly, as a filter sees it; `None` where there is no such call.
    pub fn number(self, name: &str) -> Option<u32> {
        let row = NUMBERS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        let column = match self {
            Self::X86 => 0,
            Self::X86_64 => 1,
            Self::X32 => 2,
            Self::Arm => 3,
            Self::Aarch64 => 4,
        };
        let number = NUMBERS[row].1[column];
        if number == NONE {
            return None;
        }
        let number = u32::try_from(number).ok()?;
        Some(if self == Self::X32 { number | X32_BIT } else { number })
    }

    /// The call that stands for the call `name` too, and the value of its first argument that means it.
    ///
    /// On x86 sockets and System V IPC were one call each (socketcall(2), ipc(2); numbers of linux/net.h and
    /// linux/ipc.h). Programs still make them.
    pub fn multiplexed(self, name: &str) -> Option<(u32, u32)> {
        if self != Self::X86 {
            return None;
        }
        let position = |names: &[&str]| names.iter().position(|known| *known == name);
        if let Some(at) = position(SOCKET_CALLS) {
            return Some((SOCKETCALL, u32::try_from(at).ok()? + 1));
        }
        IPC_CALLS.iter().find(|(known, _)| *known == name).map(|(_, value)| (IPC, *value))
    }
}

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// `SYS_SOCKET` and so on, from 1.
const SOCKET_CALLS: &[&str] = &[
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

const IPC_CALLS: &[(&str, u32)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_name() {
        assert!(NUMBERS.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn names_have_the_numbers_of_their_abi() {
        let all = |name| [Abi::X86, Abi::X86_64, Abi::X32, Abi::Arm, Abi::Aarch64].map(|abi: Abi| abi.number(name));
        assert_eq!(all("read"), [Some(3), Some(0), Some(X32_BIT), Some(3), Some(63)]);
        assert_eq!(all("execve"), [Some(11), Some(59), Some(X32_BIT | 520), Some(11), Some(221)]);
        assert_eq!(all("openat2"), [Some(437), Some(437), Some(X32_BIT | 437), Some(437), Some(437)]);
        assert_eq!(all("socketcall"), [Some(102), None, None, None, None]);
        assert_eq!(all("set_tls"), [None, None, None, Some(ARM_PRIVATE + 5), None]);
        assert_eq!(all("no_such_call"), [None; 5]);
    }

    #[test]
    fn some_calls_of_x86_are_made_through_another_as_well() {
        assert_eq!(Abi::X86.multiplexed("socket"), Some((102, 1)));
        assert_eq!(Abi::X86.multiplexed("sendmmsg"), Some((102, 20)));
        assert_eq!(Abi::X86.multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(Abi::X86.multiplexed("read"), None);
        assert_eq!(Abi::X86_64.multiplexed("socket"), None);
    }
}
