//! Rows: what every reader yields, and the one way from a row to a validated message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_connectors::decode::ContentType;
use sluice_connectors::{Decoder, Outgoing, encode};
use sluice_core::{Key, Metadata, Op};

use super::LoadError;

/// How far a file was read: rows, and bytes where the format can go on from a byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub rows: u64,
    pub bytes: u64,
}

/// How much there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    Rows(u64),
    Bytes(u64),
    Unknown,
}

/// One row; `end.rows` is its number, from 1.
#[derive(Debug)]
pub struct Row {
    pub end: Position,
    /// The message, or why the row is refused.
    pub message: Result<Outgoing, String>,
}

impl Row {
    /// Bytes that the row holds.
    pub fn bytes(&self) -> usize {
        match &self.message {
            Ok(m) => m.key.as_ref().map_or(0, Vec::len) + m.value.as_ref().map_or(0, Vec::len) + 64,
            Err(text) => text.len(),
        }
    }
}

/// Yields the rows of a file, in order.
pub trait Rows: Send {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    fn next(&mut self) -> Result<Option<Row>, LoadError>;

    fn total(&self) -> Total;
}

/// Validates rows as the decoder of the index's log will, and encodes them.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    decoder: Decoder,
}

/// `{"id": .., "deleted": true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deletion {
    id: String,
    deleted: bool,
}

impl RowEncoder {
    pub fn new(decoder: Decoder) -> Self {
        Self { decoder }
    }

    /// Longest row worth reading: text takes several times the bytes of what it stands for.
    pub fn max_line_bytes(&self) -> usize {
        self.decoder.limits.max_message_bytes.saturating_mul(4).max(64 << 10)
    }

    /// Encodes a line of JSON in the form of a message, or a deletion.
    pub fn json(&self, line: &[u8]) -> Result<Outgoing, String> {
        let object = line.trim_ascii_start().starts_with(b"{");
        if object && line.len() < 4096 && line.windows(9).any(|w| w == b"\"deleted\"") {
            let deletion: Deletion = serde_json::from_slice(line).map_err(|e| plain(&e))?;
            if !deletion.deleted {
                return Err("\"deleted\" may only be true".into());
            }
            return Ok(encode::delete(&Key::new(&deletion.id).map_err(|e| e.to_string())?));
        }
        let record = self.decoder.decode_identified(ContentType::Json, line).map_err(|e| e.to_string())?;
        match &record.op {
            Op::Upsert(d) => self.fitting(encode::upsert(&record.key, d.vector.as_slice(), &d.metadata)),
            Op::Delete => Ok(encode::delete(&record.key)),
        }
    }

    /// Encodes a line of JSON whose keys other than id and vector are the metadata.
    pub fn flat_json(&self, line: &[u8]) -> Result<Outgoing, String> {
        let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
        let mut fields = object(text)?;
        let vector = fields.remove("vector").ok_or("there is no \"vector\"")?;
        let vector: Vec<f32> =
            serde_json::from_str(vector.get()).map_err(|e| format!("vector: {}", plain(&e)))?;
        let (id, metadata) = id_and_metadata(fields)?;
        self.row(&id, vector, &metadata)
    }

    /// Encodes a row of a table.
    pub fn row(&self, id: &str, vector: Vec<f32>, metadata: &str) -> Result<Outgoing, String> {
        let schema = &self.decoder.schema;
        let key = Key::new(id).map_err(|e| e.to_string())?;
        let vector = schema.vector(vector).map_err(|e| e.to_string())?;
        let metadata =
            Metadata::parse(metadata, self.decoder.limits.max_metadata_bytes).map_err(|e| e.to_string())?;
        schema.field_values(&metadata).map_err(|e| e.to_string())?;
        self.fitting(encode::upsert(&key, vector.as_slice(), &metadata))
    }

    fn fitting(&self, message: Outgoing) -> Result<Outgoing, String> {
        let (bytes, max) =
            (message.value.as_ref().map_or(0, Vec::len), self.decoder.limits.max_message_bytes);
        if bytes > max {
            Err(format!("the message has {bytes} bytes, at most {max} are allowed"))
        } else {
            Ok(message)
        }
    }
}

/// An error of serde_json without its position, which is always line 1 here.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// The fields of a JSON object, in which no key stands twice.
fn object(text: &str) -> Result<BTreeMap<String, Box<RawValue>>, String> {
    // the strict reader refuses repeated keys and deep nesting
    Metadata::parse(text, usize::MAX).map_err(|e| e.to_string().replace("metadata is", "the line is"))?;
    serde_json::from_str(text).map_err(|e| plain(&e))
}

/// A line that describes a row of a matrix: `id`, and `metadata` or whatever else there is.
pub(super) fn describing_line(line: &[u8]) -> Result<(String, String), String> {
    id_and_metadata(object(std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?)?)
}

fn id_and_metadata(mut fields: BTreeMap<String, Box<RawValue>>) -> Result<(String, String), String> {
    let id = fields.remove("id").ok_or("there is no \"id\"")?;
    let id = match serde_json::from_str(id.get()) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Number(n)) if n.is_i64() || n.is_u64() => n.to_string(),
        _ => return Err("\"id\" is neither text nor a whole number".into()),
    };
    if fields.len() == 1
        && let Some(metadata) = fields.get("metadata").filter(|m| m.get().starts_with('{'))
    {
        return Ok((id, metadata.get().to_owned()));
    }
    Ok((id, serde_json::to_string(&fields).map_err(|e| plain(&e))?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use sluice_connectors::DecodeLimits;
    use sluice_core::IndexSpec;

    use super::*;

    pub(in crate::load) fn encoder(dimension: u32) -> RowEncoder {
        let text = format!("name = 'a'\ndimension = {dimension}\nfields = {{ section = 'keyword' }}");
        let spec: IndexSpec = toml::from_str(&text).unwrap();
        let limits = DecodeLimits { max_message_bytes: 10_000, max_metadata_bytes: 1000 };
        RowEncoder::new(Decoder { format: spec.format, schema: Arc::new(spec.schema()), limits })
    }

    #[test]
    fn a_line_is_a_message_or_a_deletion() {
        let encoder = encoder(2);
        let upsert = encoder.json(br#"{"id":"a","vector":[1,2],"metadata":{"section":"web"}}"#).unwrap();
        assert_eq!(upsert.key.as_deref(), Some(&b"a"[..]));
        assert!(upsert.value.is_some());
        let delete = encoder.json(br#"{"id":"a","deleted":true}"#).unwrap();
        assert_eq!((delete.key.as_deref(), delete.value), (Some(&b"a"[..]), None));
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        let encoder = encoder(2);
        for (line, part) in [
            (r#"{"id":"a","vector":[1,2,3]}"#, "3 components, the index has dimension 2"),
            (r#"{"id":"","vector":[1,2]}"#, "key"),
            (r#"{"vector":[1,2]}"#, "id"),
            (r#"{"id":"a","deleted":false}"#, "only be true"),
            (r#"{"id":"a","deleted":true,"vector":[1,2]}"#, "vector"),
            (r#"{"id":"a","vector":[1,2],"metadata":{"section":7}}"#, "section"),
            (r#"["deleted",true]"#, "not a JSON object"),
            ("nonsense", ""),
        ] {
            let error = encoder.json(line.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn flat_lines_take_the_rest_as_metadata() {
        let encoder = encoder(2);
        assert!(encoder.flat_json(br#"{"id":7,"vector":[1,2],"section":"web","n":1.50}"#).is_ok());
        assert!(
            encoder.flat_json(br#"{"id":"a","vector":[1,2],"section":1}"#).unwrap_err().contains("section")
        );
        assert!(encoder.flat_json(br#"{"id":"a","id":"b","vector":[1,2]}"#).unwrap_err().contains("twice"));
        assert!(encoder.flat_json(br#"{"id":"a","vector":[1,null]}"#).is_err());
    }

    #[test]
    fn a_describing_line_gives_id_and_metadata_with_numbers_as_written() {
        let read = |line: &str| describing_line(line.as_bytes()).unwrap();
        assert_eq!(
            read(r#"{"id":"a","section":"web","x":1.50}"#),
            ("a".into(), r#"{"section":"web","x":1.50}"#.into())
        );
        assert_eq!(read(r#"{"id":3,"metadata":{"y":1}}"#), ("3".into(), r#"{"y":1}"#.into()));
        assert_eq!(read(r#"{"id":"a"}"#), ("a".into(), "{}".into()));
        assert!(describing_line(br#"{"id":1.5}"#).is_err());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused() {
        let encoder = encoder(3000);
        assert!(encoder.row("a", vec![1.0; 3000], "{}").unwrap_err().contains("at most 10000"));
    }
}
