//! Whether a policy leaves certain calls alone: what whoever installs a filter has to know of the calls that it makes
//! itself afterwards.

use crate::abi::Abi;
use crate::decision::{Decision, Decisions};
use crate::policy::{Action, Comparison, Condition, Policy};

/// A call of the native ABI: its name, and its first argument where that is known.
type Call<'a> = (&'a str, Option<u64>);

impl Policy {
    /// Whether each of `calls` is made whatever its other arguments are; the names that the native ABI does not have are
    /// passed over. A call that is only logged is made; one that a listener or a tracer decides about may not be.
    pub fn permits(&self, calls: &[Call<'_>]) -> bool {
        let decisions = Decisions::of(self, Abi::NATIVE);
        let mut known = calls.iter().filter_map(|(name, first)| Some((Abi::NATIVE.number(name)?, *first)));
        known.all(|(number, first)| match decisions.by_number.get(&number) {
            Some(Decision::Always(action)) => is_made(*action),
            Some(Decision::First(branches)) => first_permits(branches, self.default, first),
            None if number > decisions.newest => is_made(self.newer(&decisions)),
            None => is_made(self.default),
        })
    }
}

fn is_made(action: Action) -> bool {
    matches!(action, Action::Allow | Action::Log)
}

/// Whether every branch that may be taken lets the call through.
fn first_permits(branches: &[(Vec<Condition>, Action)], default: Action, first: Option<u64>) -> bool {
    for (conditions, action) in branches {
        let found: Vec<Option<bool>> = conditions.iter().map(|condition| holds(condition, first)).collect();
        if found.contains(&Some(false)) {
            continue;
        }
        if !is_made(*action) {
            return false;
        }
        if found.iter().all(|holds| *holds == Some(true)) {
            return true;
        }
    }
    is_made(default)
}

/// `None` where the argument is not known.
fn holds(condition: &Condition, first: Option<u64>) -> Option<bool> {
    let argument = first.filter(|_| condition.argument == 0)?;
    Some(match condition.comparison {
        Comparison::Equal(value) => argument == value,
        Comparison::NotEqual(value) => argument != value,
        Comparison::Less(value) => argument < value,
        Comparison::LessOrEqual(value) => argument <= value,
        Comparison::Greater(value) => argument > value,
        Comparison::GreaterOrEqual(value) => argument >= value,
        Comparison::Masked { mask, value } => argument & mask == value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, docker_default};

    fn policy(default: Action, rules: &[(&str, Action, &[Condition])]) -> Policy {
        let rule = |(name, action, conditions): &(&str, Action, &[Condition])| Rule {
            names: vec![(*name).to_owned()],
            action: *action,
            conditions: conditions.to_vec(),
        };
        Policy { abis: vec![Abi::NATIVE], default, rules: rules.iter().map(rule).collect() }
    }

    #[test]
    fn what_is_surely_made_is_permitted() {
        let allow = policy(Action::Allow, &[("close", Action::Log, &[]), ("read", Action::Notify, &[])]);
        assert!(allow.permits(&[("close", None), ("write", None), ("no such call", None)]));
        assert!(!allow.permits(&[("write", None), ("read", None)]));
        let deny = policy(Action::Errno(1), &[("read", Action::Allow, &[])]);
        assert!(deny.permits(&[("read", None)]));
        assert!(!deny.permits(&[("write", None)]) && !deny.permits(&[("clone3", None)]));
    }

    #[test]
    fn a_condition_counts_where_its_argument_is_known() {
        let masked = |mask, value| Condition { argument: 0, comparison: Comparison::Masked { mask, value } };
        let second = Condition { argument: 1, comparison: Comparison::Equal(0) };
        let namespaces = policy(Action::Errno(1), &[("clone", Action::Allow, &[masked(0x7e02_0000, 0)])]);
        assert!(namespaces.permits(&[("clone", Some(0x9000))]));
        assert!(!namespaces.permits(&[("clone", Some(0x0002_0000))]) && !namespaces.permits(&[("clone", None)]));
        let either = policy(Action::Allow, &[("clone", Action::Errno(1), &[masked(1, 1), second])]);
        assert!(either.permits(&[("clone", Some(2))]) && !either.permits(&[("clone", Some(1))]));
    }

    #[test]
    fn dockers_default_refuses_clone3_and_takes_clone() {
        let default = docker_default::<&str>(&[]);
        assert!(default.permits(&[("clone", Some(0x9000)), ("execve", None)]));
        assert!(!default.permits(&[("clone3", None)]) && !default.permits(&[("mount", None)]));
    }
}
