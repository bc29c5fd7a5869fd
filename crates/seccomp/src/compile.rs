//! From a policy to classic BPF.

use std::collections::BTreeMap;

use wharf_sys::seccomp::Instruction;

use crate::numbers;
use crate::policy::{Action, Comparison, Condition, Policy};

/// A program for [`wharf_sys::seccomp::install`].
pub type Filter = Vec<Instruction>;

/// The kernel's bound (`BPF_MAXINSNS`, linux/bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;

/// Why a policy cannot be a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("the seccomp policy needs {0} instructions, the kernel takes {MAX_INSTRUCTIONS}")]
    TooLong(usize),
    #[error("a seccomp condition names argument {0}; a system call has arguments 0 to 5")]
    Argument(u8),
    #[error("a seccomp condition on `{0}` is too long to jump over")]
    Jump(String),
}

// Opcodes of linux/bpf_common.h: class | size or operation | mode or source.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;

fn op(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// What one call's number leads to: its rules in order.
type Branches<'a> = Vec<(&'a [Condition], Action)>;

impl Policy {
    /// Compiles for the machine that this runs on. Names that its ABI does not have are left out, as no
    /// program can make them.
    ///
    /// # Errors
    /// When a condition names no argument, or the filter does not fit the kernel's bound.
    pub fn compile(&self) -> Result<Filter, CompileError> {
        let mut by_number: BTreeMap<u32, Branches<'_>> = BTreeMap::new();
        for rule in &self.rules {
            if let Some(bad) = rule.conditions.iter().find(|c| c.argument > 5) {
                return Err(CompileError::Argument(bad.argument));
            }
            for number in rule.names.iter().filter_map(|name| numbers::number(name)) {
                by_number.entry(number).or_default().push((&rule.conditions, rule.action));
            }
        }
        let mut code = vec![
            op(LOAD, ARCHITECTURE, 0, 0),
            op(JUMP_EQUAL, numbers::ARCHITECTURE, 1, 0),
            op(RETURN, Action::Errno(ENOSYS).value(), 0, 0),
            op(LOAD, NUMBER, 0, 0),
        ];
        if let Some(bit) = numbers::FOREIGN_BIT {
            code.push(op(JUMP_GREATER_EQUAL, bit, 0, 1));
            code.push(op(RETURN, Action::Errno(ENOSYS).value(), 0, 0));
        }
        for (first, last, action) in plain_ranges(&by_number) {
            code.push(op(JUMP_GREATER_EQUAL, first, 0, 2));
            code.push(op(JUMP_GREATER, last, 1, 0));
            code.push(op(RETURN, action.value(), 0, 0));
        }
        for (number, branches) in by_number.iter().filter(|(_, branches)| plain(branches).is_none()) {
            conditional(&mut code, *number, branches, self.default)?;
        }
        // A call that is newer than the policy: programs try another way after ENOSYS, and give up after EPERM. As runc.
        if let (Some((newest, _)), true) = (by_number.last_key_value(), self.default.denies()) {
            code.push(op(JUMP_GREATER, *newest, 0, 1));
            code.push(op(RETURN, Action::Errno(ENOSYS).value(), 0, 0));
        }
        code.push(op(RETURN, self.default.value(), 0, 0));
        if code.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong(code.len()));
        }
        Ok(code)
    }
}

/// The one action of a call whose first rule has no condition.
fn plain(branches: &Branches<'_>) -> Option<Action> {
    branches.first().filter(|(conditions, _)| conditions.is_empty()).map(|(_, action)| *action)
}

/// Unconditional calls, neighbours of one action joined: three instructions a range instead of two a call.
fn plain_ranges(by_number: &BTreeMap<u32, Branches<'_>>) -> Vec<(u32, u32, Action)> {
    let mut ranges: Vec<(u32, u32, Action)> = Vec::new();
    for (number, branches) in by_number {
        let Some(action) = plain(branches) else { continue };
        match ranges.last_mut() {
            Some((_, last, same)) if *last + 1 == *number && *same == action => *last = *number,
            _ => ranges.push((*number, *number, action)),
        }
    }
    ranges
}

/// One call with conditions: each rule's block falls through to the next when a condition does not hold.
fn conditional(code: &mut Filter, number: u32, branches: &Branches<'_>, default: Action) -> Result<(), CompileError> {
    let mut body: Filter = Vec::new();
    for (conditions, action) in branches {
        let mut block: Filter = Vec::new();
        // Built backwards, so that each condition knows how far the end of the block is.
        block.push(op(RETURN, action.value(), 0, 0));
        for condition in conditions.iter().rev() {
            let mut test = comparison(condition, block.len(), number)?;
            test.append(&mut block);
            block = test;
        }
        body.append(&mut block);
    }
    body.push(op(RETURN, default.value(), 0, 0));
    let over = u8::try_from(body.len()).map_err(|_| CompileError::Jump(number.to_string()))?;
    code.push(op(JUMP_EQUAL, number, 0, over));
    code.append(&mut body);
    Ok(())
}

/// Tests one argument; when it does not hold, jumps over `rest` instructions that follow the test.
fn comparison(condition: &Condition, rest: usize, number: u32) -> Result<Filter, CompileError> {
    let low = ARGUMENTS + 8 * u32::from(condition.argument);
    let high = low + 4;
    let (low, high) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
    let split = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
    // A test is written with symbolic targets, counted from its own end: pass goes on, fail jumps over `rest`.
    let far = |after: usize| u8::try_from(rest + after).map_err(|_| CompileError::Jump(number.to_string()));
    let test = match condition.comparison {
        Comparison::Equal(value) => {
            let (h, l) = split(value);
            vec![
                op(LOAD, high, 0, 0),
                op(JUMP_EQUAL, h, 0, far(2)?),
                op(LOAD, low, 0, 0),
                op(JUMP_EQUAL, l, 0, far(0)?),
            ]
        }
        Comparison::NotEqual(value) => {
            let (h, l) = split(value);
            vec![op(LOAD, high, 0, 0), op(JUMP_EQUAL, h, 0, 2), op(LOAD, low, 0, 0), op(JUMP_EQUAL, l, far(0)?, 0)]
        }
        Comparison::Masked { mask, value } => {
            let ((mh, ml), (vh, vl)) = (split(mask), split(value));
            vec![
                op(LOAD, high, 0, 0),
                op(AND, mh, 0, 0),
                op(JUMP_EQUAL, vh, 0, far(3)?),
                op(LOAD, low, 0, 0),
                op(AND, ml, 0, 0),
                op(JUMP_EQUAL, vl, 0, far(0)?),
            ]
        }
        Comparison::Greater(value) => ordered(high, low, split(value), JUMP_GREATER, true, far(0)?, far(3)?),
        Comparison::GreaterOrEqual(value) => {
            ordered(high, low, split(value), JUMP_GREATER_EQUAL, true, far(0)?, far(3)?)
        }
        // Less is not greater-or-equal, and so on: the same tests with pass and fail exchanged.
        Comparison::Less(value) => ordered(high, low, split(value), JUMP_GREATER_EQUAL, false, far(0)?, far(3)?),
        Comparison::LessOrEqual(value) => ordered(high, low, split(value), JUMP_GREATER, false, far(0)?, far(3)?),
    };
    Ok(test)
}

/// Compares 64 bits by halves: the high one decides unless it is equal.
fn ordered(
    high: u32,
    low: u32,
    (h, l): (u32, u32),
    code: u16,
    greater_passes: bool,
    far_last: u8,
    far_early: u8,
) -> Filter {
    let early = |pass: bool, left: u8| if pass { left } else { far_early + left - 3 };
    let (greater, less) = (early(greater_passes, 3), early(!greater_passes, 2));
    let last = if greater_passes { (0, far_last) } else { (far_last, 0) };
    vec![
        op(LOAD, high, 0, 0),
        op(JUMP_GREATER, h, greater, 0),
        op(JUMP_EQUAL, h, 0, less),
        op(LOAD, low, 0, 0),
        op(code, l, last.0, last.1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rule;

    /// Runs a filter as the kernel would.
    fn run(filter: &Filter, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => numbers::ARCHITECTURE,
            _ => {
                let index = ((offset - ARGUMENTS) / 8) as usize;
                let shift = if (offset - ARGUMENTS) % 8 == 4 { 32 } else { 0 };
                ((arguments[index] >> shift) & 0xffff_ffff) as u32
            }
        };
        let (mut at, mut a) = (0, 0u32);
        loop {
            let i = filter[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { i.jump_true } else { i.jump_false });
            match i.code {
                LOAD => a = word(i.k),
                AND => a &= i.k,
                JUMP_EQUAL => at += jump(a == i.k),
                JUMP_GREATER => at += jump(a > i.k),
                JUMP_GREATER_EQUAL => at += jump(a >= i.k),
                RETURN => return i.k,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn policy(conditions: Vec<Condition>) -> Policy {
        Policy {
            default: Action::Errno(1),
            rules: vec![
                Rule { names: vec!["read".into(), "write".into()], action: Action::Allow, conditions: vec![] },
                Rule { names: vec!["socket".into()], action: Action::Allow, conditions },
            ],
        }
    }

    /// What a comparison of an argument with a value should say.
    type Arithmetic = fn(u64, u64) -> bool;

    #[test]
    fn every_comparison_agrees_with_arithmetic() {
        let socket = numbers::number("socket").unwrap();
        let interesting =
            [0, 1, 5, 6, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, (1 << 32) + 6, (2 << 32) + 1, u64::MAX];
        for value in interesting {
            let cases: [(Comparison, Arithmetic); 7] = [
                (Comparison::Equal(value), |a, b| a == b),
                (Comparison::NotEqual(value), |a, b| a != b),
                (Comparison::Less(value), |a, b| a < b),
                (Comparison::LessOrEqual(value), |a, b| a <= b),
                (Comparison::Greater(value), |a, b| a > b),
                (Comparison::GreaterOrEqual(value), |a, b| a >= b),
                (Comparison::Masked { mask: 0xf_0000_000f, value: value & 0xf_0000_000f }, |a, b| {
                    a & 0xf_0000_000f == b & 0xf_0000_000f
                }),
            ];
            for (comparison, holds) in cases {
                let filter = policy(vec![Condition { argument: 2, comparison }]).compile().unwrap();
                for argument in interesting {
                    let got = run(&filter, socket, [9, 9, argument, 9, 9, 9]);
                    let want = if holds(argument, value) { Action::Allow } else { Action::Errno(1) };
                    assert_eq!(got, want.value(), "{comparison:?} of {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let conditions = vec![
            Condition { argument: 0, comparison: Comparison::GreaterOrEqual(10) },
            Condition { argument: 0, comparison: Comparison::Less(20) },
            Condition { argument: 1, comparison: Comparison::NotEqual(3) },
        ];
        let filter = policy(conditions).compile().unwrap();
        let socket = numbers::number("socket").unwrap();
        for (a, b, allowed) in [(10, 0, true), (19, 4, true), (9, 0, false), (20, 0, false), (15, 3, false)] {
            let want = if allowed { Action::Allow } else { Action::Errno(1) };
            assert_eq!(run(&filter, socket, [a, b, 0, 0, 0, 0]), want.value(), "{a} {b}");
        }
    }

    #[test]
    fn the_default_policy_decides_as_docker_s_does() {
        let filter = crate::docker_default(&["CAP_CHOWN"]).compile().unwrap();
        let n = |name| numbers::number(name).unwrap();
        let allow = Action::Allow.value();
        let eperm = Action::Errno(1).value();
        assert_eq!(run(&filter, n("read"), [0; 6]), allow);
        assert_eq!(run(&filter, 9999, [0; 6]), Action::Errno(38).value(), "newer than the policy");
        assert_eq!(run(&filter, n("mount"), [0; 6]), eperm);
        assert_eq!(run(&filter, n("io_uring_setup"), [0; 6]), eperm);
        assert_eq!(run(&filter, n("clone3"), [0; 6]), Action::Errno(38).value());
        assert_eq!(run(&filter, n("clone"), [0x11, 0, 0, 0, 0, 0]), allow);
        assert_eq!(run(&filter, n("clone"), [0x1000_0000, 0, 0, 0, 0, 0]), eperm, "no user namespace");
        for (family, allowed) in [(1, true), (2, true), (37, true), (38, false), (39, true), (40, false), (41, true)] {
            let want = if allowed { allow } else { eperm };
            assert_eq!(run(&filter, n("socket"), [family, 0, 0, 0, 0, 0]), want, "family {family}");
        }
        assert_eq!(run(&filter, n("personality"), [0xffff_ffff, 0, 0, 0, 0, 0]), allow);
        assert_eq!(run(&filter, n("personality"), [0x40000, 0, 0, 0, 0, 0]), eperm);
        let admin = crate::docker_default(&["CAP_SYS_ADMIN"]).compile().unwrap();
        assert_eq!(run(&admin, n("mount"), [0; 6]), allow);
        assert_eq!(run(&admin, n("clone3"), [0; 6]), allow);
    }

    #[test]
    fn what_cannot_be_a_filter_is_refused() {
        let bad = policy(vec![Condition { argument: 6, comparison: Comparison::Equal(0) }]);
        assert_eq!(bad.compile().unwrap_err(), CompileError::Argument(6));
        let long = vec![Condition { argument: 0, comparison: Comparison::Equal(0) }; 100];
        assert!(matches!(policy(long).compile().unwrap_err(), CompileError::Jump(_)));
    }
}
