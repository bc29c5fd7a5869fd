//! Package `moby.buildkit.v1`: builds that were.

use std::collections::HashMap;

use prost::Message;

use super::control::Exporter;
use super::{RpcStatus, Timestamp};

/// `BuildHistoryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HistoryRequest {
    #[prost(bool, tag = "1")]
    pub(crate) active_only: bool,
    #[prost(string, tag = "2")]
    pub(crate) reference: String,
    /// Ends behind what there is now.
    #[prost(bool, tag = "3")]
    pub(crate) early_exit: bool,
    #[prost(int32, tag = "5")]
    pub(crate) limit: i32,
}

pub(crate) const STARTED: i32 = 0;
pub(crate) const COMPLETE: i32 = 1;
pub(crate) const DELETED: i32 = 2;

/// `BuildHistoryEvent`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HistoryEvent {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) record: Option<HistoryRecord>,
}

/// `BuildHistoryRecord`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HistoryRecord {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) frontend_attrs: HashMap<String, String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) exporters: Vec<Exporter>,
    #[prost(message, optional, tag = "5")]
    pub(crate) error: Option<RpcStatus>,
    #[prost(message, optional, tag = "6")]
    pub(crate) created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) completed_at: Option<Timestamp>,
    #[prost(map = "string, string", tag = "9")]
    pub(crate) exporter_response: HashMap<String, String>,
    #[prost(message, optional, tag = "10")]
    pub(crate) result: Option<ResultInfo>,
    /// By platform, where there are several.
    #[prost(map = "string, message", tag = "11")]
    pub(crate) results: HashMap<String, ResultInfo>,
    #[prost(int32, tag = "12")]
    pub(crate) generation: i32,
    #[prost(bool, tag = "14")]
    pub(crate) pinned: bool,
    #[prost(int32, tag = "15")]
    pub(crate) cached_steps: i32,
    #[prost(int32, tag = "16")]
    pub(crate) total_steps: i32,
    #[prost(int32, tag = "17")]
    pub(crate) completed_steps: i32,
    /// The whole error, a [`RpcStatus`].
    #[prost(message, optional, tag = "18")]
    pub(crate) external_error: Option<Descriptor>,
    #[prost(int32, tag = "19")]
    pub(crate) warnings: i32,
}

/// `BuildResultInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResultInfo {
    #[prost(message, repeated, tag = "2")]
    pub(crate) attestations: Vec<Descriptor>,
}

/// `Descriptor`, of something that clients read by the service of contents.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(crate) media_type: String,
    #[prost(string, tag = "2")]
    pub(crate) digest: String,
    #[prost(int64, tag = "3")]
    pub(crate) size: i64,
    #[prost(map = "string, string", tag = "5")]
    pub(crate) annotations: HashMap<String, String>,
}

/// `UpdateBuildHistoryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct UpdateHistoryRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(bool, tag = "2")]
    pub(crate) pinned: bool,
    #[prost(bool, tag = "3")]
    pub(crate) delete: bool,
}
