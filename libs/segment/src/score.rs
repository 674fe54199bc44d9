//! From two vectors to a rank distance (smaller is nearer) and from that to the score that a user sees.

use std::borrow::Cow;

use sluice_core::Metric;

use crate::Components;
use crate::kernels::{Compare, kernels};

/// 1 / length of `vector`, summed in f64; 0 for the vector of length zero, which cosine never admits.
pub(crate) fn inverse_norm(vector: &[f32]) -> f32 {
    let squared: f64 = vector.iter().map(|c| f64::from(*c) * f64::from(*c)).sum();
    if squared > 0.0 { (1.0 / squared.sqrt()) as f32 } else { 0.0 }
}

/// Compares one query with many rows.
///
/// Rank distances: minus the cosine, minus the dot product, the squared Euclidean distance.
#[derive(Debug)]
pub(crate) struct Scorer<'a> {
    metric: Metric,
    compare: Compare,
    kernel4: fn([&[f32]; 4], &[f32]) -> [f32; 4],
    query: Cow<'a, [f32]>,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(metric: Metric, query: &'a [f32]) -> Self {
        let kernels = kernels();
        let (compare, kernel4) = match metric {
            Metric::Cosine | Metric::Dot => (kernels.by_dot(), kernels.dot4),
            Metric::L2 => (kernels.by_l2(), kernels.l2_4),
        };
        let query = match metric {
            Metric::Cosine => {
                let inverse = inverse_norm(query);
                Cow::Owned(query.iter().map(|c| c * inverse).collect())
            }
            Metric::Dot | Metric::L2 => Cow::Borrowed(query),
        };
        Self { metric, compare, kernel4, query }
    }

    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// What rows are compared with: normalised under cosine.
    pub(crate) fn query(&self) -> &[f32] {
        &self.query
    }

    /// The rank distance of a row; `inverse_norm` is looked at under cosine only.
    #[inline]
    pub(crate) fn distance(&self, vector: Components<'_>, inverse_norm: f32) -> f32 {
        self.ranked(self.compare.of(vector, &self.query), inverse_norm)
    }

    /// The rank distances of four rows, to the last bit those of each alone.
    #[inline]
    pub(crate) fn distances4(&self, vectors: [Components<'_>; 4], inverse_norms: [f32; 4]) -> [f32; 4] {
        let raw = match vectors {
            [Components::F32(a), Components::F32(b), Components::F32(c), Components::F32(d)] => {
                (self.kernel4)([a, b, c, d], &self.query)
            }
            others => others.map(|vector| self.compare.of(vector, &self.query)),
        };
        std::array::from_fn(|at| self.ranked(raw[at], inverse_norms[at]))
    }

    #[inline]
    fn ranked(&self, raw: f32, inverse_norm: f32) -> f32 {
        match self.metric {
            Metric::Cosine => -(raw * inverse_norm),
            Metric::Dot => -raw,
            Metric::L2 => raw,
        }
    }

    /// The score that a user sees. Always finite: rounding may carry a distance past the largest `f32`.
    pub(crate) fn score(&self, distance: f32) -> f32 {
        match self.metric {
            Metric::Cosine => (-distance + 0.0).clamp(-1.0, 1.0),
            Metric::Dot => (-distance + 0.0).clamp(f32::MIN, f32::MAX),
            Metric::L2 => distance.max(0.0).sqrt().min(f32::MAX),
        }
    }

    pub(crate) fn is_within(&self, score: f32, bound: f32) -> bool {
        if self.metric.larger_is_better() { score >= bound } else { score <= bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_tiny_and_huge_vectors_is_exact_enough() {
        for (a, b) in [(1.1e-19f32, 1.1e-19f32), (8e18, 1.1e-19), (8e18, 8e18), (1.0, 1.0)] {
            let (a, b) = ([a, 0.0, 0.0], [b, b, 0.0]);
            let scorer = Scorer::new(Metric::Cosine, &a);
            let score = scorer.score(scorer.distance(Components::F32(&b), inverse_norm(&b)));
            assert!((score - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-5, "{score}");
        }
    }

    #[test]
    fn a_vector_is_at_cosine_1_and_distance_0_of_itself() {
        let v: Vec<f32> = (1..=97).map(|i| i as f32 / 7.0).collect();
        let cosine = Scorer::new(Metric::Cosine, &v);
        let score = cosine.score(cosine.distance(Components::F32(&v), inverse_norm(&v)));
        assert!((1.0 - 1e-6..=1.0).contains(&score));
        let l2 = Scorer::new(Metric::L2, &v);
        assert_eq!(l2.score(l2.distance(Components::F32(&v), 0.0)), 0.0);
    }

    #[test]
    fn the_largest_vectors_score_finite() {
        let c = (f32::MAX / 4.0 * 0.99).sqrt();
        let (a, b) = ([c, 0.0], [-c, 0.0]);
        for metric in [Metric::Dot, Metric::L2, Metric::Cosine] {
            let scorer = Scorer::new(metric, &a);
            assert!(scorer.score(scorer.distance(Components::F32(&b), inverse_norm(&b))).is_finite());
        }
    }
}
