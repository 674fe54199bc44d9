//! The space of full vectors: distances between rows as they were sent, whatever the metric.
//!
//! hnsw_rs panics on a distance that is negative or not a number, and copies what it is given. It is therefore
//! given row numbers only, and asks this space for distances, which clamps them.

use std::cell::RefCell;

use sluice_core::Metric;

use super::equals::Look;
use super::space::{Bounds, DIRECTIONS, Projection, Space};
use crate::Components;
use crate::kernels::codes::{TILE, TileOut};
use crate::kernels::{Compare, kernels};
use crate::random::mixed;
use crate::row::Rows;
use crate::score::{Scorer, inverse_norm};

/// Rows of the largest norms from which every walk under dot starts as well.
const SEEDS: usize = 64;

thread_local! {
    /// For a vector that is kept in another form than it is compared in.
    static ROOM: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Rows as points between which there are distances.
#[derive(Clone)]
pub(crate) struct FullSpace<'a> {
    vectors: Vec<Components<'a>>,
    compare: Compare,
    geometry: Geometry,
    seeds: Vec<u32>,
}

#[derive(Clone)]
enum Geometry {
    /// One minus the cosine, half the squared distance of the normalised vectors.
    Cosine {
        inverse_norms: Vec<f32>,
    },
    /// Squared distance after one more component was added to each vector, so that all are as long as the longest.
    /// The nearest to a query, extended by 0, are then those with the largest dot product. The component is kept in
    /// f64, since those of vectors much shorter than the longest differ in their last digits only. The few longest
    /// vectors of all get 0 and do not count as the longest: one outlier would else make all others look alike, and
    /// itself equally far from all. Walks start from them, so that they are found all the same.
    Dot {
        components: Vec<f64>,
    },
    L2,
}

impl<'a> FullSpace<'a> {
    pub(crate) fn new(rows: &'a impl Rows, metric: Metric) -> Self {
        let vectors: Vec<Components<'_>> = (0..rows.len()).map(|at| rows.row(at).vector).collect();
        let mut seeds = Vec::new();
        let (compare, geometry) = match metric {
            Metric::Cosine => {
                let mut room = Vec::new();
                let inverse_norms = vectors.iter().map(|v| inverse_norm(v.in_f32(&mut room))).collect();
                (kernels().by_dot(), Geometry::Cosine { inverse_norms })
            }
            Metric::Dot => {
                let squared = |v: &[f32]| v.iter().map(|c| f64::from(*c) * f64::from(*c)).sum::<f64>();
                let mut room = Vec::new();
                let lengths: Vec<f64> = vectors.iter().map(|v| squared(v.in_f32(&mut room))).collect();
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                order.sort_by(|a, b| lengths[*b as usize].total_cmp(&lengths[*a as usize]));
                let longest = order.get(SEEDS).map_or(0.0, |row| lengths[*row as usize]);
                order.truncate(SEEDS);
                seeds = order;
                let components = lengths.iter().map(|l| (longest - l).max(0.0).sqrt()).collect();
                (kernels().by_l2(), Geometry::Dot { components })
            }
            Metric::L2 => (kernels().by_l2(), Geometry::L2),
        };
        Self { vectors, compare, geometry, seeds }
    }

    pub(super) fn vector(&self, row: u32) -> Components<'a> {
        self.vectors[row as usize]
    }

    /// The rank distance of a row to a query.
    pub(super) fn rank(&self, scorer: &Scorer<'_>, row: u32) -> f32 {
        let inverse_norm = match &self.geometry {
            Geometry::Cosine { inverse_norms } => inverse_norms[row as usize],
            _ => 0.0,
        };
        scorer.distance(self.vector(row), inverse_norm)
    }

    /// Rows from which every walk starts, beside the one that the upper levels lead to.
    pub(crate) fn seeds(&self) -> &[u32] {
        &self.seeds
    }

    /// Whether the two are so near that the rounding of `f32` decides which of them is nearer to anything.
    pub(super) fn are_as_one(&self, a: u32, b: u32) -> bool {
        const ROUNDING: f32 = 3e-7;
        match self.geometry {
            Geometry::Cosine { .. } => self.distance(a, b) <= ROUNDING,
            _ => {
                let (dot, l2) = (kernels().by_dot(), kernels().by_l2());
                self.compared(l2, a, b) <= 2.0 * ROUNDING * self.compared(dot, a, a)
            }
        }
    }

    /// Rows that look equal have equal vectors.
    pub(super) fn look(&self, row: u32) -> Look<'a> {
        (self.vectors[row as usize].bytes(), 0)
    }

    /// One more component for each row under dot, else none; see `Geometry`.
    pub(crate) fn extras(&self) -> &[f64] {
        if let Geometry::Dot { components } = &self.geometry { components } else { &[] }
    }

    #[inline]
    fn compared(&self, compare: Compare, a: u32, b: u32) -> f32 {
        let a = self.vectors[a as usize];
        match self.vectors[b as usize] {
            Components::F32(b) => compare.of(a, b),
            b => ROOM.with_borrow_mut(|room| compare.of(a, b.in_f32(room))),
        }
    }

    /// The distance of two rows: 0 to the largest `f32`.
    #[inline]
    pub(crate) fn distance(&self, a: u32, b: u32) -> f32 {
        let raw = self.compared(self.compare, a, b);
        let (a, b) = (a as usize, b as usize);
        let distance = match &self.geometry {
            Geometry::Cosine { inverse_norms } => 1.0 - raw * inverse_norms[a] * inverse_norms[b],
            Geometry::Dot { components } => {
                let apart = components[a] - components[b];
                raw + (apart * apart) as f32
            }
            Geometry::L2 => raw,
        };
        #[expect(clippy::manual_clamp, reason = "this one also turns what is not a number into 0")]
        let distance = distance.max(0.0).min(f32::MAX);
        distance
    }
}

impl Space for FullSpace<'_> {
    /// The rows themselves: full vectors are compared where they lie.
    type Block = Vec<u32>;

    fn len(&self) -> usize {
        self.vectors.len()
    }

    fn distances(&self, from: u32, to: &[u32], out: &mut Vec<f32>) {
        out.extend(to.iter().map(|to| self.distance(from, *to)));
    }

    fn projections(&self, points: &[u32], seed: u64) -> Vec<Projection> {
        let dimension = self.vectors.first().map_or(0, |v| v.len());
        let sign = |bits: u64| if bits & 1 == 0 { 1f32 } else { -1.0 };
        let directions: Vec<Vec<f32>> = (0..DIRECTIONS as u64)
            .map(|d| (0..=dimension as u64).map(|at| sign(mixed(mixed(seed ^ (d << 32)) ^ at))).collect())
            .collect();
        let along = |row: usize, signs: &[f32]| {
            let (rest, last) = signs.split_at(dimension);
            let norm = match &self.geometry {
                Geometry::Cosine { inverse_norms } => inverse_norms[row],
                _ => 1.0,
            };
            let extra = self.extras().get(row).map_or(0.0, |e| *e as f32);
            kernels().by_dot().of(self.vectors[row], rest) * norm + last.first().map_or(0.0, |s| s * extra)
        };
        points.iter().map(|row| std::array::from_fn(|d| along(*row as usize, &directions[d]))).collect()
    }

    fn gather(&self, points: &[u32], block: &mut Vec<u32>) {
        block.clear();
        block.extend_from_slice(points);
    }

    fn tile(
        &self,
        rows: (&Vec<u32>, usize),
        columns: (&Vec<u32>, usize),
        bounds: Bounds<'_>,
        out: &mut TileOut,
    ) {
        let part = |(points, tile): (&Vec<u32>, usize)| {
            let start = tile * TILE;
            points.iter().copied().take(start + TILE).skip(start).enumerate().collect::<Vec<_>>()
        };
        let columns = part(columns);
        for (row, a) in part(rows) {
            let (mut within_row, mut within_column) = (0u64, 0u64);
            for (column, b) in &columns {
                let distance = self.distance(a, *b);
                out.distances[row][*column] = distance;
                within_row |= u64::from(distance < bounds.rows[row]) << column;
                within_column |= u64::from(distance < bounds.columns[*column]) << column;
            }
            out.row_masks[row] = within_row;
            out.column_masks[row] = within_column;
        }
    }

    fn reordered(&self, order: &[u32]) -> Self {
        let geometry = match &self.geometry {
            Geometry::Cosine { inverse_norms } => Geometry::Cosine {
                inverse_norms: order.iter().map(|row| inverse_norms[*row as usize]).collect(),
            },
            Geometry::Dot { components } => {
                Geometry::Dot { components: order.iter().map(|row| components[*row as usize]).collect() }
            }
            Geometry::L2 => Geometry::L2,
        };
        let vectors = order.iter().map(|row| self.vectors[*row as usize]).collect();
        Self { vectors, compare: self.compare, geometry, seeds: Vec::new() }
    }
}
