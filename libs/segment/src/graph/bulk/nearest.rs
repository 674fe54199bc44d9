//! The nearest few of each point of a block, collected while tiles of distances come by.

use crate::kernels::codes::{BEST, Best, Receivers, TILE};

/// For each of some points the nearest `k` that were offered; `k` is at most [`BEST`].
#[derive(Debug, Default)]
pub(super) struct Nearest {
    k: usize,
    best: Vec<Best>,
    /// The distance that an offer must be below, point by point; below everything where there is no point.
    bounds: Vec<[f32; TILE]>,
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

    /// The points of one tile, to be offered something.
    pub(super) fn receivers(&mut self, tile: usize) -> Receivers<'_> {
        let end = self.best.len().min((tile + 1) * TILE);
        Receivers { k: self.k, best: &mut self.best[tile * TILE..end], bounds: &mut self.bounds[tile] }
    }

    /// Forgets what stands beyond the nearest `k`, which is of no account.
    pub(super) fn cut(&mut self) {
        self.best.iter_mut().for_each(|best| best.others[self.k..].fill(u32::MAX));
    }

    /// Measures the nearest of each point anew and keeps `k` of them. `distances` appends those of a point to others.
    pub(super) fn refine(&mut self, k: usize, mut distances: impl FnMut(usize, &[u32], &mut Vec<f32>)) {
        let (mut measured, mut again) = (Vec::new(), Vec::new());
        for (point, best) in self.best.iter_mut().enumerate() {
            let others = &best.others[..best.others.iter().position(|o| *o == u32::MAX).unwrap_or(BEST)];
            measured.clear();
            distances(point, others, &mut measured);
            again.clear();
            again.extend(measured.iter().copied().zip(others.iter().copied()));
            again.sort_unstable_by(|a: &(f32, u32), b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            best.others.fill(u32::MAX);
            for (place, (distance, other)) in again.iter().take(k).enumerate() {
                (best.distances[place], best.others[place]) = (*distance, *other);
            }
        }
        self.k = k;
    }

    /// The nearest of `point`, best first.
    pub(super) fn of(&self, point: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        let Best { distances, others } = &self.best[point];
        let pairs = distances.iter().copied().zip(others.iter().copied()).take(self.k);
        pairs.take_while(|(_, other)| *other != u32::MAX)
    }

    /// Whether `other` is among the nearest of `point`, once they were cut.
    #[inline]
    pub(super) fn has(&self, point: usize, other: u32) -> bool {
        // all sixteen places, so that no branch stands between them
        self.best[point].others.iter().fold(false, |found, there| found | (*there == other))
    }
}
