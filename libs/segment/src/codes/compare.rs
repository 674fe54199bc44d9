//! A query compared with codes: distances in the order of the true ones, up to what coding rounds away.

use sluice_core::Metric;

use super::{CodeQuery, ShortView};
use crate::distances::Distances;
use crate::kernels::codes::{CodeKernels, NARROW_QUERY, code_kernels};
use crate::kernels::prefetch;

/// Groups of four rows whose codes are fetched ahead of the group that is compared.
const AHEAD: usize = 2;

/// The codes of rows, and what belongs to each.
pub(crate) trait CodeRows: Copy {
    /// As long as the codes of a query.
    fn code(&self, row: u32) -> &[u8];

    /// What a step of the row's code is worth, and what its distance has that no product with it has.
    fn constants(&self, row: u32) -> (f32, f32);

    /// Asks for all of that to be fetched.
    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.code(row));
    }
}

/// The codes of all components, as they stand in a file; see `format`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeView<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) scales: &'a [f32],
    /// Empty unless the metric is l2.
    pub(crate) norms: &'a [f32],
    pub(crate) means: &'a [f32],
}

impl CodeRows for CodeView<'_> {
    #[inline]
    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.stride..][..self.stride]
    }

    #[inline]
    fn constants(&self, row: u32) -> (f32, f32) {
        (self.scales[row as usize], self.norms.get(row as usize).copied().unwrap_or(0.0))
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        prefetch(self.code(row));
        prefetch(&self.scales[row as usize..][..1]);
    }
}

impl<'a> CodeView<'a> {
    /// These codes, compared with `query`, which is normalised under cosine.
    pub(crate) fn compared_with(
        self,
        query: &[f32],
        metric: Metric,
        memory: &'a mut QueryCodes,
    ) -> ByCode<'a, Self> {
        // a product with the means is the same for every row; a difference is not
        let (means, times) = if metric == Metric::L2 { (self.means, 2.0) } else { (&[][..], 1.0) };
        memory.whole.set(query, means, self.stride, NARROW_QUERY);
        ByCode::new(self, &memory.whole, times)
    }
}

/// Memory for the codes of a query, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct QueryCodes {
    pub(super) whole: CodeQuery,
    /// Where the query lies along axes.
    pub(super) along: Vec<f32>,
    pub(super) short: CodeQuery,
}

/// What searches go by instead of full vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyView<'a> {
    Whole(CodeView<'a>),
    Short(ShortView<'a>),
}

/// Codes and what they are compared with: a narrow query.
pub(crate) struct ByCode<'a, R> {
    rows: R,
    query: &'a CodeQuery,
    kernels: &'static CodeKernels,
    /// What a sum of products, times the row's scale, counts.
    factor: f32,
}

impl<'a, R: CodeRows> ByCode<'a, R> {
    pub(super) fn new(rows: R, query: &'a CodeQuery, times: f32) -> Self {
        Self { rows, query, kernels: code_kernels(), factor: times * query.scale }
    }

    /// The distance less what it has in common with all others.
    #[inline]
    fn distance(&self, row: u32, sum: i32) -> f32 {
        let (scale, norm) = self.rows.constants(row);
        norm - (sum - self.query.bias) as f32 * (self.factor * scale)
    }
}

impl<R: CodeRows> Distances for ByCode<'_, R> {
    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        for four in fours {
            let sums = (self.kernels.dot4_narrow)(four.map(|row| self.rows.code(row)), &self.query.codes);
            out.extend(four.iter().zip(sums).map(|(row, sum)| self.distance(*row, sum)));
        }
        for row in rest {
            out.push(self.distance(*row, (self.kernels.dot)(self.rows.code(*row), &self.query.codes)));
        }
    }

    #[inline]
    fn expect(&self, row: u32) {
        self.rows.prefetch(row);
    }

    fn distances_of_expected(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.distances_in_turn(rows, out);
    }

    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        rows.iter().take(4 * AHEAD).for_each(|row| self.rows.prefetch(*row));
        for (at, four) in fours.iter().enumerate() {
            let ahead = 4 * (at + AHEAD);
            rows.iter().skip(ahead).take(4).for_each(|row| self.rows.prefetch(*row));
            let sums = (self.kernels.dot4_narrow)(four.map(|row| self.rows.code(row)), &self.query.codes);
            out.extend(four.iter().zip(sums).map(|(row, sum)| self.distance(*row, sum)));
        }
        for row in rest {
            let sum = (self.kernels.dot)(self.rows.code(*row), &self.query.codes);
            out.push(self.distance(*row, sum));
        }
    }
}
