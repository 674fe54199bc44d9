//! What the next manifest may hold: claim, publish, close, and whether one manifest may follow another.

use std::collections::{BTreeMap, BTreeSet};

use sluice_core::{Epoch, ManifestSeq, Offset, PartitionRef, SegmentId, Timestamp};
use thiserror::Error;
use ulid::Ulid;

use crate::manifest::{MAX_SEGMENTS, Manifest, Reason, SegmentEntry};

/// What is new in every manifest, whatever it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub put_id: Ulid,
    pub created_at: Timestamp,
}

/// What a claim is decided from.
#[derive(Debug, Clone)]
pub struct ClaimFacts<'a> {
    pub partition: &'a PartitionRef,
    pub newest: Option<&'a Manifest>,
    /// Where a partition that was never claimed begins.
    pub log_start: Offset,
    /// Partitions that the topic has now.
    pub partitions: u32,
    pub stamp: Stamp,
}

/// What a claim does.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimDecision {
    Create(Manifest),
    /// KEY-1: the topic has another number of partitions than the chain was written for.
    PartitionsChanged {
        stored: u32,
    },
    /// The chain is closed.
    Retired,
}

/// Decides a claim: the next number, the next epoch, the same content; every segment id of older epochs that is not
/// in the chain is fenced off.
pub fn claim(facts: &ClaimFacts<'_>) -> ClaimDecision {
    let Some(newest) = facts.newest else {
        let epoch = Epoch(1);
        return ClaimDecision::Create(Manifest {
            partition: facts.partition.clone(),
            seq: ManifestSeq(1),
            epoch,
            partitions: facts.partitions,
            start: facts.log_start,
            next_offset: facts.log_start,
            segments: Vec::new(),
            watermark: SegmentId::first_of(epoch),
            created_at: facts.stamp.created_at,
            put_id: facts.stamp.put_id,
            reason: Reason::Claim,
        });
    };
    if newest.reason == Reason::Close {
        return ClaimDecision::Retired;
    }
    if newest.partitions != facts.partitions {
        return ClaimDecision::PartitionsChanged { stored: newest.partitions };
    }
    ClaimDecision::Create(next_epoch(newest, facts.stamp, Reason::Claim))
}

/// The last manifest of a retired generation: it fences the owner and lets go of every segment.
pub fn close(newest: &Manifest, stamp: Stamp) -> Manifest {
    Manifest { segments: Vec::new(), ..next_epoch(newest, stamp, Reason::Close) }
}

fn next_epoch(newest: &Manifest, stamp: Stamp, reason: Reason) -> Manifest {
    let epoch = newest.epoch.next();
    Manifest {
        seq: newest.seq.next(),
        epoch,
        start: newest.next_offset,
        watermark: SegmentId::first_of(epoch),
        created_at: stamp.created_at,
        put_id: stamp.put_id,
        reason,
        ..newest.clone()
    }
}

/// Which rule a publication breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefusal {
    #[error("the next offset goes back from {from} to {to}")]
    OffsetGoesBack { from: Offset, to: Offset },
    #[error("segment {0} is listed twice")]
    Twice(SegmentId),
    #[error("segment {0} is neither in the last manifest nor newer than every segment before it")]
    NotNew(SegmentId),
    #[error("segment {0} differs from the last manifest's")]
    Changed(SegmentId),
    #[error("segment {0} has rows again that were deleted")]
    Undeleted(SegmentId),
    #[error("segment {0} is empty, or deletes rows that it does not have")]
    Rows(SegmentId),
    #[error("{0} segments, at most {MAX_SEGMENTS} are allowed")]
    TooMany(usize),
    #[error("the chain is closed")]
    Closed,
}

/// Decides a publication after `last`, the manifest that this owner wrote.
///
/// # Errors
/// The first rule that is broken. What passes keeps FOLD-2 and the induction that GC rests on: a manifest holds only
/// segments of its predecessor and ids above its predecessor's watermark.
pub fn publish(
    last: &Manifest,
    next_offset: Offset,
    segments: Vec<SegmentEntry>,
    stamp: Stamp,
) -> Result<Manifest, PublishRefusal> {
    if last.reason == Reason::Close {
        return Err(PublishRefusal::Closed);
    }
    if next_offset < last.next_offset {
        return Err(PublishRefusal::OffsetGoesBack { from: last.next_offset, to: next_offset });
    }
    if segments.len() > MAX_SEGMENTS {
        return Err(PublishRefusal::TooMany(segments.len()));
    }
    let before: BTreeMap<SegmentId, &SegmentEntry> = last.segments.iter().map(|s| (s.id, s)).collect();
    let mut seen = BTreeSet::new();
    let mut watermark = last.watermark;
    for entry in &segments {
        if !seen.insert(entry.id) {
            return Err(PublishRefusal::Twice(entry.id));
        }
        if entry.records == 0 || entry.deleted.max().is_some_and(|row| row >= entry.records) {
            return Err(PublishRefusal::Rows(entry.id));
        }
        match before.get(&entry.id) {
            Some(old) => same_file(old, entry)?,
            None if entry.id.epoch != last.epoch || entry.id <= last.watermark => {
                return Err(PublishRefusal::NotNew(entry.id));
            }
            None => watermark = watermark.max(entry.id),
        }
    }
    Ok(Manifest {
        partition: last.partition.clone(),
        seq: last.seq.next(),
        start: last.next_offset,
        next_offset,
        segments,
        watermark,
        created_at: stamp.created_at,
        put_id: stamp.put_id,
        reason: Reason::Publish,
        ..*last
    })
}

fn same_file(old: &SegmentEntry, new: &SegmentEntry) -> Result<(), PublishRefusal> {
    if (old.bytes, old.digest, old.records) != (new.bytes, new.digest, new.records) {
        return Err(PublishRefusal::Changed(new.id));
    }
    if !old.deleted.is_subset(&new.deleted) {
        return Err(PublishRefusal::Undeleted(new.id));
    }
    Ok(())
}

/// Whether `manifest` holds exactly this content already.
pub fn same_content(manifest: &Manifest, next_offset: Offset, segments: &[SegmentEntry]) -> bool {
    manifest.next_offset == next_offset && manifest.segments == segments
}

/// Whether a reader may go from `known` to `newer`.
///
/// # Errors
/// What does not fit, as text.
pub fn follows(known: &Manifest, newer: &Manifest) -> Result<(), String> {
    let broken = |rule: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
        Err(format!("{rule}: manifest {} says {was}, manifest {} says {is}", known.seq, newer.seq))
    };
    if newer.seq <= known.seq {
        return broken("numbers go back", &known.seq, &newer.seq);
    }
    if newer.epoch < known.epoch {
        return broken("epochs go back", &known.epoch, &newer.epoch);
    }
    if newer.next_offset < known.next_offset {
        return broken("next offsets go back", &known.next_offset, &newer.next_offset);
    }
    if newer.seq == known.seq.next() && newer.start != known.next_offset {
        return broken("start is not the next offset before", &known.next_offset, &newer.start);
    }
    if newer.partitions != known.partitions {
        return broken("partition counts differ", &known.partitions, &newer.partitions);
    }
    Ok(())
}
