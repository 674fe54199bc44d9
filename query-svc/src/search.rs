//! Searches over one partition of a view, its segments in parallel.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use roaring::RoaringBitmap;
use sluice_core::Vector;
use sluice_segment::{Cancelled, Filter, Query, Segment};

use crate::top_k::Candidate;
use crate::view::{RowId, View};

/// A validated search.
#[derive(Debug)]
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

/// A search and how many candidates of it each segment is to give.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) search: Arc<Search>,
    pub(crate) want: usize,
}

impl Ask {
    fn query<'a>(&'a self, cancelled: &'a AtomicBool) -> Query<'a> {
        let Self { search, want } = self;
        Query {
            vector: &search.vector,
            k: *want,
            ef: search.ef.max(*want),
            exact: search.exact,
            filter: search.filter.as_ref(),
            bound: search.bound,
            cancelled,
        }
    }
}

/// For each of `asks` the best candidates of each segment of `partition`. The asks of one job search a segment
/// together.
pub(crate) fn partition(
    view: &View,
    partition: u32,
    asks: &[Ask],
    cancelled: &AtomicBool,
) -> Result<Vec<Vec<Candidate>>, Cancelled> {
    let mut lists = vec![Vec::new(); asks.len()];
    let Some(snapshot) = view.partitions().get(partition as usize).and_then(Option::as_ref) else {
        return Ok(lists);
    };
    // segments keep the threads busy first; asks are parted only where there are more threads
    let segments: usize = view.partitions().iter().flatten().map(|p| p.segments().len()).sum();
    let groups = rayon::current_num_threads().div_ceil(segments.max(1));
    let together = asks.len().div_ceil(groups).max(1);
    let jobs: Vec<Job<'_>> = (0u32..)
        .zip(snapshot.segments())
        .flat_map(|(at, (segment, deleted))| {
            let groups = (0..).step_by(together).zip(asks.chunks(together));
            groups.map(move |(first, asks)| Job { at, segment, deleted, first, asks })
        })
        .collect();
    let found: Vec<Vec<Vec<Candidate>>> = match jobs.as_slice() {
        // handing a single job to another thread costs more than it gives
        [single] => vec![single.run(partition, cancelled)?],
        _ => jobs.par_iter().map(|job| job.run(partition, cancelled)).collect::<Result<_, Cancelled>>()?,
    };
    for (job, found) in jobs.iter().zip(found) {
        for (list, found) in lists[job.first..].iter_mut().zip(found) {
            list.extend(found);
        }
    }
    Ok(lists)
}

/// Some asks on one segment.
struct Job<'a> {
    /// The segment's place in its snapshot.
    at: u32,
    segment: &'a Segment,
    deleted: &'a RoaringBitmap,
    /// The place of the first of `asks`.
    first: usize,
    asks: &'a [Ask],
}

impl Job<'_> {
    fn run(&self, partition: u32, cancelled: &AtomicBool) -> Result<Vec<Vec<Candidate>>, Cancelled> {
        let queries: Vec<Query<'_>> = self.asks.iter().map(|ask| ask.query(cancelled)).collect();
        let candidate = |hit: sluice_segment::Hit| Candidate {
            score: hit.score,
            at: RowId { partition, segment: self.at, row: hit.row },
            offset: self.segment.row(hit.row).offset,
        };
        let found = self.segment.search_batch(&queries, self.deleted)?;
        Ok(found.into_iter().map(|hits| hits.into_iter().map(candidate).collect()).collect())
    }
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
