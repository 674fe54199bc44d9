//! Protobuf without an intermediate message: the fields of `sluice.v1.EmbeddingRecord` are read where they lie,
//! lengths are checked against the dimension before anything is allocated, and the vector is copied once.

use std::borrow::Cow;

use half::f16;

use super::reject::{Reject, RejectCode};
use super::{Parts, wrong_dimension};
use crate::encode::SCHEMA_VERSION;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// Reads one encoded `EmbeddingRecord`.
pub(super) fn parse(value: &[u8], dimension: usize) -> Result<Parts<'_>, Reject> {
    let mut wire = Wire(value);
    let mut record = Fields { dimension, ..Fields::default() };
    while let Some((field, kind)) = wire.tag()? {
        record.field(field, kind, &mut wire)?;
    }
    check_version(record.version)?;
    if let Some(vector) = &record.parts.vector
        && vector.len() != dimension
    {
        return Err(wrong_dimension(dimension, vector.len()));
    }
    Ok(record.parts)
}

/// Splits an encoded `EmbeddingBatch` into the bytes of its records, which may be produced as they are.
///
/// # Errors
/// When `body` is no batch, or holds more than `max_records`.
pub fn split_batch(body: &[u8], max_records: usize) -> Result<Vec<&[u8]>, Reject> {
    let mut wire = Wire(body);
    let (mut version, mut records) = (None, Vec::new());
    while let Some((field, kind)) = wire.tag()? {
        match (field, kind) {
            (1, VARINT) => set(&mut version, "schema_version", wire.varint()?)?,
            (2, LENGTH) if records.len() == max_records => {
                let detail = format!("the batch holds more than {max_records} records");
                return Err(Reject::new(RejectCode::TooManyRecords, detail));
            }
            (2, LENGTH) => records.push(wire.bytes()?),
            (1 | 2, _) => return Err(wrong_type(field)),
            _ => return Err(unknown_field(field)),
        }
    }
    check_version(version)?;
    Ok(records)
}

/// What was read so far, and in which form the vector came.
#[derive(Default)]
struct Fields<'a> {
    dimension: usize,
    version: Option<u64>,
    form: Option<u32>,
    parts: Parts<'a>,
}

impl<'a> Fields<'a> {
    fn field(&mut self, field: u32, kind: u8, wire: &mut Wire<'a>) -> Result<(), Reject> {
        match (field, kind) {
            (1, VARINT) => set(&mut self.version, "schema_version", wire.varint()?),
            (2, LENGTH) => {
                let id = text(wire.bytes()?, "id")?;
                set(&mut self.parts.id, "id", Cow::Borrowed(id))
            }
            // packed, and possibly in several pieces, or one by one: the protobuf rules allow each
            (3, LENGTH) => self.extend(field, wire.bytes()?, 4),
            (3, FIXED32) => self.extend(field, wire.take(4)?, 4),
            (4 | 5, LENGTH) if self.form == Some(field) => Err(twice("the vector")),
            (4, LENGTH) => self.extend(field, wire.bytes()?, 2),
            (5, LENGTH) => self.extend(field, wire.bytes()?, 4),
            (6, LENGTH) => {
                let metadata = text(wire.bytes()?, "metadata")?;
                set(&mut self.parts.metadata, "metadata", metadata)
            }
            (1..=6, _) => Err(wrong_type(field)),
            _ => Err(unknown_field(field)),
        }
    }

    /// Appends components of `width` bytes each.
    fn extend(&mut self, form: u32, bytes: &[u8], width: usize) -> Result<(), Reject> {
        if self.form.replace(form).is_some_and(|before| before != form) {
            return Err(Reject::new(RejectCode::DuplicateField, "the vector stands in two forms"));
        }
        if !bytes.len().is_multiple_of(width) {
            let detail = format!("the vector's {} bytes are no multiple of {width}", bytes.len());
            return Err(Reject::new(RejectCode::NotProtobuf, detail));
        }
        let had = self.parts.vector.as_ref().map_or(0, Vec::len);
        let got = had + bytes.len() / width;
        if got > self.dimension {
            return Err(wrong_dimension(self.dimension, got));
        }
        let vector = self.parts.vector.get_or_insert_with(|| Vec::with_capacity(self.dimension));
        if width == 2 {
            vector.extend(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()));
        } else {
            vector.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok(())
    }
}

fn set<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Reject> {
    if slot.replace(value).is_some() { Err(twice(name)) } else { Ok(()) }
}

fn twice(name: &str) -> Reject {
    Reject::new(RejectCode::DuplicateField, format!("{name} stands twice"))
}

fn text<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str, Reject> {
    std::str::from_utf8(bytes).map_err(|_| Reject::new(RejectCode::NotUtf8, format!("{name} is not UTF-8")))
}

fn wrong_type(field: u32) -> Reject {
    Reject::new(RejectCode::FieldType, format!("field {field} has the wrong wire type"))
}

fn unknown_field(field: u32) -> Reject {
    Reject::new(RejectCode::UnknownField, format!("unknown field {field}"))
}

fn check_version(version: Option<u64>) -> Result<(), Reject> {
    let detail = match version {
        Some(v) if v == u64::from(SCHEMA_VERSION) => return Ok(()),
        Some(v) => format!("schema_version {v} is not read; this version reads {SCHEMA_VERSION}"),
        None => "there is no schema_version".to_owned(),
    };
    Err(Reject::new(RejectCode::SchemaVersion, detail))
}

/// The bytes that are still to be read.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    /// The next field's number and wire type; `None` at the end.
    fn tag(&mut self) -> Result<Option<(u32, u8)>, Reject> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| malformed("a field number is too large"))?;
        let (field, kind) = (tag >> 3, (tag & 7) as u8);
        match kind {
            VARINT | FIXED64 | LENGTH | FIXED32 if field > 0 => Ok(Some((field, kind))),
            _ => Err(malformed("a field has no number or no known wire type")),
        }
    }

    fn varint(&mut self) -> Result<u64, Reject> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number has more than 64 bits"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Reject> {
        let len = self.varint()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Reject> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| malformed("the value is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }
}

fn malformed(detail: &str) -> Reject {
    Reject::new(RejectCode::NotProtobuf, detail)
}
