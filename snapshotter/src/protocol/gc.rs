//! What garbage collection may take: decided from the retained manifests and from ids, never from a clock.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_core::{ManifestSeq, SegmentId, Timestamp};

use super::Chunk;
use crate::manifest::Manifest;

/// Which manifests are retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainRule {
    /// Newest manifests that are kept in any case.
    pub retain: u32,
    /// A manifest superseded less than this ago is kept too.
    pub grace: Duration,
    pub now: Timestamp,
}

impl RetainRule {
    /// Whether the manifest before `retained.last()` is kept as well, given those kept so far, newest first.
    pub fn keeps_one_more(&self, retained: &[Summary]) -> bool {
        let Some(oldest) = retained.last() else { return true };
        let superseded_ms = self.now.0.saturating_sub(oldest.created_at.0);
        let in_grace = i64::try_from(self.grace.as_millis()).is_ok_and(|grace| superseded_ms < grace);
        retained.len() < self.retain.max(1) as usize || in_grace
    }
}

/// What GC remembers of a retained manifest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Summary {
    pub seq: ManifestSeq,
    pub created_at: Timestamp,
    pub watermark: SegmentId,
    pub segments: BTreeSet<SegmentId>,
}

impl From<&Manifest> for Summary {
    fn from(manifest: &Manifest) -> Self {
        Self {
            seq: manifest.seq,
            created_at: manifest.created_at,
            watermark: manifest.watermark,
            segments: manifest.segments.iter().map(|s| s.id).collect(),
        }
    }
}

/// What a collection is planned from. The manifests were read before the listings were taken.
#[derive(Debug, Clone)]
pub struct GcFacts<'a> {
    /// Retained manifests, newest first, without a gap.
    pub retained: &'a [Summary],
    /// First chunk without a boundary.
    pub first_open: Chunk,
    /// Manifests that a listing showed; it may be stale.
    pub manifests: &'a [ManifestSeq],
    /// Segments that a listing showed; it may be stale.
    pub segments: &'a [SegmentId],
}

/// What a sweep of a closed chain is planned from.
#[derive(Debug, Clone)]
pub struct SweepFacts<'a> {
    /// The closing manifest; `None` when it is swept already.
    pub closing: Option<ManifestSeq>,
    pub first_open: Chunk,
    pub manifests: &'a [ManifestSeq],
    pub segments: &'a [SegmentId],
}

/// What to do, in this order: every boundary, oldest first, each durable before the next; then the deletes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPlan {
    pub boundaries: Vec<Chunk>,
    pub manifests: Vec<ManifestSeq>,
    pub segments: Vec<SegmentId>,
}

/// Plans a collection (GC-1, GC-2).
///
/// A segment is garbage when no retained manifest holds it and its id is not above the newest watermark: later
/// manifests hold only segments of the newest one and ids above that watermark. Manifests go by whole chunks below
/// the oldest retained one.
pub fn plan_gc(facts: &GcFacts<'_>) -> GcPlan {
    let (Some(newest), Some(oldest)) = (facts.retained.first(), facts.retained.last()) else {
        return GcPlan::default();
    };
    let keep_from = Chunk::of(oldest.seq);
    let reachable: BTreeSet<SegmentId> = facts.retained.iter().flat_map(|m| &m.segments).copied().collect();
    let garbage = |id: &&SegmentId| **id <= newest.watermark && !reachable.contains(id);
    GcPlan {
        boundaries: (facts.first_open.0..keep_from.0).map(Chunk).collect(),
        manifests: facts.manifests.iter().filter(|seq| Chunk::of(**seq) < keep_from).copied().collect(),
        segments: facts.segments.iter().filter(garbage).copied().collect(),
    }
}

/// Plans the end of a closed chain: everything goes, behind boundaries over every number that somebody who does not
/// know of the closing could still create, and over the number after it, so that no search stops there.
pub fn plan_sweep(facts: &SweepFacts<'_>) -> GcPlan {
    let boundaries = match facts.closing {
        Some(closing) => (facts.first_open.0..=Chunk::of(closing.next()).0).map(Chunk).collect(),
        None => Vec::new(),
    };
    GcPlan { boundaries, manifests: facts.manifests.to_vec(), segments: facts.segments.to_vec() }
}
