//! Seccomp: which system calls a container may make, compiled to classic BPF.
//!
//! - [`Policy`]: rules by name of call, with conditions on arguments.
//! - [`docker_default`]: Docker's default policy for a set of capabilities, as commented data; [`docker_default_for`]:
//!   the same for images of 32-bit programs.
//! - [`Policy::compile`]: the filter that the kernel runs (seccomp(2), linux/filter.h).
//! - [`Policy::permits`]: whether a policy leaves certain calls alone, for who makes them under it.
//!
//! A filter is for the native ABI of the machine and those of its others that the policy names. Calls of the rest are
//! refused: rules for one ABI say nothing about the numbers and multiplexed calls of another (`socketcall` opens what
//! `socket` is refused).

mod abi;
mod compile;
mod decision;
mod default;
mod numbers;
mod oci;
mod permits;
mod policy;
mod program;

pub use abi::Abi;
pub use compile::{CompileError, Filter};
pub use default::{docker_default, docker_default_for};
pub use oci::{OciError, flags_of, from_oci, to_oci};
pub use policy::{Action, Comparison, Condition, Policy, Rule};
