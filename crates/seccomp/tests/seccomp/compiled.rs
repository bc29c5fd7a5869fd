//! Compiled policies decide what their rules say.

use wharf_seccomp::{
    Abi, Action, Comparison, CompileError, Condition, Policy, Rule, docker_default, docker_default_for,
};

use crate::interpretation::{X32_BIT, decide, value};
use crate::machine::{Call, run, verify};
use crate::random::{EDGES, Random, calls, policy};

fn allow(names: &[&str], conditions: Vec<Condition>) -> Rule {
    Rule { names: names.iter().map(|name| (*name).to_owned()).collect(), action: Action::Allow, conditions }
}

fn refusing(abis: Vec<Abi>, rules: Vec<Rule>) -> Policy {
    Policy { abis, default: Action::Errno(1), rules }
}

fn asked(policy: &Policy, abi: Abi, name: &str, arguments: [u64; 6]) -> u32 {
    let filter = policy.compile_for(Abi::X86_64).unwrap();
    verify(&filter).unwrap();
    run(&filter, &Call { number: abi.number(name).unwrap(), token: abi.token(), arguments }).0
}

#[test]
fn policies_by_chance_are_compiled_as_they_read() {
    let seed = 20_261_126;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for round in 0..150 {
        let policy = policy(&mut random, false);
        for native in [Abi::X86_64, Abi::Aarch64] {
            let filter = policy.compile_for(native).unwrap();
            verify(&filter).unwrap_or_else(|e| panic!("round {round}: {e}: {policy:?}"));
            let abis = [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm];
            for call in calls(&mut random, &policy, &abis, 3) {
                let (got, want) = (run(&filter, &call).0, decide(&policy, native, &call));
                assert_eq!(got, want, "round {round} on {native:?}: {call:x?}: {policy:#x?}");
            }
        }
    }
}

/// What a comparison of an argument with a value should say.
type Arithmetic = fn(u64, u64) -> bool;

#[test]
fn every_comparison_agrees_with_arithmetic() {
    for value_of in EDGES {
        let cases: [(Comparison, Arithmetic); 6] = [
            (Comparison::Equal(*value_of), |a, b| a == b),
            (Comparison::NotEqual(*value_of), |a, b| a != b),
            (Comparison::Less(*value_of), |a, b| a < b),
            (Comparison::LessOrEqual(*value_of), |a, b| a <= b),
            (Comparison::Greater(*value_of), |a, b| a > b),
            (Comparison::GreaterOrEqual(*value_of), |a, b| a >= b),
        ];
        for (comparison, holds) in cases {
            let rules = vec![allow(&["socket"], vec![Condition { argument: 2, comparison }])];
            let policy = refusing(vec![Abi::X32], rules);
            for argument in EDGES {
                let want = |holds: bool| value(if holds { Action::Allow } else { Action::Errno(1) });
                let got = asked(&policy, Abi::X86_64, "socket", [9, 9, *argument, 9, 9, 9]);
                assert_eq!(got, want(holds(*argument, *value_of)), "{comparison:?} of {argument:#x}");
                let low = |value: u64| value & 0xffff_ffff;
                let got = asked(&policy, Abi::X32, "socket", [9, 9, *argument, 9, 9, 9]);
                assert_eq!(got, want(holds(low(*argument), low(*value_of))), "{comparison:?} of {argument:#x} in x32");
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
    let policy = refusing(Vec::new(), vec![allow(&["socket"], conditions)]);
    for (a, b, allowed) in [(10, 0, true), (19, 4, true), (9, 0, false), (20, 0, false), (15, 3, false)] {
        let want = if allowed { Action::Allow } else { Action::Errno(1) };
        assert_eq!(asked(&policy, Abi::X86_64, "socket", [a, b, 0, 0, 0, 0]), value(want), "{a} {b}");
    }
}

#[test]
fn an_abi_is_filtered_when_it_is_named_and_refused_when_not() {
    let rules = vec![allow(&["read", "execve", "socket"], Vec::new())];
    let (native, all) = (refusing(Vec::new(), rules.clone()), refusing(vec![Abi::X86, Abi::X32], rules));
    let (allowed, killed) = (value(Action::Allow), value(Action::KillThread));
    for abi in [Abi::X86, Abi::X32] {
        for name in ["read", "execve", "write"] {
            assert_eq!(asked(&native, abi, name, [0; 6]), killed, "{name} of {abi:?}");
        }
        assert_eq!(asked(&all, abi, "execve", [0; 6]), allowed);
        assert_eq!(asked(&all, abi, "write", [0; 6]), value(Action::Errno(1)));
    }
    // The numbers of one ABI mean nothing in another: 11 is execve(2) for x86 and munmap(2) for x86_64.
    assert_eq!(asked(&all, Abi::X86_64, "munmap", [0; 6]), value(Action::Errno(1)));
    // Those of a machine that this is not are passed over.
    let arm = refusing(vec![Abi::Arm], vec![allow(&["read"], Vec::new())]);
    assert_eq!(asked(&arm, Abi::Arm, "read", [0; 6]), killed);
}

#[test]
fn sockets_of_x86_are_filtered_through_socketcall_too() {
    let family = Condition { argument: 0, comparison: Comparison::Equal(2) };
    let policy = refusing(vec![Abi::X86], vec![allow(&["socket"], vec![family]), allow(&["send"], Vec::new())]);
    let of = |first| asked(&policy, Abi::X86, "socketcall", [first, 0xdead, 0, 0, 0, 0]);
    assert_eq!(of(1), value(Action::Allow), "socket, whatever the family, which is behind a pointer");
    assert_eq!(of(9), value(Action::Allow), "send");
    assert_eq!(of(2), value(Action::Errno(1)), "bind");
    assert_eq!(asked(&policy, Abi::X86, "socket", [2, 0, 0, 0, 0, 0]), value(Action::Allow));
    assert_eq!(asked(&policy, Abi::X86, "socket", [38, 0, 0, 0, 0, 0]), value(Action::Errno(1)));
}

#[test]
fn what_is_newer_than_a_policy_does_not_exist_for_who_is_refused() {
    let rules = vec![allow(&["read", "faccessat2"], Vec::new())];
    let filter = |default, rules: &[Rule]| {
        let policy = Policy { abis: vec![Abi::X86, Abi::X32], default, rules: rules.to_vec() };
        policy.compile_for(Abi::X86_64).unwrap()
    };
    let newer = |filter: &[_], abi: Abi, number| run(filter, &Call { number, token: abi.token(), arguments: [0; 6] }).0;
    let newest = Abi::X86_64.number("faccessat2").unwrap();
    for (default, told) in [
        (Action::Errno(1), Action::Errno(38)),
        (Action::KillProcess, Action::Errno(38)),
        (Action::Trap, Action::Errno(38)),
        (Action::Log, Action::Log),
        (Action::Trace(1), Action::Trace(1)),
    ] {
        let filter = filter(default, &rules);
        for (abi, bit) in [(Abi::X86_64, 0), (Abi::X86, 0), (Abi::X32, X32_BIT)] {
            assert_eq!(newer(&filter, abi, bit | (newest - 1)), value(default), "{abi:?}");
            assert_eq!(newer(&filter, abi, bit | newest), value(Action::Allow), "{abi:?}");
            assert_eq!(newer(&filter, abi, bit | (newest + 1)), value(told), "{abi:?}");
        }
    }
    assert_eq!(newer(&filter(Action::Errno(1), &[]), Abi::X86_64, 9999), value(Action::Errno(1)), "nothing is known");
}

#[test]
fn the_default_policy_decides_as_docker_s_does() {
    let plain = docker_default(&["CAP_CHOWN"]);
    let of = |name, first| asked(&plain, Abi::X86_64, name, [first, 0, 0, 0, 0, 0]);
    let (allow, eperm, enosys) = (value(Action::Allow), value(Action::Errno(1)), value(Action::Errno(38)));
    assert_eq!(of("read", 0), allow);
    assert_eq!(of("file_setattr", 0), enosys, "newer than the policy");
    assert_eq!(of("mount", 0), eperm);
    assert_eq!(of("io_uring_setup", 0), eperm);
    assert_eq!(of("clone3", 0), enosys);
    assert_eq!(of("clone", 0x11), allow);
    assert_eq!(of("clone", 0x1000_0000), eperm, "no user namespace");
    for (family, allowed) in [(1, true), (2, true), (37, true), (38, false), (39, true), (40, false), (41, true)] {
        assert_eq!(of("socket", family), if allowed { allow } else { eperm }, "family {family}");
    }
    assert_eq!(of("personality", 0xffff_ffff), allow);
    assert_eq!(of("personality", 0x40000), eperm);
    let admin = docker_default(&["CAP_SYS_ADMIN"]);
    assert_eq!(asked(&admin, Abi::X86_64, "mount", [0; 6]), allow);
    assert_eq!(asked(&admin, Abi::X86_64, "clone3", [0; 6]), allow);
}

#[test]
fn the_default_policy_is_for_a_32_bit_abi_where_the_image_is() {
    let (architecture, abi) = match Abi::NATIVE {
        Abi::Aarch64 => ("arm", Abi::Arm),
        _ => ("386", Abi::X86),
    };
    let [allow, eperm, killed] = [Action::Allow, Action::Errno(1), Action::KillThread].map(value);
    let answer = |architecture: &str, capability: &str, abi, name: &str, first| {
        asked(&docker_default_for(architecture, &[capability]), abi, name, [first, 0, 0, 0, 0, 0])
    };
    for other in ["amd64", "arm64", "", "riscv64", if architecture == "arm" { "386" } else { "arm" }] {
        assert_eq!(docker_default_for(other, &["CAP_CHOWN"]), docker_default(&["CAP_CHOWN"]), "{other}");
        assert_eq!(answer(other, "CAP_CHOWN", abi, "read", 0), killed, "{other}");
    }
    for name in ["read", "mmap2", "_llseek", "chown32", "ipc", "clock_gettime64", "futex_time64", "ugetrlimit"] {
        // ARM has no multiplexed calls.
        if abi.number(name).is_some() {
            assert_eq!(answer(architecture, "CAP_CHOWN", abi, name, 0), allow, "{name}");
        }
    }
    for (capability, name) in [("CAP_SYS_TIME", "clock_settime64"), ("CAP_SYS_ADMIN", "mount")] {
        assert_eq!(answer(architecture, "CAP_CHOWN", abi, name, 0), eperm, "{name}");
        assert_eq!(answer(architecture, capability, abi, name, 0), allow, "{name}");
    }
    assert_eq!(answer(architecture, "CAP_CHOWN", abi, "socket", 38), eperm);
    assert_eq!(answer(architecture, "CAP_CHOWN", abi, "clone", 0x1000_0000), eperm);
    // What the native programs of such an image may do stays the same.
    assert_eq!(answer(architecture, "CAP_CHOWN", Abi::NATIVE, "socket", 38), eperm);
    assert_eq!(answer(architecture, "CAP_CHOWN", Abi::NATIVE, "read", 0), allow);
}

#[test]
fn the_default_policy_decides_in_a_few_instructions() {
    let filter = docker_default(&["CAP_CHOWN"]).compile_for(Abi::X86_64).unwrap();
    let common =
        ["read", "write", "close", "mmap", "futex", "openat", "epoll_wait", "clock_gettime", "clone", "socket"];
    let mut report = format!("{} instructions;", filter.len());
    for name in common {
        let number = Abi::X86_64.number(name).unwrap();
        let (_, executed) = run(&filter, &Call { number, token: Abi::X86_64.token(), arguments: [0; 6] });
        report += &format!(" {name} {executed}");
        // Architecture, number, a binary search of some sixty ranges, and the tests of an argument.
        assert!(executed <= 20, "{name} takes {executed}");
    }
    println!("{report}");
}

#[test]
fn far_jumps_are_bridged() {
    // Each block is longer than a conditional jump reaches.
    let rule = |name: &str, n: u64| {
        let conditions = (0..6).map(|argument| Condition { argument, comparison: Comparison::Less(n << 32 | n) });
        Rule { names: vec![name.into()], action: Action::Errno(n as u16), conditions: conditions.collect() }
    };
    let rules = ["read", "openat", "socket", "fchmodat2"].iter().flat_map(|name| (2..22).map(|n| rule(name, n)));
    let policy = refusing(Vec::new(), rules.collect());
    let filter = policy.compile_for(Abi::X86_64).unwrap();
    assert!(filter.len() > 2000, "{}", filter.len());
    verify(&filter).unwrap();
    for call in calls(&mut Random::new(3), &policy, &[Abi::X86_64, Abi::X86], 200) {
        assert_eq!(run(&filter, &call).0, decide(&policy, Abi::X86_64, &call), "{call:x?}");
    }
}

#[test]
fn what_cannot_be_a_filter_is_refused() {
    let condition = |argument| Condition { argument, comparison: Comparison::Equal(0) };
    let bad = refusing(Vec::new(), vec![allow(&["socket"], vec![condition(6)])]);
    assert_eq!(bad.compile().unwrap_err(), CompileError::Argument(6));
    let rules = (0..200).map(|_| allow(&["socket"], (0..6).map(condition).collect()));
    let long = refusing(Vec::new(), rules.collect());
    let error = long.compile().unwrap_err();
    assert!(matches!(error, CompileError::TooLong(n) if n > 4096), "{error:?}");
    assert!(error.to_string().contains("4096"), "{error}");
}
