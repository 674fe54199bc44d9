//! One search over one partition of a view, its segments in parallel.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use roaring::RoaringBitmap;
use sluice_core::Vector;
use sluice_segment::{Cancelled, Filter, Query, Segment};

use crate::top_k::Candidate;
use crate::view::{RowId, View};

/// A validated search.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    pub(crate) vector: Vector,
    pub(crate) k: usize,
    pub(crate) ef: usize,
    pub(crate) exact: bool,
    pub(crate) filter: Option<Filter>,
    pub(crate) bound: Option<f32>,
    /// A record that is not to be among the hits.
    pub(crate) skip: Option<Box<str>>,
}

/// The best `want` candidates of each segment of `partition`.
pub(crate) fn partition(
    view: &View,
    partition: u32,
    search: &Search,
    want: usize,
    cancelled: &AtomicBool,
) -> Result<Vec<Candidate>, Cancelled> {
    let Some(snapshot) = view.partitions().get(partition as usize).and_then(Option::as_ref) else {
        return Ok(Vec::new());
    };
    let query = Query {
        vector: &search.vector,
        k: want,
        ef: search.ef.max(want),
        exact: search.exact,
        filter: search.filter.as_ref(),
        bound: search.bound,
        cancelled,
    };
    let one = |(at, (segment, deleted)): (u32, (&Segment, &RoaringBitmap))| {
        let found = segment.search(&query, deleted)?;
        let candidate = |hit: sluice_segment::Hit| Candidate {
            score: hit.score,
            at: RowId { partition, segment: at, row: hit.row },
            offset: segment.row(hit.row).offset,
        };
        Ok(found.into_iter().map(candidate).collect())
    };
    let segments: Vec<_> = (0u32..).zip(snapshot.segments()).collect();
    let lists: Vec<Vec<Candidate>> = match segments.as_slice() {
        // handing a single segment to another thread costs more than it gives
        [single] => vec![one(*single)?],
        _ => segments.into_par_iter().map(one).collect::<Result<_, Cancelled>>()?,
    };
    Ok(lists.into_iter().flatten().collect())
}

/// Live records of `partition` that match, a key that is live in another partition with a newer version not
/// counted.
pub(crate) fn count(
    view: &View,
    partition: u32,
    filter: Option<&Filter>,
    cancelled: &AtomicBool,
) -> Result<u64, Cancelled> {
    let Some(snapshot) = view.partitions().get(partition as usize).and_then(Option::as_ref) else {
        return Ok(0);
    };
    let segments: Vec<_> = (0u32..).zip(snapshot.segments()).collect();
    let one = |(at, (segment, deleted)): (u32, (&Segment, &RoaringBitmap))| {
        if cancelled.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Cancelled);
        }
        let rows = match filter {
            Some(filter) => segment.matching(filter, deleted),
            None => {
                let mut rows = RoaringBitmap::new();
                rows.insert_range(0..segment.len());
                rows - deleted
            }
        };
        if view.is_exclusive() {
            return Ok(rows.len());
        }
        let mut live = 0;
        for (seen, row) in rows.iter().enumerate() {
            if seen % 1024 == 0 && cancelled.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Cancelled);
            }
            live += u64::from(!view.is_superseded(RowId { partition, segment: at, row }));
        }
        Ok(live)
    };
    segments.into_par_iter().map(one).sum()
}
