//! Axes along which vectors vary most: the leading subspace of their covariance, by orthogonal iteration.
//!
//! Sums of floats are taken in one order, so that every machine finds the same axes.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::Cancelled;
use crate::build::check_cancelled;
use crate::random::mixed;

/// Times that axes are turned towards the leading ones.
const TURNS: usize = 2;

/// What is left of an axis of length 1 when others are taken out of it is rounding, if it is shorter than this.
const SHORTEST: f32 = 1e-5;

/// Axes of length 1 at right angles, the leading ones first; those that nothing varies along are 0.
pub(crate) struct Axes {
    dimension: usize,
    components: Vec<f32>,
}

impl Axes {
    /// `count` axes of `vectors`, which have length 1 and stand one after another.
    ///
    /// # Errors
    /// When `cancelled` was set.
    pub(super) fn of(
        vectors: &[f32],
        dimension: usize,
        count: usize,
        seed: u64,
        cancelled: &AtomicBool,
    ) -> Result<Self, Cancelled> {
        let sign = |at: u64| if mixed(seed ^ at) & 1 == 0 { 1.0 } else { -1.0 };
        let mut components: Vec<f32> = (0..(count * dimension) as u64).map(sign).collect();
        straighten(&mut components, dimension);
        for _ in 0..TURNS {
            check_cancelled(cancelled)?;
            // axis by axis: the vectors, by how much of the axis is in them
            components.par_chunks_exact_mut(dimension).for_each(|axis| {
                let mut turned = vec![0.0; dimension];
                for vector in vectors.chunks_exact(dimension) {
                    add(&mut turned, product(vector, axis), vector);
                }
                axis.copy_from_slice(&turned);
            });
            straighten(&mut components, dimension);
        }
        Ok(Self { dimension, components })
    }

    pub(super) fn len(&self) -> usize {
        self.components.len() / self.dimension
    }

    /// The first `count` of them.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = &[f32]> {
        self.components.chunks_exact(self.dimension).take(count)
    }
}

/// Makes `vector` one of length 1, but for one without length.
pub(super) fn normalise(vector: &mut [f32]) {
    let largest = vector.iter().fold(0f32, |largest, component| largest.max(component.abs()));
    let inverse = 1.0 / largest;
    if largest == 0.0 || !inverse.is_finite() {
        return vector.fill(0.0);
    }
    // so that no square is too large or too small
    vector.iter_mut().for_each(|component| *component *= inverse);
    let by = 1.0 / product(vector, vector).sqrt();
    vector.iter_mut().for_each(|component| *component *= by);
}

/// Makes axes of length 1 that stand at right angles (Gram and Schmidt, twice: little may be left the first time, and
/// rounding is then large beside it).
fn straighten(axes: &mut [f32], dimension: usize) {
    for at in 0..axes.len() / dimension {
        let (before, rest) = axes.split_at_mut(at * dimension);
        let axis = &mut rest[..dimension];
        normalise(axis);
        for _ in 0..2 {
            for other in before.chunks_exact(dimension) {
                let along = product(axis, other);
                add(axis, -along, other);
            }
            match product(axis, axis) > SHORTEST * SHORTEST {
                true => normalise(axis),
                false => axis.fill(0.0),
            }
        }
    }
}

/// Adds `times` x `other`.
fn add(vector: &mut [f32], times: f32, other: &[f32]) {
    vector.iter_mut().zip(other).for_each(|(component, other)| *component += times * other);
}

/// Sums in eight lanes: an order that compilers can turn into vector code.
fn product(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// About normal: the sum of a few.
    fn number(seed: u64) -> f32 {
        (0..4).map(|at| mixed(mixed(seed) ^ at) as f32 / u64::MAX as f32 - 0.5).sum()
    }

    /// Vectors that vary along `planted` axes, and by `noise` along all.
    pub(in crate::graph) fn planted(count: u64, dimension: u64, planted: u64, noise: f32) -> Vec<Vec<f32>> {
        let axes: Vec<Vec<f32>> = (0..planted)
            .map(|which| (0..dimension).map(|at| number(1 << 50 | which << 20 | at)).collect())
            .collect();
        let one = |row: u64| {
            let mut vector: Vec<f32> =
                (0..dimension).map(|at| noise * number(1 << 40 | row << 10 | at)).collect();
            axes.iter().zip(0..).for_each(|(axis, which)| add(&mut vector, number(row << 20 | which), axis));
            vector
        };
        (0..count).map(one).collect()
    }

    fn axes(vectors: Vec<Vec<f32>>, count: usize) -> (Vec<f32>, Axes) {
        let dimension = vectors[0].len();
        let mut vectors = vectors.concat();
        vectors.chunks_exact_mut(dimension).for_each(normalise);
        let axes = Axes::of(&vectors, dimension, count, 5, &AtomicBool::new(false)).unwrap();
        (vectors, axes)
    }

    #[test]
    fn axes_stand_at_right_angles_and_the_leading_ones_hold_what_varies() {
        for (scale, noise) in [(1.0, 0.03), (1e-15, 0.03), (1e15, 0.03), (1.0, 0.0)] {
            let mut given = planted(1000, 64, 10, noise);
            given.iter_mut().flatten().for_each(|component| *component *= scale);
            let (vectors, axes) = axes(given, 32);
            let all: Vec<&[f32]> = axes.first(32).collect();
            for (a, one) in all.iter().enumerate() {
                // where nothing else varies there are ten
                let length = product(one, one);
                assert!(
                    (length - 1.0).abs() < 1e-3 || (noise == 0.0 && a >= 10 && length == 0.0),
                    "{a} {length}"
                );
                for (b, other) in all.iter().enumerate().filter(|(b, _)| *b != a) {
                    assert!(product(one, other).abs() < 1e-3, "{a} {b}: {}", product(one, other));
                }
            }
            let held = |one: &[f32]| all[..10].iter().map(|axis| product(one, axis).powi(2)).sum::<f32>();
            let held: f32 = vectors.chunks_exact(64).map(held).sum();
            assert!(held > 970.0, "{held} of 1000");
        }
    }

    #[test]
    fn vectors_without_length_have_no_axes_and_a_flag_that_is_set_ends_the_search() {
        let (_, none) = axes(vec![vec![0.0; 32]; 100], 16);
        assert!(none.first(16).flatten().all(|component| *component == 0.0));
        assert!(Axes::of(&[1.0; 32], 32, 4, 1, &AtomicBool::new(true)).is_err());
    }
}
