//! Package `pb`: the language of graphs. Only sources are understood of it.

use std::collections::HashMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) def: Vec<Vec<u8>>,
    /// Of each operation, by its digest. Clients take a graph without any for none.
    #[prost(map = "string, message", tag = "2")]
    pub(crate) metadata: HashMap<String, super::Empty>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Op {
    #[prost(message, repeated, tag = "1")]
    pub(crate) inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    pub(crate) source: Option<SourceOp>,
    #[prost(message, optional, tag = "10")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Input {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(int64, tag = "2")]
    pub(crate) index: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SourceOp {
    #[prost(string, tag = "1")]
    pub(crate) identifier: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) attrs: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Platform {
    #[prost(string, tag = "1")]
    pub(crate) architecture: String,
    #[prost(string, tag = "2")]
    pub(crate) os: String,
    #[prost(string, tag = "3")]
    pub(crate) variant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SourceInfo {
    #[prost(string, tag = "1")]
    pub(crate) filename: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) data: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) language: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(message, optional, tag = "1")]
    pub(crate) start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub(crate) end: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Position {
    #[prost(int32, tag = "1")]
    pub(crate) line: i32,
    #[prost(int32, tag = "2")]
    pub(crate) character: i32,
}
