//! Which indexes there are and what each of their partitions serves now.
//!
//! The loader puts snapshots in, a query takes one [`View`] out at its start and never comes back (QRY-1). A
//! partition's manifest number only grows while the process lives (QRY-2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use sluice_core::{ErrorKind, Generation, IndexName, IndexSpec, PartitionId, PartitionRef};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::types::PartitionState;
use crate::view::{IndexInfo, Snapshot, View};

/// Why a partition does not serve its newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The coarse kind of the error.
    pub kind: &'static str,
    pub detail: String,
}

/// One partition of an index: what it serves, and how its loader fares.
#[derive(Debug)]
pub struct Slot {
    pub partition: PartitionRef,
    served: ArcSwapOption<Snapshot>,
    trouble: Mutex<Option<Trouble>>,
    pub(crate) wake: Notify,
    /// Snapshots of this partition in memory.
    pub(crate) live: Arc<AtomicUsize>,
}

impl Slot {
    fn new(partition: PartitionRef) -> Self {
        Self {
            partition,
            served: ArcSwapOption::empty(),
            trouble: Mutex::default(),
            wake: Notify::new(),
            live: Arc::default(),
        }
    }

    pub fn served(&self) -> Option<Arc<Snapshot>> {
        self.served.load_full()
    }

    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().clone()
    }

    /// Snapshots of this partition that are in memory: the served one and those that queries still hold.
    pub fn snapshots_in_memory(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// How the partition is served.
    pub fn state(&self) -> PartitionState {
        match (self.served.load().is_some(), self.lock().is_some()) {
            (true, false) => PartitionState::Ok,
            (true, true) => PartitionState::Stale,
            (false, false) => PartitionState::Loading,
            (false, true) => PartitionState::Error,
        }
    }

    /// Returns whether this is news: another kind of trouble, or other damage.
    pub(crate) fn set_trouble(&self, trouble: Option<Trouble>) -> bool {
        let mut now = self.lock();
        let news = match (&*now, &trouble) {
            (Some(before), Some(after)) if after.kind == ErrorKind::Corrupt.as_str() => before != after,
            (Some(before), Some(after)) => before.kind != after.kind,
            (before, after) => before.is_some() != after.is_some(),
        };
        *now = trouble;
        news
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        // a note has no state that a panic could break
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One generation of an index and its partitions.
#[derive(Debug)]
pub struct Index {
    info: ArcSwap<IndexInfo>,
    pub slots: Box<[Arc<Slot>]>,
    /// Counts swaps, for those who wait for an offset.
    swaps: watch::Sender<u64>,
    /// Ends the loaders of this generation.
    pub(crate) stop: CancellationToken,
}

impl Index {
    pub(crate) fn new(info: IndexInfo, stop: CancellationToken) -> Self {
        let slot = |p| {
            let (index, generation) = (info.name.clone(), info.generation);
            Arc::new(Slot::new(PartitionRef { index, generation, partition: PartitionId(p) }))
        };
        let slots = (0..info.spec.partitions).map(slot).collect();
        Self { info: ArcSwap::from_pointee(info), slots, swaps: watch::Sender::new(0), stop }
    }

    pub fn info(&self) -> Arc<IndexInfo> {
        self.info.load_full()
    }

    /// Takes over what changed in place.
    pub(crate) fn set_info(&self, info: IndexInfo) {
        self.info.store(Arc::new(info));
    }

    /// One snapshot per partition, as they are served now.
    pub fn view(&self) -> View {
        View::new(self.info(), self.slots.iter().map(|slot| slot.served()).collect())
    }

    /// Serves `snapshot` from now on, unless a newer one is served already (QRY-2).
    pub(crate) fn serve(&self, snapshot: Snapshot) -> bool {
        let Some(slot) = self.slots.get(snapshot.partition.partition.get() as usize) else { return false };
        if slot.served.load().as_ref().is_some_and(|now| now.seq() >= snapshot.seq()) {
            return false;
        }
        slot.served.store(Some(Arc::new(snapshot)));
        self.swaps.send_modify(|n| *n += 1);
        true
    }

    /// Changes whenever a snapshot was swapped in.
    pub(crate) fn swaps(&self) -> watch::Receiver<u64> {
        self.swaps.subscribe()
    }

    /// Whether every partition serves some snapshot.
    pub fn is_resolved(&self) -> bool {
        self.slots.iter().all(|slot| slot.served.load().is_some())
    }
}

/// Every index that is served.
#[derive(Debug)]
pub struct Catalogue {
    indexes: ArcSwap<BTreeMap<IndexName, Arc<Index>>>,
    /// The registry was read at least once.
    listed: AtomicBool,
    /// Indexes that this process will make and that were not seen yet.
    awaited: ArcSwap<BTreeSet<IndexName>>,
    discover: Notify,
    /// Counts indexes that came and went, for those who wait for one.
    changes: watch::Sender<u64>,
}

impl Default for Catalogue {
    fn default() -> Self {
        let changes = watch::Sender::new(0);
        Self {
            indexes: ArcSwap::default(),
            listed: AtomicBool::new(false),
            awaited: ArcSwap::default(),
            discover: Notify::new(),
            changes,
        }
    }
}

impl Catalogue {
    pub fn get(&self, name: &IndexName) -> Option<Arc<Index>> {
        self.indexes.load().get(name).cloned()
    }

    pub fn all(&self) -> Arc<BTreeMap<IndexName, Arc<Index>>> {
        self.indexes.load_full()
    }

    /// Is not ready until each of `names` was seen: an indexer in this process is about to make them.
    pub fn expect(&self, names: impl IntoIterator<Item = IndexName>) {
        self.awaited.store(Arc::new(names.into_iter().collect()));
    }

    /// `name` is in the registry, served or retired.
    pub(crate) fn saw(&self, name: &IndexName) {
        if self.awaited.load().contains(name) {
            self.awaited.rcu(|now| now.iter().filter(|n| *n != name).cloned().collect::<BTreeSet<_>>());
        }
    }

    /// Whether the registry was read at least once, every expected index was seen, and every partition of every
    /// index serves some snapshot.
    pub fn is_ready(&self) -> bool {
        self.is_listed()
            && self.awaited.load().is_empty()
            && self.indexes.load().values().all(|i| i.is_resolved())
    }

    /// Whether the registry was read at least once: before, an index that is not here may well exist.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    pub(crate) fn set_listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    /// Adds an index, or replaces its older generation. The loaders of what is replaced are told to end.
    pub(crate) fn insert(&self, index: Arc<Index>) {
        let name = index.info().name.clone();
        self.saw(&name);
        let before = self.indexes.load_full().get(&name).cloned();
        self.indexes.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            next.insert(name.clone(), Arc::clone(&index));
            next
        });
        if let Some(before) = before {
            before.stop.cancel();
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// Takes over a spec that changed in place.
    pub(crate) fn refresh(&self, spec: &IndexSpec, generation: Generation) {
        if let Some(index) = self.get(&spec.name).filter(|i| i.info().generation == generation) {
            index.set_info(IndexInfo::new(spec.clone(), generation));
        }
    }

    /// Takes an index away, if it still is of `generation`.
    pub(crate) fn remove(&self, name: &IndexName, generation: Generation) {
        let Some(index) = self.get(name).filter(|i| i.info().generation == generation) else { return };
        index.stop.cancel();
        self.indexes.rcu(|now| {
            let mut next = BTreeMap::clone(now);
            if next.get(name).is_some_and(|i| Arc::ptr_eq(i, &index)) {
                next.remove(name);
            }
            next
        });
        self.changes.send_modify(|n| *n += 1);
    }

    /// Changes whenever an index came or went.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks for new and retired indexes now.
    pub(crate) fn rediscover(&self) {
        self.discover.notify_one();
    }

    pub(crate) async fn rediscovery(&self) {
        self.discover.notified().await;
    }

    /// Somebody in this process published a manifest of `partition`: look for it now rather than at the next poll.
    pub fn published(&self, partition: &PartitionRef) {
        let index = self.indexes.load().get(&partition.index).cloned();
        match index {
            Some(index) => {
                if let Some(slot) = index.slots.get(partition.partition.get() as usize) {
                    slot.wake.notify_one();
                }
            }
            None => self.rediscover(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::{Epoch, ManifestSeq, Offset, SegmentId, Timestamp};
    use sluice_snapshotter::{Manifest, Reason};

    use super::*;

    fn info(generation: u32) -> IndexInfo {
        let spec: IndexSpec = serde_json::from_str(r#"{"name":"a","dimension":2,"partitions":2}"#).unwrap();
        IndexInfo::new(spec, Generation(generation))
    }

    #[test]
    fn a_replaced_generation_is_told_to_end_and_is_not_removed_in_place_of_its_successor() {
        let catalogue = Catalogue::default();
        let stops = [CancellationToken::new(), CancellationToken::new()];
        catalogue.insert(Arc::new(Index::new(info(1), stops[0].clone())));
        catalogue.insert(Arc::new(Index::new(info(2), stops[1].clone())));
        assert!(stops[0].is_cancelled() && !stops[1].is_cancelled());
        let name = info(1).name;
        catalogue.remove(&name, Generation(1));
        assert_eq!(catalogue.get(&name).unwrap().info().generation, Generation(2));
        catalogue.remove(&name, Generation(2));
        assert!(catalogue.get(&name).is_none() && stops[1].is_cancelled());
    }

    #[test]
    fn readiness_waits_for_the_registry_and_for_every_partition() {
        let catalogue = Catalogue::default();
        assert!(!catalogue.is_ready());
        catalogue.set_listed();
        assert!(catalogue.is_ready());
        let index = Arc::new(Index::new(info(1), CancellationToken::new()));
        catalogue.insert(Arc::clone(&index));
        assert!(!catalogue.is_ready());
        for slot in &index.slots {
            assert!(index.serve(Snapshot::empty(slot.partition.clone(), Arc::clone(&slot.live))));
        }
        assert!(catalogue.is_ready());
    }

    #[test]
    fn readiness_waits_for_expected_indexes_and_no_longer_for_retired_ones() {
        let catalogue = Catalogue::default();
        let names = ["a", "b"].map(|n| IndexName::new(n).unwrap());
        catalogue.expect(names.clone());
        catalogue.set_listed();
        catalogue.saw(&names[0]);
        assert!(!catalogue.is_ready());
        catalogue.saw(&names[1]);
        assert!(catalogue.is_ready());
    }

    #[test]
    fn qry_2_an_older_manifest_never_replaces_a_newer_one() {
        let index = Index::new(info(1), CancellationToken::new());
        let slot = Arc::clone(&index.slots[1]);
        let snapshot = |seq| {
            let manifest = Manifest {
                partition: slot.partition.clone(),
                seq: ManifestSeq(seq),
                epoch: Epoch(1),
                partitions: 2,
                start: Offset(0),
                next_offset: Offset(seq * 10),
                segments: Vec::new(),
                watermark: SegmentId::first_of(Epoch(1)),
                created_at: Timestamp(0),
                put_id: ulid::Ulid::nil(),
                reason: Reason::Publish,
            };
            Snapshot::new(manifest, Vec::new(), Arc::clone(&slot.live))
        };
        let served = || slot.served().map(|s| (s.seq().get(), s.visible_offset().get()));
        let mut swaps = index.swaps();
        assert!(index.serve(snapshot(5)) && swaps.has_changed().unwrap());
        swaps.mark_unchanged();
        for older in [5, 4, 1] {
            assert!(!index.serve(snapshot(older)));
        }
        assert!(!swaps.has_changed().unwrap());
        assert_eq!(served(), Some((5, 50)));
        assert!(index.serve(snapshot(6)));
        assert_eq!(served(), Some((6, 60)));
        assert_eq!(slot.snapshots_in_memory(), 1);
    }
}
