//! The store: manifests in memory, segment files in a directory, and faults by script.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use roaring::RoaringBitmap;
use sluice_core::{Epoch, ErrorKind, Offset, SegmentId};
use sluice_indexer::{EdgeError, Publication, Publisher, Recovered, SegmentFetch, SegmentState};
use sluice_segment::{Built, Segment};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use ulid::Ulid;

/// What the next publication meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store is away; nothing happened.
    Before,
    /// The manifest was made, and the answer lost.
    After,
    /// The store refuses for good.
    Broken,
}

#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) epoch: Epoch,
    pub(crate) next_offset: Offset,
    pub(crate) segments: Vec<SegmentState>,
    pub(crate) uploaded: bool,
}

#[derive(Default)]
struct Inner {
    manifests: Vec<Manifest>,
    epoch: Epoch,
    publish_faults: VecDeque<Fault>,
    fetch_faults: VecDeque<ErrorKind>,
    largest_id: Option<SegmentId>,
    attempts: usize,
}

pub(crate) struct Store {
    dir: TempDir,
    inner: Mutex<Inner>,
    /// One permit is one publication that may go through.
    gate: Semaphore,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Self { dir, inner: Mutex::default(), gate: Semaphore::new(Semaphore::MAX_PERMITS) })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn path(&self, id: SegmentId) -> PathBuf {
        self.dir.path().join(format!("{id}.seg"))
    }

    /// No publication ends until [`Store::release`].
    pub(crate) fn stall(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS - self.gate.available_permits());
    }

    pub(crate) fn publish_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner().publish_faults.extend(faults);
    }

    pub(crate) fn fetch_faults(&self, faults: impl IntoIterator<Item = ErrorKind>) {
        self.inner().fetch_faults.extend(faults);
    }

    pub(crate) fn manifests(&self) -> Vec<Manifest> {
        self.inner().manifests.clone()
    }

    pub(crate) fn newest(&self) -> Option<Manifest> {
        self.inner().manifests.last().cloned()
    }

    pub(crate) fn attempts(&self) -> usize {
        self.inner().attempts
    }

    /// A new owner: whoever had the partition is fenced.
    pub(crate) fn claim(self: &Arc<Self>) -> (FakePublisher, Recovered) {
        let mut inner = self.inner();
        inner.epoch = inner.epoch.next();
        let publisher = FakePublisher { store: Arc::clone(self), epoch: inner.epoch, ids: 0 };
        let recovered = inner.manifests.last().map_or_else(Recovered::default, |newest| Recovered {
            next_offset: newest.next_offset,
            segments: newest.segments.clone(),
        });
        (publisher, recovered)
    }

    /// Every live row of a manifest: key to (offset, first component, metadata).
    pub(crate) fn scan(&self, manifest: &Manifest) -> BTreeMap<String, (u64, f32, String)> {
        let mut rows = BTreeMap::new();
        for state in &manifest.segments {
            let segment = Segment::open(&self.path(state.id)).unwrap();
            for row in (0..state.records).filter(|row| !state.deleted.contains(*row)) {
                let row = segment.row(row);
                let value = (row.offset.get(), row.vector.to_vec()[0], row.metadata.to_owned());
                let twice = rows.insert(row.key.to_owned(), value);
                assert!(twice.is_none(), "key {} is live in two segments", row.key);
            }
        }
        rows
    }

    pub(crate) fn has_graph(&self, state: &SegmentState) -> bool {
        Segment::open(&self.path(state.id)).unwrap().has_graph()
    }

    fn create(&self, publication: &Publication, epoch: Epoch) {
        let mut inner = self.inner();
        if let Some(new) = &publication.upload {
            std::fs::copy(&new.built.path, self.path(new.id)).unwrap();
            // what was fenced off or published before is never named again: garbage collection rests on it
            assert!(inner.largest_id.is_none_or(|largest| largest < new.id), "segment ids grow");
            inner.largest_id = Some(new.id);
        }
        for state in &publication.segments {
            assert!(self.path(state.id).exists(), "a manifest names only what is uploaded");
            assert!(state.deleted.max().is_none_or(|row| row < state.records));
        }
        inner.manifests.push(Manifest {
            epoch,
            next_offset: publication.next_offset,
            segments: publication.segments.clone(),
            uploaded: publication.upload.is_some(),
        });
    }
}

fn error(kind: ErrorKind) -> EdgeError {
    EdgeError::new(kind, format!("planted: {kind}"))
}

pub(crate) struct FakePublisher {
    store: Arc<Store>,
    epoch: Epoch,
    ids: u128,
}

#[async_trait]
impl Publisher for FakePublisher {
    fn new_segment_id(&mut self) -> SegmentId {
        self.ids += 1;
        SegmentId { epoch: self.epoch, ulid: Ulid::from(self.ids) }
    }

    async fn publish(&mut self, publication: &Publication) -> Result<(), EdgeError> {
        self.store.gate.acquire().await.unwrap().forget();
        let fault = {
            let mut inner = self.store.inner();
            inner.attempts += 1;
            if inner.epoch != self.epoch {
                return Err(error(ErrorKind::Fenced));
            }
            let same = |m: &Manifest| {
                m.epoch == self.epoch
                    && m.next_offset == publication.next_offset
                    && m.segments == publication.segments
            };
            if inner.manifests.last().is_some_and(same) {
                return Ok(());
            }
            inner.publish_faults.pop_front()
        };
        match fault {
            Some(Fault::Before) => return Err(error(ErrorKind::Unavailable)),
            Some(Fault::Broken) => return Err(error(ErrorKind::Corrupt)),
            Some(Fault::After) | None => self.store.create(publication, self.epoch),
        }
        if fault == Some(Fault::After) { Err(error(ErrorKind::Unavailable)) } else { Ok(()) }
    }
}

#[async_trait]
impl SegmentFetch for Store {
    async fn get(&self, state: &SegmentState) -> Result<Arc<Segment>, EdgeError> {
        if let Some(kind) = self.inner().fetch_faults.pop_front() {
            return Err(error(kind));
        }
        Segment::open(&self.path(state.id)).map(Arc::new).map_err(|e| EdgeError::new(e.kind(), e))
    }

    async fn adopt(&self, built: Built) -> Result<Arc<Segment>, EdgeError> {
        if let Some(kind) = self.inner().fetch_faults.pop_front() {
            return Err(error(kind));
        }
        let mine = self.dir.path().join(format!("cache-{}", built.digest));
        std::fs::rename(&built.path, &mine).map_err(|e| EdgeError::new(ErrorKind::Unavailable, e))?;
        Segment::open(&mine).map(Arc::new).map_err(|e| EdgeError::new(e.kind(), e))
    }
}

/// Rows of `state` that are not dead.
pub(crate) fn live(state: &SegmentState) -> RoaringBitmap {
    &(0..state.records).collect::<RoaringBitmap>() - &state.deleted
}
