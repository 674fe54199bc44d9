//! The nearest few of each point of a block, collected while tiles of distances come by.

use crate::kernels::codes::TILE;

/// For each of some points the nearest `k` that were offered.
#[derive(Debug, Default)]
pub(super) struct Nearest {
    k: usize,
    distances: Vec<f32>,
    others: Vec<u32>,
    /// The distance that an offer must be below, point by point; below everything where there is no point.
    bounds: Vec<[f32; TILE]>,
}

impl Nearest {
    /// Empties the lists, for `points` points.
    pub(super) fn reset(&mut self, points: usize, k: usize) {
        self.k = k;
        self.distances.clear();
        self.distances.resize(points * k, f32::INFINITY);
        self.others.clear();
        self.others.resize(points * k, u32::MAX);
        self.bounds.clear();
        self.bounds.resize(points.div_ceil(TILE), [f32::NEG_INFINITY; TILE]);
        for at in 0..points {
            self.bounds[at / TILE][at % TILE] = f32::INFINITY;
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
        if distance >= *bound {
            return;
        }
        let from = point * self.k;
        let (distances, others) =
            (&mut self.distances[from..from + self.k], &mut self.others[from..from + self.k]);
        let mut at = self.k - 1;
        while at > 0 && distances[at - 1] > distance {
            distances[at] = distances[at - 1];
            others[at] = others[at - 1];
            at -= 1;
        }
        distances[at] = distance;
        others[at] = other;
        *bound = distances[self.k - 1];
    }

    /// The nearest of `point`, best first.
    pub(super) fn of(&self, point: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        let range = point * self.k..(point + 1) * self.k;
        let pairs = self.distances[range.clone()].iter().copied().zip(self.others[range].iter().copied());
        pairs.take_while(|(_, other)| *other != u32::MAX)
    }
}
