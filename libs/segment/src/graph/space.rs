//! The space in which a graph is built: distances between rows, finite and never negative, whatever the metric.
//!
//! hnsw_rs panics on a distance that is negative or not a number, and copies what it is given. It is therefore
//! given row numbers only, and asks this space for distances, which clamps them.

use hnsw_rs::anndists::dist::Distance;
use sluice_core::Metric;

use crate::kernels::kernels;
use crate::row::Rows;
use crate::score::inverse_norm;

/// Rows of the largest norms from which every walk under dot starts as well.
const SEEDS: usize = 64;

/// Rows as points between which there are distances.
pub(crate) struct Space<'a> {
    vectors: Vec<&'a [f32]>,
    kernel: fn(&[f32], &[f32]) -> f32,
    geometry: Geometry,
    seeds: Vec<u32>,
}

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

impl<'a> Space<'a> {
    pub(crate) fn new(rows: &'a impl Rows, metric: Metric) -> Self {
        let vectors: Vec<&[f32]> = (0..rows.len()).map(|at| rows.row(at).vector).collect();
        let mut seeds = Vec::new();
        let (kernel, geometry) = match metric {
            Metric::Cosine => {
                let inverse_norms = vectors.iter().map(|v| inverse_norm(v)).collect();
                (kernels().dot, Geometry::Cosine { inverse_norms })
            }
            Metric::Dot => {
                let squared = |v: &&[f32]| v.iter().map(|c| f64::from(*c) * f64::from(*c)).sum::<f64>();
                let lengths: Vec<f64> = vectors.iter().map(squared).collect();
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                order.sort_by(|a, b| lengths[*b as usize].total_cmp(&lengths[*a as usize]));
                let longest = order.get(SEEDS).map_or(0.0, |row| lengths[*row as usize]);
                order.truncate(SEEDS);
                seeds = order;
                let components = lengths.iter().map(|l| (longest - l).max(0.0).sqrt()).collect();
                (kernels().l2, Geometry::Dot { components })
            }
            Metric::L2 => (kernels().l2, Geometry::L2),
        };
        Self { vectors, kernel, geometry, seeds }
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Rows from which every walk starts, beside the one that the upper levels lead to.
    pub(crate) fn seeds(&self) -> &[u32] {
        &self.seeds
    }

    pub(crate) fn vector(&self, row: u32) -> &'a [f32] {
        self.vectors[row as usize]
    }

    /// The distance of two rows: 0 to the largest `f32`.
    #[inline]
    pub(crate) fn distance(&self, a: u32, b: u32) -> f32 {
        let (a, b) = (a as usize, b as usize);
        let raw = (self.kernel)(self.vectors[a], self.vectors[b]);
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

/// Row numbers as the points of hnsw_rs.
pub(super) struct RowDistance<'a>(pub(super) &'a Space<'a>);

impl Distance<u32> for RowDistance<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        self.0.distance(a[0], b[0])
    }
}
