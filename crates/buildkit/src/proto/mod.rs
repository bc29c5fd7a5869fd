//! The messages of BuildKit's services, as far as they are read or written here; what a message has beside that is passed over.
//!
//! Sources: moby/buildkit `api/services/control/control.proto`, `frontend/gateway/pb/gateway.proto`, `solver/pb/ops.proto`,
//! `session/*/*.proto`; containerd `api/services/content/v1/content.proto`; tonistiigi/fsutil `types/*.proto`; googleapis `google/rpc/status.proto`.

pub(crate) mod content;
pub(crate) mod control;
pub(crate) mod gateway;
pub(crate) mod history;
pub(crate) mod llb;
pub(crate) mod session;

use prost::Message;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
    }

    pub(crate) fn seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

/// A message without fields, or one of which none matters.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Empty {}

/// `BytesMessage` of several packages: a piece of a stream.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: bytes::Bytes,
}
