//! The indexer's two edges, carried out by the snapshotter; the only place that knows both.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use sluice_connectors::{BatchStream, LogError};
use sluice_core::{Epoch, ErrorKind, RecordBatch, SegmentId};
use sluice_indexer::{EdgeError, Publication, Publisher, Recovered, SegmentFetch, SegmentState};
use sluice_segment::{Built, Segment};
use sluice_snapshotter::{CacheError, Chain, Manifest, Owner, ProtocolError, SegmentCache, SegmentEntry};

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

/// Reads the segments of one partition through the process's cache, for the owner with `epoch`.
pub(super) struct CachedFetch {
    cache: SegmentCache,
    chain: Chain,
    epoch: Epoch,
}

impl CachedFetch {
    pub(super) fn new(cache: SegmentCache, chain: Chain, epoch: Epoch) -> Arc<Self> {
        Arc::new(Self { cache, chain, epoch })
    }

    /// Why a segment that the owner's own newest manifest names is gone: a newer owner or a retirement let it be
    /// collected, else it is lost.
    async fn why_missing(&self, missing: CacheError) -> EdgeError {
        let partition = self.chain.partition().clone();
        match self.chain.newest().await {
            Ok(None) => protocol_error(ProtocolError::Retired { partition }),
            Ok(Some(newest)) if newest.epoch > self.epoch => {
                protocol_error(ProtocolError::Fenced { partition, seq: newest.seq })
            }
            Ok(Some(_)) => EdgeError::new(ErrorKind::Corrupt, missing),
            Err(error) => protocol_error(error),
        }
    }
}

fn cache_error(error: CacheError) -> EdgeError {
    EdgeError::new(error.kind(), error)
}

#[async_trait]
impl SegmentFetch for CachedFetch {
    async fn get(&self, state: &SegmentState) -> Result<Arc<Segment>, EdgeError> {
        match self.cache.get(self.chain.partition(), &entry_of(state)).await {
            Ok(segment) => Ok(segment),
            Err(missing @ CacheError::Missing { .. }) => Err(self.why_missing(missing).await),
            Err(error) => Err(cache_error(error)),
        }
    }

    async fn adopt(&self, built: Built) -> Result<Arc<Segment>, EdgeError> {
        self.cache.adopt(&built).await.map_err(cache_error)
    }
}

/// The log's batches with the errors that a worker understands.
pub(super) fn input(batches: BatchStream) -> impl Stream<Item = Result<RecordBatch, EdgeError>> + Send {
    batches.map(|batch| batch.map_err(|e: LogError| EdgeError::new(e.kind(), e)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluice_core::{Generation, IndexName, Offset, PartitionId, PartitionRef, SystemClock};
    use sluice_snapshotter::{Claim, Store, StoreConfig};

    use super::*;

    #[tokio::test]
    async fn fence_2_a_segment_that_is_gone_tells_a_fenced_owner_from_damage() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().join("store").display());
        let store = Store::open(&StoreConfig { url, options: BTreeMap::new() }).unwrap();
        let cache = SegmentCache::open(&dir.path().join("cache"), 1 << 20, store.clone()).unwrap();
        let index = IndexName::new("a").unwrap();
        let at = PartitionRef { index, generation: Generation(1), partition: PartitionId(0) };
        let chain = Chain::new(store, at);
        let claim = || {
            let facts = Claim { log_start: Offset(0), partitions: 1 };
            Owner::claim(chain.clone(), facts, Arc::new(SystemClock))
        };
        let (mut old, new) = (claim().await.unwrap(), claim().await.unwrap());
        let missing = SegmentState {
            id: old.new_segment_id(),
            bytes: 1,
            digest: blake3::hash(b"gone"),
            records: 1,
            deleted: Default::default(),
        };
        for (epoch, kind) in [(old.epoch(), ErrorKind::Fenced), (new.epoch(), ErrorKind::Corrupt)] {
            let fetch = CachedFetch::new(cache.clone(), chain.clone(), epoch);
            assert_eq!(fetch.get(&missing).await.err().map(|e| e.kind()), Some(kind), "epoch {epoch}");
        }
    }
}
