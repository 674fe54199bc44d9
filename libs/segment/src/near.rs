//! Rank order of rows: by distance, then by row, as one integer, and the best k of a stream of them.

use std::collections::BinaryHeap;

use crate::Hit;
use crate::format::MAX_ROWS;
use crate::score::Scorer;

/// A row and its distance to the query in one integer: the nearer is the smaller, equal distances order by row.
///
/// From above: 32 bits of distance, 31 bits of row, one bit that is a mark for whoever keeps a list of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Near(u64);

impl Near {
    #[inline]
    pub(crate) fn new(distance: f32, row: u32) -> Self {
        // adding zero makes -0.0 and 0.0 one value
        let bits = (distance + 0.0).to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
        debug_assert!(row as usize <= MAX_ROWS);
        Self(u64::from(ordered) << 32 | u64::from(row) << 1)
    }

    #[inline]
    pub(crate) fn row(self) -> u32 {
        self.0 as u32 >> 1
    }

    #[inline]
    pub(crate) fn marked(self) -> Self {
        Self(self.0 | 1)
    }

    #[inline]
    pub(crate) fn unmarked(self) -> Self {
        Self(self.0 & !1)
    }

    #[inline]
    pub(crate) fn is_marked(self) -> bool {
        self.0 & 1 == 1
    }

    #[inline]
    pub(crate) fn is_as_near_as(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }

    pub(crate) fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & 0x7fff_ffff } else { !ordered })
    }
}

/// Keeps the nearest `k` of the rows offered to it.
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    heap: BinaryHeap<Near>,
}

impl TopK {
    /// Room for `k` rows, but no more than `rows`, which is how many can be offered.
    pub(crate) fn new(k: usize, rows: usize) -> Self {
        let k = k.min(rows);
        Self { k, heap: BinaryHeap::with_capacity(k) }
    }

    #[inline]
    pub(crate) fn offer(&mut self, near: Near) {
        if self.heap.len() < self.k {
            self.heap.push(near);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && near < *worst
        {
            *worst = near;
        }
    }

    /// The rows, best first.
    pub(crate) fn into_sorted(self) -> Vec<Near> {
        self.heap.into_sorted_vec()
    }

    /// The hits within `bound`, best first.
    pub(crate) fn into_hits(self, scorer: &Scorer<'_>, bound: Option<f32>) -> Vec<Hit> {
        hits(self.heap.into_sorted_vec().into_iter(), scorer, bound)
    }
}

/// Turns rows in rank order into hits as a user sees them, without those beyond `bound`.
pub(crate) fn hits(nearest: impl Iterator<Item = Near>, scorer: &Scorer<'_>, bound: Option<f32>) -> Vec<Hit> {
    nearest
        .map(|near| Hit { row: near.row(), score: scorer.score(near.distance()) })
        .filter(|hit| bound.is_none_or(|bound| scorer.is_within(hit.score, bound)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn near_orders_as_the_distances_and_keeps_them(
            a in -1e30f32..1e30, b in -1e30f32..1e30, i in 0..MAX_ROWS as u32, j in 0..MAX_ROWS as u32
        ) {
            let (x, y) = (Near::new(a, i), Near::new(b, j));
            prop_assert_eq!(x.cmp(&y), a.total_cmp(&b).then(i.cmp(&j)));
            prop_assert_eq!((x.distance(), x.row()), (a, i));
            let marked = x.marked();
            prop_assert!(marked.is_marked() && !x.is_marked() && marked.row() == i && marked.unmarked() == x);
        }
    }

    #[test]
    fn both_zeros_are_one_distance() {
        assert_eq!(Near::new(-0.0, 7), Near::new(0.0, 7));
        assert!(Near::new(f32::INFINITY, 0) > Near::new(f32::MAX, 9));
    }
}
