//! The manifest's body in protobuf, version 1. Fields are only ever added; a number is never used twice.

use std::collections::BTreeSet;
use std::fmt::Display;

use prost::Message;
use roaring::RoaringBitmap;
use sluice_core::spec::MAX_PARTITIONS;
use sluice_core::{Epoch, ManifestSeq, Offset, PartitionRef, SegmentId, Timestamp};
use ulid::Ulid;

use super::{MAX_SEGMENTS, Manifest, ManifestError, Reason, SegmentEntry};
use crate::protocol::MAX_SEQ;

#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(string, tag = "1")]
    index: String,
    #[prost(uint32, tag = "2")]
    generation: u32,
    #[prost(uint32, tag = "3")]
    partition: u32,
    #[prost(uint64, tag = "4")]
    seq: u64,
    #[prost(uint64, tag = "5")]
    epoch: u64,
    #[prost(uint32, tag = "6")]
    partitions: u32,
    #[prost(uint64, tag = "7")]
    start: u64,
    #[prost(uint64, tag = "8")]
    next_offset: u64,
    #[prost(message, repeated, tag = "9")]
    segments: Vec<Segment>,
    #[prost(message, optional, tag = "10")]
    watermark: Option<Id>,
    #[prost(sint64, tag = "11")]
    created_at: i64,
    #[prost(bytes = "vec", tag = "12")]
    put_id: Vec<u8>,
    /// 1 claim, 2 publish, 3 close
    #[prost(uint32, tag = "13")]
    reason: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    /// 16 bytes, big endian
    #[prost(bytes = "vec", tag = "2")]
    ulid: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Segment {
    #[prost(message, optional, tag = "1")]
    id: Option<Id>,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    /// BLAKE3, 32 bytes
    #[prost(bytes = "vec", tag = "3")]
    digest: Vec<u8>,
    #[prost(uint32, tag = "4")]
    records: u32,
    /// Roaring's portable format; empty for none
    #[prost(bytes = "vec", tag = "5")]
    deleted: Vec<u8>,
}

pub(super) fn write(manifest: &Manifest) -> Vec<u8> {
    let segments = manifest.segments.iter().map(|entry| Segment {
        id: Some(write_id(entry.id)),
        bytes: entry.bytes,
        digest: entry.digest.as_bytes().to_vec(),
        records: entry.records,
        deleted: write_bitmap(&entry.deleted),
    });
    let body = Body {
        index: manifest.partition.index.to_string(),
        generation: manifest.partition.generation.0,
        partition: manifest.partition.partition.0,
        seq: manifest.seq.0,
        epoch: manifest.epoch.0,
        partitions: manifest.partitions,
        start: manifest.start.0,
        next_offset: manifest.next_offset.0,
        segments: segments.collect(),
        watermark: Some(write_id(manifest.watermark)),
        created_at: manifest.created_at.0,
        put_id: manifest.put_id.to_bytes().to_vec(),
        reason: match manifest.reason {
            Reason::Claim => 1,
            Reason::Publish => 2,
            Reason::Close => 3,
        },
    };
    body.encode_to_vec()
}

pub(super) fn read(
    body: &[u8],
    partition: &PartitionRef,
    seq: ManifestSeq,
) -> Result<Manifest, ManifestError> {
    let body = Body::decode(body).map_err(|e| ManifestError::Body(e.to_string()))?;
    same("index", &body.index.as_str(), &partition.index.as_str())?;
    same("generation", &body.generation, &partition.generation.0)?;
    same("partition", &body.partition, &partition.partition.0)?;
    same("seq", &body.seq, &seq.0)?;
    if seq == ManifestSeq::NONE || seq > MAX_SEQ {
        return Err(field("seq", format!("{seq} is no manifest number")));
    }
    if body.epoch == 0 {
        return Err(field("epoch", "0 is no epoch"));
    }
    if !(1..=MAX_PARTITIONS).contains(&body.partitions) || body.partition >= body.partitions {
        return Err(field("partitions", format!("{} with partition {}", body.partitions, body.partition)));
    }
    if body.start > body.next_offset {
        return Err(field("start", format!("{} is after next_offset {}", body.start, body.next_offset)));
    }
    let watermark = read_id(body.watermark.as_ref(), "watermark")?;
    if watermark.epoch.0 != body.epoch {
        return Err(field("watermark", format!("is of epoch {}, not {}", watermark.epoch, body.epoch)));
    }
    let reason = match body.reason {
        1 => Reason::Claim,
        2 => Reason::Publish,
        3 => Reason::Close,
        other => return Err(field("reason", format!("{other} is none of 1, 2, 3"))),
    };
    let put_id: [u8; 16] = array(&body.put_id).ok_or_else(|| field("put_id", "is not 16 bytes"))?;
    Ok(Manifest {
        partition: partition.clone(),
        seq,
        epoch: Epoch(body.epoch),
        partitions: body.partitions,
        start: Offset(body.start),
        next_offset: Offset(body.next_offset),
        segments: read_segments(&body.segments, watermark)?,
        watermark,
        created_at: Timestamp(body.created_at),
        put_id: Ulid::from_bytes(put_id),
        reason,
    })
}

fn read_segments(segments: &[Segment], watermark: SegmentId) -> Result<Vec<SegmentEntry>, ManifestError> {
    if segments.len() > MAX_SEGMENTS {
        return Err(field("segments", format!("{} of them, at most {MAX_SEGMENTS}", segments.len())));
    }
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(segments.len());
    for segment in segments {
        let id = read_id(segment.id.as_ref(), "segment id")?;
        if !seen.insert(id) {
            return Err(field("segment id", format!("{id} is listed twice")));
        }
        if id > watermark {
            return Err(field("segment id", format!("{id} is above the watermark {watermark}")));
        }
        if segment.records == 0 || segment.bytes == 0 {
            return Err(field("segment", format!("{id} is empty")));
        }
        let digest: [u8; 32] =
            array(&segment.digest).ok_or_else(|| field("segment digest", "is not 32 bytes"))?;
        let deleted = read_bitmap(&segment.deleted, segment.records)
            .map_err(|message| field("deleted rows", format!("of {id}: {message}")))?;
        let (bytes, records) = (segment.bytes, segment.records);
        entries.push(SegmentEntry { id, bytes, digest: digest.into(), records, deleted });
    }
    Ok(entries)
}

fn write_id(id: SegmentId) -> Id {
    Id { epoch: id.epoch.0, ulid: id.ulid.to_bytes().to_vec() }
}

fn read_id(id: Option<&Id>, name: &'static str) -> Result<SegmentId, ManifestError> {
    let id = id.ok_or_else(|| field(name, "is missing"))?;
    let ulid: [u8; 16] = array(&id.ulid).ok_or_else(|| field(name, "is not 16 bytes"))?;
    if id.epoch == 0 {
        return Err(field(name, "0 is no epoch"));
    }
    Ok(SegmentId { epoch: Epoch(id.epoch), ulid: Ulid::from_bytes(ulid) })
}

fn write_bitmap(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !bitmap.is_empty() {
        bytes.reserve(bitmap.serialized_size());
        // writing to memory does not fail
        bitmap.serialize_into(&mut bytes).unwrap_or_default();
    }
    bytes
}

/// Reads a bitmap over `records` rows. A run of a few bytes unfolds to 8 KiB, so the number of containers is checked
/// against the rows there are before anything is unfolded.
fn read_bitmap(bytes: &[u8], records: u32) -> Result<RoaringBitmap, String> {
    const NO_RUNS: u32 = 12_346;
    const RUNS: u32 = 12_347;
    if bytes.is_empty() {
        return Ok(RoaringBitmap::new());
    }
    let word = |at: usize| array(bytes.get(at..at + 4)?).map(u32::from_le_bytes);
    let containers = match word(0) {
        Some(NO_RUNS) => word(4).ok_or("is cut short")?,
        Some(cookie) if cookie & 0xffff == RUNS => (cookie >> 16) + 1,
        _ => return Err("is no bitmap".into()),
    };
    if containers == 0 || containers > (records - 1) / 65_536 + 1 {
        return Err(format!("{containers} containers for {records} rows"));
    }
    let mut rest = bytes;
    let bitmap = RoaringBitmap::deserialize_from(&mut rest).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes too many", rest.len()));
    }
    match bitmap.max() {
        Some(row) if row < records => Ok(bitmap),
        Some(row) => Err(format!("row {row} of {records}")),
        None => Err("is empty but not left out".into()),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn same<T: PartialEq + Display>(name: &'static str, found: &T, expected: &T) -> Result<(), ManifestError> {
    if found == expected {
        return Ok(());
    }
    let found = found.to_string().chars().take(80).collect();
    Err(ManifestError::Foreign { field: name, found, expected: expected.to_string() })
}

fn field(field: &'static str, message: impl Into<String>) -> ManifestError {
    ManifestError::Field { field, message: message.into() }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
