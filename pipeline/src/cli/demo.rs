//! `demo`: everything in one process, filled with the sample the first time, and what to try next.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use sluice_connectors::Outgoing;
use sluice_core::{IndexName, IndexSpec, TopicPartition};
use sluice_query_svc::types::IndexStatus;
use tokio_util::sync::CancellationToken;

use super::client::ServiceClient;
use super::options::Common;
use super::output::{self, Output};
use super::{CliError, load, serve, signals};
use crate::config::{self, Config, Environment};
use crate::load::{LoadError, LoadRequest, Position, Row, RowEncoder, Rows, Total, run as run_load};
use crate::sample::Sample;
use crate::topology::{Edges, Role, RunError, RunReport, Service};

const INDEX: &str = "packages";
/// Sealed after a second instead of ten, so that what is tried is seen soon.
const SPEC: &str = r#"
name = "packages"
partitions = 4
dimension = 384
metric = "cosine"
fields = { section = "keyword" }
seal = { max_age = "1s" }
"#;
const EXAMPLES: &str = "\
State is kept in ./sluice-data/demo unless --data-dir says otherwise; remove it to begin anew.

Examples:
  sluice demo
  sluice demo --once --json    loads, stops, and says in one document what is searchable";
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Stop once everything is searchable
    #[arg(long)]
    once: bool,
}

/// The sample as rows of a load.
struct SampleRows {
    rows: std::vec::IntoIter<Result<Outgoing, String>>,
    position: Position,
    total: u64,
}

impl SampleRows {
    fn new(sample: &Sample, encoder: &RowEncoder) -> Self {
        let encode = |(package, vector): (&crate::sample::Package, Vec<f32>)| {
            encoder.row(&package.id, vector, &json!({"section": package.section}).to_string())
        };
        let rows: Vec<_> = sample.rows().map(encode).collect();
        Self { total: rows.len() as u64, rows: rows.into_iter(), position: Position::default() }
    }
}

impl Rows for SampleRows {
    fn next(&mut self) -> Result<Option<Row>, LoadError> {
        self.position.rows += 1;
        Ok(self.rows.next().map(|message| Row { end: self.position, message }))
    }

    fn total(&self) -> Total {
        Total::Rows(self.total)
    }
}

pub(super) async fn run(common: &Common, args: DemoArgs, out: Output) -> Result<ExitCode, CliError> {
    let (config, spec) = demo_config(common)?;
    let stop = signals::stop_token()?;
    let service = match Service::start(config.clone(), Role::Up, &stop).await {
        Err(RunError::Stopped) => return Ok(ExitCode::SUCCESS),
        started => started?,
    };
    let url = format!("http://{}", service.address());
    let mut running = tokio::spawn(service.run(stop.clone()));
    // as JSON, a demo that ends by itself says everything in one document
    let whole = args.once && out.json;
    let shown = tokio::select! {
        ended = &mut running => return serve::finish(&report(ended)?, out),
        shown = show(&config, &spec, &url, &stop, out) => shown,
    };
    match &shown {
        Ok(Some(shown)) if !whole => shown.print(out)?,
        _ => {}
    }
    if args.once || shown.is_err() {
        stop.cancel();
    }
    let ended = report(running.await);
    let (shown, ended) = (shown?, ended?);
    if !whole {
        return serve::finish(&ended, out);
    }
    let document = Document { shown, hung: &ended.hung };
    match serve::unclean(&ended) {
        None => out.print(&document, |_| String::new()).map(|()| ExitCode::SUCCESS),
        Some(error) => output::fail_with(out, &document, |_| String::new(), &error),
    }
}

fn report(ended: Result<Result<RunReport, RunError>, tokio::task::JoinError>) -> Result<RunReport, CliError> {
    Ok(ended.map_err(CliError::internal)??)
}

/// What is searchable, and where.
#[derive(Debug, Serialize)]
struct Shown {
    url: String,
    index: &'static str,
    records: usize,
    #[serde(skip)]
    query: PathBuf,
}

impl Shown {
    fn print(&self, out: Output) -> Result<(), CliError> {
        let text = match out.json {
            true => serde_json::to_string(self).map_err(CliError::internal)?,
            false => invitation(&self.url, &self.query, self.records),
        };
        output::line(&text);
        Ok(())
    }
}

/// The same, and how the demo ended.
#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    shown: Option<Shown>,
    hung: &'a [String],
}

/// The defaults, the flags, a directory of its own and the index of the sample.
fn demo_config(common: &Common) -> Result<(Config, IndexSpec), CliError> {
    let mut flags = common.flags();
    if common.data_dir.is_none() {
        flags.path("data_dir", Some(&PathBuf::from("./sluice-data/demo")));
    }
    let mut config = config::load(&common.config, Environment::of_process(), flags)?;
    let spec: IndexSpec = toml::from_str(SPEC).map_err(CliError::internal)?;
    if config.indexes.iter().all(|i| i.name != spec.name) {
        config.indexes.push(spec.clone());
    }
    Ok((config, spec))
}

/// Loads what is missing and waits until it is searchable; nothing when told to stop meanwhile.
async fn show(
    config: &Config,
    spec: &IndexSpec,
    url: &str,
    stop: &CancellationToken,
    out: Output,
) -> Result<Option<Shown>, CliError> {
    let sample = Sample::open()?;
    let edges = Edges::open(config).await?;
    fill(config, spec, &edges, &sample, stop, out).await?;
    if stop.is_cancelled() || !wait(url, stop, out).await? {
        return Ok(None);
    }
    let query = write_query(&config.data_dir, &sample)?;
    Ok(Some(Shown { url: url.into(), index: INDEX, records: sample.len(), query }))
}

/// Writes the sample to the log, unless the log has as much already.
async fn fill(
    config: &Config,
    spec: &IndexSpec,
    edges: &Edges,
    sample: &Sample,
    stop: &CancellationToken,
    out: Output,
) -> Result<(), CliError> {
    let topic = spec.topic();
    let partitions =
        edges.log.producer.ensure_topic(&topic, spec.partitions).await.map_err(RunError::from)?;
    let mut present = 0;
    for partition in (0..partitions).map(sluice_core::PartitionId) {
        let at = TopicPartition { topic: topic.clone(), partition };
        present += edges.log.source.bounds(&at).await.map_err(RunError::from)?.end.get();
    }
    if present >= sample.len() as u64 {
        return Ok(());
    }
    let rows = SampleRows::new(sample, &load::encoder(config, spec));
    let bar = load::bar(rows.total(), Position::default(), out)?;
    bar.set_message(", publishing the sample");
    let request = LoadRequest {
        rows: Box::new(rows),
        producer: Arc::clone(&edges.log.producer),
        topic,
        state: None,
        from: Position::default(),
        max_errors: 0,
        list_errors: 1,
    };
    let shown = bar.clone();
    let (_, result) = run_load(request, stop.clone(), move |p| load::show(&shown, &p)).await;
    bar.finish_and_clear();
    Ok(result?)
}

/// Waits until snapshots hold everything that the log holds; `false` when told to stop meanwhile.
async fn wait(url: &str, stop: &CancellationToken, out: Output) -> Result<bool, CliError> {
    let client = ServiceClient::at(url.to_owned(), Duration::from_secs(10))?;
    let path = format!("/v1/indexes/{INDEX}");
    let bar = output::bar(out, Some(1), "{spinner} {wide_bar} {pos}/{len} records, indexing")?;
    loop {
        // not there yet is no error: the service is starting
        if let Ok(status) = client.get::<IndexStatus>(&path).await {
            let (visible, end) = totals(&status);
            bar.set_length(end);
            bar.set_position(visible);
            if end > 0 && visible >= end {
                bar.finish_and_clear();
                return Ok(true);
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(POLL) => bar.tick(),
        }
    }
}

/// Visible offsets and log ends, over all partitions; nothing while one is not known.
fn totals(status: &IndexStatus) -> (u64, u64) {
    let known = status.partitions.iter().map(|p| Some((p.visible_offset?, p.log_end?)));
    let known: Option<Vec<_>> = known.collect();
    known.unwrap_or_default().iter().fold((0, 0), |(v, e), (visible, end)| (v + visible, e + end))
}

/// A request by vector, as a file: 384 numbers are too long for a line.
fn write_query(data_dir: &Path, sample: &Sample) -> Result<PathBuf, CliError> {
    let path = data_dir.join("query.json");
    let apache = sample.rows().find(|(package, _)| package.id == "apache2");
    let (_, vector) = apache.ok_or_else(|| CliError::internal("the sample has no apache2"))?;
    let text = json!({"vector": vector, "k": 5}).to_string();
    std::fs::write(&path, text).map_err(|e| CliError::file(path.display(), &e))?;
    Ok(path)
}

fn invitation(url: &str, query: &Path, records: usize) -> String {
    let name = IndexName::new(INDEX).map_or_else(|_| String::new(), |n| n.to_string());
    let search = format!("{url}/v1/indexes/{name}/search");
    let header = "-H 'content-type: application/json'";
    format!(
        "\n{records} Debian packages are searchable at {url}\n\n\
         more like nginx:\n  curl -s {search} {header} -d '{{\"id\": \"nginx\", \"k\": 5}}'\n\n\
         more like nginx, web applications only:\n  curl -s {search} {header} \\\n    \
         -d '{{\"id\": \"nginx\", \"k\": 5, \"filter\": {{\"section\": \"web\"}}}}'\n\n\
         by vector (that of apache2):\n  curl -s {search} {header} -d @{}\n\n\
         and: sluice status --url {url}, sluice search packages --id vim --url {url}, {url}/openapi.json\n\
         Ctrl-C stops; started again it serves at once.\n",
        query.display()
    )
}
