//! `bench`: what Sluice does per second, on anybody's vectors. JSON lines on standard output, progress on standard
//! error. Nothing here is a test: figures depend on the machine, and only ratios of one run may be compared.

mod clock;
mod counting;
mod data;
mod exact;
mod generate;
mod http;
mod ingest;
mod latency;
mod load;
mod npy;
mod process;
mod roles;
mod scan;
mod search;
mod segment;
mod setup;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Measures Sluice.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Records a second from topic to published manifest, against building the same vectors in memory.
    Ingest(ingest::IngestArgs),
    /// Queries a second, latency and recall, in process and over HTTP.
    Search(search::SearchArgs),
    /// Bytes a second of a snapshot from store to serving, against a raw copy of the same bytes.
    Load(load::LoadArgs),
    /// Building and searching segments against other libraries, on the same vectors in the same run.
    Segment(Box<segment::SegmentArgs>),
    /// Comparing with every row, one search at a time and many together, against reading the same bytes.
    Scan(scan::ScanArgs),
    /// Made vectors with queries and exact neighbours.
    Generate(generate::GenerateArgs),
    /// One measured step in a process of its own; started by the others.
    #[command(hide = true, subcommand)]
    Role(roles::Role),
}

/// The vectors and the names of their rows.
#[derive(Debug, Clone, Args)]
struct DataArgs {
    /// Matrix of numpy, f32 or f16, a row per record.
    #[arg(long)]
    vectors: PathBuf,
    /// JSONL with an id per row, may be gzip'd; the other keys are metadata. Row numbers unless given.
    #[arg(long)]
    jsonl: Option<PathBuf>,
    /// Use only so many rows.
    #[arg(long)]
    rows: Option<usize>,
    /// cosine, dot or l2.
    #[arg(long, default_value = "cosine")]
    metric: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogArg {
    Local,
    Kafka,
}

/// What Sluice runs on.
#[derive(Debug, Clone, Args)]
struct SystemArgs {
    #[arg(long, value_enum, default_value = "local")]
    log: LogArg,
    /// Brokers, with --log kafka.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// file:///dir or s3://bucket/prefix; a directory that is removed afterwards unless given. Options of the store
    /// come from SLUICE__STORE__OPTIONS__* and AWS_* variables.
    #[arg(long)]
    store: Option<String>,
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// Budget of the process.
    #[arg(long, default_value = "4GiB")]
    memory: String,
    /// Records of a seal; a partition's records are one segment when there are no more.
    #[arg(long, default_value_t = 50_000)]
    seal_records: u32,
    /// Threads that build and search; 0 takes one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where logs, caches and directories for stores are made; the system's place for such things unless given.
    #[arg(long)]
    work_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    sluice_core::telemetry::init(sluice_core::telemetry::LogFormat::Text, "warn", 0);
    match Cli::parse().command {
        Command::Ingest(args) => ingest::run(args).await,
        Command::Search(args) => search::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Segment(args) => segment::run(*args).await,
        Command::Scan(args) => scan::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Role(role) => role.run().await,
    }
}
