//! What a policy says.

use crate::abi::Abi;

/// What happens to a call (seccomp(2), `SECCOMP_RET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Allow,
    /// The call fails with this errno.
    Errno(u16),
    KillProcess,
    KillThread,
    /// SIGSYS.
    Trap,
    /// A tracer decides; without one the call fails with `ENOSYS`.
    Trace(u16),
    /// Allowed, and written to the kernel's log.
    Log,
    /// Somebody else decides, who listens (seccomp_unotify(2)).
    Notify,
}

impl Action {
    /// Whether the call is not made.
    pub(crate) fn denies(self) -> bool {
        matches!(self, Self::Errno(_) | Self::KillProcess | Self::KillThread | Self::Trap)
    }

    /// The value that a filter returns for it.
    pub(crate) fn value(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Log => 0x7ffc_0000,
            Self::Notify => 0x7fc0_0000,
            Self::Allow => 0x7fff_0000,
        }
    }
}

/// How an argument is compared, unsigned, as libseccomp does: in 64 bits, or in 32 where the ABI has 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// The argument and the value are the same where the mask has ones.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// A condition on one of the six arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub comparison: Comparison,
}

/// Calls that share an action. All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
}

/// Rules, and what happens to a call that none of them names.
///
/// A rule without conditions settles its calls wherever it stands; of rules with conditions the first that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The ABIs that the rules are for; the native one is, named or not. Calls of others are refused.
    pub abis: Vec<Abi>,
    pub default: Action,
    pub rules: Vec<Rule>,
}
