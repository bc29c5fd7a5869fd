//! Runs a filter as the kernel does, after the kernel's checks of it (`bpf_check_classic`, `seccomp_check_filter`).

use wharf_sys::seccomp::Instruction;

/// A call as a filter sees it (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) token: u32,
    pub(crate) arguments: [u64; 6],
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Whether the kernel takes it.
///
/// # Errors
/// What it would refuse.
pub(crate) fn verify(filter: &[Instruction]) -> Result<(), String> {
    if filter.is_empty() || filter.len() > 4096 {
        return Err(format!("{} instructions", filter.len()));
    }
    for (at, i) in filter.iter().enumerate() {
        let left = filter.len() - at - 1;
        let fine = match i.code {
            LOAD => i.k.is_multiple_of(4) && i.k < 64,
            AND | RETURN => true,
            JUMP => (i.k as usize) < left,
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL | JUMP_SET => {
                usize::from(i.jump_true) < left && usize::from(i.jump_false) < left
            }
            _ => false,
        };
        if !fine {
            return Err(format!("instruction {at}: {i:?}"));
        }
    }
    match filter.last() {
        Some(last) if last.code == RETURN => Ok(()),
        _ => Err("it does not end".into()),
    }
}

/// What the filter returns, and how many instructions it took.
pub(crate) fn run(filter: &[Instruction], call: &Call) -> (u32, usize) {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.token,
        // The instruction pointer.
        8 | 12 => 0,
        _ => {
            let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
            ((call.arguments[(offset as usize - 16) / 8] >> shift) & 0xffff_ffff) as u32
        }
    };
    let (mut at, mut a, mut executed) = (0, 0u32, 0);
    loop {
        let i = filter[at];
        at += 1;
        executed += 1;
        let jump = |holds: bool| usize::from(if holds { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => a = word(i.k),
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => at += jump(a == i.k),
            JUMP_GREATER => at += jump(a > i.k),
            JUMP_GREATER_EQUAL => at += jump(a >= i.k),
            JUMP_SET => at += jump(a & i.k != 0),
            RETURN => return (i.k, executed),
            other => panic!("opcode {other:#x}"),
        }
    }
}
