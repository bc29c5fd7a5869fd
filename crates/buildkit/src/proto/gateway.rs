//! Package `moby.buildkit.v1.frontend`.

use std::collections::HashMap;

use prost::{Message, Oneof};

use super::RpcStatus;
use super::control::Worker;
use super::llb::{Definition, Platform, SourceOp};
use super::session::Stat;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BridgeSolveRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) frontend_opt: HashMap<String, String>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) cache_imports: Vec<super::control::CacheOption>,
    #[prost(map = "string, message", tag = "13")]
    pub(crate) frontend_inputs: HashMap<String, Definition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BridgeSolveResponse {
    #[prost(message, optional, tag = "3")]
    pub(crate) result: Option<PbResult>,
}

/// `Result`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PbResult {
    #[prost(oneof = "Refs", tags = "1, 2, 3, 4")]
    pub(crate) refs: Option<Refs>,
    #[prost(map = "string, bytes", tag = "10")]
    pub(crate) metadata: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Refs {
    #[prost(string, tag = "1")]
    OneId(String),
    #[prost(message, tag = "2")]
    ManyIds(RefIds),
    #[prost(message, tag = "3")]
    One(Ref),
    #[prost(message, tag = "4")]
    Many(RefMap),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefIds {
    #[prost(map = "string, string", tag = "1")]
    pub(crate) refs: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ref {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) def: Option<Definition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefMap {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) refs: HashMap<String, Ref>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<PbResult>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<RpcStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) frontend_caps: Vec<Capability>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) llb_caps: Vec<Capability>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) workers: Vec<Worker>,
}

/// `moby.buildkit.v1.apicaps.APICap`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Capability {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) range: Option<FileRange>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct FileRange {
    #[prost(int64, tag = "1")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "2")]
    pub(crate) length: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadFileResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadDirRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(string, tag = "3")]
    pub(crate) include_pattern: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadDirResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Stat>,
}

/// `StatFileRequest`; `EvaluateRequest` has the reference alone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatFileRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatFileResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) stat: Option<Stat>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InputsResponse {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) definitions: HashMap<String, Definition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResolveImageConfigResponse {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) config: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) reference: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResolveSourceMetaRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResolveSourceMetaResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub(crate) image: Option<ResolvedImage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResolvedImage {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) config: Vec<u8>,
}
