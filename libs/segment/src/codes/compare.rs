//! A query compared with codes: distances in the order of the true ones, up to what coding rounds away.

use sluice_core::Metric;

use super::{CodeQuery, ShortView};
use crate::distances::Distances;
use crate::kernels::codes::{CodeKernels, code_kernels};
use crate::kernels::prefetch;

/// Groups of four rows whose codes are fetched ahead of the group that is compared.
const FOURS_AHEAD: usize = 2;

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
pub(crate) struct WholeView<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) scales: &'a [f32],
    /// Empty unless the metric is l2.
    pub(crate) norms: &'a [f32],
    pub(crate) means: &'a [f32],
}

impl CodeRows for WholeView<'_> {
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
        if let Some(norms) = self.norms.get(row as usize..) {
            prefetch(&norms[..norms.len().min(1)]);
        }
    }
}

impl<'a> WholeView<'a> {
    /// These codes, compared with `query`, which is normalised under cosine.
    pub(crate) fn compared_with(
        self,
        query: &[f32],
        metric: Metric,
        memory: &'a mut QueryCodes,
    ) -> ByCode<'a, Self> {
        // a product with the means is the same for every row; a difference is not
        let (means, times) = if metric == Metric::L2 { (self.means, 2.0) } else { (&[][..], 1.0) };
        memory.whole.set(query, means, self.stride);
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
pub(crate) enum CodeView<'a> {
    Whole(WholeView<'a>),
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

    /// Appends the distances of rows; `before` is called with the place of each group of four before it is compared.
    #[inline]
    fn compare(&self, rows: &[u32], before: impl Fn(usize), out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        for (at, four) in fours.iter().enumerate() {
            before(4 * at);
            let sums = (self.kernels.dot4)(four.map(|row| self.rows.code(row)), &self.query.codes);
            out.extend(four.iter().zip(sums).map(|(row, sum)| self.distance(*row, sum)));
        }
        for row in rest {
            out.push(self.distance(*row, (self.kernels.dot)(self.rows.code(*row), &self.query.codes)));
        }
    }
}

impl<R: CodeRows> Distances for ByCode<'_, R> {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        const AHEAD: usize = 4 * FOURS_AHEAD;
        rows.iter().take(AHEAD).for_each(|row| self.rows.prefetch(*row));
        let ahead = |at: usize| rows.iter().skip(at + AHEAD).take(4).for_each(|row| self.rows.prefetch(*row));
        self.compare(rows, ahead, out);
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        self.rows.prefetch(row);
    }

    fn distances_of_prefetched(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.compare(rows, |_| (), out);
    }

    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.compare(rows, |_| (), out);
    }
}
