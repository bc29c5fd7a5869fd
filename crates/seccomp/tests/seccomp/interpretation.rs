//! What a policy says about one call, read from its rules directly: slow, and with nothing of the compiler in it.

use wharf_seccomp::{Abi, Action, Comparison, Condition, Policy, Rule};

use crate::machine::Call;

pub(crate) const X32_BIT: u32 = 0x4000_0000;
const ARM_PRIVATE: u32 = 0xf_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;
const KILL_THREAD: u32 = 0;

/// The value that the filter of `policy` returns on a machine with this native ABI.
pub(crate) fn decide(policy: &Policy, native: Abi, call: &Call) -> u32 {
    let named = |abi: &Abi| *abi == native || (native.companions().contains(abi) && policy.abis.contains(abi));
    let mut abis = [native].into_iter().chain(native.companions().iter().copied());
    let is_x32 = |number: u32| number & X32_BIT != 0 || number >= X32_BIT;
    let abi = abis.find(|abi| {
        abi.token() == call.token
            && named(abi)
            && match abi {
                Abi::X86_64 => !is_x32(call.number),
                Abi::X32 => is_x32(call.number),
                _ => true,
            }
    });
    let Some(abi) = abi else {
        let skipped = call.token == native.token() && call.number == u32::MAX;
        return if skipped { value(policy.default) } else { KILL_THREAD };
    };
    let rules = || policy.rules.iter().filter(|rule| rule.action != policy.default);
    if let Some(rule) = rules().find(|rule| {
        rule.names.iter().any(|name| abi.number(name) == Some(call.number))
            && rule.conditions.iter().all(|condition| is_empty(condition, abi))
    }) {
        return value(rule.action);
    }
    if let Some(rule) = rules().find(|rule| fits(rule, abi, call)) {
        return value(rule.action);
    }
    let known = policy
        .rules
        .iter()
        .flat_map(|rule| &rule.names)
        .flat_map(|name| [abi.number(name), abi.multiplexed(name).map(|(number, _)| number)].into_iter().flatten());
    let newest = known.filter(|number| abi != Abi::Arm || *number < ARM_PRIVATE).max().unwrap_or(0);
    let refuses = !matches!(policy.default, Action::Allow | Action::Log | Action::Trace(_) | Action::Notify);
    let private = abi == Abi::Arm && call.number >= ARM_PRIVATE;
    if refuses && newest != 0 && call.number > newest && !private { ENOSYS } else { value(policy.default) }
}

fn fits(rule: &Rule, abi: Abi, call: &Call) -> bool {
    let holds = |condition: &Condition| holds(condition, abi, call);
    rule.names.iter().any(|name| {
        if abi.number(name) == Some(call.number) {
            return rule.conditions.iter().all(holds);
        }
        abi.multiplexed(name).is_some_and(|(number, first)| {
            number == call.number
                && call.arguments[0] as u32 == first
                && rule.conditions.iter().filter(|c| c.argument != 0).all(holds)
        })
    })
}

fn cut(value: u64, abi: Abi) -> u64 {
    if abi.is_wide() { value } else { value & 0xffff_ffff }
}

fn is_empty(condition: &Condition, abi: Abi) -> bool {
    matches!(condition.comparison, Comparison::Masked { mask, .. } if cut(mask, abi) == 0)
}

fn holds(condition: &Condition, abi: Abi, call: &Call) -> bool {
    let a = cut(call.arguments[usize::from(condition.argument)], abi);
    match condition.comparison {
        Comparison::Equal(b) => a == cut(b, abi),
        Comparison::NotEqual(b) => a != cut(b, abi),
        Comparison::Less(b) => a < cut(b, abi),
        Comparison::LessOrEqual(b) => a <= cut(b, abi),
        Comparison::Greater(b) => a > cut(b, abi),
        Comparison::GreaterOrEqual(b) => a >= cut(b, abi),
        Comparison::Masked { mask, value } => a & cut(mask, abi) == cut(value & mask, abi),
    }
}

/// `SECCOMP_RET_*` of linux/seccomp.h.
pub(crate) fn value(action: Action) -> u32 {
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => KILL_THREAD,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | u32::from(errno),
        Action::Notify => 0x7fc0_0000,
        Action::Trace(data) => 0x7ff0_0000 | u32::from(data),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}
