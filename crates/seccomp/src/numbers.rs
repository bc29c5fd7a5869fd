//! The native ABI: its name for seccomp, and the numbers of its calls.

pub(crate) use wharf_sys::seccomp::{ARCHITECTURE, FOREIGN_BIT, number};
