//! The nearest few of each point of a block, collected while tiles of distances come by.

use crate::kernels::codes::{BEST, Best, TILE, code_kernels};

/// For each of some points the nearest `k` that were offered; `k` is at most [`BEST`].
#[derive(Debug)]
pub(super) struct Nearest {
    k: usize,
    best: Vec<Best>,
    /// The distance that an offer must be below, point by point; below everything where there is no point.
    bounds: Vec<[f32; TILE]>,
    insert: fn(&mut Best, f32, u32),
}

impl Default for Nearest {
    fn default() -> Self {
        Self { k: 0, best: Vec::new(), bounds: Vec::new(), insert: code_kernels().insert }
    }
}

impl Nearest {
    /// Empties the lists, for `points` points.
    pub(super) fn reset(&mut self, points: usize, k: usize) {
        debug_assert!((1..=BEST).contains(&k));
        self.k = k;
        self.best.clear();
        self.best.resize(points, Best::NONE);
        self.bounds.clear();
        self.bounds.resize(points.div_ceil(TILE), [f32::INFINITY; TILE]);
        if let Some(last) = self.bounds.last_mut() {
            last[(points - 1) % TILE + 1..].fill(f32::NEG_INFINITY);
        }
    }

    /// The bounds of the points of one tile.
    pub(super) fn bounds(&self, tile: usize) -> &[f32; TILE] {
        &self.bounds[tile]
    }

    /// Offers `other` to `point`.
    #[inline]
    pub(super) fn offer(&mut self, point: usize, distance: f32, other: u32) {
        let bound = &mut self.bounds[point / TILE][point % TILE];
        // the bound may have moved since the tile was computed
        if distance < *bound {
            let best = &mut self.best[point];
            (self.insert)(best, distance, other);
            *bound = best.distances[self.k - 1];
        }
    }

    /// The nearest of `point`, best first.
    pub(super) fn of(&self, point: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        let Best { distances, others } = &self.best[point];
        let pairs = distances.iter().copied().zip(others.iter().copied()).take(self.k);
        pairs.take_while(|(_, other)| *other != u32::MAX)
    }

    /// Whether `other` is among the nearest of `point`.
    #[inline]
    pub(super) fn has(&self, point: usize, other: u32) -> bool {
        // what stands beyond the nearest k is of no account
        self.best[point].others[..self.k].contains(&other)
    }
}
