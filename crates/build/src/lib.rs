//! Builds images from Dockerfiles.
