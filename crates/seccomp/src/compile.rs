//! From a policy to classic BPF.
//!
//! ```text
//!   architecture ─► native ─► number ─► binary search over the ranges of one answer ─► answer
//!                ├► another of the policy's ABIs ─► the same                       └─► tests of arguments ─► answer
//!                └► none: the thread is killed
//! ```
//!
//! An answer that depends on architecture and number alone is found by comparisons with constants only, so the kernel
//! works it out once for each number and then allows the call without running the filter (`seccomp_cache_prepare`).

use wharf_sys::seccomp::Instruction;

use crate::abi::{ARM_PRIVATE, Abi, X32_BIT};
use crate::decision::{Decision, Decisions};
use crate::policy::{Action, Comparison, Condition, Policy};
use crate::program::{Program, Target, Test};

/// A program for [`wharf_sys::seccomp::install`].
pub type Filter = Vec<Instruction>;

/// The kernel's bound (`BPF_MAXINSNS`, linux/bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;

/// Why a policy cannot be a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error(
        "the seccomp policy needs {0} instructions, the kernel takes {MAX_INSTRUCTIONS}; use fewer rules with conditions"
    )]
    TooLong(usize),
    #[error("a seccomp condition names argument {0}; a system call has arguments 0 to 5")]
    Argument(u8),
}

// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: Action = Action::Errno(38);

/// What becomes of a call of an ABI that the policy does not name: libseccomp's choice, which runc and crun leave as
/// it is. Rules for one ABI say nothing about another's numbers.
const FOREIGN: Action = Action::KillThread;

/// The number with which a tracer has a call skipped; the filter sees it (seccomp(2)).
const SKIPPED: u32 = u32::MAX;

impl Policy {
    /// Compiles for the machine that this runs on. Names that an ABI does not have are left out there, as no program
    /// can make them; ABIs that the machine cannot run are passed over.
    ///
    /// # Errors
    /// When a condition names no argument, or the filter does not fit the kernel's bound.
    pub fn compile(&self) -> Result<Filter, CompileError> {
        self.compile_for(Abi::NATIVE)
    }

    /// As [`Policy::compile`], for a machine with this native ABI.
    ///
    /// # Errors
    /// As [`Policy::compile`].
    pub fn compile_for(&self, native: Abi) -> Result<Filter, CompileError> {
        if let Some(bad) = self.rules.iter().flat_map(|rule| &rule.conditions).find(|c| c.argument > 5) {
            return Err(CompileError::Argument(bad.argument));
        }
        let has = |abi: Abi| abi == native || self.abis.contains(&abi);
        let mut program = Program::default();
        let mut next = Target::Return(FOREIGN.value());
        // Backwards: the native ABI, which is nearly always the one, comes to be tested first.
        for abi in native.companions().iter().copied().filter(|abi| has(*abi) && *abi != Abi::X32).chain([native]) {
            let mut ranges = Ranges::default();
            ranges.append(&mut program, self, abi);
            if abi == Abi::X86_64 {
                ranges.append_x32(&mut program, self, has(Abi::X32));
            }
            let answer = ranges.search(&mut program);
            let answer = if let Target::At(_) = answer {
                program.next(answer);
                program.load(NUMBER)
            } else {
                answer
            };
            next = program.branch(Test::Equal, abi.token(), answer, next);
        }
        program.next(next);
        program.load(ARCHITECTURE);
        let filter = program.finish();
        if filter.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong(filter.len()));
        }
        Ok(filter)
    }

    /// What is answered to a call that is newer than the policy. Programs try another way after `ENOSYS`, and give up
    /// after `EPERM` (runc, `patchbpf`). A policy of no call, or of the first one alone, has no notion of new.
    pub(crate) fn newer(&self, decisions: &Decisions) -> Action {
        if self.default.denies() && decisions.newest != 0 { ENOSYS } else { self.default }
    }
}

/// All numbers in order: where each range starts, and what its answer is. The first starts at 0.
#[derive(Debug, Default)]
struct Ranges(Vec<(u32, Target)>);

impl Ranges {
    fn start(&mut self, number: u32, answer: Target) {
        match self.0.last_mut() {
            Some((start, old)) if *start == number => *old = answer,
            _ => self.0.push((number, answer)),
        }
        if let [.., (_, before), (_, last)] = self.0[..]
            && before == last
        {
            self.0.pop();
        }
    }

    /// The numbers of an ABI, and behind the last one what is newer.
    fn append(&mut self, program: &mut Program, policy: &Policy, abi: Abi) {
        let default = Target::Return(policy.default.value());
        let decisions = Decisions::of(policy, abi);
        let newer = policy.newer(&decisions);
        self.start(if abi == Abi::X32 { X32_BIT } else { 0 }, default);
        let mut calls = |ranges: &mut Self, numbers: &mut dyn Iterator<Item = (&u32, &Decision)>| {
            for (number, decision) in numbers {
                let answer = answer(program, decision, policy.default, abi);
                ranges.start(*number, answer);
                ranges.start(*number + 1, default);
            }
        };
        calls(self, &mut decisions.by_number.range(..=decisions.newest));
        if newer != policy.default {
            self.start(decisions.newest + 1, Target::Return(newer.value()));
        }
        if abi == Abi::Arm {
            self.start(ARM_PRIVATE, default);
            calls(self, &mut decisions.by_number.range(ARM_PRIVATE..));
        }
    }

    /// What is behind the numbers of x86_64.
    fn append_x32(&mut self, program: &mut Program, policy: &Policy, named: bool) {
        if named {
            self.append(program, policy, Abi::X32);
        } else {
            self.start(X32_BIT, Target::Return(FOREIGN.value()));
            self.start(SKIPPED, Target::Return(policy.default.value()));
        }
    }

    /// Writes the binary search for the range of the loaded number.
    fn search(&self, program: &mut Program) -> Target {
        fn between(program: &mut Program, ranges: &[(u32, Target)]) -> Target {
            match ranges {
                [] => Target::Return(FOREIGN.value()),
                [(_, answer)] => *answer,
                _ => {
                    let (low, high) = ranges.split_at(ranges.len() / 2);
                    let start = high[0].0;
                    let high = between(program, high);
                    let low = between(program, low);
                    program.branch(Test::GreaterOrEqual, start, high, low)
                }
            }
        }
        between(program, &self.0)
    }
}

/// Writes what a decision needs: nothing, or the tests of arguments.
fn answer(program: &mut Program, decision: &Decision, default: Action, abi: Abi) -> Target {
    match decision {
        Decision::Always(action) => Target::Return(action.value()),
        Decision::First(branches) => {
            let mut next = Target::Return(default.value());
            for (conditions, action) in branches.iter().rev() {
                let mut holds = Target::Return(action.value());
                for condition in conditions.iter().rev() {
                    holds = condition_holds(program, *condition, abi.is_wide(), holds, next);
                }
                next = holds;
            }
            next
        }
    }
}

/// Writes the test of one argument.
fn condition_holds(program: &mut Program, condition: Condition, wide: bool, holds: Target, fails: Target) -> Target {
    // Both architectures have the low half first.
    let low = ARGUMENTS + 8 * u32::from(condition.argument);
    let high = low + 4;
    let split = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
    let mut halves = |test: Test, value: u64, greater: Target, less: Target, holds: Target, fails: Target| {
        let (h, l) = split(value);
        program.branch(test, l, holds, fails);
        let mut at = program.load(low);
        if wide {
            // An equality has one way out where the high halves differ.
            if test == Test::Equal {
                program.branch(Test::Equal, h, at, less);
            } else {
                at = program.branch(Test::Equal, h, at, less);
                program.branch(Test::Greater, h, greater, at);
            }
            at = program.load(high);
        }
        at
    };
    match condition.comparison {
        Comparison::Equal(value) => halves(Test::Equal, value, fails, fails, holds, fails),
        Comparison::NotEqual(value) => halves(Test::Equal, value, holds, holds, fails, holds),
        Comparison::Greater(value) => halves(Test::Greater, value, holds, fails, holds, fails),
        Comparison::GreaterOrEqual(value) => halves(Test::GreaterOrEqual, value, holds, fails, holds, fails),
        // Less is not greater-or-equal, and so on: the same tests with pass and fail exchanged.
        Comparison::Less(value) => halves(Test::GreaterOrEqual, value, fails, holds, fails, holds),
        Comparison::LessOrEqual(value) => halves(Test::Greater, value, fails, holds, fails, holds),
        Comparison::Masked { mask, value } => {
            let ((mh, ml), (vh, vl)) = (split(mask), split(value));
            let mut at = holds;
            if ml != 0 {
                program.branch(Test::Equal, vl, at, fails);
                program.and(ml);
                at = program.load(low);
            }
            if wide && mh != 0 {
                program.branch(Test::Equal, vh, at, fails);
                program.and(mh);
                at = program.load(high);
            }
            at
        }
    }
}
