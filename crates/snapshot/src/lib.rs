//! Layers as file systems.
