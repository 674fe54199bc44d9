//! Search over one segment: a walk over its graph, or a scan of the rows that match.
//!
//! The rows that pass the filter and are not deleted are known exactly before the search begins, so the choice
//! between the two is made by counting: few rows are scanned, many are walked to. A walk that finds fewer than `k`,
//! or that computes more distances than a scan would, is given up for the scan; so `k` live matches come back
//! whenever `k` exist, at no more than about twice the cost of the scan.

use std::cell::Cell;

use roaring::RoaringBitmap;

use super::Segment;
use crate::filter::Bits;
use crate::graph::{Links, Scratch, Target, Walked, beam, descend};
use crate::kernels::prefetch;
use crate::near::{Near, TopK, hits};
use crate::score::Scorer;
use crate::{Cancelled, Hit, Query};

/// Rows between two looks at the cancelled flag.
const CHECK_EVERY: usize = 256;

thread_local! {
    /// Each thread's memory for walks; it grows to one byte per row of the largest segment searched.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// The rows that may stand in the answer.
enum Live<'a> {
    All,
    AllBut(&'a RoaringBitmap),
    These(Bits),
}

impl Live<'_> {
    #[inline]
    fn contains(&self, row: u32) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(deleted) => !deleted.contains(row),
            Self::These(rows) => rows.contains(row),
        }
    }
}

impl Segment {
    /// The nearest rows that pass the filter and are not in `deleted`: `k` of them whenever so many exist.
    ///
    /// # Errors
    /// When the query was cancelled.
    pub fn search(&self, query: &Query<'_>, deleted: &RoaringBitmap) -> Result<Vec<Hit>, Cancelled> {
        if query.k == 0 {
            return Ok(Vec::new());
        }
        query.check_cancelled()?;
        let (live, count) = match query.filter {
            None if deleted.is_empty() => (Live::All, self.rows()),
            None => {
                let dead = deleted.range_cardinality(0..self.meta.rows) as usize;
                (Live::AllBut(deleted), self.rows() - dead)
            }
            filter => {
                let rows = self.matching_bits(filter, deleted);
                let count = rows.count();
                (Live::These(rows), count)
            }
        };
        let scorer = Scorer::new(self.meta.metric, query.vector.as_slice());
        let view = View::new(self, query, &scorer, live);
        let ef = query.ef.max(query.k).min(self.rows());
        if !query.exact
            && self.has_graph()
            && !scan_is_cheaper(count, ef, self.rows())
            && let Some(found) = self.walk(&view, ef, count)?
        {
            return Ok(found);
        }
        view.scan(count)
    }

    /// Walks the graph; `None` when that leads to fewer rows than there are, or too far.
    fn walk(&self, view: &View<'_>, ef: usize, count: usize) -> Result<Option<Vec<Hit>>, Cancelled> {
        let Some(graph) = &self.meta.graph else { return Ok(None) };
        let mut from = graph.entry;
        for level in (1..=self.layout.upper_levels()).rev() {
            let upper = self.layout.upper(&self.bytes, level);
            let links = Links { neighbours: upper.neighbours, stride: graph.stride as usize };
            from = descend(links, from, &UpperTarget { view, rows: upper.rows });
            from = upper.below[from as usize];
        }
        let links = Links { neighbours: self.layout.level0(&self.bytes), stride: graph.stride0 as usize };
        let limit = match view.live {
            Live::All => usize::MAX,
            _ => count.saturating_add(64 * ef),
        };
        let mut scratch = SCRATCH.take();
        let starts = std::iter::once(from).chain(graph.seeds.iter().copied());
        let walked = beam(links, starts, ef, limit, view, &mut scratch);
        let wanted = view.query.k.min(count);
        let found = match walked {
            Ok(Walked::Done) if scratch.found_len() >= wanted => {
                let nearest = scratch.found().iter().take(view.query.k).copied();
                Ok(Some(hits(nearest, view.scorer, view.query.bound)))
            }
            Ok(_) => Ok(None),
            Err(cancelled) => Err(cancelled),
        };
        SCRATCH.set(scratch);
        found
    }
}

/// Whether comparing all `count` rows that match costs less than walking. A walk for `ef` rows of which one in
/// `rows / count` matches computes about 20 x ef x rows / count distances, in no order that helps the memory.
fn scan_is_cheaper(count: usize, ef: usize, rows: usize) -> bool {
    let (count, ef, rows) = (count as u128, ef as u128, rows as u128);
    count * count <= 20 * ef * rows
}

/// What one search looks at, as slices.
struct View<'a> {
    query: &'a Query<'a>,
    scorer: &'a Scorer<'a>,
    vectors: &'a [f32],
    dimension: usize,
    /// Empty unless the metric is cosine.
    norms: &'a [f32],
    rows: u32,
    live: Live<'a>,
}

impl<'a> View<'a> {
    fn new(segment: &'a Segment, query: &'a Query<'a>, scorer: &'a Scorer<'a>, live: Live<'a>) -> Self {
        Self {
            query,
            scorer,
            vectors: segment.layout.vectors(&segment.bytes),
            dimension: segment.meta.dimension.get(),
            norms: segment.layout.inverse_norms(&segment.bytes),
            rows: segment.meta.rows,
            live,
        }
    }

    #[inline]
    fn vector(&self, row: u32) -> &'a [f32] {
        &self.vectors[row as usize * self.dimension..][..self.dimension]
    }

    /// Compares the query with every live row, of which there are `count`.
    fn scan(&self, count: usize) -> Result<Vec<Hit>, Cancelled> {
        match &self.live {
            Live::All => self.scan_rows(0..self.rows, count),
            Live::AllBut(deleted) => {
                self.scan_rows((0..self.rows).filter(|row| !deleted.contains(*row)), count)
            }
            Live::These(rows) => self.scan_rows(rows.iter(), count),
        }
    }

    fn scan_rows(&self, rows: impl Iterator<Item = u32>, count: usize) -> Result<Vec<Hit>, Cancelled> {
        let mut top = TopK::new(self.query.k, count);
        for (seen, row) in rows.enumerate() {
            if seen % CHECK_EVERY == 0 {
                self.query.check_cancelled()?;
            }
            top.offer(Near::new(self.distance(row), row));
        }
        Ok(top.into_hits(self.scorer, self.query.bound))
    }
}

impl Target for View<'_> {
    #[inline]
    fn distance(&self, row: u32) -> f32 {
        let norm = self.norms.get(row as usize).copied().unwrap_or_default();
        self.scorer.distance(self.vector(row), norm)
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.vector(row));
    }

    #[inline]
    fn admits(&self, row: u32) -> bool {
        self.live.contains(row)
    }

    fn check_cancelled(&self) -> Result<(), Cancelled> {
        self.query.check_cancelled()
    }
}

/// The same query on an upper level, whose nodes are places.
struct UpperTarget<'a> {
    view: &'a View<'a>,
    rows: &'a [u32],
}

impl Target for UpperTarget<'_> {
    fn distance(&self, node: u32) -> f32 {
        self.view.distance(self.rows[node as usize])
    }
}
