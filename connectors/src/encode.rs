//! From a record to the bytes of a message: what our own producers write.

use prost::Message;
use sluice_core::{Key, Metadata};

use crate::proto::EmbeddingRecord;
use crate::source::Outgoing;

/// The version that every encoded protobuf record carries.
pub const SCHEMA_VERSION: u32 = 1;
/// The header that names the format of a value.
pub const CONTENT_TYPE: &str = "content-type";
pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/x-protobuf";

/// A JSON value: `{"vector":[..],"metadata":{..}}`. Components must be finite.
pub fn json(vector: &[f32], metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::with_capacity(vector.len() * 12 + metadata.as_str().len() + 32);
    out.extend_from_slice(b"{\"vector\":");
    // writing numbers to memory cannot fail
    serde_json::to_writer(&mut out, vector).unwrap_or_default();
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(metadata.as_str().as_bytes());
    out.push(b'}');
    out
}

/// A protobuf value, the vector as packed floats.
pub fn protobuf(vector: &[f32], metadata: &Metadata) -> Vec<u8> {
    let record = EmbeddingRecord {
        schema_version: SCHEMA_VERSION,
        vector: vector.to_vec(),
        metadata: Some(metadata.as_str().as_bytes().to_vec()),
        ..EmbeddingRecord::default()
    };
    record.encode_to_vec()
}

/// The message that upserts `key`, as protobuf.
pub fn upsert(key: &Key, vector: &[f32], metadata: &Metadata) -> Outgoing {
    message(key, Some(protobuf(vector, metadata)), PROTOBUF)
}

/// The message that upserts `key`, as JSON.
pub fn upsert_json(key: &Key, vector: &[f32], metadata: &Metadata) -> Outgoing {
    message(key, Some(json(vector, metadata)), JSON)
}

/// The message that deletes `key`.
pub fn delete(key: &Key) -> Outgoing {
    Outgoing { key: Some(key.as_str().into()), ..Outgoing::default() }
}

/// A message with an already encoded value.
pub fn message(key: &Key, value: Option<Vec<u8>>, content_type: &str) -> Outgoing {
    Outgoing {
        key: Some(key.as_str().into()),
        value,
        headers: vec![(CONTENT_TYPE.to_owned(), content_type.into())],
        partition: None,
    }
}
