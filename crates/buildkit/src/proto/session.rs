//! What clients serve: `fsutil.types`, `moby.filesync.v1`, `moby.buildkit.secrets.v1`, `moby.sshforward.v1`.

use std::collections::HashMap;

use prost::Message;

pub(crate) const PACKET_STAT: i32 = 0;
pub(crate) const PACKET_REQ: i32 = 1;
pub(crate) const PACKET_DATA: i32 = 2;
pub(crate) const PACKET_FIN: i32 = 3;
pub(crate) const PACKET_ERR: i32 = 4;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Packet {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) stat: Option<Stat>,
    #[prost(uint32, tag = "3")]
    pub(crate) id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stat {
    /// Any bytes, though the definition says text: names of files are.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    /// As Go's `os.FileMode` has it.
    #[prost(uint32, tag = "2")]
    pub(crate) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) gid: u32,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "6")]
    pub(crate) mod_time: i64,
    /// The target of a symbolic link, or of a file its first name.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) linkname: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(crate) devmajor: i64,
    #[prost(int64, tag = "9")]
    pub(crate) devminor: i64,
    #[prost(map = "string, bytes", tag = "10")]
    pub(crate) xattrs: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialsRequest {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub(crate) username: String,
    #[prost(string, tag = "2")]
    pub(crate) secret: String,
}

/// `GetSecretRequest`, and `CheckAgentRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ById {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}
