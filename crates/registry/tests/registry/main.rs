//! The registry as its clients see it: by HTTP, beside the distribution project's own registry, with `skopeo`, with our
//! client, and killed in the middle of things.

mod algorithms;
mod api;
mod client;
mod crash;
mod peers;
mod support;
mod uploads;
