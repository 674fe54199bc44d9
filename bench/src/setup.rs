//! What every measurement begins with: a configuration, a topic with the records in it, and knowing when it is covered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use sluice::config::{Config, Environment, Flags, TomlText, load_texts};
use sluice::{Edges, Role, Service};
use sluice_connectors::{Outgoing, encode};
use sluice_core::{IndexSpec, PartitionId, PartitionRef, SystemClock};
use sluice_snapshotter::{Chain, Manifest, Registry, Store};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::data::Rows;
use crate::{DataArgs, LogArg, SystemArgs};

/// Messages that are produced at once.
const CHUNK: usize = 1000;
/// How often manifests are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A place with a configuration, removed when this is dropped.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) config_file: PathBuf,
    /// Records of each partition: all have the same number.
    pub(crate) per_partition: u64,
    pub(crate) store_url: String,
    pub(crate) spec: IndexSpec,
}

impl Bench {
    pub(crate) fn new(data: &DataArgs, system: &SystemArgs, rows: &Rows) -> Result<Self> {
        let dir = match &system.work_dir {
            Some(place) => TempDir::with_prefix_in("sluice-bench-", place),
            None => TempDir::with_prefix("sluice-bench-"),
        }
        .context("making a work directory")?;
        let per_partition = rows.len() as u64 / u64::from(system.partitions.max(1));
        ensure!(per_partition > 0, "there are fewer rows than partitions");
        let default_store = format!("file://{}", dir.path().join("store").display());
        std::fs::create_dir_all(dir.path().join("store"))?;
        let store_url = system.store.clone().unwrap_or(default_store);
        let text = config_text(dir.path(), data, system, rows.vectors.columns(), per_partition, &store_url)?;
        let config_file = dir.path().join("bench.toml");
        std::fs::write(&config_file, text)?;
        let spec =
            config(&config_file)?.indexes.into_iter().next().context("the configuration has an index")?;
        Ok(Self { dir, config_file, per_partition, store_url, spec })
    }

    pub(crate) fn config(&self) -> Result<Config> {
        config(&self.config_file)
    }

    /// Rows that are used: the same number in each partition.
    pub(crate) fn records(&self) -> u64 {
        self.per_partition * u64::from(self.spec.partitions)
    }

    /// Writes the records to the topic, row i to partition i modulo partitions. Returns the seconds that it took.
    pub(crate) async fn fill_topic(&self, rows: &Rows) -> Result<f64> {
        let edges = Edges::open(&self.config()?).await?;
        let topic = self.spec.topic();
        let partitions = self.spec.partitions;
        let made = edges.log.producer.ensure_topic(&topic, partitions).await?;
        ensure!(made == partitions, "topic {topic} has {made} partitions");
        let bar = ProgressBar::new(self.records()).with_message("loading the topic");
        let since = Instant::now();
        let all: Vec<usize> = (0..usize::try_from(self.records())?).collect();
        for chunk in all.chunks(CHUNK) {
            let messages = chunk.iter().map(|&row| message(rows, row, partitions)).collect();
            for placed in edges.log.producer.produce(&topic, messages).await {
                placed.context("writing to the topic")?;
            }
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        Ok(since.elapsed().as_secs_f64())
    }
}

fn message(rows: &Rows, row: usize, partitions: u32) -> Outgoing {
    let mut message = encode::upsert(rows.key(row), rows.vectors.row(row), rows.metadata(row));
    message.partition = Some(partition_of(row, partitions));
    message
}

/// The partition of a row.
pub(crate) fn partition_of(row: usize, partitions: u32) -> PartitionId {
    PartitionId((row % partitions as usize) as u32)
}

/// Reads a configuration that was written here.
pub(crate) fn config(file: &Path) -> Result<Config> {
    let text = TomlText::read(file).map_err(anyhow::Error::msg)?;
    Ok(load_texts(vec![text], Environment::of_process(), Flags::default())?)
}

fn quoted(text: impl Into<String>) -> String {
    toml::Value::String(text.into()).to_string()
}

fn config_text(
    dir: &Path,
    data: &DataArgs,
    system: &SystemArgs,
    dimension: usize,
    per_partition: u64,
    store_url: &str,
) -> Result<String> {
    // a name of its own, so that a broker may be used twice
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let name = format!("bench-{}-{since}", std::process::id());
    let seal = u64::from(system.seal_records).min(per_partition);
    let log = match system.log {
        LogArg::Local => "[log]\nkind = \"local\"\n".to_owned(),
        LogArg::Kafka => format!(
            "[log]\nkind = \"kafka\"\ngroup = {}\n[log.kafka]\n\"bootstrap.servers\" = {}\n",
            quoted(&name),
            quoted(&system.bootstrap)
        ),
    };
    Ok(format!(
        "data_dir = {data_dir}\n\
         {log}\
         [store]\nurl = {url}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\
         [limits]\nmemory = {memory}\nbuild_threads = {threads}\nsearch_threads = {threads}\n\
         [[index]]\nname = {name}\npartitions = {partitions}\ndimension = {dimension}\nmetric = {metric}\n\
         seal = {{ max_records = {seal}, max_bytes = \"8GiB\", max_age = \"5s\" }}\n",
        data_dir = quoted(dir.join("data").display().to_string()),
        url = quoted(store_url),
        memory = quoted(&system.memory),
        threads = system.threads,
        name = quoted(name),
        partitions = system.partitions,
        metric = quoted(&data.metric),
    ))
}

/// The manifest chains of an index.
pub(crate) struct Chains(Vec<Chain>);

impl Chains {
    /// Waits until the index is in the registry.
    pub(crate) async fn find(store: &Store, spec: &IndexSpec) -> Result<Self> {
        let registry = Registry::new(store.clone(), Arc::new(SystemClock));
        let stored = loop {
            match registry.get(&spec.name).await? {
                Some(stored) => break stored,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let chain = |partition| {
            let partition = PartitionId(partition);
            let at = PartitionRef { index: spec.name.clone(), generation: stored.generation, partition };
            Chain::new(store.clone(), at)
        };
        Ok(Self((0..spec.partitions).map(chain).collect()))
    }

    /// Waits until the first partition has an owner.
    pub(crate) async fn claimed(&self) -> Result<()> {
        loop {
            for chain in &self.0 {
                if chain.newest().await?.is_some() {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every partition is published up to `next`.
    pub(crate) async fn covered(&self, next: u64) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for chain in &self.0 {
            manifests.push(loop {
                match chain.newest().await? {
                    Some(manifest) if manifest.next_offset.get() >= next => break manifest,
                    _ => tokio::time::sleep(LOOK).await,
                }
            });
        }
        Ok(manifests)
    }
}

/// Roles that run in this process.
pub(crate) struct Running {
    pub(crate) address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<sluice::RunReport, sluice::RunError>>,
}

impl Running {
    pub(crate) async fn start(config: Config, role: Role) -> Result<Self> {
        let stop = CancellationToken::new();
        let service = Service::start(config, role, &stop).await?;
        let address = service.address();
        let task = tokio::spawn(service.run(stop.clone()));
        Ok(Self { address, stop, task })
    }

    /// Fails when the roles have ended by themselves.
    pub(crate) async fn watch<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            ended = &mut self.task => anyhow::bail!("the service ended: {ended:?}"),
        }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let report = self.task.await??;
        ensure!(report.hung.is_empty(), "not stopped in time: {}", report.hung.join(", "));
        Ok(())
    }
}
