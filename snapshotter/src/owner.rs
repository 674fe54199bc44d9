//! The writing side of a partition: claim, upload, publish.

use std::path::Path;
use std::sync::Arc;

use sluice_core::{Clock, Epoch, Offset, PartitionRef, SegmentId};

use crate::chain::Chain;
use crate::error::ProtocolError;
use crate::manifest::{Manifest, SegmentEntry};

/// What a claim needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Where a partition that was never claimed begins.
    pub log_start: Offset,
    /// Partitions that the topic has now (KEY-1).
    pub partitions: u32,
}

/// What the next manifest shall hold.
#[derive(Debug, Clone)]
pub struct Publication {
    pub next_offset: Offset,
    /// All segments, not only the new ones.
    pub segments: Vec<SegmentEntry>,
}

/// The owner of a partition, until it is fenced.
pub struct Owner {
    manifest: Manifest,
    _clock: Arc<dyn Clock>,
}

impl Owner {
    /// Takes the partition: the new manifest has the content of the newest one and the next epoch.
    pub async fn claim(chain: Chain, claim: Claim, clock: Arc<dyn Clock>) -> Result<Self, ProtocolError> {
        let _ = (chain, claim, clock);
        unimplemented!()
    }

    /// What was last published.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn partition(&self) -> &PartitionRef {
        &self.manifest.partition
    }

    pub fn epoch(&self) -> Epoch {
        self.manifest.epoch
    }

    /// An id for a segment that is about to be uploaded.
    pub fn new_segment_id(&mut self) -> SegmentId {
        unimplemented!()
    }

    /// Uploads a sealed segment.
    pub async fn upload(
        &mut self,
        id: SegmentId,
        path: &Path,
        bytes: u64,
        digest: blake3::Hash,
    ) -> Result<(), ProtocolError> {
        let _ = (id, path, bytes, digest);
        unimplemented!()
    }

    /// Creates the next manifest.
    pub async fn publish(&mut self, publication: Publication) -> Result<&Manifest, ProtocolError> {
        let _ = publication;
        unimplemented!()
    }
}
