//! Policies as an OCI bundle has them (runtime-spec, config-linux, "Seccomp").

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use serde_json::{Value, json};
use wharf_sys::seccomp::Flags;

use crate::abi::Abi;
use crate::policy::{Action, Comparison, Condition, Policy, Rule};

/// The errno of an action that names none: EPERM, as runc has it.
const DEFAULT_ERRNO: u32 = 1;

/// The kernel's highest errno (`MAX_ERRNO`, linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// What is wrong with a bundle's section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    #[error("seccomp errnoRet {value} is out of range: {action} takes 0 to {most}")]
    Errno { action: LinuxSeccompAction, value: u32, most: u32 },
    #[error("seccomp errnoRet {value} is given with {action}, which returns no errno; remove it")]
    NoErrno { action: LinuxSeccompAction, value: u32 },
    #[error("seccomp argument index {0} is out of range, a system call has arguments 0 to 5")]
    Argument(usize),
    #[error("a seccomp rule has an empty name; name a system call")]
    Name,
}

/// Reads the bundle's section.
///
/// Several conditions on the same argument are alternatives, as runc and crun have it (libseccomp takes one for each
/// argument); conditions on different arguments must all hold.
///
/// # Errors
/// For values out of range or without meaning.
pub fn from_oci(section: &LinuxSeccomp) -> Result<Policy, OciError> {
    let default = action(section.default_action(), section.default_errno_ret())?;
    let mut rules = Vec::new();
    for syscall in section.syscalls().iter().flatten() {
        let conditions = syscall.args().iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        let action = action(syscall.action(), syscall.errno_ret())?;
        let names = syscall.names();
        if names.iter().any(String::is_empty) {
            return Err(OciError::Name);
        }
        let rule = |conditions| Rule { names: names.clone(), action, conditions };
        let same = |at: usize| conditions[..at].iter().any(|other| other.argument == conditions[at].argument);
        if (0..conditions.len()).any(same) {
            rules.extend(conditions.into_iter().map(|condition| rule(vec![condition])));
        } else {
            rules.push(rule(conditions));
        }
    }
    let abis = section.architectures().iter().flatten().filter_map(|arch| abi(*arch)).collect();
    Ok(Policy { abis, default, rules })
}

/// The ABI of an architecture; `None` for those of machines that this program does not run on.
fn abi(arch: Arch) -> Option<Abi> {
    match arch {
        Arch::ScmpArchNative => Some(Abi::NATIVE),
        Arch::ScmpArchX86 => Some(Abi::X86),
        Arch::ScmpArchX86_64 => Some(Abi::X86_64),
        Arch::ScmpArchX32 => Some(Abi::X32),
        Arch::ScmpArchArm => Some(Abi::Arm),
        Arch::ScmpArchAarch64 => Some(Abi::Aarch64),
        _ => None,
    }
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
    if !policy.abis.is_empty() {
        section["architectures"] = policy.abis.iter().map(|abi| abi_name(*abi)).collect();
    }
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

fn abi_name(abi: Abi) -> &'static str {
    match abi {
        Abi::X86 => "SCMP_ARCH_X86",
        Abi::X86_64 => "SCMP_ARCH_X86_64",
        Abi::X32 => "SCMP_ARCH_X32",
        Abi::Arm => "SCMP_ARCH_ARM",
        Abi::Aarch64 => "SCMP_ARCH_AARCH64",
    }
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
    let data = |most: u32| {
        let value = errno.unwrap_or(DEFAULT_ERRNO);
        let data = u16::try_from(value).ok().filter(|_| value <= most);
        data.ok_or(OciError::Errno { action, value, most })
    };
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => return Ok(Action::Errno(data(MAX_ERRNO)?)),
        LinuxSeccompAction::ScmpActTrace => return Ok(Action::Trace(data(u32::from(u16::MAX))?)),
        LinuxSeccompAction::ScmpActAllow => Action::Allow,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => Action::KillProcess,
        LinuxSeccompAction::ScmpActTrap => Action::Trap,
        LinuxSeccompAction::ScmpActLog => Action::Log,
        LinuxSeccompAction::ScmpActNotify => Action::Notify,
    };
    // runtime-spec: "When the action doesn't support an errno, the runtime MUST print and error and fail."
    match errno {
        Some(value) => Err(OciError::NoErrno { action, value }),
        None => Ok(plain),
    }
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition, OciError> {
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

    fn read(section: Value) -> Result<Policy, OciError> {
        from_oci(&serde_json::from_value(section).unwrap())
    }

    #[test]
    fn an_errno_is_for_actions_that_return_one() {
        let with = |action: &str, errno: Value| read(json!({ "defaultAction": action, "defaultErrnoRet": errno }));
        let default = |action: &str, errno| with(action, errno).map(|policy| policy.default);
        assert_eq!(default("SCMP_ACT_ERRNO", Value::Null), Ok(Action::Errno(1)));
        assert_eq!(default("SCMP_ACT_ERRNO", json!(0)), Ok(Action::Errno(0)));
        assert_eq!(default("SCMP_ACT_ERRNO", json!(4095)), Ok(Action::Errno(4095)));
        assert_eq!(default("SCMP_ACT_TRACE", json!(65535)), Ok(Action::Trace(65535)));
        assert_eq!(default("SCMP_ACT_TRACE", Value::Null), Ok(Action::Trace(1)));
        assert_eq!(default("SCMP_ACT_KILL", Value::Null), Ok(Action::KillThread));
        for (action, errno) in [("ERRNO", 4096), ("TRACE", 65536), ("ALLOW", 1), ("KILL", 1), ("NOTIFY", 38)] {
            let error = default(&format!("SCMP_ACT_{action}"), json!(errno)).unwrap_err().to_string();
            assert!(error.contains(action) && error.contains(&errno.to_string()), "{error}");
        }
        let rule = json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "errnoRet": 5 });
        assert!(read(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })).is_err());
    }

    #[test]
    fn conditions_on_one_argument_are_alternatives() {
        let arg = |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
        let rules = |args: Value| {
            let rule = json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args });
            read(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] })).unwrap().rules
        };
        assert_eq!(rules(json!([arg(0, 1), arg(1, 2)])).len(), 1);
        let split = rules(json!([arg(0, 1), arg(1, 2), arg(0, 3)]));
        assert_eq!(split.iter().map(|rule| rule.conditions.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn architectures_are_kept_as_far_as_they_can_be_met() {
        let policy = read(json!({ "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32"] }));
        let policy = policy.unwrap();
        assert_eq!(policy.abis, [Abi::X86, Abi::Arm, Abi::X32]);
        assert_eq!(read(to_oci(&policy)).unwrap(), policy);
    }

    #[test]
    fn a_rule_names_calls_and_arguments_that_can_be() {
        let rule = |name: &str, index: u32| {
            let args = json!([{ "index": index, "value": 0, "op": "SCMP_CMP_EQ" }]);
            let rule = json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": args });
            read(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] }))
        };
        assert!(rule("read", 5).is_ok());
        assert_eq!(rule("read", 6), Err(OciError::Argument(6)));
        assert_eq!(rule("", 0), Err(OciError::Name));
        assert!(rule("no_such_call", 0).is_ok(), "another kernel's");
    }
}
