//! A query compared with codes: distances in the order of the true ones, up to what coding rounds away.

use sluice_core::Metric;

use super::layout::CodeView;
use super::search::Distances;
use crate::codes::CodeQuery;
use crate::kernels::codes::{CodeKernels, code_kernels};
use crate::kernels::prefetch;
use crate::score::Scorer;

/// Groups of four rows whose codes are fetched ahead of the group that is compared.
const AHEAD: usize = 2;

/// A segment's codes and what they are compared with.
pub(super) struct ByCode<'a> {
    codes: CodeView<'a>,
    query: &'a CodeQuery,
    kernels: &'static CodeKernels,
    /// What a sum of products, times the row's scale, counts: twice under l2.
    factor: f32,
}

impl<'a> ByCode<'a> {
    /// Codes the query that `scorer` compares with, in the memory of an earlier one.
    pub(super) fn new(
        codes: CodeView<'a>,
        metric: Metric,
        scorer: &Scorer<'_>,
        query: &'a mut CodeQuery,
    ) -> Self {
        // a product with the means is the same for every row; a difference is not
        let (means, times) = if metric == Metric::L2 { (codes.means, 2.0) } else { (&[][..], 1.0) };
        query.set(scorer.query(), means);
        let factor = times * query.scale;
        Self { codes, query, kernels: code_kernels(), factor }
    }

    #[inline]
    fn code(&self, row: u32) -> &'a [u8] {
        &self.codes.codes[row as usize * self.codes.stride..][..self.codes.stride]
    }

    /// The distance less what it has in common with all others.
    #[inline]
    fn distance(&self, row: u32, sum: i32) -> f32 {
        let product = (sum - self.query.bias) as f32 * (self.factor * self.codes.scales[row as usize]);
        match self.codes.norms.get(row as usize) {
            Some(norm) => norm - product,
            None => -product,
        }
    }
}

impl Distances for ByCode<'_> {
    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        for four in fours {
            let sums = (self.kernels.dot4)(four.map(|row| self.code(row)), &self.query.codes);
            out.extend(four.iter().zip(sums).map(|(row, sum)| self.distance(*row, sum)));
        }
        for row in rest {
            out.push(self.distance(*row, (self.kernels.dot)(self.code(*row), &self.query.codes)));
        }
    }

    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        let (fours, rest) = rows.as_chunks::<4>();
        rows.iter().take(4 * AHEAD).for_each(|row| prefetch(self.code(*row)));
        for (at, four) in fours.iter().enumerate() {
            let ahead = 4 * (at + AHEAD);
            rows.iter().skip(ahead).take(4).for_each(|row| prefetch(self.code(*row)));
            let sums = (self.kernels.dot4)(four.map(|row| self.code(row)), &self.query.codes);
            out.extend(four.iter().zip(sums).map(|(row, sum)| self.distance(*row, sum)));
        }
        for row in rest {
            let sum = (self.kernels.dot)(self.code(*row), &self.query.codes);
            out.push(self.distance(*row, sum));
        }
    }
}
