//! Policies as an OCI bundle has them (runtime-spec, config-linux, "Seccomp").

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};

use crate::policy::{Action, Comparison, Condition, Policy, Rule};

/// The errno of an action that names none: EPERM, as runc has it.
const DEFAULT_ERRNO: u32 = 1;

/// What a bundle asks of seccomp that this runtime does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    #[error("seccomp action {0} is not supported")]
    Action(String),
    #[error("seccomp errno {0} is out of range")]
    Errno(u32),
    #[error("seccomp argument index {0} is out of range, a system call has arguments 0 to 5")]
    Argument(usize),
}

/// Reads the bundle's section.
///
/// # Errors
/// For actions that need a listener, and for values out of range.
pub fn from_oci(section: &LinuxSeccomp) -> Result<Policy, OciError> {
    let default = action(section.default_action(), section.default_errno_ret())?;
    let mut rules = Vec::new();
    for syscall in section.syscalls().iter().flatten() {
        let conditions = syscall.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        let action = action(syscall.action(), syscall.errno_ret())?;
        rules.push(Rule { names: syscall.names().clone(), action, conditions });
    }
    Ok(Policy { default, rules })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Action, OciError> {
    let errno = errno.unwrap_or(DEFAULT_ERRNO);
    // The kernel's bound (MAX_ERRNO).
    let data = u16::try_from(errno).ok().filter(|n| *n <= 4095).ok_or(OciError::Errno(errno))?;
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActErrno => Action::Errno(data),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActTrace => Action::Trace(data),
        LinuxSeccompAction::ScmpActLog => Action::Log,
        other => return Err(OciError::Action(format!("{other:?}"))),
    })
}

fn condition(argument: &oci_spec::runtime::LinuxSeccompArg) -> Result<Condition, OciError> {
    let index = argument.index();
    let number = u8::try_from(index).ok().filter(|n| *n <= 5).ok_or(OciError::Argument(index))?;
    let value = argument.value();
    let comparison = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Comparison::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Comparison::Masked { mask: value, value: argument.value_two().unwrap_or(0) }
        }
    };
    Ok(Condition { argument: number, comparison })
}
