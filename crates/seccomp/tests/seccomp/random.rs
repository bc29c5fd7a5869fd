//! Numbers, policies and calls by chance, the same for the same seed.

use wharf_seccomp::{Abi, Action, Comparison, Condition, Policy, Rule};

use crate::interpretation::X32_BIT;
use crate::machine::Call;

/// Xorshift (Marsaglia 2003), or given bytes and then zeros.
#[derive(Debug)]
pub(crate) enum Random {
    State(u64),
    Bytes(Vec<u8>),
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self::State(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.iter().rev().copied().collect())
    }

    fn next(&mut self) -> u64 {
        match self {
            Self::State(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state
            }
            Self::Bytes(bytes) => u64::from(bytes.pop().unwrap_or(0)),
        }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Values at which comparisons of halves go wrong, if anywhere.
pub(crate) const EDGES: &[u64] = &[
    0,
    1,
    2,
    5,
    38,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0x5_0000_0005,
    0xffff_ffff_0000_0000,
    0xffff_fffe_ffff_ffff,
    u64::MAX,
];

/// Calls of several kinds: of one ABI alone, with other numbers elsewhere, multiplexed, private to ARM, unknown.
const NAMES: &[&str] = &[
    "read",
    "write",
    "close",
    "openat",
    "clone",
    "clone3",
    "execve",
    "socket",
    "bind",
    "accept",
    "accept4",
    "send",
    "recvmmsg",
    "socketcall",
    "ipc",
    "semop",
    "shmat",
    "msgctl",
    "mmap",
    "mmap2",
    "personality",
    "ioctl",
    "ptrace",
    "set_tls",
    "chown32",
    "fchmodat2",
    "no_such_call",
];

pub(crate) const ACTIONS: &[Action] = &[
    Action::Allow,
    Action::Errno(1),
    Action::Errno(38),
    Action::KillProcess,
    Action::KillThread,
    Action::Trap,
    Action::Trace(7),
    Action::Log,
    Action::Notify,
];

fn comparison(random: &mut Random) -> Comparison {
    let value = random.one(EDGES);
    match random.below(7) {
        0 => Comparison::Equal(value),
        1 => Comparison::NotEqual(value),
        2 => Comparison::Less(value),
        3 => Comparison::LessOrEqual(value),
        4 => Comparison::Greater(value),
        5 => Comparison::GreaterOrEqual(value),
        _ => Comparison::Masked { mask: random.one(EDGES), value },
    }
}

/// A policy; a `consistent` one has at most one rule with conditions for each call, one for each argument, and names no
/// calls of side ABIs alone.
pub(crate) fn policy(random: &mut Random, consistent: bool) -> Policy {
    let abis = [Abi::X86, Abi::X32, Abi::Arm].into_iter().filter(|_| random.below(2) == 0).collect();
    let default = random.one(&ACTIONS[..8]);
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..random.below(12) {
        let names: Vec<&str> = (0..=random.below(3)).map(|_| random.one(NAMES)).collect();
        let mut conditions: Vec<Condition> = Vec::new();
        for _ in 0..random.below(4) {
            let argument = random.below(6) as u8;
            let condition = Condition { argument, comparison: comparison(random) };
            if !consistent || conditions.iter().all(|other| other.argument != argument) {
                conditions.push(condition);
            }
        }
        for name in names {
            let everywhere = [Abi::X86_64, Abi::Aarch64].iter().all(|abi| abi.number(name).is_some());
            if consistent && !everywhere {
                continue;
            }
            if consistent && rules.iter().any(|rule| rule.names[0] == name && !rule.conditions.is_empty()) {
                continue;
            }
            rules.push(Rule { names: vec![name.into()], action: random.one(ACTIONS), conditions: conditions.clone() });
        }
    }
    Policy { abis, default, rules }
}

/// Calls around everything that the policy names; `vectors` of arguments where arguments count.
pub(crate) fn calls(random: &mut Random, policy: &Policy, abis: &[Abi], vectors: usize) -> Vec<Call> {
    let mut values: Vec<u64> = EDGES.to_vec();
    for condition in policy.rules.iter().flat_map(|rule| &rule.conditions) {
        let (a, b) = match condition.comparison {
            Comparison::Equal(v) | Comparison::NotEqual(v) => (v, v),
            Comparison::Less(v) | Comparison::LessOrEqual(v) => (v, v),
            Comparison::Greater(v) | Comparison::GreaterOrEqual(v) => (v, v),
            Comparison::Masked { mask, value } => (mask, value),
        };
        for v in [a, b] {
            values.extend([v, v.wrapping_add(1), v.wrapping_sub(1), v ^ (1 << 32), v.rotate_left(32), !v]);
        }
    }
    // A multiplexed call is meant by the first argument.
    values.extend(1..25);
    let mut calls = Vec::new();
    for abi in abis {
        let mut numbers: Vec<(u32, usize)> =
            [0, 1, 400, 1000, X32_BIT - 1, X32_BIT, X32_BIT | 1000, 0x7fff_ffff, u32::MAX].map(|n| (n, 1)).to_vec();
        for rule in &policy.rules {
            for name in &rule.names {
                let direct = abi.number(name).map(|number| (number, rule.conditions.is_empty()));
                let other = abi.multiplexed(name).map(|(number, _)| (number, false));
                for (number, plain) in [direct, other].into_iter().flatten() {
                    let around = [(number.wrapping_sub(1), 1), (number + 1, 1)];
                    numbers.extend(around);
                    numbers.push((number, if plain { 1 } else { vectors }));
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        for (number, vectors) in numbers {
            for _ in 0..vectors {
                let arguments = [0; 6].map(|_: u64| random.one(&values));
                calls.push(Call { number, token: abi.token(), arguments });
            }
        }
    }
    calls
}
