//! The space of codes: distances from 8-bit codes, the same on every machine.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::axes::Axes;
use super::equals::Look;
use super::space::{Bounds, DIRECTIONS, Projection, Space};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::codes::{Coded, CodedAxes, Codes, code_stride, encode};
use crate::kernels::codes::{Constants, NARROW_ZERO, NARROWEST, TILE, Tile, TileOut, ZERO, code_kernels};
use crate::kernels::prefetch;
use crate::mapping::{Unit, on_huge_pages};
use crate::random::mixed;

/// Coded rows as points. Distances are squared, between what the codes stand for.
pub(crate) struct CodeSpace<'a> {
    codes: Cow<'a, [Unit]>,
    stride: usize,
    /// Steps of four components that are not all padding.
    groups: usize,
    /// Codes are at most [`NARROWEST`].
    narrow: bool,
    constants: Vec<Point>,
}

/// What belongs to the code of one point.
#[derive(Debug, Clone, Copy)]
struct Point {
    scale: f32,
    norm: f32,
    /// One more component, under dot; see `FullSpace`.
    extra: f32,
    sum: i32,
}

impl<'a> CodeSpace<'a> {
    /// The points of `codes`; `extras` has one more component for each, or is empty.
    pub(crate) fn new(codes: &'a Codes, extras: &[f64]) -> Self {
        let constants = codes.scales.iter().zip(&codes.norms).zip(&codes.sums).enumerate();
        let point = |(at, ((scale, norm), sum)): (usize, ((&f32, &f32), &i32))| Point {
            scale: *scale,
            norm: *norm,
            extra: extras.get(at).map_or(0.0, |extra| *extra as f32),
            sum: *sum,
        };
        Self {
            codes: Cow::Borrowed(bytemuck::cast_slice(codes.bytes())),
            stride: codes.stride(),
            groups: codes.means.len().div_ceil(4),
            narrow: false,
            constants: constants.map(point).collect(),
        }
    }

    /// Rows that look equal are the same to a walk: they have equal codes, whose steps differ by less than 1 in 256.
    pub(super) fn look(&self, row: u32) -> Look<'_> {
        (self.code(row), self.constants[row as usize].scale.to_bits() >> 15)
    }

    fn code(&self, point: u32) -> &[u8] {
        let units = self.stride / 64;
        bytemuck::cast_slice(&self.codes[point as usize * units..][..units])
    }

    /// The signed codes of a point.
    fn signed(&self, point: u32, out: &mut Vec<i8>) {
        out.extend(self.code(point).iter().map(|byte| (byte ^ ZERO).cast_signed()));
    }
}

/// The distance of two points whose codes have the sum of products `product`; as in the tile kernels.
#[inline]
fn distance(a: &Point, b: &Point, product: i32) -> f32 {
    let twice = (a.scale + a.scale) * b.scale;
    let apart = a.extra - b.extra;
    let raw = ((a.norm + b.norm) - twice * product as f32) + apart * apart;
    if raw > 0.0 { raw } else { 0.0 }
}

/// Groups of four points whose codes are fetched ahead of those that are compared.
const FOURS_AHEAD: usize = 2;

/// Points whose codes are fetched ahead of those that are copied.
const AHEAD: usize = 4;

/// Points as rows and as columns of tiles.
#[derive(Default)]
pub(crate) struct CodeBlock {
    rows: Vec<u8>,
    /// Groups of four signed components, of each column of a tile in turn.
    panels: Vec<u32>,
    constants: Vec<Constants>,
}

impl Space for CodeSpace<'_> {
    type Block = CodeBlock;

    fn len(&self) -> usize {
        self.constants.len()
    }

    fn distances(&self, from: u32, to: &[u32], out: &mut Vec<f32>) {
        thread_local! {
            static SIGNED: std::cell::RefCell<Vec<i8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let kernels = code_kernels();
        let a = &self.constants[from as usize];
        let bias = i32::from(ZERO) * a.sum;
        SIGNED.with_borrow_mut(|signed| {
            signed.clear();
            self.signed(from, signed);
            let (fours, rest) = to.as_chunks::<4>();
            to.iter().take(4 * FOURS_AHEAD).for_each(|point| prefetch(self.code(*point)));
            for (at, four) in fours.iter().enumerate() {
                let ahead = to.iter().skip(4 * (at + FOURS_AHEAD)).take(4);
                ahead.for_each(|point| prefetch(self.code(*point)));
                let products = (kernels.dot4)(four.map(|point| self.code(point)), signed);
                for (point, product) in four.iter().zip(products) {
                    out.push(distance(a, &self.constants[*point as usize], product - bias));
                }
            }
            for point in rest {
                let product = (kernels.dot)(self.code(*point), signed);
                out.push(distance(a, &self.constants[*point as usize], product - bias));
            }
        });
    }

    fn projections(&self, points: &[u32], seed: u64) -> Vec<Projection> {
        let kernels = code_kernels();
        let sign = |bits: u64| if bits & 1 == 0 { 1i8 } else { -1 };
        let directions: Vec<(Vec<i8>, i32)> = (0..DIRECTIONS as u64)
            .map(|direction| {
                let first = mixed(seed ^ (direction << 32));
                let signs: Vec<i8> = (0..self.stride as u64).map(|at| sign(mixed(first ^ at))).collect();
                let bias = i32::from(ZERO) * signs.iter().map(|s| i32::from(*s)).sum::<i32>();
                (signs, bias)
            })
            .collect();
        let along = |point: u32, (signs, bias): &(Vec<i8>, i32)| {
            let constants = &self.constants[point as usize];
            let product = (kernels.dot)(self.code(point), signs) - bias;
            // the last sign stands for the extra component as well
            let extra = signs.last().map_or(0.0, |s| f32::from(*s)) * constants.extra;
            constants.scale * product as f32 + extra
        };
        let points = points.par_iter().with_min_len(1024);
        points.map(|point| std::array::from_fn(|d| along(*point, &directions[d]))).collect()
    }

    fn gather(&self, points: &[u32], block: &mut CodeBlock) {
        let (tiles, row_bytes) = (points.len().div_ceil(TILE), TILE * self.stride);
        block.rows.clear();
        block.rows.reserve(tiles * row_bytes);
        block.panels.resize(tiles * self.groups * TILE, 0);
        block.constants.clear();
        let zero = if self.narrow { NARROW_ZERO } else { ZERO };
        for (tile, points) in points.chunks(TILE).enumerate() {
            let mut constants = Constants::default();
            for (at, point) in points.iter().enumerate() {
                if let Some(ahead) = points.get(at + AHEAD) {
                    prefetch(self.code(*ahead));
                }
                block.rows.extend_from_slice(self.code(*point));
                let Point { scale, norm, extra, sum } = self.constants[*point as usize];
                constants.scales[at] = scale;
                constants.norms[at] = norm;
                constants.extras[at] = extra;
                constants.biases[at] = i32::from(zero) * sum;
            }
            block.rows.resize((tile + 1) * row_bytes, ZERO);
            block.constants.push(constants);
            let panel = &mut block.panels[tile * self.groups * TILE..][..self.groups * TILE];
            let rows = &mut block.rows[tile * row_bytes..];
            (code_kernels().panel)(rows, self.stride, panel);
            if self.narrow {
                rows.iter_mut().for_each(|byte| *byte = byte.wrapping_sub(ZERO - NARROW_ZERO));
            }
        }
    }

    fn tile(
        &self,
        rows: (&CodeBlock, usize),
        columns: (&CodeBlock, usize),
        bounds: Bounds<'_>,
        out: &mut TileOut,
    ) {
        let ((rows, i), (columns, j)) = (rows, columns);
        let (row_bytes, panel_fours) = (TILE * self.stride, self.groups * TILE);
        let tile = Tile {
            rows: &rows.rows[i * row_bytes..][..row_bytes],
            stride: self.stride,
            panel: bytemuck::cast_slice(&columns.panels[j * panel_fours..][..panel_fours]),
            groups: self.groups,
            narrow: self.narrow,
            row: &rows.constants[i],
            column: &columns.constants[j],
            row_bounds: bounds.rows,
            column_bounds: bounds.columns,
        };
        (code_kernels().tile)(&tile, out);
    }

    fn reordered(&self, order: &[u32]) -> Self {
        let units = self.stride / 64;
        let mut codes = on_huge_pages(order.len() * units);
        for point in order {
            codes.extend_from_slice(&self.codes[*point as usize * units..][..units]);
        }
        Self {
            codes: Cow::Owned(codes),
            stride: self.stride,
            groups: self.groups,
            narrow: self.narrow,
            constants: order.iter().map(|point| self.constants[*point as usize]).collect(),
        }
    }

    fn components(&self, point: u32, out: &mut Vec<f32>) -> usize {
        let scale = self.constants[point as usize].scale;
        let code = &self.code(point)[..4 * self.groups];
        out.clear();
        out.extend(code.iter().map(|byte| f32::from((byte ^ ZERO).cast_signed()) * scale));
        out.len()
    }

    fn fewer(
        &self,
        points: &[u32],
        axes: &Axes,
        count: usize,
        cancelled: &AtomicBool,
    ) -> Result<Option<Self>, Cancelled> {
        let axes = CodedAxes::new(axes.first(count));
        let stride = code_stride(count);
        let units = stride / 64;
        let mut codes = on_huge_pages(points.len() * units);
        codes.resize(points.len() * units, Unit::filled(ZERO));
        let mut constants = vec![Point { scale: 0.0, norm: 0.0, extra: 0.0, sum: 0 }; points.len()];
        let fours =
            codes.par_chunks_mut(4 * units).zip(constants.par_chunks_mut(4)).zip(points.par_chunks(4));
        fours.with_min_len(64).for_each_init(
            || vec![0.0; 4 * count],
            |along, ((codes, constants), points)| {
                if cancelled.load(Ordering::Relaxed) {
                    return;
                }
                let four: [u32; 4] = std::array::from_fn(|at| points[at.min(points.len() - 1)]);
                let of = four.map(|point| self.code(point));
                let scales = four.map(|point| self.constants[point as usize].scale);
                axes.along4(of, scales, along);
                let each = codes.chunks_exact_mut(units).zip(constants).zip(four);
                for (((codes, constants), point), along) in each.zip(along.chunks_exact(count)) {
                    let Coded { scale, sum, norm } =
                        encode(along.iter().copied(), f32::from(NARROWEST), bytemuck::cast_slice_mut(codes));
                    let extra = self.constants[point as usize].extra;
                    *constants = Point { scale, norm, extra, sum };
                }
            },
        );
        check_cancelled(cancelled)?;
        Ok(Some(Self {
            codes: Cow::Owned(codes),
            stride,
            groups: count.div_ceil(4),
            narrow: true,
            constants,
        }))
    }
}
