//! The process that stays beside a container.
