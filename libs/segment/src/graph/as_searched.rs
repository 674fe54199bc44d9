//! Rows compared as a search for one of them will compare them: what tells whether searches find what they should.

use sluice_core::Metric;

use super::full_space::FullSpace;
use crate::codes::{CodeView, QueryCodes};
use crate::distances::Distances;
use crate::score::{Scorer, inverse_norm};

/// Rows, and what searches will go by.
#[derive(Clone, Copy)]
pub(super) struct AsSearched<'a> {
    pub(super) full: &'a FullSpace<'a>,
    pub(super) metric: Metric,
    /// Absent where searches go by full vectors.
    pub(super) codes: Option<CodeView<'a>>,
}

/// A query compared with the full vectors of rows.
pub(super) struct Exact<'a> {
    full: &'a FullSpace<'a>,
    scorer: Scorer<'a>,
}

impl Distances for Exact<'_> {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        out.extend(rows.iter().map(|row| self.full.rank(&self.scorer, *row)));
    }
}

impl Exact<'_> {
    /// The rank distance of a row, slowly: the same on every machine.
    pub(super) fn rank(&self, row: u32, room: &mut Vec<f32>) -> f64 {
        let vector = self.full.vector(row).in_f32(room);
        let pairs = self.scorer.query().iter().zip(vector).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        match self.scorer.metric() {
            Metric::L2 => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
            Metric::Dot => -pairs.map(|(a, b)| a * b).sum::<f64>(),
            Metric::Cosine => -pairs.map(|(a, b)| a * b).sum::<f64>() * f64::from(inverse_norm(vector)),
        }
    }
}

impl AsSearched<'_> {
    /// Calls `then` with the row's vector as a query: compared with full vectors, and with what searches go by.
    pub(super) fn with_query<T>(&self, row: u32, then: impl FnOnce(&Exact<'_>, &dyn Distances) -> T) -> T {
        let (mut room, mut memory) = (Vec::new(), QueryCodes::default());
        let scorer = Scorer::new(self.metric, self.full.vector(row).in_f32(&mut room));
        let vectors = Exact { full: self.full, scorer };
        let query = vectors.scorer.query();
        match self.codes {
            None => then(&vectors, &vectors),
            Some(CodeView::Whole(codes)) => {
                then(&vectors, &codes.compared_with(query, self.metric, &mut memory))
            }
            Some(CodeView::Short(codes)) => {
                then(&vectors, &codes.compared_with(query, self.metric, &mut memory))
            }
        }
    }
}
