//! The manifest: the immutable list of a partition's segments, and where its log was read to.

use roaring::RoaringBitmap;
use sluice_core::{Epoch, ManifestSeq, Offset, PartitionRef, SegmentId, Timestamp};
use thiserror::Error;
use ulid::Ulid;

/// Why a manifest was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A new owner took the partition; the content is its predecessor's.
    Claim,
    /// Records became visible, or segments were merged.
    Publish,
    /// The generation was retired: no manifest follows.
    Close,
}

/// One segment of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentEntry {
    pub id: SegmentId,
    pub bytes: u64,
    pub digest: blake3::Hash,
    pub records: u32,
    /// Rows that are overwritten or deleted.
    pub deleted: RoaringBitmap,
}

/// A manifest: immutable, complete, the only commit point.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub partition: PartitionRef,
    pub seq: ManifestSeq,
    pub epoch: Epoch,
    /// Partitions of the topic when this was written (KEY-1).
    pub partitions: u32,
    /// Next offset of the manifest before (FOLD-2).
    pub start: Offset,
    /// First offset not in this snapshot.
    pub next_offset: Offset,
    pub segments: Vec<SegmentEntry>,
    /// Largest segment id that this chain ever published or fenced off.
    pub watermark: SegmentId,
    pub created_at: Timestamp,
    /// Tells my create from another's (FENCE-4).
    pub put_id: Ulid,
    pub reason: Reason,
}

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("{0}")]
    Invalid(String),
}
