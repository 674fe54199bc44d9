//! What a worker needs of object storage, as two traits. They are implemented where the crates are wired together.
//!
//! # Contract of [`Publisher`]
//! - One publisher belongs to one worker; its calls never overlap.
//! - An id of [`Publisher::new_segment_id`] is used by the next publication or not at all, so ids reach the store in
//!   growing order.
//! - [`Publisher::publish`] uploads `upload` first, if there is one, and then creates the next manifest. `Ok` means
//!   that the manifest is durable and is this publisher's.
//! - An error of kind `Unavailable` means that nothing is known to be published; the worker calls again with the
//!   same publication, and what was already uploaded need not be uploaded again. After `Fenced` it never calls again.
//!
//! # Contract of [`SegmentFetch`]
//! - A segment is returned only when its bytes are those that the manifest names (size and digest) and it is whole.
//! - The file behind a returned segment stays readable for as long as the segment is held.

use std::sync::Arc;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use sluice_core::{Offset, SegmentId};
use sluice_segment::{Built, Segment};

use crate::EdgeError;

/// A published segment and which of its rows are dead, as a manifest holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentState {
    pub id: SegmentId,
    pub bytes: u64,
    pub digest: blake3::Hash,
    pub records: u32,
    /// Rows overwritten or deleted by records before the manifest's next offset.
    pub deleted: RoaringBitmap,
}

impl SegmentState {
    /// Rows that are not dead.
    pub fn live(&self) -> u64 {
        u64::from(self.records).saturating_sub(self.deleted.len())
    }
}

/// A segment that the store does not hold yet.
#[derive(Debug)]
pub struct NewSegment {
    pub id: SegmentId,
    pub built: Built,
}

/// What the next manifest shall say.
#[derive(Debug)]
pub struct Publication {
    /// First offset that is not in the snapshot; never less than that of the manifest before.
    pub next_offset: Offset,
    /// The segment of `segments` that has to be uploaded first.
    pub upload: Option<NewSegment>,
    /// All segments of the snapshot, the new one among them.
    pub segments: Vec<SegmentState>,
}

/// The way out: one call is one manifest. See the module's contract.
#[async_trait]
pub trait Publisher: Send {
    /// An id larger than all before it.
    fn new_segment_id(&mut self) -> SegmentId;

    /// Makes `publication` the newest snapshot.
    ///
    /// # Errors
    /// `Fenced` when another owner published; `Unavailable` when the outcome is not known or the store is away.
    async fn publish(&mut self, publication: &Publication) -> Result<(), EdgeError>;
}

/// The way back: published segments, opened. See the module's contract.
#[async_trait]
pub trait SegmentFetch: Send + Sync {
    /// The segment that `state` names, verified.
    ///
    /// # Errors
    /// `Corrupt` when what is stored is not what was written; `Unavailable` when it cannot be read now.
    async fn get(&self, state: &SegmentState) -> Result<Arc<Segment>, EdgeError>;

    /// Takes over the file of a segment that was just published, so that nobody has to fetch it.
    ///
    /// # Errors
    /// When the file could not be kept; the segment can still be had by [`SegmentFetch::get`].
    async fn adopt(&self, built: Built) -> Result<Arc<Segment>, EdgeError>;
}
