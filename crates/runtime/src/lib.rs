//! Runs an OCI bundle: namespaces, mounts, confinement.
