//! Builds images from Dockerfiles.
//!
//! ```text
//! context ──► Dockerfile ──► graph of stages ──► for each step: key ──► known? ──► its layer
//!                                                                        │ no
//!                                                                        └──► COPY: plan ─► layer
//!                                                                             RUN:  monitor ─► container ─► layer
//! ```
//!
//! - [`Builder`]: what builds share; [`BuildRequest`], [`BuildEvent`]: one build. [`Fetch`]: the world outside.
//! - `gathered`, `session`, `finish`: what a build begins with, its work for each platform, and the images that come of it.
//!   `annotations`, `attest`, `squash`: what is said of these, and what they become when that is asked.
//! - `stages`, `state`, `sources`: stages side by side, what each has made, and where they begin. `metadata`: instructions that change the configuration only.
//! - `context`, `index`: what the client sent. `listing`, `missing`, `kept`: what it lists, is asked for, and has sent before.
//! - `files`, `select`, `plan`, `copy`, `tree`: COPY, ADD and WORKDIR. `run`, `bundle`, `mounts`, `init_layer`: RUN.
//! - `named`, `layouts`, `repository`: contexts that the request names, those of them that are images, and those from git.
//! - `portable`: the cache on its way elsewhere. `history`, `why`: builds that were, and why they made steps. `leak`: secrets in what was made.
//! - `agent`: SSH agents that commands may ask. `asked`: clients that are asked while a build goes on. `steps`: what they hear of its steps.
//! - `epoch`: the time of results. `arguments`, `entitlements`: what the request gives and allows. `cache`, `cache_mount`, `scratch`: what outlives a build, and what does not.
//!
//! The same input gives the same layers: entries sorted, times from the context, nothing random in any result but what a
//! command makes. It gives the same image as long as the cache knows when each step was made.

/// Addresses of repositories.
pub mod git {
    pub use wharf_git::Repository;
}

mod agent;
mod annotations;
mod arguments;
mod asked;
mod attest;
mod builder;
mod bundle;
mod cache;
mod cache_mount;
mod cancel;
mod command;
mod context;
mod copy;
mod definition;
mod entitlements;
mod epoch;
mod error;
mod files;
mod finish;
mod foreign;
mod frames;
mod fsck;
mod gathered;
mod go_format;
mod history;
mod identity;
mod index;
mod init_layer;
mod kept;
mod labels;
mod launched;
mod layouts;
mod leak;
mod listing;
mod metadata;
mod missing;
mod mode;
mod mounts;
mod named;
mod no_cache;
mod options;
mod output;
mod parts;
mod plan;
mod portable;
mod ports;
mod repository;
mod request;
mod resolve;
mod run;
mod said;
mod scratch;
mod select;
mod session;
mod sources;
mod squash;
mod stages;
mod state;
mod statement;
mod steps;
mod tar;
mod telling;
mod together;
mod tree;
mod url;
mod why;

pub use agent::Agent;
pub use asked::{Client, Given};
pub use builder::{Builder, Pruned};
pub use cache::CacheRecord;
pub use cache_mount::CACHE_MOUNT;
pub use context::ignore_text;
pub use error::{BuildError, ErrorKind, Lines, Result};
pub use fsck::fsck;
pub use history::BuildRecord;
pub use kept::KEPT_CONTEXT;
pub use missing::Answers;
pub use named::NamedContext;
pub use portable::{CacheBlob, CacheCompression, CacheForm, CacheLayout, DIFF_ID};
pub use ports::parse as exposed_ports;
pub use request::{
    BuildEvent, BuildRequest, BuilderOptions, Fetch, Limits, NetworkSource, Offline, Pending, RegistryCredentials,
    StepNetwork, Ulimit,
};
pub use steps::{StepEvent, Warned};
pub use why::{Miss, Why};
