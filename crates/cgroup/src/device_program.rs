//! Device rules as a program for cgroup2 (cgroup-v2.rst, "Device controller"; instruction-set.rst), pure.
//!
//! The program is asked with a type, numbers and the access that is wanted, and answers 1 to allow. The rules are gone
//! through from the last to the first, and what has been allowed is taken off what is wanted, until a rule denies some
//! of it or nothing is left.

use wharf_sys::bpf::Instruction;

use crate::device_rule::{ALL, Kind, Rule};

// linux/bpf_common.h and linux/bpf.h: classes and operations of the instructions.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const EXIT: u8 = 0x95;
/// Of 32 bits: the numbers are unsigned, and the immediate would be extended by its sign.
const JUMP_UNEQUAL: u8 = 0x56;
const JUMP_SET: u8 = 0x46;

/// The kernel's `struct bpf_cgroup_dev_ctx` is what register 1 leads to at the start.
const CONTEXT: u8 = 1;
const ANSWER: u8 = 0;
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program for these rules.
pub(crate) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        // Access in the upper half of the first word, type in the lower.
        load(TYPE, 0),
        Instruction { code: MOVE_REGISTER, registers: WANTED | TYPE << 4, offset: 0, immediate: 0 },
        with(AND, TYPE, 0xffff),
        with(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        block(&mut program, *rule);
        if rule.is_of_all() {
            // The kernel refuses a program with instructions that are never reached.
            return program;
        }
    }
    answer(&mut program, false);
    program
}

fn block(program: &mut Vec<Instruction>, rule: Rule) {
    // linux/bpf.h, `BPF_DEVCG_DEV_*`.
    let kind = match rule.kind {
        Kind::Any => None,
        Kind::Block => Some(1),
        Kind::Character => Some(2),
    };
    let mut matching = Vec::new();
    for (register, value) in [(TYPE, kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(value) = value {
            matching.push(with(JUMP_UNEQUAL, register, value.cast_signed()));
        }
    }
    let access = i32::from(rule.access);
    let mut decision = Vec::new();
    match (rule.allow, rule.access == ALL) {
        (allow, true) => answer(&mut decision, allow),
        (true, false) => {
            decision.push(with(AND, WANTED, !access));
            decision.push(Instruction { offset: 2, ..with(JUMP_UNEQUAL, WANTED, 0) });
            answer(&mut decision, true);
        }
        (false, false) => {
            decision.push(Instruction { offset: 1, ..with(JUMP_SET, WANTED, access) });
            // Over the two that deny.
            decision.push(Instruction { code: 0x05, registers: 0, offset: 2, immediate: 0 });
            answer(&mut decision, false);
        }
    }
    let length = matching.len() + decision.len();
    for (place, jump) in matching.iter_mut().enumerate() {
        // At most ten instructions on: behind this rule.
        jump.offset = i16::try_from(length - place - 1).unwrap_or(i16::MAX);
    }
    program.append(&mut matching);
    program.append(&mut decision);
}

fn answer(program: &mut Vec<Instruction>, allow: bool) {
    program.push(with(MOVE, ANSWER, i32::from(allow)));
    program.push(Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 });
}

const fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

const fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | CONTEXT << 4, offset, immediate: 0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use oci_spec::runtime::LinuxDeviceCgroup;

    use super::*;
    use crate::device_rule::{MKNOD, READ, WRITE, allows_all};

    /// What a program answers: the few instructions that are used, as instruction-set.rst defines them.
    pub(crate) fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0u64; 11];
        let mut at = 0;
        for _ in 0..10_000 {
            let one = program[at];
            at += 1;
            let (to, from) = (usize::from(one.registers & 15), usize::from(one.registers >> 4));
            let immediate = i64::from(one.immediate).cast_unsigned();
            let jump = match one.code {
                LOAD_WORD => {
                    assert_eq!(from, 1);
                    registers[to] = context[usize::try_from(one.offset).unwrap() / 4].into();
                    false
                }
                MOVE => {
                    registers[to] = immediate;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= immediate;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= immediate;
                    false
                }
                JUMP_UNEQUAL => registers[to] as u32 != immediate as u32,
                JUMP_SET => registers[to] as u32 & immediate as u32 != 0,
                0x05 => true,
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            };
            if jump {
                at += usize::try_from(one.offset).unwrap();
            }
        }
        panic!("the program does not end");
    }

    fn rules(json: &str) -> Vec<Rule> {
        let all: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        all.iter().map(|rule| Rule::read(rule).unwrap()).collect()
    }

    /// `c 1:3 rw`.
    fn allowed(rules: &[Rule], asked: &str) -> bool {
        let mut words = asked.split([' ', ':']);
        let kind = if words.next() == Some("b") { 1 } else { 2 };
        let mut number = || words.next().unwrap().parse::<u32>().unwrap();
        let (major, minor) = (number(), number());
        let access = words.next().unwrap().chars().fold(0, |all, letter| {
            all | u32::from(match letter {
                'm' => MKNOD,
                'r' => READ,
                _ => WRITE,
            })
        });
        run(&compile(rules), [access << 16 | kind, major, minor]) == 1
    }

    #[test]
    fn what_no_rule_speaks_of_is_denied() {
        assert!(!allowed(&[], "c 1:3 r"));
        let rules = rules(r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]"#);
        assert!(allowed(&rules, "c 1:3 r") && allowed(&rules, "c 1:3 rw"));
        for other in ["c 1:3 m", "c 1:3 rm", "b 1:3 r", "c 2:3 r", "c 1:4 r"] {
            assert!(!allowed(&rules, other), "{other}");
        }
    }

    #[test]
    fn the_last_rule_decides_over_each_kind_of_access() {
        let denied = rules(
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"},
                {"allow":true,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        );
        assert!(allowed(&denied, "b 8:0 r") && !allowed(&denied, "b 8:0 rw") && !allowed(&denied, "b 8:0 w"));
        assert!(allowed(&denied, "b 8:1 rwm") && allowed(&denied, "c 8:0 rwm"));
        let none = rules(r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":false,"access":"rwm"}]"#);
        assert!(!allowed(&none, "c 1:3 r"));
        // Two rules allow together what neither does alone, as v1's exceptions do.
        let both = rules(
            r#"[{"allow":true,"type":"c","major":1,"minor":5,"access":"r"},
                {"allow":true,"type":"c","minor":5,"major":1,"access":"w"}]"#,
        );
        assert!(allowed(&both, "c 1:5 rw") && !allowed(&both, "c 1:5 rwm"));
    }

    #[test]
    fn any_type_and_any_number_match() {
        let any = rules(r#"[{"allow":true,"type":"a","major":-1,"minor":7,"access":"r"}]"#);
        assert!(allowed(&any, "b 5:7 r") && allowed(&any, "c 4000000000:7 r") && !allowed(&any, "c 1:8 r"));
        assert!(allows_all(&rules(r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#)));
        assert!(!allows_all(&any) && !allows_all(&[]) && !allows_all(&rules(r#"[{"allow":true},{"allow":false}]"#)));
        let large = rules(r#"[{"allow":true,"type":"c","major":4294967295,"access":"r"}]"#);
        assert!(allowed(&large, "c 4294967295:0 r") && !allowed(&large, "c 1:0 r"));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        let rules = rules(
            r#"[{"allow":false},{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"b","major":8,"access":"rw"},
                {"allow":false,"type":"b","major":8,"minor":1,"access":"w"},{"allow":true,"type":"c","major":136}]"#,
        );
        for rules in [&rules[..], &[]] {
            match wharf_sys::bpf::load_device_program(&compile(rules), c"wharf_devices") {
                Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) => {
                    eprintln!("skipped: no right to load programs")
                }
                loaded => drop(loaded.unwrap()),
            }
        }
    }
}
