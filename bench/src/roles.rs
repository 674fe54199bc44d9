//! The measured steps that run in processes of their own: ingesting, building the same in memory, and the systems
//! that `bench segment` compares.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Subcommand;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use sluice::topology::open_store;
use sluice_indexer::{ComputePool, Lane};
use sluice_segment::{BuildOptions, GrowingSet, seal};

use crate::DataArgs;
use crate::data::Rows;
use crate::process::{peak_memory, print};
use crate::segment;
use crate::setup::{Chains, Running, config, partition_of};

#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Runs the ingest role until every partition is published up to --next.
    Ingest {
        #[arg(long)]
        config: PathBuf,
        #[arg(long)]
        next: u64,
    },
    /// Builds the same segments in memory.
    Build {
        #[arg(long)]
        config: PathBuf,
        #[arg(long)]
        records: usize,
        #[command(flatten)]
        data: DataArgs,
    },
    /// Is one of the systems that `bench segment` compares.
    System {
        #[arg(long)]
        name: String,
    },
    /// Measures segments that are merged, filtered or have deleted rows.
    Variants {
        #[arg(long)]
        task: String,
        #[arg(long)]
        builder: String,
    },
}

/// What the ingest step took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ingested {
    /// From the start of the process's roles.
    pub(crate) seconds_from_start: f64,
    /// From the moment that the first partition had an owner.
    pub(crate) seconds: f64,
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    pub(crate) manifests: u64,
    pub(crate) peak_rss_bytes: Option<u64>,
}

/// What building in memory took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BuiltInMemory {
    pub(crate) seconds: f64,
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    pub(crate) peak_rss_bytes: Option<u64>,
}

impl Role {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Ingest { config, next } => print(&ingest(config, next).await?),
            Self::Build { config, records, data } => print(&build(config, records, data).await?),
            Self::System { name } => segment::serve_system(&name),
            Self::Variants { task, builder } => segment::serve_variants(&task, &builder),
        }
    }
}

async fn ingest(file: PathBuf, next: u64) -> Result<Ingested> {
    let config = config(&file)?;
    let store = open_store(&config)?;
    let spec = config.indexes.first().context("the configuration has an index")?.clone();
    let since = Instant::now();
    let mut service = Running::start(config, sluice::Role::Index).await?;
    let work = async {
        let chains = Chains::find(&store, &spec).await?;
        chains.claimed().await?;
        let claimed = Instant::now();
        let manifests = chains.covered(next).await?;
        Ok(Ingested {
            seconds_from_start: since.elapsed().as_secs_f64(),
            seconds: claimed.elapsed().as_secs_f64(),
            segments: manifests.iter().map(|m| m.segments.len()).sum(),
            bytes: manifests.iter().flat_map(|m| &m.segments).map(|s| s.bytes).sum(),
            manifests: manifests.iter().map(|m| m.seq.get()).sum(),
            peak_rss_bytes: None,
        })
    };
    let done = service.watch(work).await?;
    service.stop().await?;
    Ok(Ingested { peak_rss_bytes: peak_memory(), ..done })
}

async fn build(file: PathBuf, records: usize, data: DataArgs) -> Result<BuiltInMemory> {
    let config = config(&file)?;
    let spec = config.indexes.first().context("the configuration has an index")?.clone();
    let rows = Rows::read(&data)?;
    let sets = growing_sets(&rows, records, &spec)?;
    drop(rows);
    let threads = match config.limits.build_threads {
        0 => std::thread::available_parallelism()?.get(),
        threads => threads,
    };
    let pool = ComputePool::new(threads)?;
    let dir = tempfile::tempdir_in(file.parent().context("the configuration lies in a directory")?)?;
    let options = BuildOptions {
        graph: spec.graph.clone(),
        quantization: spec.quantization,
        seed: 1,
        ..BuildOptions::default()
    };
    let since = Instant::now();
    let builds = sets.into_iter().enumerate().map(|(at, set)| {
        let (path, options) = (dir.path().join(format!("{at}.seg")), options.clone());
        pool.run(Lane::Graph, move |cancelled| seal(&set, &options, &path, cancelled))
    });
    let built = try_join_all(builds).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(BuiltInMemory {
        seconds: since.elapsed().as_secs_f64(),
        segments: built.len(),
        bytes: built.iter().map(|b| b.bytes).sum(),
        peak_rss_bytes: peak_memory(),
    })
}

/// The growing sets that the same rows make on their way through the topic.
fn growing_sets(rows: &Rows, records: usize, spec: &sluice_core::IndexSpec) -> Result<Vec<GrowingSet>> {
    let schema = Arc::new(spec.schema());
    let mut sets: Vec<Vec<GrowingSet>> = (0..spec.partitions).map(|_| Vec::new()).collect();
    for row in 0..records {
        let partition = &mut sets[partition_of(row, spec.partitions).get() as usize];
        if partition.last().is_none_or(|set| set.live_len() >= spec.seal.max_records as usize) {
            partition.push(GrowingSet::new(Arc::clone(&schema)));
        }
        if let Some(set) = partition.last_mut() {
            set.apply(rows.record(row, (row / spec.partitions as usize) as u64, spec)?);
        }
    }
    Ok(sets.into_iter().flatten().collect())
}
