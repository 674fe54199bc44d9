//! The peers that are crates: hnsw_rs, and usearch over f32, bf16 and int8.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use hnsw_rs::prelude::{AnnT, DistDot, DistL2, Distance, Hnsw};
use rayon::prelude::*;
use sluice_core::Metric;
use tempfile::TempDir;
use usearch::{Index, IndexOptions, IndexStats, MetricKind, ScalarKind};

use super::protocol::{Built, Open};
use super::serve::Library;
use crate::counting;
use crate::npy::Matrix;
use crate::process::{forget_peak_memory, memory, peak_memory};

pub(crate) fn make(name: &str, open: &Open, mut queries: Matrix<f32>) -> Result<Box<dyn Library>> {
    if open.metric == Metric::Cosine {
        queries.normalize();
    }
    let scalar = match name {
        "hnsw_rs" => {
            return match open.metric {
                Metric::Cosine => Ok(Box::new(HnswRs::new(open, queries, || DistDot))),
                Metric::L2 => Ok(Box::new(HnswRs::new(open, queries, || DistL2))),
                Metric::Dot => bail!("hnsw_rs has no inner product of vectors of any length"),
            };
        }
        "usearch" => ScalarKind::F32,
        "usearch-bf16" => ScalarKind::BF16,
        "usearch-i8" => ScalarKind::I8,
        _ => bail!("{name} is not known"),
    };
    Ok(Box::new(Usearch { open: open.clone(), queries, scalar, index: None }))
}

/// Memory before something is built.
struct Before {
    resident: Option<u64>,
    allocated: usize,
}

impl Before {
    fn now() -> Self {
        forget_peak_memory();
        counting::forget_peak();
        Self { resident: memory("VmRSS"), allocated: counting::allocated() }
    }

    /// How much the process has grown at most.
    fn peak(&self) -> u64 {
        let allocated = counting::peak().saturating_sub(self.allocated) as u64;
        peak_memory().zip(self.resident).map_or(allocated, |(peak, before)| peak.saturating_sub(before))
    }
}

struct HnswRs<D: Distance<f32> + Send + Sync + 'static> {
    open: Open,
    queries: Matrix<f32>,
    distance: fn() -> D,
    graph: Option<Hnsw<'static, f32, D>>,
    ef: usize,
}

impl<D: Distance<f32> + Send + Sync + 'static> HnswRs<D> {
    fn new(open: &Open, queries: Matrix<f32>, distance: fn() -> D) -> Self {
        Self { open: open.clone(), queries, distance, graph: None, ef: 0 }
    }
}

impl<D: Distance<f32> + Send + Sync + 'static> Library for HnswRs<D> {
    fn version(&self) -> String {
        "0.3.5".into()
    }

    fn build(&mut self, mut vectors: Matrix<f32>) -> Result<Built> {
        self.graph = None;
        if self.open.metric == Metric::Cosine {
            vectors.normalize();
        }
        let before = Before::now();
        let since = self.open.clock.of_threads(rayon::current_num_threads()).start();
        // more than 16 levels it does not have
        let (m, ef) = (self.open.m as usize, self.open.ef_construction as usize);
        let graph = Hnsw::new(m, vectors.rows(), 16, ef, (self.distance)());
        if rayon::current_num_threads() == 1 {
            vectors.iter().enumerate().for_each(|row| graph.insert_slice((row.1, row.0)));
        } else {
            let rows: Vec<_> = vectors.iter().enumerate().map(|(at, row)| (row, at)).collect();
            graph.parallel_insert_slice(&rows);
        }
        let seconds = since.seconds();
        let peak_bytes = before.peak();
        let allocated = (counting::peak() - before.allocated) as u64;
        let ram_bytes = (counting::allocated() - before.allocated) as u64;
        let dir = TempDir::with_prefix_in("hnsw_rs-", &self.open.work_dir)?;
        graph.file_dump(dir.path(), "index")?;
        let mut disk_bytes = 0;
        for file in std::fs::read_dir(dir.path())? {
            disk_bytes += file?.metadata()?.len();
        }
        let links: usize = graph
            .get_point_indexation()
            .into_iter()
            .map(|point| point.get_neighborhood_id().first().map_or(0, Vec::len))
            .sum();
        self.graph = Some(graph);
        Ok(Built {
            seconds,
            file_seconds: None,
            peak_bytes,
            peak_allocated_bytes: Some(allocated),
            ram_bytes,
            disk_bytes,
            degree: Some(links as f64 / vectors.rows() as f64),
        })
    }

    fn set(&mut self, ef: usize) {
        if let Some(graph) = &mut self.graph {
            graph.set_searching_mode(true);
        }
        self.ef = ef;
    }

    fn search(&self, query: usize) -> Result<Vec<i64>> {
        let graph = self.graph.as_ref().context("nothing is built")?;
        let found = graph.search(self.queries.row(query), self.open.k, self.ef);
        Ok(found.iter().map(|neighbour| neighbour.d_id as i64).collect())
    }
}

struct Usearch {
    open: Open,
    queries: Matrix<f32>,
    scalar: ScalarKind,
    index: Option<Index>,
}

impl Library for Usearch {
    fn version(&self) -> String {
        usearch::version().into()
    }

    fn build(&mut self, mut vectors: Matrix<f32>) -> Result<Built> {
        self.index = None;
        if self.open.metric == Metric::Cosine {
            vectors.normalize();
        }
        let options = IndexOptions {
            dimensions: vectors.columns(),
            // a cosine of its own, which the scale of int8 needs
            metric: match self.open.metric {
                Metric::Cosine => MetricKind::Cos,
                Metric::Dot => MetricKind::IP,
                Metric::L2 => MetricKind::L2sq,
            },
            quantization: self.scalar,
            connectivity: self.open.m as usize,
            expansion_add: self.open.ef_construction as usize,
            ..IndexOptions::default()
        };
        let threads = rayon::current_num_threads();
        let before = Before::now();
        let since = self.open.clock.of_threads(rayon::current_num_threads()).start();
        let index = Index::new(&options)?;
        index.reserve_capacity_and_threads(vectors.rows(), threads)?;
        if threads == 1 {
            vectors.iter().enumerate().try_for_each(|(at, row)| index.add(at as u64, row))?;
        } else {
            let next = AtomicUsize::new(0);
            (0..threads).into_par_iter().try_for_each(|_| -> Result<()> {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= vectors.rows() {
                        return Ok(());
                    }
                    index.add(at as u64, vectors.row(at))?;
                }
            })?;
        }
        let seconds = since.seconds();
        let peak_bytes = before.peak();
        ensure!(index.size() == vectors.rows(), "{} of {} rows are there", index.size(), vectors.rows());
        let IndexStats { nodes, edges, .. } = index.stats_for_level(0);
        let disk_bytes = index.serialized_length() as u64;
        let ram_bytes = index.memory_usage() as u64;
        self.index = Some(index);
        Ok(Built {
            seconds,
            file_seconds: None,
            peak_bytes,
            peak_allocated_bytes: None,
            ram_bytes,
            disk_bytes,
            degree: Some(edges as f64 / nodes.max(1) as f64),
        })
    }

    fn set(&mut self, ef: usize) {
        if let Some(index) = &self.index {
            index.change_expansion_search(ef);
        }
    }

    fn search(&self, query: usize) -> Result<Vec<i64>> {
        let index = self.index.as_ref().context("nothing is built")?;
        let found = index.search(self.queries.row(query), self.open.k)?;
        Ok(found.keys.iter().map(|key| *key as i64).collect())
    }
}
