//! Filters beside those that libseccomp makes of the same profile, called as runc calls it.
//!
//! `libseccomp/golden` has what libseccomp made of fixed profiles; `WRITE_GOLDEN=1 cargo test -p wharf-seccomp` asks it
//! anew. Profiles by chance are asked for on the spot. Both need a C compiler and libseccomp's headers.
//!
//! The two differ, for these reasons:
//!
//! - Where several rules with conditions and different actions fit one call, the first of the profile decides here.
//!   libseccomp sorts them by argument and operator, so its answer hangs on neither order nor severity, and it refuses
//!   some (`the_order_of_a_profile_counts`).
//! - What is newer than a profile: runc forgets x86's calls that libseccomp knows by a number of its own (`socket`),
//!   and takes ARM's private calls for the newest, so that nothing ever is (`Answers::newest`).
//! - A rule for a call that an ABI does not have, first of all by libseccomp's order, breaks its filter for that ABI
//!   (`Answers::is_sound`).
//! - Big-endian architectures on a little-endian machine: libseccomp refuses the whole profile, here they are passed
//!   over like all others that the machine does not have.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompOperator};
use serde_json::{Value, json};
use wharf_seccomp::{Abi, docker_default, from_oci, to_oci};
use wharf_sys::seccomp::Instruction;

use crate::interpretation::{X32_BIT, value};
use crate::machine::{Call, run, verify};
use crate::random::{Random, calls, policy};

/// What the filters test for the architecture.
const TOKENS: [u32; 4] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028];

const NATIVES: [Abi; 2] = [Abi::X86_64, Abi::Aarch64];

/// What libseccomp answered.
#[derive(Debug)]
struct Answers {
    newest: Vec<(u32, u32)>,
    /// Calls that are newer than it is.
    unknown: Vec<String>,
    /// `None` when it refused a rule.
    filter: Option<Vec<Instruction>>,
}

impl Answers {
    fn read(text: &str) -> Self {
        let (mut newest, mut unknown, mut filter, mut refused) = (Vec::new(), Vec::new(), Vec::new(), false);
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let hex = |at: usize| u32::from_str_radix(words[at].trim_start_matches("0x"), 16).unwrap();
            match words[0] {
                "newest" => newest.push((hex(1), words[2].parse().unwrap())),
                "unknown" => unknown.push(words[1].to_owned()),
                "refused" => refused = true,
                _ => filter.push(Instruction {
                    code: hex(0) as u16,
                    jump_true: hex(1) as u8,
                    jump_false: hex(2) as u8,
                    k: hex(3),
                }),
            }
        }
        Self { newest, unknown, filter: (!refused).then_some(filter) }
    }

    /// Whether the numbers of each ABI are compared with the number of the call. libseccomp 2.5.4 forgets to load it
    /// when the first rule of an ABI is for a call that the ABI does not have; that filter decides nothing.
    fn is_sound(&self) -> bool {
        let filter = self.filter.as_deref().unwrap_or_default();
        let tests = filter.iter().enumerate().filter(|(_, i)| i.code == 0x15 && TOKENS.contains(&i.k));
        tests.map(|(at, i)| filter[at + 1 + usize::from(i.jump_true)]).all(|first| first.code != 0x15)
    }

    /// The highest number of an ABI that the profile names, as it is counted here.
    fn newest(&self, abi: Abi, section: &LinuxSeccomp) -> u32 {
        // libseccomp's own numbers for ABIs (seccomp.h), in which x32 is not x86_64.
        let token = if abi == Abi::X32 { 0x4000_003e } else { abi.token() };
        let found = self.newest.iter().find(|(known, _)| *known == token).map_or(0, |(_, number)| *number);
        let names = || section.syscalls().iter().flatten().flat_map(|rule| rule.names());
        match abi {
            Abi::X86 => names()
                .filter_map(|name| Some([abi.multiplexed(name)?.0, abi.number(name).unwrap_or(0)]))
                .flatten()
                .fold(found, u32::max),
            Abi::Arm => names()
                .filter(|name| !self.unknown.contains(name))
                .filter_map(|name| abi.number(name))
                .filter(|n| *n < 0xf_0000)
                .max()
                .unwrap_or(0),
            _ => found,
        }
    }

    /// The ABIs that it has, with the highest number of each above which runc answers ENOSYS; 0 where it does not.
    fn stub(&self, section: &LinuxSeccomp, native: Abi) -> Vec<(Abi, u32)> {
        let default = value(from_oci(section).unwrap().default) & 0xffff_0000;
        let permissive = [0x7fff_0000, 0x7ffc_0000, 0x7ff0_0000].contains(&default);
        let known = |abi: &Abi| {
            let token = if *abi == Abi::X32 { 0x4000_003e } else { abi.token() };
            self.newest.iter().any(|(known, _)| *known == token)
        };
        let abis = std::iter::once(native).chain(native.companions().iter().copied()).filter(known);
        abis.map(|abi| (abi, if permissive { 0 } else { self.newest(abi, section) })).collect()
    }

    /// What runc's filter returns: libseccomp's with ENOSYS for what is newer.
    fn decide(&self, stub: &[(Abi, u32)], call: &Call) -> u32 {
        let x32 = call.number >= X32_BIT;
        let of_call = |abi: Abi| match abi {
            Abi::X86_64 => !x32,
            Abi::X32 => x32,
            Abi::Arm => call.number < 0xf_0000,
            _ => true,
        };
        let newest = stub.iter().find(|(abi, _)| abi.token() == call.token && of_call(*abi));
        match newest {
            Some((_, newest)) if *newest != 0 && call.number > *newest => 0x0005_0000 | 38,
            _ => run(self.filter.as_ref().unwrap(), call).0,
        }
    }
}

/// The profile in the oracle's words.
fn question(section: &LinuxSeccomp, native: Abi) -> String {
    let policy = from_oci(section).unwrap();
    let mut text = format!("default {:#x}\n", value(policy.default));
    let name = if native == Abi::X86_64 { "x86_64" } else { "aarch64" };
    text += &format!("native {name}\n");
    for arch in section.architectures().iter().flatten() {
        let name = arch.to_string().trim_start_matches("SCMP_ARCH_").to_lowercase();
        text += &format!("arch {name}\n");
    }
    for rule in section.syscalls().iter().flatten() {
        // The action alone is read by the code under test; its unit tests have the values.
        let action = json!({ "defaultAction": rule.action(), "defaultErrnoRet": rule.errno_ret() });
        let action = value(from_oci(&serde_json::from_value(action).unwrap()).unwrap().default);
        for name in rule.names() {
            text += &format!("rule {action:#x} {name}");
            for arg in rule.args().iter().flatten() {
                // enum scmp_compare (seccomp.h).
                let operator = match arg.op() {
                    LinuxSeccompOperator::ScmpCmpNe => 1,
                    LinuxSeccompOperator::ScmpCmpLt => 2,
                    LinuxSeccompOperator::ScmpCmpLe => 3,
                    LinuxSeccompOperator::ScmpCmpEq => 4,
                    LinuxSeccompOperator::ScmpCmpGe => 5,
                    LinuxSeccompOperator::ScmpCmpGt => 6,
                    LinuxSeccompOperator::ScmpCmpMaskedEq => 7,
                };
                text += &format!(" {} {operator} {} {}", arg.index(), arg.value(), arg.value_two().unwrap_or(0));
            }
            text.push('\n');
        }
    }
    text + "end\n"
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/libseccomp")
}

/// A program that asks libseccomp.
struct Oracle {
    _dir: tempfile::TempDir,
    program: PathBuf,
}

impl Oracle {
    /// `None` where libseccomp or a compiler is missing.
    fn build() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("oracle");
        let mut compiler = Command::new("cc");
        compiler.arg("-o").arg(&program).arg(folder().join("oracle.c")).arg("-lseccomp");
        let compiled = compiler.output().ok()?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr);
            assert!(said.contains("seccomp.h") || said.contains("-lseccomp"), "{said}");
            return None;
        }
        Some(Self { _dir: dir, program })
    }

    /// `None` when libseccomp does not come to an end.
    fn ask(&self, question: &str) -> Option<String> {
        let mut command = Command::new(&self.program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Shorter than a pipe holds, and read to its end before anything is written.
        child.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.signal().is_some() {
            return None;
        }
        assert!(output.status.success(), "{question}");
        Some(String::from_utf8(output.stdout).unwrap())
    }
}

/// Holds the filter of a profile against libseccomp's.
fn compare(name: &str, section: &LinuxSeccomp, native: Abi, answers: &Answers, random: &mut Random, vectors: usize) {
    let mut policy = from_oci(section).unwrap();
    for rule in &mut policy.rules {
        rule.names.retain(|name| !answers.unknown.contains(name));
    }
    let filter = policy.compile_for(native).unwrap();
    verify(&filter).unwrap();
    let abis: Vec<Abi> = std::iter::once(native).chain(native.companions().iter().copied()).collect();
    let mut asked = calls(random, &policy, &abis, vectors);
    let zeros = asked.iter().map(|call| Call { arguments: [0; 6], ..*call }).collect::<Vec<_>>();
    asked.extend(zeros);
    let stub = answers.stub(section, native);
    for call in asked {
        let (ours, theirs) = (run(&filter, &call).0, answers.decide(&stub, &call));
        assert_eq!(
            ours,
            theirs,
            "{name} on {native:?}: {call:x?}: ours and libseccomp's for\n{}",
            question(section, native)
        );
    }
}

fn rule(name: &str, action: &str, args: &[(u32, &str, u64, u64)]) -> Value {
    let args = args.iter().map(
        |(index, op, value, two)| json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two }),
    );
    json!({ "names": [name], "action": format!("SCMP_ACT_{action}"), "args": args.collect::<Vec<_>>() })
}

fn profile(default: &str, rules: Vec<Value>) -> LinuxSeccomp {
    let architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"];
    let section = json!({ "defaultAction": format!("SCMP_ACT_{default}"), "architectures": architectures,
        "syscalls": rules });
    serde_json::from_value(section).unwrap()
}

/// The profiles of the golden table.
fn profiles() -> Vec<(&'static str, LinuxSeccomp)> {
    const HIGH: u64 = 5 << 32;
    let each = |args: &[(u32, &str, u64, u64)]| -> Vec<Value> {
        let names = ["read", "openat", "socket", "clone", "ioctl", "mmap", "shmat"];
        names.iter().zip(args.iter().cycle()).map(|(name, arg)| rule(name, "ALLOW", &[*arg])).collect()
    };
    let docker = |capabilities: &[&str], abis: &[Abi]| {
        let mut policy = docker_default(capabilities);
        policy.abis = abis.to_vec();
        serde_json::from_value(to_oci(&policy)).unwrap()
    };
    vec![
        ("docker", docker(&["CAP_CHOWN", "CAP_KILL"], &[])),
        ("docker-all-abis", docker(&["CAP_CHOWN", "CAP_KILL"], &[Abi::X86, Abi::X32, Abi::Arm])),
        ("docker-admin", docker(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_BPF"], &[Abi::X86])),
        (
            "operators",
            profile(
                "ERRNO",
                each(&[
                    (0, "EQ", HIGH | 5, 0),
                    (1, "NE", HIGH | 5, 0),
                    (2, "LT", HIGH | 5, 0),
                    (3, "LE", HIGH | 5, 0),
                    (4, "GE", HIGH | 5, 0),
                    (5, "GT", HIGH | 5, 0),
                    (0, "MASKED_EQ", 0xf0_0000_000f, HIGH | 0x5),
                ]),
            ),
        ),
        (
            "operators-at-the-ends",
            profile(
                "KILL_PROCESS",
                each(&[
                    (0, "EQ", u64::MAX, 0),
                    (1, "NE", 0, 0),
                    (2, "LT", 1 << 32, 0),
                    (3, "LE", 0xffff_ffff, 0),
                    (4, "GE", 0, 0),
                    (5, "GT", 0xffff_ffff, 0),
                    (1, "MASKED_EQ", 0xffff_ffff_0000_0000, 0xffff_ffff),
                ]),
            ),
        ),
        (
            "several-rules",
            profile(
                "ERRNO",
                vec![
                    rule("socket", "ALLOW", &[(0, "LT", 38, 0)]),
                    rule("socket", "ALLOW", &[(0, "EQ", 39, 0), (1, "MASKED_EQ", 0xf, 1)]),
                    rule("socket", "ALLOW", &[(0, "GT", 40, 0), (2, "NE", 0, 0)]),
                    rule("clone", "LOG", &[(0, "MASKED_EQ", 0x7e02_0000, 0)]),
                    rule("clone", "LOG", &[(0, "EQ", 0x1000_0000, 0)]),
                    // Two conditions on one argument.
                    rule("mmap", "TRAP", &[(2, "GE", 1, 0), (2, "LE", 7, 0), (3, "EQ", 2, 0)]),
                ],
            ),
        ),
        (
            "different-actions",
            profile(
                "TRAP",
                vec![
                    // Apart from each other.
                    rule("personality", "ALLOW", &[(0, "EQ", 0, 0)]),
                    rule("personality", "LOG", &[(0, "EQ", 8, 0)]),
                    rule("personality", "KILL_PROCESS", &[(0, "EQ", HIGH | 9, 0)]),
                    // The rule without a condition settles it, first or last.
                    rule("ioctl", "KILL", &[(1, "EQ", 0x5412, 0)]),
                    rule("ioctl", "ALLOW", &[]),
                    rule("ioctl", "LOG", &[]),
                    rule("read", "LOG", &[]),
                    rule("read", "KILL", &[(0, "EQ", 0, 0)]),
                    // A mask of nothing is no condition.
                    rule("write", "ALLOW", &[(0, "MASKED_EQ", 0, 7)]),
                    rule("write", "LOG", &[(0, "EQ", 1, 0)]),
                    // The default says nothing.
                    rule("close", "TRAP", &[]),
                    rule("close", "ALLOW", &[]),
                ],
            ),
        ),
        (
            "multiplexed",
            profile(
                "ERRNO",
                vec![
                    rule("socket", "ALLOW", &[(0, "EQ", 2, 0), (1, "EQ", 1, 0)]),
                    rule("bind", "LOG", &[]),
                    rule("send", "ALLOW", &[]),
                    rule("recvmmsg", "KILL", &[(2, "GT", 5, 0)]),
                    rule("semop", "ALLOW", &[]),
                    rule("msgctl", "TRACE", &[(1, "EQ", 2, 0)]),
                    rule("shmctl", "ALLOW", &[]),
                ],
            ),
        ),
        (
            "multiplexed-whole",
            profile(
                "ALLOW",
                vec![rule("socket", "ERRNO", &[(0, "EQ", 38, 0)]), rule("read", "LOG", &[]), rule("ipc", "LOG", &[])],
            ),
        ),
        ("permissive", profile("LOG", vec![rule("ptrace", "ERRNO", &[]), rule("mkdir", "NOTIFY", &[])])),
        ("first-call-alone", profile("ERRNO", vec![rule("read", "ALLOW", &[])])),
        ("arm-private", profile("ERRNO", vec![rule("set_tls", "ALLOW", &[]), rule("read", "ALLOW", &[])])),
        ("nothing", profile("KILL_THREAD", Vec::new())),
    ]
}

#[test]
fn fixed_profiles_decide_as_libseccomp_s() {
    let mut random = Random::new(1);
    for (name, section) in profiles() {
        for native in NATIVES {
            let question = question(&section, native);
            let path =
                folder().join(format!("golden/{name}.{}", if native == Abi::X86_64 { "x86_64" } else { "aarch64" }));
            if std::env::var_os("WRITE_GOLDEN").is_some() {
                let oracle = Oracle::build().expect("writing needs cc and libseccomp-dev");
                let answer = oracle.ask(&question).expect("libseccomp comes to an end");
                std::fs::write(&path, format!("{question}\n{answer}")).unwrap();
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let (asked, answer) = text.split_once("\n\n").unwrap_or_default();
            assert!(
                asked == question.trim_end(),
                "the golden table has another profile as {name}: run WRITE_GOLDEN=1 cargo test -p wharf-seccomp"
            );
            let answers = Answers::read(answer);
            assert!(answers.filter.is_some() && answers.is_sound(), "libseccomp has no filter for {name}");
            compare(name, &section, native, &answers, &mut random, 24);
        }
    }
}

#[test]
fn profiles_by_chance_decide_as_libseccomp_s() {
    let seed = 7;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let sections: Vec<(Abi, LinuxSeccomp)> = (0..240)
        .map(|round| (NATIVES[round % 2], serde_json::from_value(to_oci(&policy(&mut random, true))).unwrap()))
        .collect();
    let Some(oracle) = Oracle::build() else {
        println!("skipped: cc or libseccomp's headers are missing (Debian: libseccomp-dev)");
        return;
    };
    let mut compared = 0;
    for (native, section) in &sections {
        let Some(answer) = oracle.ask(&question(section, *native)) else { continue };
        let answers = Answers::read(&answer);
        if answers.filter.is_some() && answers.is_sound() {
            compare("by chance", section, *native, &answers, &mut random, 4);
            compared += 1;
        }
    }
    println!("{compared} of {} compared, libseccomp has no filter for the others", sections.len());
    assert!(compared * 10 >= sections.len() * 9, "{compared}");
}

#[test]
fn the_order_of_a_profile_counts() {
    let rules = [rule("personality", "ALLOW", &[(0, "LE", 8, 0)]), rule("personality", "LOG", &[(1, "EQ", 1, 0)])];
    let call =
        Call { number: Abi::X86_64.number("personality").unwrap(), token: TOKENS[0], arguments: [8, 1, 0, 0, 0, 0] };
    let ours = |rules: Vec<Value>| {
        let filter = from_oci(&profile("ERRNO", rules)).unwrap().compile_for(Abi::X86_64).unwrap();
        run(&filter, &call).0
    };
    let (allow, log) = (0x7fff_0000, 0x7ffc_0000);
    let [first, second] = rules.clone();
    assert_eq!(ours(vec![first.clone(), second.clone()]), allow);
    assert_eq!(ours(vec![second.clone(), first.clone()]), log);
    // The higher argument comes first for libseccomp, whatever the order.
    let Some(oracle) = Oracle::build() else { return };
    for rules in [vec![first.clone(), second.clone()], vec![second, first]] {
        let answers = Answers::read(&oracle.ask(&question(&profile("ERRNO", rules), Abi::X86_64)).unwrap());
        assert_eq!(run(answers.filter.as_ref().unwrap(), &call).0, log);
    }
}
