//! What queries ought to find, and how much of it was found.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use crate::exact::Exact;
use crate::npy::Matrix;

/// Distances that decide whether a row belongs to an answer.
pub(crate) struct Truth {
    /// Of each query, the distance of the last row that belongs and how many rows do.
    bounds: Vec<(f32, usize)>,
}

impl Truth {
    /// From the nearest rows of each query.
    pub(crate) fn new(exact: &Exact<'_>, queries: &Matrix<f32>, nearest: &[Vec<u32>]) -> Self {
        let bound = |(query, rows): (&[f32], &Vec<u32>)| {
            let last = rows.last().map_or(f32::NEG_INFINITY, |&row| exact.distance(query, row as usize));
            (last, rows.len())
        };
        Self { bounds: queries.iter().zip(nearest).map(bound).collect() }
    }

    /// Share of what belongs that `found` holds. A row as near as the last that belongs counts too, so equal
    /// vectors may stand for each other.
    pub(crate) fn recall(
        &self,
        exact: &Exact<'_>,
        queries: &Matrix<f32>,
        rows: usize,
        found: &[Vec<i64>],
    ) -> f64 {
        let (mut good, mut all) = (0, 0);
        for ((query, (bound, wanted)), found) in queries.iter().zip(&self.bounds).zip(found) {
            let distinct: HashSet<usize> =
                found.iter().filter_map(|&row| usize::try_from(row).ok()).collect();
            let near = |row: &&usize| **row < rows && exact.distance(query, **row) <= *bound;
            good += distinct.iter().filter(near).count().min(*wanted);
            all += wanted;
        }
        good as f64 / all.max(1) as f64
    }
}

/// Neighbours that somebody else computed: the first `k` of each query, which must be those of these rows.
pub(crate) fn given(
    neighbours: &Matrix<u32>,
    exact: &Exact<'_>,
    queries: &Matrix<f32>,
    rows: usize,
    k: usize,
) -> Result<Vec<Vec<u32>>> {
    /// Queries whose neighbours are computed again, to see whether file and metric belong together.
    const LOOK: usize = 8;
    ensure!(neighbours.rows() >= queries.rows(), "neighbours and queries differ in number");
    ensure!(
        neighbours.columns() >= k,
        "there are {} neighbours of each query, not {k}",
        neighbours.columns()
    );
    let given: Vec<Vec<u32>> = neighbours.iter().take(queries.rows()).map(|row| row[..k].to_vec()).collect();
    ensure!(given.iter().flatten().all(|&row| (row as usize) < rows), "a neighbour is no row");
    let mut some = queries.clone();
    some.truncate(LOOK);
    for (at, found) in exact.nearest(&some, k, |_, _| true).iter().enumerate() {
        let last = |rows: &[u32]| rows.last().map_or(0.0, |&row| exact.distance(some.row(at), row as usize));
        let (known, given) = (last(found), last(&given[at]));
        ensure!(
            (known - given).abs() <= 1e-3 * known.abs().max(1e-3),
            "the neighbours given for query {at} are not the nearest under this metric"
        );
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use sluice_core::Metric;

    use super::*;

    #[test]
    fn an_equal_row_counts_and_a_row_counts_once() {
        let vectors = Matrix::new(vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0], 2);
        let queries = Matrix::new(vec![0.0, 0.0], 2);
        let exact = Exact::new(&vectors, Metric::L2);
        let truth = Truth::new(&exact, &queries, &exact.nearest(&queries, 2, |_, _| true));
        let recall = |found: &[i64]| truth.recall(&exact, &queries, 4, &[found.to_vec()]);
        assert_eq!(recall(&[0, 1]), 1.0);
        assert_eq!(recall(&[0, 2]), 1.0);
        assert_eq!(recall(&[0, 0]), 0.5);
        assert_eq!(recall(&[3, -1, 99]), 0.0);
    }

    #[test]
    fn neighbours_by_another_metric_are_refused() {
        let vectors = Matrix::new(vec![1.0, 0.0, 4.0, 4.0, 0.0, 1.0, 0.5, 0.5], 2);
        let queries = Matrix::new(vec![1.0, 1.0], 2);
        let exact = Exact::new(&vectors, Metric::Dot);
        assert!(given(&Matrix::new(vec![1], 1), &exact, &queries, 4, 1).is_ok());
        assert!(given(&Matrix::new(vec![3], 1), &exact, &queries, 4, 1).is_err());
        assert!(given(&Matrix::new(vec![9], 1), &exact, &queries, 4, 1).is_err());
        assert!(given(&Matrix::new(vec![1], 1), &exact, &queries, 4, 2).is_err());
    }
}
