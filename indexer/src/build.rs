//! Building segments: on the compute pool, charged to the build budget before it begins, cancelled when dropped.

use std::sync::Arc;
use std::time::Instant;

use roaring::RoaringBitmap;
use sluice_core::channel::{record_blocked, while_blocked};
use sluice_core::{ByteBudget, BytePermit, GraphSpec, IndexSpec, Schema};
use sluice_segment::{BuildOptions, Built, GrowingSet, Progress, Segment, build_memory, merge, seal};

use crate::scratch::{Scratch, ScratchFile};
use crate::seal_policy::largest_fit;
use crate::snapshot::Live;
use crate::worker::Context;
use crate::{ComputePool, IndexerError, Lane};

/// Every build starts from the same seed, so that a rebuild of the same records can be compared byte for byte.
const SEED: u64 = 0x736c_7569_6365;
/// Part of the budget that is kept for segments without a graph, which need less and come often: any growing set
/// that fits into the part for graphs should fit into this one without a graph, with codes.
const QUICK_PART: usize = 8;
/// That part is no smaller than this, as far as a quarter of all is enough for it: two builds at least go on at once.
const QUICK_LEAST: usize = 6 << 20;
/// Part of the budget that is kept for seals with a graph, so that no merge stands between a record and its manifest.
const GRAPH_PART: usize = 4;

/// Bytes that builds may take beyond their inputs; clones share them. Each lane of the compute pool has its own part.
#[derive(Debug, Clone)]
pub struct BuildBudget {
    quick: ByteBudget,
    graphs: ByteBudget,
    merges: ByteBudget,
}

impl BuildBudget {
    /// An eighth of `bytes` for segments without a graph (where that is little, up to a quarter), a quarter for seals
    /// with one, the rest for merges.
    pub fn new(bytes: usize) -> Self {
        let graphs = bytes / GRAPH_PART;
        let quick = (bytes / QUICK_PART).max(QUICK_LEAST.min(graphs));
        let merges = bytes - quick - graphs;
        let [quick, graphs, merges] = [quick, graphs, merges].map(ByteBudget::new);
        Self { quick, graphs, merges }
    }

    /// Bytes that the build of a growing set may ask for.
    pub fn seal_bytes(&self) -> u64 {
        self.graphs.total_bytes() as u64
    }

    /// Bytes that a merge may ask for.
    pub fn merge_bytes(&self) -> u64 {
        self.merges.total_bytes() as u64
    }

    /// Bytes taken now.
    pub fn used_bytes(&self) -> usize {
        self.quick.used_bytes() + self.graphs.used_bytes() + self.merges.used_bytes()
    }
}

/// Whether a seal may take the time to build a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// As the spec says.
    None,
    /// Without a graph; the merge policy makes up for it later.
    Flat,
}

/// A segment file that opens, still in the scratch directory.
pub(crate) struct Made {
    pub(crate) built: Built,
    pub(crate) segment: Arc<Segment>,
    _file: ScratchFile,
}

/// What a worker builds with.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) pool: ComputePool,
    pub(crate) budget: BuildBudget,
    pub(crate) spec: Arc<IndexSpec>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) scratch: Scratch,
    pub(crate) context: Context,
}

impl Builder {
    /// Bytes that the part for graphs must have so that a growing set of `rows` fits into the part of its lane,
    /// sealed with a graph or in haste without one.
    pub(crate) fn memory(spec: &IndexSpec, rows: u64) -> u64 {
        let flat = memory(spec, &without_graph(&spec.graph), rows, 0);
        let beside_quick = flat.saturating_mul((QUICK_PART / GRAPH_PART) as u64);
        memory(spec, &spec.graph, rows, 0).max(beside_quick)
    }

    /// Rows of the largest merge that fits.
    pub(crate) fn max_merge_rows(spec: &IndexSpec, budget: &BuildBudget) -> u64 {
        largest_fit(u32::MAX.into(), budget.merge_bytes(), |rows| memory(spec, &spec.graph, rows, 0))
    }

    /// Seals `set`; `None` when it has no live record.
    pub(crate) async fn seal(
        self,
        set: Arc<GrowingSet>,
        haste: Haste,
        progress: Progress,
    ) -> Result<Option<Made>, IndexerError> {
        let rows = set.live_len() as u64;
        if rows == 0 {
            return Ok(None);
        }
        let options = self.options(haste, progress);
        let lane = if rows < u64::from(options.graph.min_records) { Lane::Quick } else { Lane::Graph };
        let bytes = memory(&self.spec, &options.graph, rows, set.values_len());
        let part = if lane == Lane::Quick { &self.budget.quick } else { &self.budget.graphs };
        let permit = memory_of(part, bytes).await;
        let file = self.scratch.file();
        let since = Instant::now();
        let job = move |cancelled: &_| {
            let _permit = permit;
            let built = seal(&set, &options, file.path(), cancelled)?;
            open(built, file)
        };
        let made: Result<Made, IndexerError> = self.pool.run(lane, job).await?;
        self.context.metrics.built(lane, since.elapsed().as_secs_f64());
        made.map(Some)
    }

    /// Memory for a merge of `rows`, if it is free now: a merge can wait.
    pub(crate) fn try_merge_memory(&self, rows: u64) -> Option<BytePermit> {
        let bytes = memory(&self.spec, &self.spec.graph, rows, 0);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.budget.merges.try_acquire(bytes)
    }

    /// Merges the rows of `inputs` that are live in the bitmaps they come with. `permit` is for rows with few values;
    /// where they have more, it is given back and memory for all of it waited for.
    pub(crate) async fn merge(
        self,
        inputs: Vec<Live>,
        permit: BytePermit,
        progress: Progress,
    ) -> Result<Made, IndexerError> {
        let options = self.options(Haste::None, progress);
        let rows = inputs.iter().map(|input| input.state.live()).sum();
        let values = inputs.iter().map(|input| input.segment.values_len()).sum();
        let bytes = memory(&self.spec, &options.graph, rows, values);
        let permit = if bytes > memory(&self.spec, &options.graph, rows, 0) {
            // two merges that each held a part would wait for one another
            drop(permit);
            memory_of(&self.budget.merges, bytes).await
        } else {
            permit
        };
        let file = self.scratch.file();
        let schema = Arc::clone(&self.schema);
        let since = Instant::now();
        let job = move |cancelled: &_| {
            let _permit = permit;
            let inputs: Vec<(&Segment, &RoaringBitmap)> =
                inputs.iter().map(|i| (i.segment.as_ref(), &i.state.deleted)).collect();
            let built = merge(&inputs, &schema, &options, file.path(), cancelled)?;
            open(built, file)
        };
        let made: Result<Made, IndexerError> = self.pool.run(Lane::Merge, job).await?;
        self.context.metrics.built(Lane::Merge, since.elapsed().as_secs_f64());
        made
    }

    fn options(&self, haste: Haste, progress: Progress) -> BuildOptions {
        let graph = match haste {
            Haste::None => self.spec.graph.clone(),
            Haste::Flat => without_graph(&self.spec.graph),
        };
        BuildOptions { graph, quantization: self.spec.quantization, seed: SEED, progress }
    }
}

fn without_graph(graph: &GraphSpec) -> GraphSpec {
    GraphSpec { min_records: u32::MAX, ..graph.clone() }
}

/// Bytes that a build of `rows` with `values` in all takes beyond its inputs.
fn memory(spec: &IndexSpec, graph: &GraphSpec, rows: u64, values: u64) -> u64 {
    build_memory(rows, values, spec.dimension, graph, spec.quantization)
}

async fn memory_of(part: &ByteBudget, bytes: u64) -> BytePermit {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if let Some(permit) = part.try_acquire(bytes) {
        return permit;
    }
    while_blocked(part.acquire(bytes), |since| record_blocked("build_memory", since)).await
}

/// A segment is published only after it was opened, which verifies every byte of it.
fn open(built: Built, file: ScratchFile) -> Result<Made, IndexerError> {
    file.write_protect().map_err(IndexerError::Scratch)?;
    let segment = Arc::new(Segment::open(&built.path)?);
    Ok(Made { built, segment, _file: file })
}

#[cfg(test)]
mod tests {
    use sluice_core::{Dimension, GraphBuilder, IndexName, Metric};

    use super::*;

    fn spec(dimension: u32) -> IndexSpec {
        IndexSpec {
            name: IndexName::new("test").unwrap(),
            topic: None,
            partitions: 1,
            format: Default::default(),
            dimension: Dimension::new(dimension).unwrap(),
            metric: Metric::Cosine,
            quantization: Default::default(),
            vector_type: Default::default(),
            fields: Default::default(),
            graph: GraphSpec::default(),
            seal: Default::default(),
            merge: Default::default(),
            mapping: None,
        }
    }

    #[test]
    fn mem_1_the_largest_growing_set_fits_the_part_of_its_lane_with_and_without_a_graph() {
        for builder in [GraphBuilder::Bulk, GraphBuilder::HnswRs] {
            for dimension in [8, 32, 384, 1536, 4096] {
                let mut spec = spec(dimension);
                spec.graph.builder = builder;
                for bytes in [64 << 20, 384 << 20, 4 << 30] {
                    let budget = BuildBudget::new(bytes);
                    let rows =
                        largest_fit(u32::MAX.into(), budget.seal_bytes(), |n| Builder::memory(&spec, n));
                    let flat = memory(&spec, &without_graph(&spec.graph), rows, 0);
                    let part = budget.quick.total_bytes() as u64;
                    assert!(
                        rows > 0 && flat <= part,
                        "{builder:?}, {dimension}: {rows} rows, {flat} of {part}"
                    );
                    assert!(memory(&spec, &spec.graph, rows, 0) <= budget.seal_bytes());
                }
            }
        }
    }

    #[test]
    fn the_quick_part_leaves_growing_sets_as_large_as_the_part_for_graphs_does() {
        for dimension in [384, 1536] {
            let spec = spec(dimension);
            let rows = 50_000;
            assert_eq!(Builder::memory(&spec, rows), memory(&spec, &spec.graph, rows, 0), "{dimension}");
        }
    }
    #[test]
    fn mem_2_with_the_least_memory_two_small_seals_go_on_at_once() {
        let spec = spec(1024);
        let small = usize::try_from(memory(&spec, &without_graph(&spec.graph), 300, 0)).unwrap();
        // three eighths of the least that `limits.memory` may be
        let budget = BuildBudget::new(24 << 20);
        let (one, two) = (budget.quick.try_acquire(small), budget.quick.try_acquire(small));
        assert!(one.is_some() && two.is_some());
        let parts = budget.quick.total_bytes() + budget.graphs.total_bytes() + budget.merges.total_bytes();
        assert_eq!(parts, 24 << 20);
    }
}
