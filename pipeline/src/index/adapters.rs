//! The indexer's two edges, carried out by the snapshotter; the only place that knows both.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use sluice_connectors::{BatchStream, LogError};
use sluice_core::{ErrorKind, PartitionRef, RecordBatch, SegmentId};
use sluice_indexer::{EdgeError, Publication, Publisher, Recovered, SegmentFetch, SegmentState};
use sluice_segment::{Built, Segment};
use sluice_snapshotter::{CacheError, Manifest, Owner, ProtocolError, SegmentCache, SegmentEntry};

fn state_of(entry: &SegmentEntry) -> SegmentState {
    SegmentState {
        id: entry.id,
        bytes: entry.bytes,
        digest: entry.digest,
        records: entry.records,
        deleted: entry.deleted.clone(),
    }
}

fn entry_of(state: &SegmentState) -> SegmentEntry {
    SegmentEntry {
        id: state.id,
        bytes: state.bytes,
        digest: state.digest,
        records: state.records,
        deleted: state.deleted.clone(),
    }
}

/// What a worker takes up from `manifest`.
pub(super) fn recovered(manifest: &Manifest) -> Recovered {
    Recovered {
        next_offset: manifest.next_offset,
        segments: manifest.segments.iter().map(state_of).collect(),
    }
}

/// Uploads and publishes as the owner of the partition.
pub(super) struct StorePublisher {
    owner: Owner,
    /// A segment that is in the store already, should its manifest have to be tried again.
    uploaded: Option<SegmentId>,
}

impl StorePublisher {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, uploaded: None }
    }
}

fn protocol_error(error: ProtocolError) -> EdgeError {
    EdgeError::new(error.kind(), error)
}

#[async_trait]
impl Publisher for StorePublisher {
    fn new_segment_id(&mut self) -> SegmentId {
        self.owner.new_segment_id()
    }

    async fn publish(&mut self, publication: &Publication) -> Result<(), EdgeError> {
        if let Some(new) = publication.upload.as_ref().filter(|n| self.uploaded != Some(n.id)) {
            let built = &new.built;
            self.owner
                .upload(new.id, &built.path, built.bytes, built.digest)
                .await
                .map_err(protocol_error)?;
            self.uploaded = Some(new.id);
        }
        let segments = publication.segments.iter().map(entry_of).collect();
        let next = sluice_snapshotter::Publication { next_offset: publication.next_offset, segments };
        self.owner.publish(next).await.map(|_| ()).map_err(protocol_error)
    }
}

/// Reads the segments of one partition through the process's cache.
pub(super) struct CachedFetch {
    cache: SegmentCache,
    partition: PartitionRef,
}

impl CachedFetch {
    pub(super) fn new(cache: SegmentCache, partition: PartitionRef) -> Arc<Self> {
        Arc::new(Self { cache, partition })
    }
}

fn cache_error(error: CacheError) -> EdgeError {
    // a worker asks only for what its own newest manifest names
    let kind = if error.kind() == ErrorKind::NotFound { ErrorKind::Corrupt } else { error.kind() };
    EdgeError::new(kind, error)
}

#[async_trait]
impl SegmentFetch for CachedFetch {
    async fn get(&self, state: &SegmentState) -> Result<Arc<Segment>, EdgeError> {
        self.cache.get(&self.partition, &entry_of(state)).await.map_err(cache_error)
    }

    async fn adopt(&self, built: Built) -> Result<Arc<Segment>, EdgeError> {
        self.cache.adopt(&built).await.map_err(cache_error)
    }
}

/// The log's batches with the errors that a worker understands.
pub(super) fn input(batches: BatchStream) -> impl Stream<Item = Result<RecordBatch, EdgeError>> + Send {
    batches.map(|batch| batch.map_err(|e: LogError| EdgeError::new(e.kind(), e)))
}
