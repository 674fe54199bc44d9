//! `bench ingest`: the topic is filled first; then the ingest role runs until its manifests cover the log's end.

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::data::Rows;
use crate::process::{print, role};
use crate::roles::{BuiltInMemory, Ingested};
use crate::setup::Bench;
use crate::{DataArgs, LogArg, SystemArgs};

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    system: SystemArgs,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    log: &'static str,
    store: String,
    partitions: u32,
    records: u64,
    dimension: usize,
    produce_records_per_second: f64,
    /// Of the ingest role, from the first owned partition to the last manifest.
    records_per_second: f64,
    build_records_per_second: f64,
    /// Time to build in memory, over the time to ingest: 1.0 is an overhead of nothing.
    ratio_to_build: f64,
    ingest: Ingested,
    build: BuiltInMemory,
}

pub(crate) async fn run(args: IngestArgs) -> Result<()> {
    let rows = Rows::read(&args.data)?;
    let bench = Bench::new(&args.data, &args.system, &rows)?;
    let (records, dimension) = (bench.records(), rows.vectors.columns());
    let produced = bench.fill_topic(&rows).await?;
    drop(rows);
    let config = bench.config_file.to_str().context("the work directory is not UTF-8")?;
    eprintln!("ingesting {records} records, {} partitions", args.system.partitions);
    let next = bench.per_partition.to_string();
    let ingest: Ingested = role(&words(&["ingest", "--config", config, "--next", &next])).await?;
    eprintln!("building the same in memory");
    let build: BuiltInMemory = role(&build_words(&args.data, config, records)?).await?;
    print(&Report {
        bench: "ingest",
        log: if args.system.log == LogArg::Kafka { "kafka" } else { "local" },
        store: bench.store_url.split(':').next().unwrap_or_default().to_owned(),
        partitions: args.system.partitions,
        records,
        dimension,
        produce_records_per_second: records as f64 / produced,
        records_per_second: records as f64 / ingest.seconds,
        build_records_per_second: records as f64 / build.seconds,
        ratio_to_build: build.seconds / ingest.seconds,
        ingest,
        build,
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn build_words(data: &DataArgs, config: &str, records: u64) -> Result<Vec<String>> {
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let mut all = words(&["build", "--config", config, "--metric", &data.metric]);
    all.extend(["--records".into(), records.to_string(), "--vectors".into(), path(&data.vectors)?]);
    if let Some(jsonl) = &data.jsonl {
        all.extend(["--jsonl".into(), path(jsonl)?]);
    }
    Ok(all)
}
