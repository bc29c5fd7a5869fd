//! A classic BPF program, written from its end to its start.
//!
//! Jumps only go forward, so where they lead is there already, and how far that is is known. A conditional jump
//! reaches over 255 instructions; what is farther is reached by an unconditional one in between.

use std::collections::HashMap;

use wharf_sys::seccomp::Instruction;

// Opcodes of linux/bpf_common.h: class | size or operation | mode or source.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// Conditional jumps: on equality, greater, greater or equal than a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An instruction, as the number of those from it to the end.
    At(usize),
    /// Anywhere that returns this.
    Return(u32),
}

#[derive(Debug, Default)]
pub(crate) struct Program {
    reversed: Vec<Instruction>,
    /// The nearest instruction that returns a value.
    returns: HashMap<u32, usize>,
}

impl Program {
    /// In the order of execution.
    pub(crate) fn finish(self) -> Vec<Instruction> {
        self.reversed.into_iter().rev().collect()
    }

    /// Loads a word of `struct seccomp_data`; the next instruction is the one that was written last.
    pub(crate) fn load(&mut self, offset: u32) -> Target {
        self.push(LOAD, offset, 0, 0)
    }

    /// Masks what is loaded; the next instruction is the one that was written last.
    pub(crate) fn and(&mut self, mask: u32) -> Target {
        self.push(AND, mask, 0, 0)
    }

    /// Goes on to one of two places.
    pub(crate) fn branch(&mut self, test: Test, value: u32, holds: Target, fails: Target) -> Target {
        // What `fails` needs in between is at most one instruction, which `holds` must reach over too.
        let holds = self.within(holds, 254);
        let fails = self.within(fails, 255);
        let (holds, fails) = (self.distance(holds), self.distance(fails));
        self.push(test as u16, value, holds, fails)
    }

    fn push(&mut self, code: u16, k: u32, holds: usize, fails: usize) -> Target {
        // Both are below 256: `within` saw to it.
        let (jump_true, jump_false) = (holds as u8, fails as u8);
        self.reversed.push(Instruction { code, jump_true, jump_false, k });
        Target::At(self.reversed.len())
    }

    /// An instruction that is at most `reach` away and leads to `target`.
    fn within(&mut self, target: Target, reach: usize) -> usize {
        match target {
            Target::At(at) if self.distance(at) <= reach => at,
            Target::At(at) => self.jump(at),
            Target::Return(value) => match self.returns.get(&value) {
                Some(at) if self.distance(*at) <= reach => *at,
                _ => self.answer(value),
            },
        }
    }

    fn answer(&mut self, value: u32) -> usize {
        self.push(RETURN, value, 0, 0);
        self.returns.insert(value, self.reversed.len());
        self.reversed.len()
    }

    /// How many instructions the next one must jump over to be at `at`.
    fn distance(&self, at: usize) -> usize {
        self.reversed.len() - at
    }

    /// Has the next instruction fall through to `target`.
    pub(crate) fn next(&mut self, target: Target) {
        match target {
            Target::At(at) if at == self.reversed.len() => {}
            Target::At(at) => {
                self.jump(at);
            }
            Target::Return(value) => {
                self.answer(value);
            }
        }
    }

    fn jump(&mut self, at: usize) -> usize {
        // The kernel's bound on programs is far below 32 bits; `compile` refuses what is above it.
        let far = self.distance(at) as u32;
        self.push(JUMP, far, 0, 0);
        self.reversed.len()
    }
}
