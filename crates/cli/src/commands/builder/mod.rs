//! Commands on builds: the cache, and builds that were. What buildx has under `docker buildx` is here, too.

pub(super) mod history;
pub(super) mod why_miss;
