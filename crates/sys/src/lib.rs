//! Linux system calls, each wrapped once; the only crate with unsafe code.
