//! `bench search`: queries a second, latency and recall, in process and over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;
use sluice::topology::open_store;
use sluice_core::{IndexSpec, Metric, Vector};
use sluice_segment::{Query, Segment};
use sluice_snapshotter::{Manifest, SegmentCache};

use crate::data::Rows;
use crate::http::{Round, Target};
use crate::latency::{percentile_ms, recall};
use crate::npy::{self, Matrix};
use crate::process::print;
use crate::setup::{Bench, Chains, Running};
use crate::{DataArgs, SystemArgs};

const K: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    system: SystemArgs,
    /// Matrix of queries.
    #[arg(long)]
    queries: PathBuf,
    /// Matrix of the exact nearest rows of each query, best first; measured by an exact search unless given.
    #[arg(long)]
    neighbours: Option<PathBuf>,
    /// Candidates kept while a graph is searched; several are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "50,100,200")]
    ef: Vec<usize>,
    /// Clients over HTTP; several numbers are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "1,4")]
    clients: Vec<usize>,
    /// A service that runs already and holds the vectors; then nothing is measured in process.
    #[arg(long, requires = "index")]
    url: Option<String>,
    /// The index of that service.
    #[arg(long)]
    index: Option<String>,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    /// `in_process`: one call per segment, without the service around it. `http`: the service.
    over: &'static str,
    partitions: Option<u32>,
    segments: Option<usize>,
    records: usize,
    dimension: usize,
    /// Threads in process, clients over HTTP.
    parallel: usize,
    ef: Option<usize>,
    exact: bool,
    queries: usize,
    queries_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    recall_at_10: f64,
}

/// Queries and the ids that they ought to find.
struct Task {
    queries: Matrix<f32>,
    wanted: Vec<Vec<String>>,
}

pub(crate) async fn run(args: SearchArgs) -> Result<()> {
    let rows = Rows::read(&args.data)?;
    let queries = npy::vectors(&args.queries)?;
    ensure!(queries.columns() == rows.vectors.columns(), "queries and vectors differ in dimension");
    if let (Some(url), Some(index)) = (&args.url, &args.index) {
        let target = Target::new(url, index)?;
        let task = wanted_over_http(&args, &rows, queries, &target).await?;
        return over_http(&args, &rows, &task, &target, None).await;
    }
    let bench = Bench::new(&args.data, &args.system, &rows)?;
    ensure!(bench.records() == rows.len() as u64, "rows must be a multiple of partitions; see --rows");
    bench.fill_topic(&rows).await?;
    eprintln!("building the index");
    let config = bench.config()?;
    let store = open_store(&config)?;
    let mut service = Running::start(config.clone(), sluice::Role::Up).await?;
    let address = service.address;
    let work = async {
        let manifests = Chains::find(&store, &bench.spec).await?.covered(bench.per_partition).await?;
        let name = bench.spec.name.as_str();
        let target = Target::new(&format!("http://{address}"), name)?;
        target.visible(name, bench.per_partition).await?;
        let cache = SegmentCache::open(&config.cache_dir(), u64::MAX, store.clone())?;
        let segments = open(&cache, &manifests).await?;
        let task = wanted_over_http(&args, &rows, queries, &target).await?;
        in_process(&args, &rows, &task, &segments, &bench.spec)?;
        over_http(&args, &rows, &task, &target, Some((bench.spec.partitions, segments.len()))).await
    };
    service.watch(work).await?;
    service.stop().await
}

async fn open(cache: &SegmentCache, manifests: &[Manifest]) -> Result<Vec<Arc<Segment>>> {
    let mut segments = Vec::new();
    for manifest in manifests {
        for entry in &manifest.segments {
            segments.push(cache.get(&manifest.partition, entry).await?);
        }
    }
    Ok(segments)
}

/// The nearest rows: given, or found by an exact search.
async fn wanted_over_http(
    args: &SearchArgs,
    rows: &Rows,
    queries: Matrix<f32>,
    target: &Target,
) -> Result<Task> {
    let wanted = match &args.neighbours {
        Some(path) => {
            let nearest = npy::row_numbers(path)?;
            ensure!(nearest.rows() >= queries.rows() && nearest.columns() >= K, "too few neighbours");
            let ids = |row: &[u32]| {
                let id = |&at: &u32| {
                    let at = at as usize;
                    ensure!(
                        at < rows.len(),
                        "a neighbour is row {at}, beyond the vectors; leave --neighbours out"
                    );
                    Ok(rows.key(at).as_str().to_owned())
                };
                row.iter().take(K).map(id).collect::<Result<Vec<_>>>()
            };
            nearest.iter().take(queries.rows()).map(ids).collect::<Result<Vec<_>>>()?
        }
        None => {
            eprintln!("finding the nearest rows by an exact search");
            target.round(&bodies(&queries, None), 2).await?.ids
        }
    };
    Ok(Task { queries, wanted })
}

/// Request bodies; exact ones without `ef`.
fn bodies(queries: &Matrix<f32>, ef: Option<usize>) -> Arc<Vec<String>> {
    let body = |vector: &[f32]| match ef {
        Some(ef) => json!({ "vector": vector, "k": K, "ef": ef, "include": [] }).to_string(),
        None => json!({ "vector": vector, "k": K, "exact": true, "include": [] }).to_string(),
    };
    Arc::new(queries.iter().map(body).collect())
}

async fn over_http(
    args: &SearchArgs,
    rows: &Rows,
    task: &Task,
    target: &Target,
    shape: Option<(u32, usize)>,
) -> Result<()> {
    for ef in args.ef.iter().copied().map(Some).chain([None]) {
        let bodies = bodies(&task.queries, ef);
        // the first round warms up caches and connections
        target.round(&bodies, 2).await?;
        for &clients in &args.clients {
            let round = target.round(&bodies, clients).await?;
            report("http", rows, task, round, ef, clients, shape)?;
        }
    }
    Ok(())
}

fn in_process(
    args: &SearchArgs,
    rows: &Rows,
    task: &Task,
    segments: &[Arc<Segment>],
    spec: &IndexSpec,
) -> Result<()> {
    let queries = task.queries.iter().map(|q| Vector::try_new(q.to_vec(), spec.dimension, spec.metric));
    let queries = queries.collect::<Result<Vec<_>, _>>().context("a query")?;
    let cores = std::thread::available_parallelism()?.get();
    for ef in args.ef.iter().copied().map(Some).chain([None]) {
        for threads in [1, cores] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let all = || -> Vec<_> {
                queries.par_iter().map(|query| timed(segments, query, ef, spec.metric)).collect()
            };
            pool.install(all);
            let since = Instant::now();
            let (times, ids) = pool.install(all).into_iter().unzip();
            let round = Round { seconds: since.elapsed().as_secs_f64(), times, ids };
            report("in_process", rows, task, round, ef, threads, Some((spec.partitions, segments.len())))?;
        }
    }
    Ok(())
}

/// One query over all segments, one after another.
fn timed(
    segments: &[Arc<Segment>],
    vector: &Vector,
    ef: Option<usize>,
    metric: Metric,
) -> (std::time::Duration, Vec<String>) {
    let (deleted, cancelled) = (roaring::RoaringBitmap::new(), AtomicBool::new(false));
    let exact = ef.is_none();
    let query =
        Query { vector, k: K, ef: ef.unwrap_or(K), exact, filter: None, bound: None, cancelled: &cancelled };
    let since = Instant::now();
    let mut hits: Vec<_> = segments
        .iter()
        .flat_map(|segment| {
            // nobody cancels
            let hits = segment.search(&query, &deleted).unwrap_or_default();
            hits.into_iter().map(move |hit| (hit.score, segment, hit.row))
        })
        .collect();
    let better = |a: f32, b: f32| if metric.larger_is_better() { b.total_cmp(&a) } else { a.total_cmp(&b) };
    hits.sort_by(|a, b| better(a.0, b.0));
    hits.truncate(K);
    let time = since.elapsed();
    (time, hits.into_iter().map(|(_, segment, row)| segment.row(row).key.to_owned()).collect())
}

fn report(
    over: &'static str,
    rows: &Rows,
    task: &Task,
    mut round: Round,
    ef: Option<usize>,
    parallel: usize,
    shape: Option<(u32, usize)>,
) -> Result<()> {
    let queries = round.times.len();
    let recalls = round.ids.iter().zip(&task.wanted).map(|(found, wanted)| recall(found, wanted));
    print(&Report {
        bench: "search",
        over,
        partitions: shape.map(|s| s.0),
        segments: shape.map(|s| s.1),
        records: rows.len(),
        dimension: rows.vectors.columns(),
        parallel,
        ef,
        exact: ef.is_none(),
        queries,
        queries_per_second: queries as f64 / round.seconds,
        p50_ms: percentile_ms(&mut round.times, 50),
        p99_ms: percentile_ms(&mut round.times, 99),
        recall_at_10: recalls.sum::<f64>() / queries.max(1) as f64,
    })
}
