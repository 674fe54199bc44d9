//! From the bytes of a message to a validated record, or to the reason why not.
//!
//! # Contract
//! - Arbitrary bytes give a record or a [`Reject`]; never a panic, and no allocation beyond a small multiple of
//!   the input.
//! - The `content-type` header decides the format, else the index's `format`, else the first byte: an encoded
//!   protobuf record begins with 0x08, a JSON object with `{` or white space.
//! - A message without a value deletes its key, whatever its headers say.
//! - The vector is copied once, from the message into the record.

mod limits;
mod reject;

use std::sync::Arc;

use sluice_core::{Format, Offset, Record, Schema, Timestamp};

pub use limits::DecodeLimits;
pub use reject::{Reject, RejectCode};

/// A message header; its value may be absent.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A message as it lies in the log.
#[derive(Debug, Clone, Copy)]
pub struct RawMessage<'a> {
    pub key: Option<&'a [u8]>,
    /// `None` deletes the key.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header<'a>],
    pub offset: Offset,
    pub timestamp: Timestamp,
}

/// The format of a value, once it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Protobuf,
}

/// Turns messages into the records of one index.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub format: Format,
    pub schema: Arc<Schema>,
    pub limits: DecodeLimits,
}

impl Decoder {
    /// Decodes one message of the log.
    ///
    /// # Errors
    /// Why the message is refused.
    pub fn decode(&self, message: RawMessage<'_>) -> Result<Record, Reject> {
        let _ = message;
        Err(Reject::new(RejectCode::Format, "not implemented"))
    }

    /// Decodes a value that stands without a message: its `id` is the key. The record has offset and timestamp
    /// zero. What is accepted here is accepted by [`Decoder::decode`] under that key.
    ///
    /// # Errors
    /// Why the value is refused.
    pub fn decode_identified(&self, content: ContentType, value: &[u8]) -> Result<Record, Reject> {
        let _ = (content, value);
        Err(Reject::new(RejectCode::Format, "not implemented"))
    }
}

/// Splits an encoded `EmbeddingBatch` into the bytes of its records, which may be produced as they are.
///
/// # Errors
/// When `body` is no batch, or holds more than `max_records`.
pub fn split_batch(body: &[u8], max_records: usize) -> Result<Vec<&[u8]>, Reject> {
    let _ = (body, max_records);
    Err(Reject::new(RejectCode::Format, "not implemented"))
}
