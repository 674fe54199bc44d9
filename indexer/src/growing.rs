//! The growing set with what rides along: the byte permits of its records and the span of offsets that it covers.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::{BytePermit, Offset, Record, RecordBatch, Schema, Timestamp};
use sluice_segment::GrowingSet;

use crate::seal_policy::GrowingFacts;

/// Records applied in one go: a few hundred microseconds, so that the worker stays responsive.
const SLICE: usize = 512;

/// A batch of which some records are still to be applied.
pub(crate) struct Pending {
    records: std::vec::IntoIter<Record>,
    next_offset: Offset,
    permit: BytePermit,
}

impl From<RecordBatch> for Pending {
    fn from(batch: RecordBatch) -> Self {
        Self { records: batch.records.into_iter(), next_offset: batch.next_offset, permit: batch.permit }
    }
}

/// What [`Growing::take`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) applied: u64,
    /// Records that came again and were dropped.
    pub(crate) replayed: u64,
    /// Whether nothing is left of the batch.
    pub(crate) all: bool,
}

/// The newest records of a partition, from `start`, the next offset to be published, up to `next`.
pub(crate) struct Growing {
    set: GrowingSet,
    permit: BytePermit,
    start: Offset,
    next: Offset,
    since: Option<Timestamp>,
    oldest: Option<Timestamp>,
}

/// A growing set that takes no more records, on its way to a segment. Its permits are freed with it.
pub(crate) struct Frozen {
    pub(crate) set: Arc<GrowingSet>,
    pub(crate) start: Offset,
    pub(crate) next: Offset,
    pub(crate) oldest: Option<Timestamp>,
    permit: BytePermit,
}

impl Frozen {
    pub(crate) fn bytes(&self) -> u64 {
        self.permit.bytes() as u64
    }
}

impl Growing {
    pub(crate) fn new(schema: Arc<Schema>, start: Offset) -> Self {
        Self {
            set: GrowingSet::new(schema),
            permit: BytePermit::none(),
            start,
            next: start,
            since: None,
            oldest: None,
        }
    }

    /// First offset that is not applied.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Time of the oldest record or skipped offset.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.oldest
    }

    pub(crate) fn live(&self) -> u64 {
        self.set.live_len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        // records that were replaced are charged until the segment is published
        (self.set.bytes() as u64).max(self.permit.bytes() as u64)
    }

    pub(crate) fn facts(&self, now: Timestamp, pressed: bool) -> GrowingFacts {
        let age =
            |since: Timestamp| Duration::from_millis(now.0.saturating_sub(since.0).max(0).unsigned_abs());
        GrowingFacts { live: self.live(), bytes: self.bytes(), age: self.since.map(age), pressed }
    }

    /// Whether there is anything that a manifest does not say yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.next > self.start
    }

    /// Applies some records of `batch`, until the set holds `max_live` rows. An offset below [`Growing::next`] was
    /// seen before and is dropped, whatever it holds.
    pub(crate) fn take(&mut self, batch: &mut Pending, max_live: u64, now: Timestamp) -> Taken {
        let mut taken = Taken::default();
        while self.live() < max_live && taken.applied + taken.replayed < SLICE as u64 {
            let Some(record) = batch.records.next() else { break };
            if record.offset < self.next {
                taken.replayed += 1;
                continue;
            }
            // a producer's clock may be wrong or missing
            let at = Some(record.timestamp).filter(|at| at.0 > 0 && *at <= now).unwrap_or(now);
            self.touch(at, now);
            self.next = record.offset.next();
            self.set.apply(record);
            taken.applied += 1;
        }
        taken.all = batch.records.as_slice().is_empty();
        if taken.all {
            if batch.next_offset > self.next {
                self.touch(now, now);
                self.next = batch.next_offset;
            }
            if self.is_dirty() {
                self.permit.merge(std::mem::take(&mut batch.permit));
            }
        }
        taken
    }

    fn touch(&mut self, at: Timestamp, now: Timestamp) {
        self.since.get_or_insert(now);
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }

    /// Hands the records over for sealing and starts afresh where they end.
    pub(crate) fn freeze(&mut self, schema: Arc<Schema>) -> Frozen {
        let full = std::mem::replace(self, Self::new(schema, self.next));
        Frozen {
            set: Arc::new(full.set),
            start: full.start,
            next: full.next,
            oldest: full.oldest,
            permit: full.permit,
        }
    }
}
