//! `bench segment`: segments against the libraries that others use, on the same vectors in the same run.
//!
//! Each system is a process of its own (see `protocol`), pinned to a processor. Builds and sweeps take turns, A, B, C,
//! A, B, C, so that a noisy machine slows all of them alike; QPS is the median of the sweeps, read off at a recall
//! between two measured ef. The ef that a recall needs has no noise of time in it.

mod chart;
#[cfg(feature = "peers")]
mod crates;
pub(crate) mod curve;
pub(crate) mod ours;
mod protocol;
mod report;
mod serve;
mod truth;
mod variants;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use sluice_core::{GraphBuilder, Metric, VectorType};
use tempfile::TempDir;

use crate::clock::Clock;
use crate::exact::Exact;
use crate::npy::{self, Matrix};
use crate::process::{print, role};
use curve::{Point, median};
use protocol::{Built, Found, Open, Request, System, Times};
use report::{F16, Line, Measured, OURS, Set, ratios};
use truth::Truth;

const K: usize = 10;
/// A recall beyond which a sweep does not go on.
const ENOUGH: f64 = 0.998;
/// The recall at whose ef single queries are timed.
const USUAL: f64 = 0.95;

/// Peers by crate and by script.
const PEERS: [&str; 12] = [
    "hnswlib",
    "faiss",
    "faiss-sq8",
    "svs",
    "svs-lvq8",
    "svs-lvq4x8",
    "svs-leanvec8x8",
    "svs-leanvec4x8",
    "hnsw_rs",
    "usearch",
    "usearch-bf16",
    "usearch-i8",
];

#[derive(Debug, Args)]
pub(crate) struct SegmentArgs {
    /// Matrix of numpy, f32 or f16, a row per record.
    #[arg(long)]
    vectors: PathBuf,
    /// Matrix of queries.
    #[arg(long)]
    queries: PathBuf,
    /// Matrix of the exact nearest rows of each query, best first; computed unless given.
    #[arg(long)]
    neighbours: Option<PathBuf>,
    /// cosine, dot or l2.
    #[arg(long, value_parser = by_name::<Metric>, default_value = "cosine")]
    metric: Metric,
    /// Use only so many rows.
    #[arg(long, conflicts_with = "neighbours")]
    rows: Option<usize>,
    /// Use only so many queries.
    #[arg(long, default_value_t = 1000)]
    max_queries: usize,
    /// The name of the vectors in the lines; that of their directory unless given.
    #[arg(long)]
    set: Option<String>,
    /// Systems to run beside ours, or `all`: hnswlib, faiss, faiss-sq8, svs, svs-lvq8, svs-lvq4x8, svs-leanvec8x8,
    /// svs-leanvec4x8 (these after bench/peers/venv.sh); hnsw_rs, usearch, usearch-bf16, usearch-i8 (these in a program
    /// built with `--features peers`). What is not there is skipped.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Builders of our graphs; the default one unless given.
    #[arg(long, value_delimiter = ',', value_parser = by_name::<GraphBuilder>)]
    builders: Vec<GraphBuilder>,
    /// How our segments keep full vectors, f32 or f16; several are measured beside each other.
    #[arg(long, value_delimiter = ',', value_parser = by_name::<VectorType>, default_value = "f32")]
    vector_types: Vec<VectorType>,
    /// Threads that build, and search at once; several numbers are measured one after another.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Processors to be pinned to: the first for one thread, the first two for two, .. From the last unless given.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Links per row above level 0, twice as many there.
    #[arg(long, default_value_t = 16)]
    m: u32,
    /// Candidates while an index is built.
    #[arg(long, default_value_t = 200)]
    ef_construction: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Candidates kept while searching, growing; a sweep ends where nearly everything is found.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10,12,14,17,20,24,29,35,42,50,60,75,95,120,150,190,240,320,450"
    )]
    ef: Vec<usize>,
    /// What times of one thread are told by: the processor's clock does not count what others do meanwhile.
    #[arg(long, value_enum, default_value = "wall")]
    clock: Clock,
    /// Sweeps over all ef, of which the median counts.
    #[arg(long, default_value_t = 3)]
    sweeps: usize,
    /// Builds, of which the median counts.
    #[arg(long, default_value_t = 1)]
    builds: usize,
    /// Draws recall against QPS, as an SVG.
    #[arg(long)]
    chart: Option<PathBuf>,
    /// Measures merged, filtered and deleted rows too.
    #[arg(long)]
    variants: bool,
    /// The interpreter for the peers of Python.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/venv/bin/python"))]
    python: PathBuf,
    /// Where files are made; the system's place for such things unless given.
    #[arg(long)]
    work_dir: Option<PathBuf>,
}

/// Reads a name as configurations have it.
pub(crate) fn by_name<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(name.to_owned())).map_err(|e| e.to_string())
}

/// Vectors, queries, and what these ought to find.
struct Input {
    vectors: Matrix<f32>,
    queries: Matrix<f32>,
    nearest: Vec<Vec<u32>>,
}

impl Input {
    fn read(args: &SegmentArgs) -> Result<Self> {
        let mut vectors = npy::vectors(&args.vectors)?;
        vectors.truncate(args.rows.unwrap_or(usize::MAX));
        let mut queries = npy::vectors(&args.queries)?;
        queries.truncate(args.max_queries);
        ensure!(vectors.rows() > 0 && queries.rows() > 0, "there must be rows and queries");
        ensure!(queries.columns() == vectors.columns(), "queries and vectors differ in dimension");
        let exact = Exact::new(&vectors, args.metric);
        let k = K.min(vectors.rows());
        let nearest = match &args.neighbours {
            Some(file) => truth::given(&npy::row_numbers(file)?, &exact, &queries, vectors.rows(), k)?,
            None => exact.nearest(&queries, k, |_, _| true),
        };
        Ok(Self { vectors, queries, nearest })
    }
}

pub(crate) async fn run(args: SegmentArgs) -> Result<()> {
    let input = Input::read(&args)?;
    let dir = match &args.work_dir {
        Some(place) => TempDir::with_prefix_in("sluice-bench-", place),
        None => TempDir::with_prefix("sluice-bench-"),
    }
    .context("making a work directory")?;
    let set = Set {
        name: set_name(&args),
        rows: input.vectors.rows(),
        dimension: input.vectors.columns(),
        metric: args.metric,
        clock: args.clock,
    };
    let task = Open {
        vectors: std::path::absolute(&args.vectors)?,
        rows: set.rows,
        queries: std::path::absolute(&args.queries)?,
        max_queries: args.max_queries,
        metric: args.metric,
        k: K,
        m: args.m,
        ef_construction: args.ef_construction,
        seed: args.seed,
        clock: args.clock,
        cpus: cpus(&args)?,
        work_dir: dir.path().to_owned(),
    };
    let mut lines = Vec::new();
    let mut run = Run { args: &args, set: &set, input: &input, systems: Vec::new() };
    run.start(&task)?;
    for &threads in &args.threads {
        for measured in run.measure(threads)? {
            let line = Line::new(&set, measured);
            print(&line)?;
            lines.push(line);
        }
    }
    drop(run);
    if let Some(file) = &args.chart {
        let first = args.threads.first().copied();
        let drawn = lines.iter().filter(|line| Some(line.threads) == first);
        let series: Vec<_> = drawn.map(|l| (l.system.as_str(), l.is_ours(), l.curve.as_slice())).collect();
        let threads = first.unwrap_or_default();
        let title = format!(
            "{}: {} rows, {}-d, {}, threads: {threads}",
            set.name, set.rows, set.dimension, set.metric
        );
        std::fs::write(file, chart::svg(&title, &series))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    if args.variants {
        drop(input);
        for builder in builders(&args) {
            variants(&set, &task, builder).await?;
        }
    }
    print(&ratios(&lines))
}

fn set_name(args: &SegmentArgs) -> String {
    let parent =
        || Some(std::path::absolute(&args.vectors).ok()?.parent()?.file_name()?.display().to_string());
    args.set.clone().or_else(parent).unwrap_or_default()
}

/// The processors to be pinned to.
fn cpus(args: &SegmentArgs) -> Result<Vec<usize>> {
    let most = args.threads.iter().copied().max().unwrap_or(1);
    ensure!(args.threads.iter().all(|&threads| threads > 0), "there is at least one thread");
    if !args.cpus.is_empty() {
        ensure!(args.cpus.len() >= most, "{most} threads need so many --cpus");
        return Ok(args.cpus.clone());
    }
    let ids = core_affinity::get_core_ids().context("the system does not list its processors")?;
    let cpus: Vec<usize> = ids.iter().rev().map(|cpu| cpu.id).collect();
    ensure!(cpus.len() >= most, "{most} threads are more than the {} processors", cpus.len());
    Ok(cpus)
}

fn builders(args: &SegmentArgs) -> Vec<GraphBuilder> {
    if args.builders.is_empty() { vec![GraphBuilder::default()] } else { args.builders.clone() }
}

/// The name of a builder as configurations have it.
fn builder_name(builder: GraphBuilder) -> String {
    json!(builder).as_str().unwrap_or_default().to_owned()
}

/// The name of our system with this builder and such vectors.
fn ours_name(builder: GraphBuilder, kind: VectorType) -> String {
    let suffix = if kind == VectorType::F16 { F16 } else { "" };
    format!("{OURS}-{}{suffix}", builder_name(builder))
}

/// How a system is started.
fn command(name: &str, args: &SegmentArgs) -> Result<Command> {
    let in_this_program =
        name.starts_with(OURS) || name.starts_with("hnsw_rs") || name.starts_with("usearch");
    if in_this_program {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.args(["role", "system", "--name", name]);
        return Ok(command);
    }
    ensure!(args.python.exists(), "not installed: run bench/peers/venv.sh");
    let mut command = Command::new(&args.python);
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/peers/peer.py"), name]);
    Ok(command)
}

struct Run<'a> {
    args: &'a SegmentArgs,
    set: &'a Set,
    input: &'a Input,
    systems: Vec<System>,
}

impl Run<'_> {
    /// Starts every system; what cannot start is skipped.
    fn start(&mut self, task: &Open) -> Result<()> {
        let builders = builders(self.args).into_iter();
        let ours = builders.flat_map(|b| self.args.vector_types.iter().map(move |kind| ours_name(b, *kind)));
        let named = |name: &String| {
            if name == "all" { PEERS.map(str::to_owned).to_vec() } else { vec![name.clone()] }
        };
        for name in ours.chain(self.args.peers.iter().flat_map(named)) {
            match command(&name, self.args).and_then(|command| System::start(&name, command, task)) {
                Ok(system) => self.systems.push(system),
                Err(error) => self.skipped(&name, &error)?,
            }
        }
        Ok(())
    }

    fn skipped(&self, name: &str, error: &anyhow::Error) -> Result<()> {
        print(
            &json!({ "bench": "segment", "set": self.set.name, "skipped": name, "reason": format!("{error:#}") }),
        )
    }

    /// Asks every system in turn; one that fails is left out from then on. `results` stand as the systems do.
    fn each<T>(
        &mut self,
        results: &mut Vec<T>,
        mut ask: impl FnMut(&mut System, &mut T) -> Result<()>,
    ) -> Result<()> {
        let mut at = 0;
        while at < self.systems.len() {
            match ask(&mut self.systems[at], &mut results[at]) {
                Ok(()) => at += 1,
                Err(error) => {
                    results.remove(at);
                    let system = self.systems.remove(at);
                    self.skipped(&system.name, &error)?;
                }
            }
        }
        Ok(())
    }

    /// Builds and sweeps with so many threads.
    fn measure(&mut self, threads: usize) -> Result<Vec<Measured>> {
        let exact = Exact::new(&self.input.vectors, self.set.metric);
        let truth = Truth::new(&exact, &self.input.queries, &self.input.nearest);
        let (args, rows, queries) = (self.args, self.set.rows, &self.input.queries);
        let mut sweeps: Vec<Sweeps> =
            self.systems.iter().map(|system| Sweeps::new(system, threads)).collect();
        for _ in 0..args.builds.max(1) {
            self.each(&mut sweeps, |system, sweeps| {
                eprintln!("{}: building, {threads} threads", system.name);
                sweeps.builds.push(system.ask::<Built>(&Request::Build { threads })?);
                Ok(())
            })?;
        }
        for sweep in 0..args.sweeps.max(1) {
            self.each(&mut sweeps, |system, sweeps| {
                eprintln!("{}: sweep {}", system.name, sweep + 1);
                let ask = |system: &mut System, ef| system.ask::<Found>(&Request::Search { ef, threads });
                // another system ran before: its rows stand in the caches
                ask(system, args.ef.first().copied().unwrap_or(K))?;
                for &ef in &args.ef {
                    let found = ask(system, ef)?;
                    let recall = truth.recall(&exact, queries, rows, &found.rows);
                    sweeps.push(ef, recall, queries.rows() as f64 / found.seconds);
                    if recall >= ENOUGH {
                        break;
                    }
                }
                let ef = sweeps.usual_ef();
                sweeps.times.extend(system.ask::<Times>(&Request::Single { ef })?.seconds);
                Ok(())
            })?;
        }
        Ok(sweeps.into_iter().map(Sweeps::measured).collect())
    }
}

/// What is gathered of one system.
struct Sweeps {
    system: String,
    version: String,
    threads: usize,
    builds: Vec<Built>,
    /// Each ef with its recall and the QPS of every sweep.
    points: Vec<(usize, f64, Vec<f64>)>,
    times: Vec<f64>,
}

impl Sweeps {
    fn new(system: &System, threads: usize) -> Self {
        let (system, version) = (system.name.clone(), system.version.clone());
        Self { system, version, threads, builds: Vec::new(), points: Vec::new(), times: Vec::new() }
    }

    fn push(&mut self, ef: usize, recall: f64, qps: f64) {
        match self.points.iter_mut().find(|point| point.0 == ef) {
            Some(point) => point.2.push(qps),
            None => self.points.push((ef, recall, vec![qps])),
        }
    }

    /// The smallest ef with the usual recall, else the largest.
    fn usual_ef(&self) -> usize {
        let enough = self.points.iter().find(|point| point.1 >= USUAL);
        enough.or(self.points.last()).map_or(K, |point| point.0)
    }

    fn measured(self) -> Measured {
        let times_ef = self.usual_ef();
        let point =
            |(ef, recall, mut qps): (usize, f64, Vec<f64>)| Point { ef, recall, qps: median(&mut qps) };
        Measured {
            system: self.system,
            version: self.version,
            threads: self.threads,
            builds: self.builds,
            points: self.points.into_iter().map(point).collect(),
            times: self.times,
            times_ef,
        }
    }
}

/// Measures the variants of one builder in a process of its own and prints what it says.
async fn variants(set: &Set, task: &Open, builder: GraphBuilder) -> Result<()> {
    let name = builder_name(builder);
    eprintln!("variants of {name}");
    let task = serde_json::to_string(task)?;
    let arguments = ["variants", "--task", &task, "--builder", &name].map(str::to_owned);
    let lines: Vec<Value> = role(&arguments).await?;
    for mut line in lines {
        line["set"] = json!(set.name);
        print(&line)?;
    }
    Ok(())
}

/// Is the system `name` of this program, until there are no more requests.
pub(crate) fn serve_system(name: &str) -> Result<()> {
    if let Some(builder) = name.strip_prefix(OURS).and_then(|rest| rest.strip_prefix('-')) {
        let (builder, kind) = match builder.strip_suffix(F16) {
            Some(builder) => (builder, VectorType::F16),
            None => (builder, VectorType::F32),
        };
        let builder = by_name(builder).map_err(anyhow::Error::msg)?;
        return serve::serve(|open, queries| Ok(Box::new(ours::Ours::new(open, (builder, kind), &queries)?)));
    }
    #[cfg(feature = "peers")]
    return serve::serve(|open, queries| crates::make(name, open, queries));
    #[cfg(not(feature = "peers"))]
    serve::serve(|_, _| anyhow::bail!("{name} is not in this program: build it with --features peers"))
}

/// Measures the variants of one builder.
pub(crate) fn serve_variants(task: &str, builder: &str) -> Result<()> {
    let task: Open = serde_json::from_str(task)?;
    print(&variants::run(&task, by_name(builder).map_err(anyhow::Error::msg)?)?)
}
