//! What filters decide: by evaluating them, beside the rules themselves and beside libseccomp.

mod compiled;
mod fuzzed;
mod interpretation;
mod libseccomp;
mod machine;
mod random;
