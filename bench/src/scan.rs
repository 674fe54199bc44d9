//! `bench scan`: comparing a query with every row, as the rows that no graph covers are searched, against reading the
//! same bytes; and what searches that run together save.

use std::hint::black_box;

use anyhow::{Result, ensure};
use clap::Args;
use roaring::RoaringBitmap;
use serde::Serialize;
use sluice_core::{GraphSpec, Metric, Vector};
use sluice_segment::{BuildOptions, GrowingSet, Query, Segment, instruction_set, seal};

use crate::clock::Clock;
use crate::npy::{self, Matrix};
use crate::process::print;
use crate::segment::by_name;
use crate::segment::curve::median;
use crate::segment::ours::{NEVER, growing_set, plain, schema, vectors};

const K: usize = 10;
/// Searches that run together.
const BATCHES: [usize; 3] = [4, 16, 64];

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Matrix of numpy, f32 or f16, a row per record.
    #[arg(long)]
    vectors: std::path::PathBuf,
    /// Matrix of queries.
    #[arg(long)]
    queries: std::path::PathBuf,
    /// cosine, dot or l2.
    #[arg(long, value_parser = by_name::<Metric>, default_value = "cosine")]
    metric: Metric,
    /// Numbers of rows to scan; more than there are count as all.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,50000")]
    rows: Vec<usize>,
    /// Seconds that each figure is measured for; of three such measurements the median counts.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// What times are told by.
    #[arg(long, value_enum, default_value = "wall")]
    clock: Clock,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    /// growing: records not yet sealed; segment: sealed without a graph, by full vectors; codes: the same by codes.
    of: &'static str,
    instructions: &'static str,
    rows: usize,
    dimension: usize,
    metric: Metric,
    /// Searches that run together.
    batch: usize,
    queries_per_second: f64,
    rows_per_second: f64,
    /// Of vectors; a batch that reads them once counts them for each of its searches.
    bytes_per_second: f64,
    /// Reading as many bytes that lie one after another, by one thread.
    read_bytes_per_second: f64,
    ratio_to_read: f64,
}

pub(crate) fn run(args: &ScanArgs) -> Result<()> {
    let all = npy::vectors(&args.vectors)?;
    let queries = vectors(&npy::vectors(&args.queries)?, args.metric)?;
    ensure!(!queries.is_empty(), "there are no queries");
    let schema = schema(all.columns(), args.metric, &[])?;
    let dir = tempfile::tempdir()?;
    for wanted in &args.rows {
        let rows = (*wanted).min(all.rows());
        eprintln!("scanning {rows} rows");
        let set = growing_set(&schema, &all, 0..rows, |_| sluice_core::Metadata::empty())?;
        let path = dir.path().join(rows.to_string());
        let graph = GraphSpec { min_records: u32::MAX, ..GraphSpec::default() };
        seal(&set, &BuildOptions { graph, ..BuildOptions::default() }, &path, &NEVER)?;
        let segment = Segment::open(&path)?;
        segment.warm();
        let task = Task { args, queries: &queries, all: &all, rows };
        task.growing(&set)?;
        task.segment(&segment)?;
    }
    Ok(())
}

struct Task<'a> {
    args: &'a ScanArgs,
    queries: &'a [Vector],
    all: &'a Matrix<f32>,
    rows: usize,
}

impl Task<'_> {
    fn growing(&self, set: &GrowingSet) -> Result<()> {
        self.report("growing", 1, |first| {
            black_box(set.search(&exact(self.query(first)))?);
            Ok(())
        })
    }

    fn segment(&self, segment: &Segment) -> Result<()> {
        let none = RoaringBitmap::new();
        self.report("segment", 1, |first| {
            black_box(segment.search(&exact(self.query(first)), &none)?);
            Ok(())
        })?;
        self.report("codes", 1, |first| {
            black_box(segment.search(&plain(self.query(first), K), &none)?);
            Ok(())
        })?;
        for batch in BATCHES {
            self.report("segment", batch, |first| {
                let queries: Vec<Query<'_>> =
                    (first..first + batch).map(|at| exact(self.query(at))).collect();
                black_box(segment.search_batch(&queries, &none)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn query(&self, at: usize) -> &Vector {
        &self.queries[at % self.queries.len()]
    }

    /// Measures `search`, which runs `batch` searches from the one it is told on, and reading, in turns.
    fn report(&self, of: &'static str, batch: usize, search: impl Fn(usize) -> Result<()>) -> Result<()> {
        let dimension = self.all.columns();
        let numbers: Vec<f32> = self.all.iter().take(self.rows).flatten().copied().collect();
        let bytes = size_of_val(numbers.as_slice()) as f64;
        let reading = |_| {
            black_box(sum(&numbers));
            Ok(())
        };
        let (mut searched, mut read) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            read.push(bytes * self.per_second(reading)?);
            searched.push(batch as f64 * self.per_second(|turn| search(turn * batch))?);
        }
        let (queries_per_second, read_bytes_per_second) = (median(&mut searched), median(&mut read));
        print(&Report {
            bench: "scan",
            of,
            instructions: instruction_set(),
            rows: self.rows,
            dimension,
            metric: self.args.metric,
            batch,
            queries_per_second,
            rows_per_second: queries_per_second * self.rows as f64,
            bytes_per_second: queries_per_second * bytes,
            read_bytes_per_second,
            ratio_to_read: queries_per_second * bytes / read_bytes_per_second,
        })
    }

    /// How often `work`, which is told its turn, can be done in a second.
    fn per_second(&self, work: impl Fn(usize) -> Result<()>) -> Result<f64> {
        let since = self.args.clock.start();
        let mut turns = 0;
        loop {
            work(turns)?;
            turns += 1;
            let seconds = since.seconds();
            if seconds >= self.args.seconds {
                return Ok(turns as f64 / seconds);
            }
        }
    }
}

fn exact(vector: &Vector) -> Query<'_> {
    Query { exact: true, ..plain(vector, K) }
}

/// Reads everything: the sum of the bits, in as many parts as keep the loads coming.
fn sum(numbers: &[f32]) -> u64 {
    let (chunks, rest) = numbers.as_chunks::<32>();
    let mut sums = [0u32; 32];
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(number.to_bits());
        }
    }
    let all = sums.iter().copied().chain(rest.iter().map(|number| number.to_bits()));
    all.map(u64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_looks_at_every_number() {
        for n in [0usize, 1, 31, 32, 100] {
            let numbers: Vec<f32> = (0..n).map(|at| at as f32).collect();
            let whole: u32 = numbers.iter().fold(0, |sum: u32, number| sum.wrapping_add(number.to_bits()));
            assert_eq!(sum(&numbers) as u32, whole);
        }
    }
}
