//! Short codes: 8-bit codes of where rows lie along leading axes, for rows that few axes tell apart.
//!
//! A walk waits for memory most of its time, and a short code is half of a whole one or less. The idea is LeanVec's
//! (arXiv 2312.16335), with axes that are coded too: rows and queries are projected by the same kernels that compare
//! them. Distances along the axes are squared ones, of normalised vectors under cosine; under dot they are products.
//! What a distance needs beside the code stands in the same row, so that nothing else is fetched for it.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sluice_core::Metric;

use super::compare::{ByCode, CodeRows, QueryCodes};
use super::{CodeQuery, Codes, LARGEST, code_stride, encode};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::kernels::codes::{MAX_LENGTH, ZERO, code_kernels};
use crate::mapping::Unit;

/// Bytes at the end of a row: what a step of its code is worth, and the squared length of what the code stands for,
/// 0 under dot; both `f32`.
const CONSTANTS: usize = 8;

/// Most axes that a row has room for.
pub(crate) const MOST_AXES: usize = MAX_LENGTH - CONSTANTS;

/// Bytes of a row of short codes.
pub(crate) fn short_stride(axes: usize) -> usize {
    (axes + CONSTANTS).next_multiple_of(64)
}

/// The most axes for which a row takes `stride` bytes.
pub(crate) fn axes_within(stride: usize) -> usize {
    stride - CONSTANTS
}

/// Axes as narrow codes, each with a step of its own.
#[derive(Debug)]
pub(crate) struct CodedAxes {
    axes: Vec<CodeQuery>,
}

impl CodedAxes {
    pub(crate) fn new<'a>(axes: impl Iterator<Item = &'a [f32]>) -> Self {
        let coded = |axis: &[f32]| {
            let mut coded = CodeQuery::default();
            coded.set(axis, &[], code_stride(axis.len()));
            coded
        };
        Self { axes: axes.map(coded).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.axes.len()
    }

    /// Where four codes, with steps of this worth, lie along the axes: for each code in turn.
    pub(crate) fn along4(&self, codes: [&[u8]; 4], scales: [f32; 4], out: &mut [f32]) {
        let dot4 = code_kernels().dot4;
        for (at, axis) in self.axes.iter().enumerate() {
            let products = dot4(codes, &axis.codes);
            for (which, product) in products.into_iter().enumerate() {
                let product = (product - axis.bias) as f32;
                out[which * self.axes.len() + at] = product * (axis.scale * scales[which]);
            }
        }
    }

    /// Code bytes of the first `count` axes, and what a step of each is worth.
    fn cut(&self, count: usize) -> (Vec<u8>, Vec<f32>) {
        let bytes =
            |axis: &CodeQuery| axis.codes.iter().map(|c| c.cast_unsigned() ^ ZERO).collect::<Vec<_>>();
        let axes = self.axes[..count].iter();
        (axes.clone().flat_map(bytes).collect(), axes.map(|axis| axis.scale).collect())
    }
}

/// The short codes of all rows of a segment, as they stand in its file.
#[derive(Debug)]
pub(crate) struct ShortCodes {
    units: Vec<Unit>,
    /// The axes as rows of codes.
    pub(crate) axes: Vec<u8>,
    /// What a step of each axis is worth.
    pub(crate) scales: Vec<f32>,
    /// Mean of each component; it was taken from every row.
    pub(crate) means: Vec<f32>,
}

/// Where all rows lie along some axes, as codes that can be cut to fewer axes.
pub(crate) struct Projected {
    axes: CodedAxes,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Projected {
    /// Projects every row, on the rayon pool that it is called in.
    ///
    /// # Errors
    /// When `cancelled` was set.
    pub(crate) fn of(codes: &Codes, axes: CodedAxes, cancelled: &AtomicBool) -> Result<Self, Cancelled> {
        let (rows, count) = (codes.scales.len(), axes.len());
        let mut bytes = vec![ZERO; rows * count];
        let mut scales = vec![0.0; rows];
        let fours = bytes.par_chunks_mut(4 * count).zip(scales.par_chunks_mut(4)).enumerate();
        fours.with_min_len(64).for_each_init(
            || vec![0.0; 4 * count],
            |along, (four, (bytes, scales))| {
                if cancelled.load(Ordering::Relaxed) {
                    return;
                }
                let rows: [usize; 4] = std::array::from_fn(|at| 4 * four + at.min(scales.len() - 1));
                axes.along4(rows.map(|row| codes.code(row)), rows.map(|row| codes.scales[row]), along);
                let each = bytes.chunks_exact_mut(count).zip(scales).zip(along.chunks_exact(count));
                for ((bytes, scale), along) in each {
                    *scale = encode(along.iter().copied(), LARGEST, bytes).scale;
                }
            },
        );
        check_cancelled(cancelled)?;
        Ok(Self { axes, codes: bytes, scales })
    }

    /// Short codes along the first `count` axes.
    pub(crate) fn cut(&self, count: usize, metric: Metric, means: &[f32]) -> ShortCodes {
        let stride = short_stride(count);
        let mut units = vec![Unit::filled(ZERO); self.scales.len() * stride / 64];
        let rows: &mut [u8] = bytemuck::cast_slice_mut(&mut units);
        let from = self.codes.par_chunks_exact(self.axes.len()).zip(&self.scales);
        rows.par_chunks_exact_mut(stride).zip(from).with_min_len(1024).for_each(|(row, (codes, scale))| {
            row[..count].copy_from_slice(&codes[..count]);
            let square = |byte: &u8| (i32::from(*byte) - i32::from(ZERO)).pow(2);
            let norm = match metric {
                Metric::Dot => 0.0,
                Metric::Cosine | Metric::L2 => {
                    // axes that are coded stand only about at right angles: it may come out a little longer
                    let squares = codes[..count].iter().map(square).sum::<i32>() as f32;
                    (scale * scale * squares).min(f32::MAX)
                }
            };
            let (scale_at, norm_at) = (stride - CONSTANTS, stride - CONSTANTS / 2);
            row[scale_at..norm_at].copy_from_slice(&scale.to_le_bytes());
            row[norm_at..].copy_from_slice(&norm.to_le_bytes());
        });
        let (axes, scales) = self.axes.cut(count);
        ShortCodes { units, axes, scales, means: means.to_vec() }
    }
}

impl ShortCodes {
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.units)
    }

    /// As they will stand in a file.
    pub(crate) fn view(&self) -> ShortView<'_> {
        ShortView { codes: self.bytes(), axes: &self.axes, scales: &self.scales, means: &self.means }
    }
}

/// Short codes as they stand in a file; see `format`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShortView<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) axes: &'a [u8],
    pub(crate) scales: &'a [f32],
    pub(crate) means: &'a [f32],
}

impl<'a> ShortView<'a> {
    /// These codes, compared with `query`, which is normalised under cosine.
    pub(crate) fn compared_with(
        self,
        query: &[f32],
        metric: Metric,
        memory: &'a mut QueryCodes,
    ) -> ByCode<'a, ShortRows<'a>> {
        let QueryCodes { whole, along, short } = memory;
        let (means, times) = if metric == Metric::Dot { (&[][..], 1.0) } else { (self.means, 2.0) };
        let stride = code_stride(query.len());
        whole.set(query, means, stride);
        let kernels = code_kernels();
        along.clear();
        let (fours, rest) = self.axes.split_at(self.axes.len() / (4 * stride) * 4 * stride);
        for four in fours.chunks_exact(4 * stride) {
            let four: [&[u8]; 4] = std::array::from_fn(|at| &four[at * stride..][..stride]);
            along.extend((kernels.dot4)(four, &whole.codes).map(|sum| (sum - whole.bias) as f32));
        }
        along.extend(
            rest.chunks_exact(stride).map(|axis| ((kernels.dot)(axis, &whole.codes) - whole.bias) as f32),
        );
        along.iter_mut().zip(self.scales).for_each(|(along, scale)| *along *= scale * whole.scale);
        let stride = short_stride(self.scales.len());
        short.set(along, &[], stride);
        ByCode::new(ShortRows { codes: self.codes, stride }, short, times)
    }

    /// What a step of each row's code is worth, and the squared length of what the code stands for.
    pub(crate) fn constants(&self) -> impl Iterator<Item = (f32, f32)> {
        let stride = short_stride(self.scales.len());
        let rows = ShortRows { codes: self.codes, stride };
        (0..self.codes.len() / stride).map(move |row| rows.constants(row as u32))
    }
}

/// Rows of short codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShortRows<'a> {
    codes: &'a [u8],
    stride: usize,
}

impl CodeRows for ShortRows<'_> {
    /// With the row's constants, for which a query has zeros.
    #[inline]
    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.stride..][..self.stride]
    }

    #[inline]
    fn constants(&self, row: u32) -> (f32, f32) {
        let constants: &[f32] = bytemuck::cast_slice(&self.code(row)[self.stride - CONSTANTS..]);
        (constants[0], constants[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distances::Distances;
    use crate::graph::tests::Vectors;
    use crate::random::mixed;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn number(seed: u64) -> f32 {
        mixed(seed) as f32 / u64::MAX as f32 - 0.5
    }

    /// Axes of length 1, each along two components, at right angles.
    fn axes(count: usize, dimension: usize) -> Vec<Vec<f32>> {
        let half = std::f32::consts::FRAC_1_SQRT_2;
        let axis = |axis: usize| {
            (0..dimension).map(|at| if at / 2 == axis { half } else { 0.0 }).collect::<Vec<f32>>()
        };
        (0..count).map(axis).collect()
    }

    /// The distance along the axes of the codes, in f64, up to what all rows have in common.
    fn expected(metric: Metric, axes: &[Vec<f32>], query: &[f32], row: &[f32], means: &[f32]) -> f64 {
        let along = |vector: &[f32], means: &[f32]| -> Vec<f64> {
            let centred: Vec<f64> = vector
                .iter()
                .enumerate()
                .map(|(at, c)| f64::from(*c) - f64::from(means.get(at).copied().unwrap_or(0.0)))
                .collect();
            axes.iter().map(|axis| axis.iter().zip(&centred).map(|(a, c)| f64::from(*a) * c).sum()).collect()
        };
        let row = along(row, means);
        let query = along(query, if metric == Metric::Dot { &[] } else { means });
        let product: f64 = row.iter().zip(&query).map(|(a, b)| a * b).sum();
        match metric {
            Metric::Dot => -product,
            Metric::Cosine | Metric::L2 => row.iter().map(|c| c * c).sum::<f64>() - 2.0 * product,
        }
    }

    #[test]
    fn distances_by_short_codes_are_those_along_their_axes() {
        for (dimension, count, cut) in [(40, 20, 20), (40, 20, 7), (130, 60, 56), (131, 64, 57), (33, 1, 1)] {
            let rows: Vec<Vec<f32>> = (0..61u64)
                .map(|row| (0..dimension as u64).map(|at| number(row << 20 | at) + 0.3).collect())
                .collect();
            let normal = |vector: &[f32]| {
                let inverse = crate::score::inverse_norm(vector);
                vector.iter().map(|c| c * inverse).collect::<Vec<f32>>()
            };
            let query: Vec<f32> = (0..dimension as u64).map(|at| number(at << 40) + 0.2).collect();
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let codes = Codes::of(&Vectors(rows.clone()), dimension, metric, &NEVER).unwrap();
                // a code is as long as a multiple of four components
                let all = axes(count, dimension.next_multiple_of(4));
                let coded = CodedAxes::new(all.iter().map(Vec::as_slice));
                let projected = Projected::of(&codes, coded, &NEVER).unwrap();
                let short = projected.cut(cut, metric, &codes.means);
                assert_eq!(short.bytes().len(), rows.len() * short_stride(cut));
                let (query, rows): (Vec<f32>, Vec<Vec<f32>>) = match metric {
                    Metric::Cosine => (normal(&query), rows.iter().map(|row| normal(row)).collect()),
                    _ => (query.clone(), rows.clone()),
                };
                let everything: Vec<u32> = (0..rows.len() as u32).collect();
                let mut memory = QueryCodes::default();
                let by_code = short.view().compared_with(&query, metric, &mut memory);
                let (mut got, mut again) = (Vec::new(), Vec::new());
                by_code.distances(&everything, &mut got);
                by_code.distances_in_turn(&everything, &mut again);
                assert_eq!(got, again);
                let expected: Vec<f64> =
                    rows.iter().map(|row| expected(metric, &all[..cut], &query, row, &codes.means)).collect();
                let spread = expected.iter().fold(0f64, |most, d| most.max(d.abs()));
                for (got, expected) in got.iter().zip(&expected) {
                    let off = (f64::from(*got) - expected).abs();
                    assert!(off <= 0.04 * spread, "{metric} {dimension} {cut}: {got}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn projecting_ends_when_the_flag_is_set() {
        let codes = Codes::of(&Vectors(vec![vec![1.0; 40]; 9]), 40, Metric::L2, &NEVER).unwrap();
        let axes = axes(4, 40);
        let coded = CodedAxes::new(axes.iter().map(Vec::as_slice));
        assert!(Projected::of(&codes, coded, &AtomicBool::new(true)).is_err());
    }
}
