//! Tests of the whole crate against stores in memory, in a directory, with faults, and on a real S3 server.

mod cache;
mod content;
mod explore;
mod faulty;
mod fencing;
mod garbage;
mod registry;
mod scrub;
mod topics;
mod transfer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use object_store::ObjectStore;
use object_store::memory::InMemory;
use roaring::RoaringBitmap;
use sluice_core::{Clock, Generation, IndexName, Offset, PartitionId, PartitionRef, Timestamp};
use tempfile::TempDir;

use crate::owner::{Claim, Owner, Publication};
use crate::store::{Store, StoreConfig};
use crate::{Chain, Manifest, ProtocolError, SegmentEntry};

/// A clock that moves only when it is told to.
#[derive(Default)]
struct TestClock(AtomicI64);

impl TestClock {
    fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

fn partition() -> PartitionRef {
    partition_of("packages", 1, 0)
}

fn partition_of(index: &str, generation: u32, partition: u32) -> PartitionRef {
    let index = IndexName::new(index).unwrap();
    PartitionRef { index, generation: Generation(generation), partition: PartitionId(partition) }
}

const CLAIM: Claim = Claim { log_start: Offset(0), partitions: 4 };

/// Every kind of store that is at hand: memory, a directory, and S3 when `SLUICE_TEST_S3_URL` names one.
fn stores() -> Vec<(&'static str, Store, Option<TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let file = StoreConfig { url: format!("file://{}", dir.path().display()), options: BTreeMap::new() };
    let mut stores = vec![("memory", memory(), None), ("directory", Store::open(&file).unwrap(), Some(dir))];
    match std::env::var("SLUICE_TEST_S3_URL") {
        Ok(url) => {
            let url = format!("{}/{}", url.trim_end_matches('/'), ulid::Ulid::generate());
            stores.push(("s3", Store::open(&StoreConfig { url, options: BTreeMap::new() }).unwrap(), None));
        }
        Err(_) => println!("skipped: the s3 variant of this test, SLUICE_TEST_S3_URL is not set"),
    }
    stores
}

fn memory() -> Store {
    Store::over(Arc::new(InMemory::new()))
}

fn over<T: ObjectStore>(store: &Arc<T>) -> Store {
    Store::over(Arc::clone(store) as Arc<dyn ObjectStore>)
}

/// A session of one owner with files to upload.
struct Session {
    owner: Owner,
    dir: TempDir,
}

impl Session {
    async fn claim(store: &Store, partition: &PartitionRef, clock: &Arc<TestClock>) -> Self {
        let chain = Chain::new(store.clone(), partition.clone());
        let owner = Owner::claim(chain, CLAIM, clock.clone()).await.unwrap();
        Self { owner, dir: tempfile::tempdir().unwrap() }
    }

    /// Uploads a segment of arbitrary content.
    async fn upload(&mut self) -> Result<SegmentEntry, ProtocolError> {
        let id = self.owner.new_segment_id();
        let content = format!("segment {id}");
        let path: PathBuf = self.dir.path().join(id.to_string());
        std::fs::write(&path, &content).unwrap();
        let (bytes, digest) = (content.len() as u64, blake3::hash(content.as_bytes()));
        self.owner.upload(id, &path, bytes, digest).await?;
        Ok(SegmentEntry { id, bytes, digest, records: 10, deleted: RoaringBitmap::new() })
    }

    /// Publishes one more segment and ten more offsets, keeping the newest `keep` segments.
    async fn grow(&mut self, keep: usize) -> Result<Manifest, ProtocolError> {
        let new = self.upload().await?;
        let mut segments = self.owner.manifest().segments.clone();
        segments.push(new);
        let segments = segments.split_off(segments.len().saturating_sub(keep));
        self.publish(10, segments).await
    }

    async fn publish(&mut self, more: u64, segments: Vec<SegmentEntry>) -> Result<Manifest, ProtocolError> {
        let next_offset = Offset(self.owner.manifest().next_offset.0 + more);
        Ok(self.owner.publish(Publication { next_offset, segments }).await?.clone())
    }
}

/// `quick` cases of a property, or as many as `PROPTEST_CASES` says.
fn cases(quick: u32) -> proptest::test_runner::Config {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    proptest::test_runner::Config::with_cases(wanted.unwrap_or(quick))
}

/// Reads the whole chain from its first manifest that is left, checking FOLD-2 on the way.
async fn walk(store: &Store, partition: &PartitionRef) -> Vec<Manifest> {
    let chain = Chain::new(store.clone(), partition.clone());
    let mut manifests: Vec<Manifest> = Vec::new();
    let Some(newest) = chain.newest().await.unwrap() else { return manifests };
    for seq in 1..=newest.seq.0 {
        let Some(next) = chain.read(sluice_core::ManifestSeq(seq)).await.unwrap() else { continue };
        if let Some(last) = manifests.last() {
            crate::protocol::follows(last, &next).unwrap();
        }
        manifests.push(next);
    }
    assert_eq!(manifests.last(), Some(&newest));
    manifests
}
