//! The nearest few of each point of a tile, and the offers that they are chosen from.

use super::tile::TILE;

/// How many of the nearest are kept for a point at most.
pub(crate) const BEST: usize = 16;

/// The nearest of what was offered to a point, best first; of equals the first to come stands first.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(crate) struct Best {
    /// Infinite where there is nothing.
    pub(crate) distances: [f32; BEST],
    pub(crate) others: [u32; BEST],
}

impl Best {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self { distances: [f32::INFINITY; BEST], others: [u32::MAX; BEST] };
}

/// The points of a tile that offers are made to.
#[derive(Debug)]
pub(crate) struct Receivers<'a> {
    /// Of the nearest that count; 1 to [`BEST`].
    pub(crate) k: usize,
    /// At most [`TILE`] points.
    pub(crate) best: &'a mut [Best],
    /// The distance that an offer must be below: the farthest of the nearest `k`.
    pub(crate) bounds: &'a mut [f32; TILE],
}

impl Receivers<'_> {
    /// Where the farthest of the nearest `k` stands.
    pub(super) fn last_place(&self) -> i32 {
        (self.k.clamp(1, BEST) - 1) as i32
    }

    #[inline]
    pub(super) fn offer(&mut self, point: usize, distance: f32, other: u32) {
        let last = self.last_place() as usize;
        // the bound may have moved since the tile was computed
        if distance < self.bounds[point]
            && let Some(Best { distances, others }) = self.best.get_mut(point)
        {
            let place = distances.partition_point(|there| *there <= distance);
            distances.copy_within(place..BEST - 1, place + 1);
            others.copy_within(place..BEST - 1, place + 1);
            distances[place] = distance;
            others[place] = other;
            self.bounds[point] = distances[last];
        }
    }
}
