//! Commands on containers.

pub(super) mod attach;
pub(super) mod commit;
pub(super) mod cp;
pub(super) mod create;
pub(super) mod diff;
pub(super) mod exec;
pub(super) mod export;
pub(super) mod lifecycle;
pub(super) mod logs;
pub(super) mod ls;
mod plan;
pub(super) mod port;
pub(super) mod prune;
mod ready;
pub(super) mod run;
pub(super) mod start;
pub(super) mod stats;
pub(super) mod top;
pub(super) mod update;
pub(super) mod why;
