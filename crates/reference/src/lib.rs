//! Names and digests of images.
