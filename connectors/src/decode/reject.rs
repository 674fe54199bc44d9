//! Why a message is refused: every stable code, in one place.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)*) => {
        /// The stable code of a refusal: in the `sluice.reason` header of a dead letter, in metrics and over HTTP.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RejectCode { $($(#[doc = $doc])+ $name,)* }

        impl RejectCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

codes! {
    /// The message has no key.
    KeyMissing = "key_missing",
    /// The key has no bytes.
    KeyEmpty = "key_empty",
    /// The key has more than 512 bytes.
    KeyTooLong = "key_too_long",
    /// The key is not UTF-8.
    KeyNotUtf8 = "key_not_utf8",
    /// The record's `id` is not the message key.
    IdMismatch = "id_mismatch",
    /// A record that must carry its `id` has none.
    IdMissing = "id_missing",
    /// The value has no bytes; a delete has no value at all.
    EmptyValue = "empty_value",
    /// The value is the text `null`; a delete has no value at all.
    NullText = "null_text",
    /// The message is larger than the limit.
    TooLarge = "too_large",
    /// The metadata is larger than the limit.
    MetadataTooLarge = "metadata_too_large",
    /// The `content-type` header names a format that is not read.
    ContentType = "content_type",
    /// The value looks neither like JSON nor like protobuf.
    Format = "format",
    /// The value is not UTF-8.
    NotUtf8 = "not_utf8",
    /// The value is not well-formed JSON, or not an object.
    NotJson = "not_json",
    /// The value is not well-formed protobuf.
    NotProtobuf = "not_protobuf",
    /// The protobuf record's schema version is absent or not one that is read.
    SchemaVersion = "schema_version",
    /// A field that the format does not have.
    UnknownField = "unknown_field",
    /// A field that stands twice.
    DuplicateField = "duplicate_field",
    /// A field of the wrong type.
    FieldType = "field_type",
    /// There is no vector.
    VectorMissing = "vector_missing",
    /// The vector's length is not the index's dimension.
    Dimension = "dimension",
    /// A component of the vector is not a finite 32-bit number.
    NotFinite = "not_finite",
    /// The vector's squared length is not a finite number.
    VectorTooLarge = "vector_too_large",
    /// The vector has length zero, which cosine cannot compare.
    ZeroLength = "zero_length",
    /// The metadata is not a sane JSON object.
    Metadata = "metadata",
    /// A declared field of the metadata has another type.
    MetadataField = "metadata_field",
    /// A batch holds more records than are taken at once.
    TooManyRecords = "too_many_records",
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: its code, and a sentence for whoever wrote the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Reject {
    pub code: RejectCode,
    pub detail: String,
}

/// Longest detail, in bytes: it may quote a hostile message.
const MAX_DETAIL: usize = 300;

impl Reject {
    pub(crate) fn new(code: RejectCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL {
            let end = (0..=MAX_DETAIL).rev().find(|i| detail.is_char_boundary(*i)).unwrap_or(0);
            detail.truncate(end);
        }
        Self { code, detail }
    }
}
