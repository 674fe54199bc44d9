//! A query compared with full vectors.

use super::Segment;
use crate::Components;
use crate::distances::Distances;
use crate::near::{Near, TopK};
use crate::score::Scorer;

/// Rows whose vectors are fetched ahead of the one that is compared.
const AHEAD: usize = 3;

/// A segment's vectors and what they are compared with.
pub(super) struct ByVector<'a> {
    scorer: &'a Scorer<'a>,
    vectors: Components<'a>,
    dimension: usize,
    /// Empty unless the metric is cosine.
    norms: &'a [f32],
}

impl<'a> ByVector<'a> {
    pub(super) fn new(segment: &'a Segment, scorer: &'a Scorer<'a>) -> Self {
        Self {
            scorer,
            vectors: segment.layout.vectors(&segment.bytes),
            dimension: segment.meta.dimension.get(),
            norms: segment.layout.inverse_norms(&segment.bytes),
        }
    }

    #[inline]
    fn vector(&self, row: u32) -> Components<'a> {
        self.vectors.vector(row as usize, self.dimension)
    }

    #[inline]
    fn norm(&self, row: u32) -> f32 {
        self.norms.get(row as usize).copied().unwrap_or_default()
    }

    #[inline]
    fn distance(&self, row: u32) -> f32 {
        self.scorer.distance(self.vector(row), self.norm(row))
    }

    /// The nearest `k` of `rows`, best first.
    pub(super) fn order(&self, rows: &[Near], k: usize) -> Vec<Near> {
        let mut top = TopK::new(k, rows.len());
        rows.iter().take(AHEAD).for_each(|near| self.vector(near.row()).prefetch());
        for (at, near) in rows.iter().enumerate() {
            if let Some(ahead) = rows.get(at + AHEAD) {
                self.vector(ahead.row()).prefetch();
            }
            top.offer(Near::new(self.distance(near.row()), near.row()));
        }
        top.into_sorted()
    }

    /// The distances of rows that are in the caches already.
    pub(super) fn distances_at_hand(&self, rows: &[u32], out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        for four in fours {
            let norms = four.map(|row| self.norm(row));
            out.extend(self.scorer.distances4(four.map(|row| self.vector(row)), norms));
        }
        out.extend(rest.iter().map(|row| self.distance(*row)));
    }
}

impl Distances for ByVector<'_> {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        rows.iter().take(AHEAD).for_each(|row| self.vector(*row).prefetch());
        for (at, row) in rows.iter().enumerate() {
            if let Some(ahead) = rows.get(at + AHEAD) {
                self.vector(*ahead).prefetch();
            }
            out.push(self.distance(*row));
        }
    }

    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        // the processor reads ahead by itself, and better than it is told to
        out.extend(rows.iter().map(|row| self.distance(*row)));
    }
}
