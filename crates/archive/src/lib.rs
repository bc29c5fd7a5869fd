//! Tar, compression and hashing, in one pass.
