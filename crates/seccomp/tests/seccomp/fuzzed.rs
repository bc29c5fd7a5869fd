//! The body of the fuzz target `seccomp_profile`, which is an ordinary test as well.

use wharf_seccomp::{Abi, CompileError, from_oci, to_oci};

use crate::interpretation::decide;
use crate::machine::{run, verify};
use crate::random::{Random, calls, policy};

/// A profile as JSON, or else what the bytes stand for, is refused or decides what its rules say.
pub(crate) fn check(data: &[u8]) {
    let mut random = Random::of(data);
    let policy = match serde_json::from_slice(data) {
        Ok(section) => match from_oci(&section) {
            Ok(policy) => policy,
            Err(_) => return,
        },
        Err(_) => policy(&mut random, false),
    };
    for native in [Abi::X86_64, Abi::Aarch64] {
        let filter = match policy.compile_for(native) {
            Ok(filter) => filter,
            Err(CompileError::TooLong(n)) => {
                assert!(n > 4096);
                continue;
            }
            Err(CompileError::Argument(n)) => {
                assert!(n > 5);
                continue;
            }
        };
        verify(&filter).unwrap_or_else(|e| panic!("{e}: {policy:?}"));
        let abis: Vec<Abi> = std::iter::once(native).chain(native.companions().iter().copied()).collect();
        for call in calls(&mut Random::new(1), &policy, &abis, 2) {
            let (got, want) = (run(&filter, &call).0, decide(&policy, native, &call));
            assert_eq!(got, want, "on {native:?}: {call:x?}: {policy:#x?}");
        }
    }
    let Ok(section) = serde_json::from_value(to_oci(&policy)) else { panic!("{policy:?}") };
    let again = from_oci(&section).unwrap();
    assert_eq!(from_oci(&serde_json::from_value(to_oci(&again)).unwrap()).unwrap(), again);
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_and_what_is_near_them_are_refused_or_decide_as_they_read() {
        let seeds = mutate::seeds("seccomp_profile");
        assert!(!seeds.is_empty());
        for seed in &seeds {
            super::check(seed);
        }
        for number in 0..500 {
            super::check(&mutate::mutated(&seeds, number));
        }
    }
}
