//! What a query sees: one snapshot of each partition, taken once and never looked at again.
//!
//! Below `fan_out` everything takes a [`View`] and nothing else, so that a query cannot mix two snapshots of a
//! partition (QRY-1). All that a partition serves hangs on one `Arc`, so that one atomic store replaces it. A
//! snapshot stays in memory while a view holds it and no longer (QRY-5).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roaring::RoaringBitmap;
use sluice_core::{Generation, IndexName, IndexSpec, ManifestSeq, Offset, PartitionRef, Schema, invariant};
use sluice_segment::{RowRef, Segment};
use sluice_snapshotter::Manifest;

use crate::metrics;
use crate::placement::Placement;

/// One build of an index, as its stored spec declares it.
#[derive(Debug, Clone)]
pub struct IndexInfo {
    pub name: IndexName,
    pub generation: Generation,
    pub spec: IndexSpec,
    pub schema: Arc<Schema>,
}

impl IndexInfo {
    pub fn new(spec: IndexSpec, generation: Generation) -> Self {
        let schema = Arc::new(spec.schema());
        Self { name: spec.name.clone(), generation, spec, schema }
    }
}

/// A manifest with its segments opened, or the emptiness before the first manifest.
#[derive(Debug)]
pub struct Snapshot {
    pub partition: PartitionRef,
    manifest: Option<Manifest>,
    /// In the order of the manifest's entries.
    segments: Vec<Loaded>,
    placement: Placement,
    _counted: Counted,
}

/// A segment at hand, and what was found out about it when it was loaded.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) segment: Arc<Segment>,
    pub(crate) placement: Placement,
}

/// Counts snapshots in memory.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(live: Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        metrics::snapshots_live(1.0);
        Self(live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::snapshots_live(-1.0);
    }
}

impl Snapshot {
    /// Nothing published yet. `live` counts the partition's snapshots in memory.
    pub fn empty(partition: PartitionRef, live: Arc<AtomicUsize>) -> Self {
        let placement = Placement::any();
        Self { partition, manifest: None, segments: Vec::new(), placement, _counted: Counted::new(live) }
    }

    /// `manifest` with its `segments`, in the order of its entries.
    pub(crate) fn new(manifest: Manifest, segments: Vec<Loaded>, live: Arc<AtomicUsize>) -> Self {
        let (entries, opened) = (manifest.segments.len(), segments.len());
        invariant!(Qry1, entries == opened, "{entries} entries, {opened} segments");
        let placement = segments.iter().map(|s| s.placement).fold(Placement::any(), Placement::and);
        let partition = manifest.partition.clone();
        Self { partition, manifest: Some(manifest), segments, placement, _counted: Counted::new(live) }
    }

    /// What is known about `segment` when this snapshot holds it too.
    pub(crate) fn loaded(&self, segment: &Arc<Segment>) -> Option<&Loaded> {
        self.segments.iter().find(|l| Arc::ptr_eq(&l.segment, segment))
    }

    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    pub fn seq(&self) -> ManifestSeq {
        self.manifest.as_ref().map_or(ManifestSeq::NONE, |m| m.seq)
    }

    /// First offset that is not in this snapshot.
    pub fn next_offset(&self) -> Offset {
        self.manifest.as_ref().map_or(Offset(0), |m| m.next_offset)
    }

    /// First offset that a query of this snapshot cannot see.
    pub fn visible_offset(&self) -> Offset {
        self.next_offset()
    }

    /// Each segment with the rows of it that are superseded or deleted.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = (&Segment, &RoaringBitmap)> {
        let entries = self.manifest.as_ref().map(|m| m.segments.as_slice()).unwrap_or_default();
        self.segments.iter().zip(entries).map(|(loaded, entry)| (loaded.segment.as_ref(), &entry.deleted))
    }

    fn segment(&self, at: u32) -> Option<(&Segment, &RoaringBitmap)> {
        let at = at as usize;
        Some((&self.segments.get(at)?.segment, &self.manifest.as_ref()?.segments.get(at)?.deleted))
    }

    /// Live records.
    pub fn records(&self) -> u64 {
        self.segments().map(|(segment, deleted)| u64::from(segment.len()) - deleted.len()).sum()
    }

    /// Bytes of the segments in the store.
    pub fn bytes(&self) -> u64 {
        self.manifest.iter().flat_map(|m| &m.segments).map(|entry| entry.bytes).sum()
    }

    /// The live version of `key` in this partition: there is at most one.
    fn find(&self, key: &str) -> Option<(u32, u32)> {
        self.segments().zip(0..).find_map(|((segment, deleted), at)| {
            segment.find(key).filter(|row| !deleted.contains(*row)).map(|row| (at, row))
        })
    }
}

/// Where a row stands in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowId {
    pub(crate) partition: u32,
    pub(crate) segment: u32,
    pub(crate) row: u32,
}

/// One snapshot per partition of one index.
#[derive(Debug, Clone)]
pub struct View {
    pub index: Arc<IndexInfo>,
    partitions: Box<[Option<Arc<Snapshot>>]>,
    /// No key can be live in two partitions, whatever the keys are.
    exclusive: bool,
}

impl View {
    /// `partitions` stand in the order of their numbers; one without a loaded snapshot is `None`.
    pub fn new(index: Arc<IndexInfo>, partitions: Box<[Option<Arc<Snapshot>>]>) -> Self {
        let placement =
            partitions.iter().flatten().map(|s| s.placement).fold(Placement::any(), Placement::and);
        let exclusive = partitions.len() < 2 || placement.is_decided();
        Self { index, partitions, exclusive }
    }

    pub fn partitions(&self) -> &[Option<Arc<Snapshot>>] {
        &self.partitions
    }

    /// Whether no key can be live in two partitions.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether both views hold the very same snapshots.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Option<Arc<Snapshot>>, &Option<Arc<Snapshot>>)| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        self.partitions.len() == other.partitions.len()
            && self.partitions.iter().zip(&other.partitions).all(same)
    }

    /// The row at `at`, when there is one.
    pub(crate) fn row(&self, at: RowId) -> Option<RowRef<'_>> {
        let (segment, _) = self.partitions.get(at.partition as usize)?.as_ref()?.segment(at.segment)?;
        (at.row < segment.len()).then(|| segment.row(at.row))
    }

    /// Every live row from `from` on, in the order of partition, segment and row.
    pub(crate) fn live_rows(&self, from: RowId) -> impl Iterator<Item = RowId> {
        let partitions = (0u32..).zip(&self.partitions).skip(from.partition as usize);
        let segments = partitions.flat_map(move |(partition, snapshot)| {
            let first = if partition == from.partition { from.segment } else { 0 };
            let segments = snapshot.iter().flat_map(|s| (0u32..).zip(s.segments()));
            segments.skip(first as usize).map(move |(segment, rows)| (partition, segment, rows))
        });
        segments.flat_map(move |(partition, segment, (rows, deleted))| {
            let first = if (partition, segment) == (from.partition, from.segment) { from.row } else { 0 };
            let live = (first..rows.len()).filter(|row| !deleted.contains(*row));
            live.map(move |row| RowId { partition, segment, row })
        })
    }

    /// The live version of `key` in each partition that has one.
    fn versions<'a, 'k>(&'a self, key: &'k str) -> impl Iterator<Item = (RowId, RowRef<'a>)> + use<'a, 'k> {
        self.partitions.iter().zip(0..).filter_map(move |(snapshot, partition)| {
            let (segment, row) = snapshot.as_ref()?.find(key)?;
            let at = RowId { partition, segment, row };
            Some((at, self.row(at)?))
        })
    }

    /// The live version of `key`: where it is live in several partitions, that with the newest timestamp.
    pub(crate) fn find(&self, key: &str) -> Option<(RowId, RowRef<'_>)> {
        self.versions(key).max_by_key(|(at, row)| (row.timestamp, at.partition))
    }

    /// Whether a newer version of the row at `at` is live in another partition, which happens when producers
    /// place keys by different rules.
    pub(crate) fn is_superseded(&self, at: RowId) -> bool {
        if self.exclusive {
            return false;
        }
        let Some(own) = self.row(at) else { return false };
        self.versions(own.key)
            .any(|(other, row)| (row.timestamp, other.partition) > (own.timestamp, at.partition))
    }
}
