//! What a policy says about each number of an ABI.
//!
//! libseccomp's rules, as it is used by runc and crun, so that a profile means the same here:
//!
//! - A rule with the default action says nothing.
//! - A rule without conditions settles a call, wherever it stands; the first such rule counts.
//! - A call that an ABI does not have is passed over there.
//! - On x86 a rule for `socket` is also one for `socketcall` with the number of `socket`. There the first argument's
//!   conditions are lost, for `socketcall` has that argument behind a pointer.
//!
//! Rules with conditions are asked in the order of the policy. libseccomp sorts them by argument, which differs only
//! where two of them with different actions fit the same call.

use std::collections::BTreeMap;

use crate::abi::{ARM_PRIVATE, Abi};
use crate::policy::{Action, Comparison, Condition, Policy, Rule};

/// What is decided for one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Always(Action),
    /// The first whose conditions all hold, or the default action. Conditions are as the ABI compares them.
    First(Vec<(Vec<Condition>, Action)>),
}

/// The decisions of an ABI.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    pub(crate) by_number: BTreeMap<u32, Decision>,
    /// The highest number that the policy's author knew, rules with the default action included, and ARM's private
    /// calls left out.
    pub(crate) newest: u32,
}

impl Decisions {
    pub(crate) fn of(policy: &Policy, abi: Abi) -> Self {
        let mut decisions = Self::default();
        for rule in &policy.rules {
            let conditions: Vec<Condition> = rule.conditions.iter().filter_map(|c| as_compared(*c, abi)).collect();
            for name in &rule.names {
                decisions.add(policy.default, rule, name, &conditions, abi);
            }
        }
        decisions
    }

    fn add(&mut self, default: Action, rule: &Rule, name: &str, conditions: &[Condition], abi: Abi) {
        if let Some(number) = abi.number(name) {
            self.knows(number, abi);
            if rule.action != default {
                self.decide(number, conditions.to_vec(), rule.action);
            }
        }
        if let Some((number, first)) = abi.multiplexed(name) {
            self.knows(number, abi);
            if rule.action != default {
                let others = conditions.iter().filter(|condition| condition.argument != 0).copied();
                let meant = Condition { argument: 0, comparison: Comparison::Equal(u64::from(first)) };
                self.decide(number, std::iter::once(meant).chain(others).collect(), rule.action);
            }
        }
    }

    fn knows(&mut self, number: u32, abi: Abi) {
        if !(abi == Abi::Arm && number >= ARM_PRIVATE) {
            self.newest = self.newest.max(number);
        }
    }

    fn decide(&mut self, number: u32, conditions: Vec<Condition>, action: Action) {
        let decision = self.by_number.entry(number).or_insert_with(|| Decision::First(Vec::new()));
        match decision {
            Decision::Always(_) => {}
            _ if conditions.is_empty() => *decision = Decision::Always(action),
            Decision::First(branches) => branches.push((conditions, action)),
        }
    }
}

/// A condition in the bits that the ABI compares; `None` when it always holds.
fn as_compared(condition: Condition, abi: Abi) -> Option<Condition> {
    let cut = |value: u64| if abi.is_wide() { value } else { value & 0xffff_ffff };
    let comparison = match condition.comparison {
        Comparison::Equal(value) => Comparison::Equal(cut(value)),
        Comparison::NotEqual(value) => Comparison::NotEqual(cut(value)),
        Comparison::Less(value) => Comparison::Less(cut(value)),
        Comparison::LessOrEqual(value) => Comparison::LessOrEqual(cut(value)),
        Comparison::Greater(value) => Comparison::Greater(cut(value)),
        Comparison::GreaterOrEqual(value) => Comparison::GreaterOrEqual(cut(value)),
        Comparison::Masked { mask, .. } if cut(mask) == 0 => return None,
        Comparison::Masked { mask, value } => Comparison::Masked { mask: cut(mask), value: cut(value & mask) },
    };
    Some(Condition { argument: condition.argument, comparison })
}
