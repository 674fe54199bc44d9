//! One test's world: a directory, names of its own in the log and the store, a configuration, processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::api::Api;
use super::log::Log;
use super::process::{Environment, Process, sluice};
use super::set_up::SetUp;

/// Partitions of a test's topic unless it says otherwise.
pub(crate) const PARTITIONS: u32 = 4;

/// How long Kafka waits for a silent member before its partitions move; short, so that tests need not wait long.
pub(crate) const SESSION_TIMEOUT_MS: u32 = 6000;

pub(crate) struct World {
    set_up: SetUp,
    dir: TempDir,
    /// The index of the test, and its topic.
    pub(crate) index: String,
    /// The oracle's way to the log.
    pub(crate) log: Log,
    /// Whether the index stands in the configuration.
    configured: bool,
    /// Variables that every process of this world gets.
    pub(crate) environment: Vec<(String, String)>,
}

/// A name that no other test, in this run or another, has.
fn unique(name: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "a name, not a time that anything is decided by")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    format!("{name}-{:x}-{:x}", now.as_micros(), std::process::id())
}

/// The table of one index; `more` is TOML in it.
pub(crate) fn index_table(name: &str, dimension: usize, partitions: u32, more: &str) -> String {
    format!(
        "[[index]]\nname = '{name}'\ndimension = {dimension}\npartitions = {partitions}\n\
         fields = {{ group = 'keyword', size = 'integer' }}\n{more}\n"
    )
}

impl World {
    /// A world with one index of `dimension`; `more` is TOML in the index's table.
    pub(crate) fn new(set_up: &SetUp, name: &str, dimension: usize, more: &str) -> Self {
        Self::with_partitions(set_up, name, dimension, PARTITIONS, more)
    }

    /// A world whose topic has so many partitions.
    pub(crate) fn with_partitions(
        set_up: &SetUp,
        name: &str,
        dimension: usize,
        partitions: u32,
        more: &str,
    ) -> Self {
        let index = unique(name);
        let table = index_table(&index, dimension, partitions, more);
        Self::with_tables(set_up, index, &table)
    }

    /// A world without an index; the test creates it by HTTP.
    pub(crate) fn without_index(set_up: &SetUp, name: &str) -> Self {
        Self::with_tables(set_up, unique(name), "")
    }

    fn with_tables(set_up: &SetUp, index: String, tables: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-e2e-").tempdir().unwrap();
        let log = Log::of(set_up, &dir.path().join("data"));
        let configured = !tables.is_empty();
        let world = Self { set_up: set_up.clone(), dir, index, log, configured, environment: Vec::new() };
        fs::write(world.config(), world.text(tables)).unwrap();
        world
    }

    fn text(&self, tables: &str) -> String {
        let places = match &self.set_up {
            SetUp::Local => String::new(),
            SetUp::Servers { kafka, store } => format!(
                "[log]\nkind = 'kafka'\ngroup = '{index}'\n[log.kafka]\n'bootstrap.servers' = '{kafka}'\n\
                 'session.timeout.ms' = '{SESSION_TIMEOUT_MS}'\n'heartbeat.interval.ms' = '1000'\n\
                 'reconnect.backoff.max.ms' = '1000'\n[store]\nurl = '{store}/{index}'\n",
                index = self.index,
            ),
        };
        format!(
            "{places}\n[limits]\nmemory = '256MiB'\n[ingest]\ndiscovery_interval = '200ms'\n\
             [serve]\npoll_interval = '50ms'\ndiscovery_interval = '200ms'\n{tables}"
        )
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("sluice.toml")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory of the process `name`. The local log and store are in it, so there all share one; with
    /// servers each process has its own, as on machines of their own.
    fn data_dir(&self, name: &str) -> String {
        let own = match self.set_up {
            SetUp::Local => "data".to_owned(),
            SetUp::Servers { .. } => format!("data-{name}"),
        };
        self.dir.path().join(own).display().to_string()
    }

    /// Its processes get this variable, too.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the configuration anew, with these tables in the place of the index's.
    pub(crate) fn configure(&self, tables: &str) {
        fs::write(self.config(), self.text(tables)).unwrap();
    }

    /// Starts a role; `name` tells processes of one role apart, and a process that returns keeps its directory. A
    /// process that serves is waited for until it knows the index.
    pub(crate) async fn start(&self, role: &str, name: &str) -> Process {
        self.start_with(role, name, &[]).await
    }

    /// As [`World::start`], with more variables for this process.
    pub(crate) async fn start_with(&self, role: &str, name: &str, more: &[(&str, &str)]) -> Process {
        let more: Vec<_> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut process = self.spawn(role, name, &more);
        process.listens().await;
        if self.configured && role != "index" {
            self.api(&process).shows(&BTreeMap::new()).await;
        }
        process
    }

    /// Starts a role with more variables, and waits for nothing.
    pub(crate) fn spawn(&self, role: &str, name: &str, more: &Environment) -> Process {
        let config = self.config().display().to_string();
        let arguments = [role, "--config", &config, "--data-dir", &self.data_dir(name)];
        Process::spawn(name, &arguments, &[&self.environment[..], more].concat(), self.dir.path())
    }

    /// Leaves the directory, with configuration, logs and local state, for whoever looks for a cause.
    pub(crate) fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    pub(crate) async fn indexer(&self) -> Process {
        self.start("index", "indexer").await
    }

    pub(crate) async fn query(&self) -> Process {
        self.start("serve", "query").await
    }

    /// The test's index, asked through `process`.
    pub(crate) fn api(&self, process: &Process) -> Api {
        Api::new(&process.url, &self.index)
    }

    /// Another subcommand, with this world's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sluice();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .args(["--data-dir", &self.data_dir("tool")])
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Removes the local log, as a machine without it sees the store.
    pub(crate) fn remove_log(&self) {
        fs::remove_dir_all(self.dir.path().join("data/log")).unwrap();
    }

    /// The brokers, on servers.
    pub(crate) fn bootstrap(&self) -> Option<&str> {
        match &self.set_up {
            SetUp::Local => None,
            SetUp::Servers { kafka, .. } => Some(kafka),
        }
    }
}
