//! Spaces in which graphs are built: rows as points between which there are distances, finite and never negative.

use std::sync::atomic::AtomicBool;

use super::axes::Axes;
use crate::Cancelled;
use crate::kernels::codes::{TILE, TileOut};

/// Directions on which points are projected, to tell candidates apart by where they lie.
pub(crate) const DIRECTIONS: usize = 16;

/// Where a point lies along each direction.
pub(crate) type Projection = [f32; DIRECTIONS];

/// Points by number. Distances are the same both ways, finite, not negative, and the same on every call.
pub(crate) trait Space: Sync + Sized {
    /// Points copied together for dense work.
    type Block: Default + Send + Sync;

    fn len(&self) -> usize;

    /// Appends the distances of `from` to each of `to`.
    fn distances(&self, from: u32, to: &[u32], out: &mut Vec<f32>);

    /// Where each of `points` lies along [`DIRECTIONS`] directions that `seed` decides.
    fn projections(&self, points: &[u32], seed: u64) -> Vec<Projection>;

    /// Copies `points` together, in the place of what `block` held.
    fn gather(&self, points: &[u32], block: &mut Self::Block);

    /// The distances of points `TILE * i ..` of `rows` to points `TILE * j ..` of `columns`; what lies beyond the
    /// end of a block is of no meaning.
    fn tile(
        &self,
        rows: (&Self::Block, usize),
        columns: (&Self::Block, usize),
        bounds: Bounds<'_>,
        out: &mut TileOut,
    );

    /// The same points, number `i` being what was `order[i]`.
    fn reordered(&self, order: &[u32]) -> Self;

    /// Puts the components of a point into `out`, and gives their number; none where there is no [`Space::fewer`].
    fn components(&self, _point: u32, out: &mut Vec<f32>) -> usize {
        out.clear();
        0
    }

    /// Some points by where they lie along the first `count` axes.
    ///
    /// # Errors
    /// When `cancelled` was set.
    fn fewer(
        &self,
        _points: &[u32],
        _axes: &Axes,
        _count: usize,
        _cancelled: &AtomicBool,
    ) -> Result<Option<Self>, Cancelled> {
        Ok(None)
    }
}

/// Distances below which a pair is wanted, by row and by column of a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) rows: &'a [f32; TILE],
    pub(crate) columns: &'a [f32; TILE],
}

/// Some points of a space, by their places in a list.
pub(crate) struct Part<'a, S> {
    pub(crate) space: &'a S,
    pub(crate) points: std::borrow::Cow<'a, [u32]>,
}

impl<S: Space> Part<'_, S> {
    fn inner(&self, points: &[u32]) -> Vec<u32> {
        points.iter().map(|p| self.points[*p as usize]).collect()
    }
}

impl<S: Space> Space for Part<'_, S> {
    type Block = S::Block;

    fn len(&self) -> usize {
        self.points.len()
    }

    fn distances(&self, from: u32, to: &[u32], out: &mut Vec<f32>) {
        self.space.distances(self.points[from as usize], &self.inner(to), out);
    }

    fn projections(&self, points: &[u32], seed: u64) -> Vec<Projection> {
        self.space.projections(&self.inner(points), seed)
    }

    fn gather(&self, points: &[u32], block: &mut Self::Block) {
        self.space.gather(&self.inner(points), block);
    }

    fn tile(
        &self,
        rows: (&Self::Block, usize),
        columns: (&Self::Block, usize),
        bounds: Bounds<'_>,
        out: &mut TileOut,
    ) {
        self.space.tile(rows, columns, bounds, out);
    }

    fn reordered(&self, order: &[u32]) -> Self {
        Self { space: self.space, points: self.inner(order).into() }
    }
}
