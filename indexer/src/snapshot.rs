//! `Snapshot`: the newest manifest as its owner holds it, with every segment opened.

use std::sync::Arc;

use sluice_core::Offset;
use sluice_segment::Segment;

use crate::SegmentState;
use crate::merge_policy::SegmentFacts;

/// A published segment, opened.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) state: SegmentState,
    pub(crate) segment: Arc<Segment>,
}

impl Live {
    pub(crate) fn facts(&self) -> SegmentFacts {
        SegmentFacts {
            records: self.state.records.into(),
            dead: self.state.deleted.len(),
            bytes: self.state.bytes,
            has_graph: self.segment.has_graph(),
        }
    }
}

/// What is published: the live rows of `segments` are the fold of the log before `next_offset`.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) next_offset: Offset,
    pub(crate) segments: Vec<Live>,
}

impl Snapshot {
    pub(crate) fn live_records(&self) -> u64 {
        self.segments.iter().map(|s| s.state.live()).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.state.bytes).sum()
    }
}
