//! From the bytes of a message to a validated record, or to the reason why not.
//!
//! # Contract
//! - Arbitrary bytes give a record or a [`Reject`]; never a panic, and no allocation beyond a small multiple of
//!   the input.
//! - The `content-type` header decides the format, else the index's `format`, else the first byte: an encoded
//!   protobuf record begins with 0x08, a JSON object with `{` or white space.
//! - A message without a value deletes its key, whatever its headers say.
//! - Nothing is skipped: an unknown or repeated field is refused, so that a misspelt one is not lost in silence.
//! - The vector is copied once, from the message into the record.

mod json;
mod limits;
mod protobuf;
mod reject;

use std::borrow::Cow;
use std::sync::Arc;

use sluice_core::{
    Document, Format, IdError, Key, Metadata, MetadataError, Offset, Op, Record, Schema, Timestamp,
    VectorError,
};

pub use limits::DecodeLimits;
pub use protobuf::split_batch;
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

/// The parts of a value, read but not yet validated against the index.
#[derive(Debug, Default)]
struct Parts<'a> {
    id: Option<Cow<'a, str>>,
    vector: Option<Vec<f32>>,
    metadata: Option<&'a str>,
}

impl Decoder {
    /// Decodes one message of the log.
    ///
    /// # Errors
    /// Why the message is refused.
    pub fn decode(&self, message: RawMessage<'_>) -> Result<Record, Reject> {
        let key = message.key.ok_or_else(|| Reject::new(RejectCode::KeyMissing, "the message has no key"))?;
        let key = Key::from_bytes(key).map_err(key_error)?;
        let (offset, timestamp) = (message.offset, message.timestamp);
        let Some(value) = message.value else {
            return Ok(Record { key, offset, timestamp, op: Op::Delete });
        };
        self.check_value(value)?;
        let content = match content_type(message.headers)? {
            Some(content) => content,
            None => self.content_of(value)?,
        };
        let parts = self.parts(content, value)?;
        if let Some(id) = &parts.id
            && id.as_ref() != key.as_str()
        {
            return Err(Reject::new(RejectCode::IdMismatch, "the id of the record is not the message key"));
        }
        Ok(Record { key, offset, timestamp, op: Op::Upsert(self.document(parts)?) })
    }

    /// Decodes a value that stands without a message: its `id` is the key. The record has offset and timestamp
    /// zero. What is accepted here is accepted by [`Decoder::decode`] under that key.
    ///
    /// # Errors
    /// Why the value is refused.
    pub fn decode_identified(&self, content: ContentType, value: &[u8]) -> Result<Record, Reject> {
        self.check_value(value)?;
        let parts = self.parts(content, value)?;
        let id = parts.id.as_ref().ok_or_else(|| Reject::new(RejectCode::IdMissing, "there is no id"))?;
        let key = Key::new(id).map_err(key_error)?;
        let op = Op::Upsert(self.document(parts)?);
        Ok(Record { key, offset: Offset::default(), timestamp: Timestamp::default(), op })
    }

    fn check_value(&self, value: &[u8]) -> Result<(), Reject> {
        let max = self.limits.max_message_bytes;
        if value.len() > max {
            let detail = format!("the value has {} bytes, at most {max} are allowed", value.len());
            return Err(Reject::new(RejectCode::TooLarge, detail));
        }
        if value.is_empty() {
            let detail = "the value is empty; a message without a value (null) deletes its key";
            return Err(Reject::new(RejectCode::EmptyValue, detail));
        }
        if value.trim_ascii() == b"null" {
            let detail = "the value is the text null; a message without a value deletes its key";
            return Err(Reject::new(RejectCode::NullText, detail));
        }
        Ok(())
    }

    fn content_of(&self, value: &[u8]) -> Result<ContentType, Reject> {
        match (self.format, value) {
            (Format::Json, _) => Ok(ContentType::Json),
            (Format::Protobuf, _) => Ok(ContentType::Protobuf),
            (Format::Debezium, _) => {
                Err(Reject::new(RejectCode::Format, "debezium is not read by this version"))
            }
            (Format::Auto, [0x08, ..]) => Ok(ContentType::Protobuf),
            (Format::Auto, [b'{' | b' ' | b'\t' | b'\r' | b'\n', ..] | [0xef, 0xbb, 0xbf, ..]) => {
                Ok(ContentType::Json)
            }
            (Format::Auto, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]) => {
                Err(Reject::new(RejectCode::Format, "the value is compressed"))
            }
            (Format::Auto, _) => {
                let detail = "the value is neither a JSON object nor a sluice.v1.EmbeddingRecord";
                Err(Reject::new(RejectCode::Format, detail))
            }
        }
    }

    fn parts<'a>(&self, content: ContentType, value: &'a [u8]) -> Result<Parts<'a>, Reject> {
        let dimension = self.schema.dimension.get();
        match content {
            ContentType::Json => json::parse(value, dimension),
            ContentType::Protobuf => protobuf::parse(value, dimension),
        }
    }

    fn document(&self, parts: Parts<'_>) -> Result<Document, Reject> {
        let schema = &self.schema;
        let vector =
            parts.vector.ok_or_else(|| Reject::new(RejectCode::VectorMissing, "there is no vector"))?;
        let vector = schema.vector(vector).map_err(vector_error)?;
        let metadata = match parts.metadata {
            Some(text) => Metadata::parse(text, self.limits.max_metadata_bytes).map_err(metadata_error)?,
            None => Metadata::empty(),
        };
        let fields = schema
            .field_values(&metadata)
            .map_err(|e| Reject::new(RejectCode::MetadataField, e.to_string()))?;
        Ok(Document { vector, metadata, fields })
    }
}

/// The format that the last `content-type` header names; `None` when there is none, or none that says anything.
fn content_type(headers: &[Header<'_>]) -> Result<Option<ContentType>, Reject> {
    let named = headers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let Some((_, Some(value))) = named else { return Ok(None) };
    let media = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match media.as_slice() {
        b"" | b"application/octet-stream" => Ok(None),
        b"application/json" | b"text/json" => Ok(Some(ContentType::Json)),
        b"application/x-protobuf" | b"application/protobuf" | b"application/vnd.google.protobuf" => {
            Ok(Some(ContentType::Protobuf))
        }
        other => {
            let other: String = String::from_utf8_lossy(other).chars().take(80).collect();
            let detail =
                format!("content-type {other:?} is not read; use application/json or application/x-protobuf");
            Err(Reject::new(RejectCode::ContentType, detail))
        }
    }
}

fn key_error(error: IdError) -> Reject {
    let code = match error {
        IdError::KeyEmpty => RejectCode::KeyEmpty,
        IdError::KeyNotUtf8 => RejectCode::KeyNotUtf8,
        _ => RejectCode::KeyTooLong,
    };
    Reject::new(code, error.to_string())
}

fn vector_error(error: VectorError) -> Reject {
    let code = match error {
        VectorError::NotFinite { .. } => RejectCode::NotFinite,
        VectorError::TooLarge | VectorError::BeyondF16 { .. } => RejectCode::VectorTooLarge,
        VectorError::ZeroLength => RejectCode::ZeroLength,
        VectorError::Dimension { .. } | VectorError::DimensionRange(_) => RejectCode::Dimension,
    };
    Reject::new(code, error.to_string())
}

fn metadata_error(error: MetadataError) -> Reject {
    let code = match error {
        MetadataError::TooLarge { .. } => RejectCode::MetadataTooLarge,
        MetadataError::Malformed(_) => RejectCode::Metadata,
    };
    Reject::new(code, error.to_string())
}

/// The refusal of a vector of `got` components; made before they are kept.
fn wrong_dimension(expected: usize, got: usize) -> Reject {
    vector_error(VectorError::Dimension { expected, got })
}

#[cfg(test)]
mod tests;
