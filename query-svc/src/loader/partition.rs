//! One partition's loader: look for a newer manifest, fetch, verify, warm, swap.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use sluice_core::{Backoff, ErrorKind, ManifestSeq};
use sluice_segment::Segment;
use sluice_snapshotter::{Chain, Manifest, SegmentEntry};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Supplies;
use super::error::LoadError;
use crate::catalogue::{Index, Slot};
use crate::metrics;
use crate::placement::Placement;
use crate::view::{Loaded, Snapshot};

/// Segments of one snapshot that are fetched at once.
const PARALLEL_FETCHES: usize = 4;
/// Manifests that are tried, newest first, when the newest of a process's first look is damaged.
const OLDER_TRIED: u64 = 16;
/// Looks in a row when segments vanish because newer manifests overtake the one being loaded.
const OVERTAKEN_TRIES: u32 = 5;

/// Keeps one partition's slot at the newest snapshot.
pub(super) struct PartitionLoader {
    pub(super) index: Arc<Index>,
    pub(super) slot: Arc<Slot>,
    pub(super) supplies: Arc<Supplies>,
}

impl PartitionLoader {
    /// Runs until the generation ends.
    pub(super) async fn run(self) {
        let chain = Chain::new(self.supplies.store.clone(), self.slot.partition.clone());
        let options = &self.supplies.options;
        let mut retry =
            Backoff::new(options.poll_interval, options.max_backoff.max(options.poll_interval)).start();
        loop {
            let looked = tokio::select! {
                biased;
                () = self.index.stop.cancelled() => return,
                looked = self.look(&chain) => looked,
            };
            let pause = match looked {
                Ok(()) => {
                    retry.reset();
                    options.poll_interval
                }
                Err(_) => retry.failed(),
            };
            self.note(looked);
            tokio::select! {
                biased;
                () = self.index.stop.cancelled() => return,
                () = self.slot.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Shows how the last look went; says each trouble once.
    fn note(&self, looked: Result<(), LoadError>) {
        let partition = &self.slot.partition;
        match looked {
            Ok(()) => {
                if self.slot.set_trouble(None) {
                    info!(%partition, "the newest snapshot serves again");
                }
            }
            Err(error) => {
                let kind = error.kind();
                metrics::snapshot_error(partition, kind.as_str());
                if self.slot.set_trouble(Some(error.trouble())) {
                    if kind == ErrorKind::Corrupt {
                        metrics::snapshot_corrupt(partition);
                    }
                    let stale = self.slot.served().is_some();
                    warn!(%partition, %kind, %error, stale, "the newest snapshot does not serve");
                }
            }
        }
        if let Some(served) = self.slot.served() {
            let age =
                served.manifest().map_or(0.0, |m| self.supplies.clock.now().seconds_since(m.created_at));
            metrics::serving(partition, served.seq().get(), served.next_offset().get(), age);
        }
    }

    /// Serves the newest snapshot, if it is not served yet.
    async fn look(&self, chain: &Chain) -> Result<(), LoadError> {
        let mut tries = 0;
        loop {
            let served = self.slot.served();
            let error = match self.advance(chain, served.as_ref()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tries += 1;
            if error.is_missing() && tries < OVERTAKEN_TRIES {
                continue;
            }
            if served.is_none()
                && let Some(damaged) = error.damaged()
            {
                self.fall_back(chain, damaged).await;
            }
            return Err(error);
        }
    }

    async fn advance(&self, chain: &Chain, served: Option<&Arc<Snapshot>>) -> Result<(), LoadError> {
        let known = served.and_then(|s| s.manifest());
        let found = match known {
            Some(known) => chain.next_after(known).await?,
            None => chain.newest().await?,
        };
        match found {
            Some(manifest) => self.load(manifest, served).await,
            None if served.is_none() => {
                let slot = &self.slot;
                self.index.serve(Snapshot::empty(slot.partition.clone(), Arc::clone(&slot.live)));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A process that starts while the newest snapshot is damaged serves the newest one before it that is not.
    async fn fall_back(&self, chain: &Chain, damaged: ManifestSeq) {
        let oldest = damaged.get().saturating_sub(OLDER_TRIED).max(1);
        for seq in (oldest..damaged.get()).rev() {
            let Ok(Some(manifest)) = chain.read(ManifestSeq(seq)).await else { continue };
            if self.load(manifest, None).await.is_ok() {
                warn!(partition = %self.slot.partition, seq, "an older snapshot serves in place of a damaged one");
                return;
            }
        }
    }

    async fn load(&self, manifest: Manifest, served: Option<&Arc<Snapshot>>) -> Result<(), LoadError> {
        let begun = Instant::now();
        let seq = manifest.seq;
        let Ok(_loading) = self.supplies.loading.acquire().await else { return Ok(()) };
        let segments = self.fetch(&manifest).await?;
        for (segment, entry) in segments.iter().zip(&manifest.segments) {
            self.check(seq, segment, entry)?;
        }
        let (live, served) = (Arc::clone(&self.slot.live), served.cloned());
        let opened = tokio::task::spawn_blocking(move || {
            let loaded = segments.into_iter().map(|s| loaded(s, &manifest, served.as_deref())).collect();
            Snapshot::new(manifest, loaded, live)
        });
        let snapshot = opened.await.map_err(|_| LoadError::Task { seq })?;
        if self.index.serve(snapshot) {
            metrics::snapshot_loaded(&self.slot.partition, begun.elapsed());
        }
        Ok(())
    }

    async fn fetch(&self, manifest: &Manifest) -> Result<Vec<Arc<Segment>>, LoadError> {
        let (cache, partition, seq) = (&self.supplies.cache, &self.slot.partition, manifest.seq);
        let fetches: Vec<_> = manifest.segments.iter().map(|entry| cache.get(partition, entry)).collect();
        stream::iter(fetches)
            .buffered(PARALLEL_FETCHES)
            .map_err(|source| LoadError::Segment { seq, source })
            .try_collect()
            .await
    }

    /// A segment with the right bytes may still be one of another index, or be listed with rows it does not have.
    fn check(&self, seq: ManifestSeq, segment: &Segment, entry: &SegmentEntry) -> Result<(), LoadError> {
        let info = self.index.info();
        let foreign = |message: String| LoadError::Foreign { seq, segment: entry.id, message };
        if *segment.schema() != *info.schema {
            return Err(foreign("its schema is not the index's".into()));
        }
        if segment.len() != entry.records {
            return Err(foreign(format!("it holds {} records, not {}", segment.len(), entry.records)));
        }
        match entry.deleted.max() {
            Some(row) if row >= segment.len() => Err(foreign(format!("it has no row {row} to be deleted"))),
            _ => Ok(()),
        }
    }
}

/// Warms a segment and finds out about its keys, unless the snapshot before did.
fn loaded(segment: Arc<Segment>, manifest: &Manifest, before: Option<&Snapshot>) -> Loaded {
    if let Some(known) = before.and_then(|b| b.loaded(&segment)) {
        return known.clone();
    }
    segment.warm();
    let placement = Placement::of(&segment, manifest.partition.partition, manifest.partitions);
    Loaded { segment, placement }
}
