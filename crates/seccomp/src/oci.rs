//! Policies as an OCI bundle has them (runtime-spec, config-linux, "Seccomp").

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};
use serde_json::{Value, json};
use wharf_sys::seccomp::Flags;

use crate::policy::{Action, Comparison, Condition, Policy, Rule};

/// The errno of an action that names none: EPERM, as runc has it.
const DEFAULT_ERRNO: u32 = 1;

/// What a bundle asks of seccomp that this runtime does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    #[error("seccomp errno {0} is out of range")]
    Errno(u32),
    #[error("seccomp argument index {0} is out of range, a system call has arguments 0 to 5")]
    Argument(usize),
}

/// Reads the bundle's section.
///
/// # Errors
/// For values out of range.
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

/// How the bundle wants its filter to be run. `TSYNC` asks for what holds anyway: who installs it has one thread.
pub fn flags_of(section: &LinuxSeccomp) -> Flags {
    let has = |flag| section.flags().iter().flatten().any(|given| *given == flag);
    Flags {
        log: has(LinuxSeccompFilterFlag::SeccompFilterFlagLog),
        spec_allow: has(LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow),
        wait_killable: has(LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv),
    }
}

/// The section that says what `policy` says: [`from_oci`] reads the same policy from it.
pub fn to_oci(policy: &Policy) -> Value {
    let syscalls: Vec<Value> = policy.rules.iter().map(rule_value).collect();
    let mut section = json!({ "defaultAction": action_name(policy.default), "syscalls": syscalls });
    if let Some(data) = action_data(policy.default) {
        section["defaultErrnoRet"] = data.into();
    }
    section
}

fn rule_value(rule: &Rule) -> Value {
    let args: Vec<Value> = rule
        .conditions
        .iter()
        .map(|condition| {
            let (op, value, two) = match condition.comparison {
                Comparison::Equal(value) => ("SCMP_CMP_EQ", value, 0),
                Comparison::NotEqual(value) => ("SCMP_CMP_NE", value, 0),
                Comparison::Less(value) => ("SCMP_CMP_LT", value, 0),
                Comparison::LessOrEqual(value) => ("SCMP_CMP_LE", value, 0),
                Comparison::Greater(value) => ("SCMP_CMP_GT", value, 0),
                Comparison::GreaterOrEqual(value) => ("SCMP_CMP_GE", value, 0),
                Comparison::Masked { mask, value } => ("SCMP_CMP_MASKED_EQ", mask, value),
            };
            json!({ "index": condition.argument, "value": value, "valueTwo": two, "op": op })
        })
        .collect();
    let mut value = json!({ "names": rule.names, "action": action_name(rule.action), "args": args });
    if let Some(data) = action_data(rule.action) {
        value["errnoRet"] = data.into();
    }
    value
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "SCMP_ACT_ALLOW",
        Action::Errno(_) => "SCMP_ACT_ERRNO",
        Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
        Action::KillThread => "SCMP_ACT_KILL_THREAD",
        Action::Trap => "SCMP_ACT_TRAP",
        Action::Trace(_) => "SCMP_ACT_TRACE",
        Action::Log => "SCMP_ACT_LOG",
        Action::Notify => "SCMP_ACT_NOTIFY",
    }
}

fn action_data(action: Action) -> Option<u16> {
    match action {
        Action::Errno(data) | Action::Trace(data) => Some(data),
        _ => None,
    }
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
        LinuxSeccompAction::ScmpActNotify => Action::Notify,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_survives_the_way_through_a_bundle() {
        let policy = crate::docker_default(&["CAP_SYS_CHROOT"]);
        let section: LinuxSeccomp = serde_json::from_value(to_oci(&policy)).unwrap();
        assert_eq!(from_oci(&section).unwrap(), policy);
    }
}
