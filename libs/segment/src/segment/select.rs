//! The rows that may stand in an answer: those that pass the filter and are not deleted.

use roaring::RoaringBitmap;

use super::Segment;
use crate::Filter;
use crate::filter::{Bits, Bound, Candidates, Facts};

/// Rows looked at to tell how many pass where column indexes do not tell it.
const SAMPLE: usize = 512;

/// Rows that are known.
pub(super) enum Rows {
    /// In growing order.
    List(Vec<u32>),
    Bits(Bits),
}

/// A filter on one segment, and what its column indexes know of it.
pub(super) struct Selection<'a> {
    bound: Bound<'a>,
    candidates: Option<Candidates<'a>>,
    deleted: &'a RoaringBitmap,
    rows: usize,
    /// Rows that are not deleted.
    live: usize,
}

impl<'a> Selection<'a> {
    pub(super) fn new(segment: &'a Segment, filter: &Filter, deleted: &'a RoaringBitmap) -> Self {
        let rows = segment.rows();
        let bound = segment.bound(filter);
        let candidates = bound.candidates();
        let live = segment.live(deleted);
        Self { bound, candidates, deleted, rows, live }
    }

    #[inline]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.bound.passes(row) && self.keeps(row)
    }

    #[inline]
    fn keeps(&self, row: u32) -> bool {
        self.live == self.rows || !self.deleted.contains(row)
    }

    /// No more rows than these can be selected.
    pub(super) fn most(&self) -> usize {
        self.bound.bounds().most.min(self.live)
    }

    /// About how many rows are selected.
    pub(super) fn estimate(&self) -> usize {
        let bounds = self.bound.bounds();
        let passing = if bounds.least == bounds.most {
            bounds.most
        } else {
            self.bound.estimate(self.candidates.as_ref(), SAMPLE)
        };
        // as many of them are deleted as of all rows, for all that is known
        (passing as u64 * self.live as u64 / self.rows as u64) as usize
    }

    /// What is known of a search that keeps `ef` of about so many matches.
    pub(super) fn facts(&self, matches: usize, ef: usize) -> Facts {
        let candidates = self.candidates.as_ref().map_or(self.rows, Candidates::len);
        Facts { rows: self.rows, matches, candidates, ef }
    }

    /// The rows, all of them.
    pub(super) fn all(&self) -> Rows {
        match &self.candidates {
            Some(candidates) if candidates.are_few(self.rows) => {
                Rows::List(self.bound.list(candidates, |row| self.keeps(row)))
            }
            _ => {
                let mut rows = self.bound.bits();
                rows.remove(self.deleted.iter());
                Rows::Bits(rows)
            }
        }
    }
}

impl Segment {
    pub(crate) fn bound(&self, filter: &Filter) -> Bound<'_> {
        filter.bind(self.rows(), &|field| self.column(field))
    }

    /// Rows that are not in `deleted`.
    pub(super) fn live(&self, deleted: &RoaringBitmap) -> usize {
        self.rows() - deleted.range_cardinality(0..self.meta.rows) as usize
    }

    /// The rows that pass `filter`, without those in `deleted`.
    pub fn matching(&self, filter: &Filter, deleted: &RoaringBitmap) -> RoaringBitmap {
        match Selection::new(self, filter, deleted).all() {
            Rows::List(rows) => rows.into_iter().collect(),
            Rows::Bits(rows) => rows.iter().collect(),
        }
    }
}
