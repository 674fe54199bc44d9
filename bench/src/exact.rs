//! Exact nearest rows of many queries at once, and what a distance is: smaller is nearer under every metric.

use rayon::prelude::*;
use sluice_core::Metric;

use crate::npy::Matrix;

/// Queries that pass over the rows together.
const QUERIES: usize = 32;
/// Rows that stay in the cache while those queries pass over them.
const ROWS: usize = 128;
/// Sums that are kept side by side, so that they fit the registers of any machine.
const LANES: usize = 16;

/// Vectors to be compared with queries.
pub(crate) struct Exact<'a> {
    vectors: &'a Matrix<f32>,
    metric: Metric,
    /// One over the length of each row under cosine, else empty.
    scales: Vec<f32>,
}

fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, rest_a) = a.as_chunks::<LANES>();
    let (b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += term(*a, *b);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| term(*a, *b)).sum();
    sums.iter().sum::<f32>() + rest
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

impl<'a> Exact<'a> {
    pub(crate) fn new(vectors: &'a Matrix<f32>, metric: Metric) -> Self {
        let scales = match metric {
            Metric::Cosine => vectors.iter().map(|v| dot(v, v).sqrt().recip()).collect(),
            _ => Vec::new(),
        };
        Self { vectors, metric, scales }
    }

    /// The distance of row `row`; its order is that of the metric, its value may lack a factor that all rows share.
    pub(crate) fn distance(&self, query: &[f32], row: usize) -> f32 {
        let vector = self.vectors.row(row);
        match self.metric {
            Metric::Cosine => -dot(query, vector) * self.scales[row],
            Metric::Dot => -dot(query, vector),
            Metric::L2 => sum(query, vector, |a, b| (a - b) * (a - b)),
        }
    }

    /// The `k` nearest of the rows for which `counts` holds, of each query, nearest first. `counts` is asked with
    /// the number of the query and of the row.
    pub(crate) fn nearest(
        &self,
        queries: &Matrix<f32>,
        k: usize,
        counts: impl Fn(usize, usize) -> bool + Sync,
    ) -> Vec<Vec<u32>> {
        let numbers: Vec<usize> = (0..queries.rows()).collect();
        let parts = numbers.par_chunks(QUERIES).map(|part| {
            let mut best: Vec<Best> = part.iter().map(|_| Best::new(k)).collect();
            for start in (0..self.vectors.rows()).step_by(ROWS) {
                let rows = start..(start + ROWS).min(self.vectors.rows());
                for (&query, best) in part.iter().zip(&mut best) {
                    for row in rows.clone().filter(|&row| counts(query, row)) {
                        best.offer(self.distance(queries.row(query), row), row as u32);
                    }
                }
            }
            best.into_iter().map(|best| best.0.into_iter().map(|(_, row)| row).collect()).collect::<Vec<_>>()
        });
        parts.flatten().collect()
    }
}

/// The nearest rows so far, sorted; of equal distances the smaller row comes first.
struct Best(Vec<(f32, u32)>, usize);

impl Best {
    fn new(k: usize) -> Self {
        Self(Vec::with_capacity(k + 1), k)
    }

    fn offer(&mut self, distance: f32, row: u32) {
        if self.0.len() == self.1 && self.0.last().is_none_or(|(worst, _)| distance >= *worst) {
            return;
        }
        let at = self.0.partition_point(|(other, _)| *other <= distance);
        self.0.insert(at, (distance, row));
        self.0.truncate(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Random;

    fn matrix(seed: u64, rows: usize, columns: usize) -> Matrix<f32> {
        let mut random = Random::new(seed);
        Matrix::new((0..rows * columns).map(|_| random.normal()).collect(), columns)
    }

    #[test]
    fn blocks_of_queries_and_rows_change_nothing() {
        // neither number is a multiple of its block, nor the columns of the lanes
        let (vectors, queries) = (matrix(1, 3 * ROWS + 5, 19), matrix(2, 2 * QUERIES + 3, 19));
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let exact = Exact::new(&vectors, metric);
            let found = exact.nearest(&queries, 7, |_, row| row != 3);
            assert_eq!(found.len(), queries.rows());
            for (query, found) in queries.iter().zip(&found) {
                let mut rows: Vec<u32> = (0..vectors.rows() as u32).filter(|row| *row != 3).collect();
                rows.sort_by_key(|&row| ordered(exact.distance(query, row as usize)));
                assert_eq!(found, &rows[..7], "{metric}");
            }
        }
    }

    fn ordered(distance: f32) -> i64 {
        (f64::from(distance) * 1e12) as i64
    }

    #[test]
    fn distances_order_as_the_metric_says() {
        let vectors = Matrix::new(vec![2.0, 0.0, 0.0, 1.0, 3.0, 3.0], 2);
        let queries = Matrix::new(vec![1.0, 0.0], 2);
        let nearest = |metric| Exact::new(&vectors, metric).nearest(&queries, 3, |_, _| true).remove(0);
        assert_eq!(nearest(Metric::Cosine), [0, 2, 1]);
        assert_eq!(nearest(Metric::Dot), [2, 0, 1]);
        assert_eq!(nearest(Metric::L2), [0, 1, 2]);
    }

    #[test]
    fn fewer_rows_than_k_are_all_found() {
        let vectors = matrix(5, 3, 4);
        let found = Exact::new(&vectors, Metric::L2).nearest(&matrix(6, 2, 4), 10, |_, row| row > 0);
        assert!(found.iter().all(|rows| rows.len() == 2));
    }
}
