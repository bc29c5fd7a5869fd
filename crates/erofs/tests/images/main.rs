//! Images that were written, read back by a reader of our own, by `fsck.erofs` and by the kernel.

mod chance;
mod fuzzed;
mod kernel;
mod limits;
mod model;
mod operations;
mod overlay;
mod reading;
mod seen;
mod single;
