//! Seccomp: which system calls a container may make, compiled to classic BPF.
//!
//! - [`Policy`]: rules by name of call, with conditions on arguments.
//! - [`docker_default`]: Docker's default policy for a set of capabilities, as commented data.
//! - [`Policy::compile`]: the filter that the kernel runs (seccomp(2), bpf(4)).
//!
//! A filter is for the native ABI of the machine. Calls of another ABI (32-bit code on a 64-bit
//! kernel) are answered with `ENOSYS`: argument filters of one ABI say nothing about the other's
//! multiplexed calls (`socketcall` opens what `socket` is refused).

mod compile;
mod default;
mod numbers;
mod oci;
mod policy;

pub use compile::{CompileError, Filter};
pub use default::docker_default;
pub use oci::{OciError, flags_of, from_oci, to_oci};
pub use policy::{Action, Comparison, Condition, Policy, Rule};
