//! Segments on the local disk: named by digest, verified, opened once per process, shared by all who use them.
//!
//! A file is there whole or not at all (written beside, renamed into place), so processes may share a directory. What
//! is on the disk is never trusted: the digest is checked when a process opens a file first, and a damaged one is
//! fetched again (SEG-1). Whole files are read-only, since one that is cut short while it is mapped
//! ends the process. Segments in use are never evicted; where another process removes one, its mapping stays
//! valid until it is dropped.

mod disk;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sluice_core::PartitionRef;
use sluice_segment::{Built, Segment};

use self::disk::Disk;
use crate::error::{CacheError, StoreError};
use crate::manifest::SegmentEntry;
use crate::metrics;
use crate::paths::Object;
use crate::store::Store;
use crate::store::transfer::blocking;

/// Segments on the local disk, bounded by bytes; clones share it.
#[derive(Clone)]
pub struct SegmentCache(Arc<Inner>);

struct Inner {
    store: Store,
    disk: Disk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<blake3::Hash, Weak<Segment>>,
    /// One lock per segment that is being brought in.
    flights: HashMap<blake3::Hash, Arc<tokio::sync::Mutex<()>>>,
}

/// Where a segment was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Open,
    OnDisk,
    Fetched,
}

impl SegmentCache {
    /// Opens a directory, made when it is missing; removes what a killed process left half done.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, max_bytes: u64, store: Store) -> Result<Self, CacheError> {
        let disk = Disk::open(dir, max_bytes)?;
        Ok(Self(Arc::new(Inner { store, disk, state: Mutex::default() })))
    }

    /// The segment, opened and verified; fetched when it is not on the disk.
    ///
    /// # Errors
    /// `Missing` when the store does not have it (a newer manifest may have dropped it), `Damaged` when the object
    /// is not what the manifest says, the store's or the disk's failure otherwise.
    pub async fn get(
        &self,
        partition: &PartitionRef,
        entry: &SegmentEntry,
    ) -> Result<Arc<Segment>, CacheError> {
        let got = match self.opened(&entry.digest) {
            Some(segment) => Ok((segment, Found::Open)),
            None => self.bring(partition, entry).await,
        };
        metrics::cache_lookup(match &got {
            Ok((_, Found::Open)) => "open",
            Ok((_, Found::OnDisk)) => "disk",
            Ok((_, Found::Fetched)) => "fetched",
            Err(_) => "failed",
        });
        let (segment, _) = got?;
        if segment.len() != entry.records {
            let message = format!("{} records instead of {}", segment.len(), entry.records);
            return Err(damaged(partition, entry, message));
        }
        Ok(segment)
    }

    /// Moves a file that was just built into the cache and opens it. What still needs the file at its old place (its
    /// upload) must be done before.
    ///
    /// # Errors
    /// `Built` when the file does not open or is not as announced, the disk's failure otherwise.
    pub async fn adopt(&self, built: &Built) -> Result<Arc<Segment>, CacheError> {
        let digest = built.digest;
        let flight = self.flight(digest);
        let _flying = flight.lock().await;
        let (inner, built) = (Arc::clone(&self.0), built.clone());
        let segment = blocking(move || {
            let room = inner.disk.make_room(built.bytes, || inner.busy())?;
            inner.disk.adopt(&built.path, &built.digest, room)?;
            let path = built.path.display().to_string();
            let refuse = |message| CacheError::Built { path, message };
            match Segment::open(&inner.disk.path(&built.digest)) {
                Ok(segment) if segment.bytes() == built.bytes && segment.len() == built.records => {
                    Ok(Arc::new(segment))
                }
                Ok(segment) => Err(refuse(format!("{} bytes, {} records", segment.bytes(), segment.len()))),
                Err(error) => Err(refuse(error.to_string())),
            }
        })
        .await?;
        self.landed(digest, &segment);
        Ok(segment)
    }

    /// Where a segment's file is, when it is on the disk.
    pub fn path(&self, digest: &blake3::Hash) -> Option<PathBuf> {
        Some(self.0.disk.path(digest)).filter(|path| path.exists())
    }

    /// Bytes of segments on the disk.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn bytes(&self) -> Result<u64, CacheError> {
        Ok(self.0.disk.bytes()?)
    }

    /// Finds a segment on the disk or fetches it; one task at a time per segment.
    async fn bring(
        &self,
        partition: &PartitionRef,
        entry: &SegmentEntry,
    ) -> Result<(Arc<Segment>, Found), CacheError> {
        let flight = self.flight(entry.digest);
        let _flying = flight.lock().await;
        if let Some(segment) = self.opened(&entry.digest) {
            return Ok((segment, Found::Open));
        }
        let mut found = Found::OnDisk;
        let mut segment = self.open_file(entry).await?;
        if segment.is_none() {
            self.fetch(partition, entry).await?;
            found = Found::Fetched;
            segment = self.open_file(entry).await?;
        }
        match segment {
            Some(segment) => {
                self.landed(entry.digest, &segment);
                Ok((segment, found))
            }
            // the digest was right: this was written as it is
            None => Err(damaged(partition, entry, "it does not open as a segment".into())),
        }
    }

    /// Opens a file of the cache; removes it when it is not what its name says.
    async fn open_file(&self, entry: &SegmentEntry) -> Result<Option<Arc<Segment>>, CacheError> {
        let (inner, digest) = (Arc::clone(&self.0), entry.digest);
        blocking(move || {
            let path = inner.disk.path(&digest);
            if !inner.disk.is_intact(&digest)? {
                return Ok(None);
            }
            match Segment::open(&path) {
                Ok(segment) => {
                    inner.disk.touch(&digest);
                    Ok(Some(Arc::new(segment)))
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cached segment does not open");
                    inner.disk.remove(&digest)?;
                    Ok(None)
                }
            }
        })
        .await
    }

    /// Brings the object to its place on the disk, verified on the way.
    async fn fetch(&self, partition: &PartitionRef, entry: &SegmentEntry) -> Result<(), CacheError> {
        let inner = Arc::clone(&self.0);
        let (bytes, digest) = (entry.bytes, entry.digest);
        let temp = blocking(move || {
            let room = inner.disk.make_room(bytes, || inner.busy())?;
            inner.disk.temp(&digest, room)
        })
        .await?;
        let object = Object::Segment(partition.clone(), entry.id);
        let file = temp.file()?;
        let fetched = self.0.store.download(&object, bytes, digest, (file, temp.path())).await;
        match fetched {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => {
                let (partition, segment) = (partition.clone(), entry.id);
                return Err(CacheError::Missing { partition, segment });
            }
            Err(StoreError::Damaged { message, .. }) => return Err(damaged(partition, entry, message)),
            Err(error) => return Err(error.into()),
        }
        let inner = Arc::clone(&self.0);
        blocking(move || inner.disk.place(temp, &digest)).await?;
        Ok(())
    }

    fn opened(&self, digest: &blake3::Hash) -> Option<Arc<Segment>> {
        self.0.state().open.get(digest).and_then(Weak::upgrade)
    }

    fn flight(&self, digest: blake3::Hash) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.0.state();
        // nobody waits for a lock that only this map holds
        state.flights.retain(|other, lock| *other == digest || Arc::strong_count(lock) > 1);
        Arc::clone(state.flights.entry(digest).or_default())
    }

    fn landed(&self, digest: blake3::Hash, segment: &Arc<Segment>) {
        let mut state = self.0.state();
        state.open.retain(|_, weak| weak.strong_count() > 0);
        state.open.insert(digest, Arc::downgrade(segment));
    }
}

impl Inner {
    /// What must not be evicted now.
    fn busy(&self) -> HashSet<blake3::Hash> {
        let state = self.state();
        let open = state.open.iter().filter(|(_, weak)| weak.strong_count() > 0).map(|(digest, _)| *digest);
        open.chain(state.flights.keys().copied()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // maps of weak references have no state that a panic could break
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SegmentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentCache({})", self.0.disk.dir().display())
    }
}

fn damaged(partition: &PartitionRef, entry: &SegmentEntry, message: String) -> CacheError {
    CacheError::Damaged { partition: partition.clone(), segment: entry.id, message }
}
