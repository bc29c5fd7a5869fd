//! Containers: their life, exec, events, health.
