//! Codes of vectors, a byte for each component: what graphs are built from and walked by; full vectors then decide the
//! order.
//!
//! A row's code is its vector less the mean of all rows, divided by a step of the row's own, so that the largest
//! component becomes 63: rows of very different lengths are coded equally well, and the code of a row can be the query
//! of a kernel. Under cosine vectors are normalised first. A byte of 128 stands for 0; rows are padded with it to a
//! multiple of 64 bytes.

mod compare;
mod short;

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sluice_core::Metric;

use crate::Cancelled;
use crate::build::check_cancelled;
use crate::kernels::codes::{MAX_LENGTH, NARROW_QUERY, ZERO};
use crate::mapping::Unit;
use crate::row::Rows;
use crate::score::inverse_norm;
pub(crate) use compare::{CodeView, QueryCodes, WholeView};
pub(crate) use short::{CodedAxes, MOST_AXES, Projected, ShortCodes, ShortView, axes_within, short_stride};

/// Largest code of a component for which there is room, either way.
const LARGEST: f32 = 127.0;

/// Rows of which the mean is taken, evenly spread.
const MEAN_ROWS: usize = 16_384;

/// Bytes of a row of codes.
pub(crate) fn code_stride(dimension: usize) -> usize {
    const { assert!(MAX_LENGTH.is_multiple_of(64)) };
    dimension.next_multiple_of(64)
}

/// The codes of all rows of a segment, as they stand in its file.
#[derive(Debug)]
pub(crate) struct Codes {
    units: Vec<Unit>,
    stride: usize,
    /// Mean of each component; it was taken from every row.
    pub(crate) means: Vec<f32>,
    /// What one step of a row's code is worth.
    pub(crate) scales: Vec<f32>,
    /// Sum of the codes of a row.
    pub(crate) sums: Vec<i32>,
    /// Squared length of what a row's code stands for.
    pub(crate) norms: Vec<f32>,
}

impl Codes {
    /// Codes every row, on the rayon pool that it is called in.
    ///
    /// # Errors
    /// When `cancelled` was set.
    pub(crate) fn of(
        rows: &impl Rows,
        dimension: usize,
        metric: Metric,
        cancelled: &AtomicBool,
    ) -> Result<Self, Cancelled> {
        let stride = code_stride(dimension);
        let inverse = |vector: &[f32]| if metric == Metric::Cosine { inverse_norm(vector) } else { 1.0 };
        let means = means(rows, dimension, inverse);
        let mut units = vec![Unit::filled(ZERO); rows.len() * stride / 64];
        let mut constants = vec![Coded::default(); rows.len()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut units);
        let each = bytes.par_chunks_exact_mut(stride).zip(&mut constants).enumerate().with_min_len(1024);
        each.for_each_init(Vec::new, |room, (at, (bytes, coded))| {
            if cancelled.load(Ordering::Relaxed) {
                return;
            }
            let vector = rows.row(at).vector.in_f32(room);
            *coded = encode_centred(vector, inverse(vector), &means, bytes);
        });
        check_cancelled(cancelled)?;
        Ok(Self {
            units,
            stride,
            means,
            scales: constants.iter().map(|c| c.scale).collect(),
            sums: constants.iter().map(|c| c.sum).collect(),
            norms: constants.iter().map(|c| c.norm).collect(),
        })
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn code(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.stride..][..self.stride]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.units)
    }

    /// As they will stand in a file.
    pub(crate) fn view(&self, metric: Metric) -> WholeView<'_> {
        let norms = if metric == Metric::L2 { &self.norms[..] } else { &[] };
        WholeView {
            codes: self.bytes(),
            stride: self.stride,
            scales: &self.scales,
            norms,
            means: &self.means,
        }
    }
}

/// What belongs to the code of one row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Coded {
    pub(crate) scale: f32,
    pub(crate) sum: i32,
    pub(crate) norm: f32,
}

fn means(rows: &impl Rows, dimension: usize, inverse: impl Fn(&[f32]) -> f32) -> Vec<f32> {
    let step = rows.len().div_ceil(MEAN_ROWS).max(1);
    let mut sums = vec![0f64; dimension];
    let mut count = 0f64;
    let mut room = Vec::new();
    for at in (0..rows.len()).step_by(step) {
        let vector = rows.row(at).vector.in_f32(&mut room);
        let inverse = inverse(vector);
        for (sum, component) in sums.iter_mut().zip(vector) {
            *sum += f64::from(component * inverse);
        }
        count += 1.0;
    }
    sums.iter().map(|sum| (sum / count.max(1.0)) as f32).collect()
}

/// Writes the code of `vector` x `inverse` - `means`.
fn encode_centred(vector: &[f32], inverse: f32, means: &[f32], bytes: &mut [u8]) -> Coded {
    encode(
        vector.iter().zip(means).map(|(component, mean)| component * inverse - mean),
        f32::from(NARROW_QUERY),
        bytes,
    )
}

/// Writes the code of these components, of which the largest becomes `largest_code`.
pub(crate) fn encode(
    components: impl Iterator<Item = f32> + Clone,
    largest_code: f32,
    bytes: &mut [u8],
) -> Coded {
    let largest = components.clone().fold(0f32, |largest, component| largest.max(component.abs()));
    let (scale, per_step) = steps(largest, largest_code);
    let (mut sum, mut squares) = (0i32, 0i32);
    for (byte, component) in bytes.iter_mut().zip(components) {
        let code = round(component * per_step);
        *byte = (code + i32::from(ZERO)) as u8;
        sum += code;
        squares += code * code;
    }
    // rounding may carry the longest past what is finite
    Coded { scale, sum, norm: (scale * scale * squares as f32).min(f32::MAX) }
}

/// The worth of a step where `largest` is the largest component and has this code, and how many steps 1 is.
fn steps(largest: f32, code: f32) -> (f32, f32) {
    let scale = largest / code;
    let per_step = code / largest;
    // nothing to code, or so little that it has no inverse
    if scale > 0.0 && per_step.is_finite() { (scale, per_step) } else { (0.0, 0.0) }
}

/// The nearest integer within -127 to 127, by a sum whose last digits are it: compilers turn this into vector code.
#[inline]
fn round(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    let shifted = value.clamp(-LARGEST, LARGEST) + SHIFT;
    shifted.to_bits().cast_signed() - SHIFT.to_bits().cast_signed()
}

/// A narrow query: signed codes, of at most [`NARROW_QUERY`], with a step of its own.
#[derive(Debug, Default)]
pub(crate) struct CodeQuery {
    /// As long as a row of what it is compared with.
    pub(crate) codes: Vec<i8>,
    /// What one step is worth.
    pub(crate) scale: f32,
    /// 128 x the sum of the codes: what the kernels' sums are too large by.
    pub(crate) bias: i32,
}

impl CodeQuery {
    /// Codes `query`, less `means` where there are any, in the memory of an earlier query. Beyond it there are zeros,
    /// up to the `stride` of what it is compared with.
    fn set(&mut self, query: &[f32], means: &[f32], stride: usize) {
        let mean = |at: usize| means.get(at).copied().unwrap_or(0.0);
        let centred = || query.iter().enumerate().map(|(at, component)| component - mean(at));
        let largest = centred().fold(0f32, |largest, component| largest.max(component.abs()));
        let (scale, per_step) = steps(largest, f32::from(NARROW_QUERY));
        self.codes.clear();
        self.codes.extend(centred().map(|component| round(component * per_step) as i8));
        self.codes.resize(stride, 0);
        self.scale = scale;
        self.bias = i32::from(ZERO) * self.codes.iter().map(|c| i32::from(*c)).sum::<i32>();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(vector: &[f32], means: &[f32]) -> Vec<f32> {
        let mut bytes = vec![ZERO; code_stride(vector.len())];
        let coded = encode_centred(vector, 1.0, means, &mut bytes);
        let codes = bytes.iter().map(|b| i32::from(*b) - i32::from(ZERO));
        assert_eq!(codes.clone().sum::<i32>(), coded.sum);
        assert!(bytes[vector.len()..].iter().all(|b| *b == ZERO));
        codes.zip(means).map(|(code, mean)| code as f32 * coded.scale + mean).collect()
    }

    proptest! {
        #[test]
        fn a_code_is_within_half_a_step_of_its_vector(
            vector in prop::collection::vec(-1e3f32..1e3, 2..200), mean in -10f32..10.0
        ) {
            let means = vec![mean; vector.len()];
            let largest = vector.iter().fold(0f32, |l, c| l.max((c - mean).abs()));
            for (got, expected) in decoded(&vector, &means).iter().zip(&vector) {
                prop_assert!((got - expected).abs() <= largest / f32::from(NARROW_QUERY) * 0.501 + 1e-4);
            }
        }
    }

    #[test]
    fn extreme_vectors_have_codes() {
        for c in [0.0, f32::MIN_POSITIVE, 1e-42, 1e-30, 9e18] {
            let got = decoded(&[c, -c, 0.0], &[0.0; 3]);
            assert!(got.iter().all(|g| g.is_finite()), "{c}: {got:?}");
        }
        let mut query = CodeQuery::default();
        query.set(&[9e18, -1.0, 0.0], &[], 64);
        assert_eq!((&query.codes[..3], query.codes.len()), ([NARROW_QUERY, 0, 0].as_slice(), 64));
    }
}
