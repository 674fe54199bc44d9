//! Rows compared as a search for one of them will compare them: what tells whether searches find what they should.

use sluice_core::Metric;

use super::full_space::FullSpace;
use crate::codes::{AnyView, QueryCodes};
use crate::distances::Distances;
use crate::score::Scorer;

/// Rows, and what searches will go by.
#[derive(Clone, Copy)]
pub(super) struct AsSearched<'a> {
    pub(super) full: &'a FullSpace<'a>,
    pub(super) metric: Metric,
    /// Absent where searches go by full vectors.
    pub(super) codes: Option<AnyView<'a>>,
}

/// A query compared with the full vectors of rows.
pub(super) struct ByVector<'a> {
    full: &'a FullSpace<'a>,
    scorer: Scorer<'a>,
}

impl Distances for ByVector<'_> {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        out.extend(rows.iter().map(|row| self.full.rank(&self.scorer, *row)));
    }
}

impl AsSearched<'_> {
    /// Calls `then` with the row's vector as a query: compared with full vectors, and with what searches go by.
    pub(super) fn with_query<T>(&self, row: u32, then: impl FnOnce(&ByVector<'_>, &dyn Distances) -> T) -> T {
        let (mut room, mut memory) = (Vec::new(), QueryCodes::default());
        let scorer = Scorer::new(self.metric, self.full.vector(row).in_f32(&mut room));
        let vectors = ByVector { full: self.full, scorer };
        let query = vectors.scorer.query();
        match self.codes {
            None => then(&vectors, &vectors),
            Some(AnyView::Whole(codes)) => {
                then(&vectors, &codes.compared_with(query, self.metric, &mut memory))
            }
            Some(AnyView::Short(codes)) => {
                then(&vectors, &codes.compared_with(query, self.metric, &mut memory))
            }
        }
    }
}
