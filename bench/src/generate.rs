//! `bench generate`: made vectors with queries and exact neighbours, the same for a seed on every machine and at any
//! number of threads. Real embeddings of text are harder to search than either kind.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use serde::Serialize;
use sluice_core::Metric;

use crate::exact::Exact;
use crate::npy::{self, Matrix};
use crate::process::print;

/// Neighbours that are written for each query.
const NEIGHBOURS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// 128 numbers of 0 or more that 16 hidden ones decide, in 200 groups; Euclidean distance. 100,000 rows.
    SiftLike,
    /// 768 numbers, length 1, in 500 groups of groups, most of the spread in few directions; cosine. 50,000 rows.
    EmbeddingLike,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    F16,
    F32,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[arg(long, value_enum)]
    kind: Kind,
    /// Rows; the kind decides unless given.
    #[arg(long)]
    rows: Option<usize>,
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value = "f32")]
    format: Format,
    /// Directory for vectors.npy, queries.npy (of the same distribution, not among the rows) and neighbours.npy.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    vectors: PathBuf,
    queries: PathBuf,
    neighbours: PathBuf,
    rows: usize,
    dimension: usize,
    metric: String,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let rows = args.rows.unwrap_or(if args.kind == Kind::SiftLike { 100_000 } else { 50_000 });
    ensure!(rows > 0 && args.queries > 0, "there must be rows and queries");
    let (metric, dimension) = match args.kind {
        Kind::SiftLike => (Metric::L2, 128),
        Kind::EmbeddingLike => (Metric::Cosine, 768),
    };
    let mut vectors = match args.kind {
        Kind::SiftLike => sift_like(args.seed, rows + args.queries, dimension),
        Kind::EmbeddingLike => embedding_like(args.seed, rows + args.queries, dimension),
    };
    if args.format == Format::F16 {
        vectors.round_to_f16();
    }
    let queries = vectors.split_off(rows);
    let nearest = Exact::new(&vectors, metric).nearest(&queries, NEIGHBOURS.min(rows), |_, _| true);
    fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let file = |name: &str| args.out.join(name);
    let report = Report {
        bench: "generate",
        vectors: file("vectors.npy"),
        queries: file("queries.npy"),
        neighbours: file("neighbours.npy"),
        rows,
        dimension,
        metric: metric.to_string(),
    };
    let write = if args.format == Format::F16 { npy::write_f16 } else { npy::write_f32 };
    write(&report.vectors, &vectors)?;
    write(&report.queries, &queries)?;
    let columns = NEIGHBOURS.min(rows);
    npy::write_u32(&report.neighbours, &Matrix::new(nearest.into_iter().flatten().collect(), columns))?;
    print(&report)
}

/// Hidden numbers in groups, sent through two layers: the second adds what is not linear.
fn sift_like(seed: u64, rows: usize, dimension: usize) -> Matrix<f32> {
    const HIDDEN: usize = 16;
    const MIDDLE: usize = 48;
    const GROUPS: usize = 200;
    let mut random = Random::new(seed);
    let centres: Vec<f32> = (0..GROUPS * HIDDEN).map(|_| random.normal()).collect();
    let first: Vec<f32> = (0..HIDDEN * MIDDLE).map(|_| random.normal() / (HIDDEN as f32).sqrt()).collect();
    let second: Vec<f32> =
        (0..MIDDLE * dimension).map(|_| random.normal() / (MIDDLE as f32).sqrt()).collect();
    each_row(seed, rows, dimension, |random, row| {
        let group = random.below(GROUPS);
        let centre = &centres[group * HIDDEN..][..HIDDEN];
        let hidden: Vec<f32> = centre.iter().map(|c| c + 0.6 * random.normal()).collect();
        let mut middle = [0.0; MIDDLE];
        multiply(&hidden, &first, &mut middle);
        middle.iter_mut().for_each(|value| *value = value.tanh());
        multiply(&middle, &second, row);
        row.iter_mut().for_each(|value| *value = (100.0 * (*value + 0.02 * random.normal())).max(0.0));
    })
}

/// Groups around groups, with a spread that falls from direction to direction.
fn embedding_like(seed: u64, rows: usize, dimension: usize) -> Matrix<f32> {
    const FAMILIES: usize = 25;
    const GROUPS: usize = 500;
    const DIRECTIONS: usize = 96;
    let mut random = Random::new(seed);
    let families: Vec<f32> = (0..FAMILIES * dimension).map(|_| random.normal()).collect();
    let centres: Vec<f32> = (0..GROUPS)
        .flat_map(|group| {
            let family = &families[group % FAMILIES * dimension..][..dimension];
            family.iter().map(|f| f + 0.8 * random.normal()).collect::<Vec<_>>()
        })
        .collect();
    let directions: Vec<f32> = (0..DIRECTIONS * dimension).map(|_| random.normal()).collect();
    each_row(seed, rows, dimension, |random, row| {
        let group = random.below(GROUPS);
        let spread: Vec<f32> =
            (0..DIRECTIONS).map(|at| 0.8 * random.normal() / (1.0 + at as f32).sqrt()).collect();
        multiply(&spread, &directions, row);
        let centre = &centres[group * dimension..][..dimension];
        row.iter_mut().zip(centre).for_each(|(value, c)| *value += c + 0.1 * random.normal());
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|value| *value /= length);
    })
}

/// Adds `values` times the rows of `matrix` to `out`.
fn multiply(values: &[f32], matrix: &[f32], out: &mut [f32]) {
    for (value, row) in values.iter().zip(matrix.chunks_exact(out.len())) {
        out.iter_mut().zip(row).for_each(|(out, entry)| *out += value * entry);
    }
}

/// Makes every row with random numbers of its own, whatever thread makes it.
fn each_row(
    seed: u64,
    rows: usize,
    dimension: usize,
    make: impl Fn(&mut Random, &mut [f32]) + Sync,
) -> Matrix<f32> {
    let mut values = vec![0.0; rows * dimension];
    values.par_chunks_mut(dimension).enumerate().for_each(|(at, row)| {
        let mut random =
            Random::new(seed ^ (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
        make(&mut random, row);
    });
    Matrix::new(values, dimension)
}

/// Numbers by a seed: splitmix64. A library's generators may change with its version, and the sets with them.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed);
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Of mean 0 and variance 1, nearly: the sum of four uniform numbers needs no function that differs by machine.
    pub(crate) fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|part| (bits >> (16 * part) & 0xffff) as u32).sum();
        (sum as f32 - 131_070.0) / 37_837.2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_rows_whatever_their_number() {
        let (few, many) = (sift_like(3, 10, 128), sift_like(3, 50, 128));
        assert_eq!(few.row(9), many.row(9));
        assert_ne!(few.row(9), few.row(8));
        assert_ne!(few.row(9), sift_like(4, 10, 128).row(9));
    }

    #[test]
    fn embeddings_have_length_one_and_sift_is_not_negative() {
        let embedding = embedding_like(1, 20, 768);
        assert!(embedding.iter().all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4));
        assert!(sift_like(1, 20, 128).iter().flatten().all(|v| *v >= 0.0));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut random = Random::new(1);
        let numbers: Vec<f64> = (0..100_000).map(|_| f64::from(random.normal())).collect();
        let mean = numbers.iter().sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|n| (n - mean) * (n - mean)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
