//! Seccomp profiles, compiled to BPF.
