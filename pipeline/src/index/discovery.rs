//! Which indexes there are: those of the configuration made sure of once, all others found by looking again and again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_connectors::{Log, LogError};
use sluice_core::{ErrorKind, IndexName, IndexSpec, TopicName};
use sluice_snapshotter::registry::Created;
use sluice_snapshotter::{Registry, RegistryError, StoredSpec};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::board::Board;
use crate::config::Config;
use crate::metrics;

/// An index as the log and the store know it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IndexState {
    pub(super) stored: StoredSpec,
    /// Partitions that the topic has now.
    pub(super) partitions: u32,
}

/// Every index that is consumed, by the topic that feeds it.
pub(super) type Indexes = BTreeMap<TopicName, Arc<IndexState>>;

/// Why an index of the configuration could not be made sure of.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("index {index} differs from what is stored: {differences}")]
    Differs { index: IndexName, differences: String },
    #[error("index {index}: {source}")]
    Registry { index: IndexName, source: RegistryError },
    #[error("index {index}: {source}")]
    Log { index: IndexName, source: LogError },
}

impl EnsureError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Differs { .. } => ErrorKind::Conflict,
            Self::Registry { source, .. } => source.kind(),
            Self::Log { source, .. } => source.kind(),
        }
    }
}

/// Creates `spec` and its topic unless they exist. What may change in place is changed.
///
/// # Errors
/// `Differs` names every key that would need a rebuild.
pub async fn ensure_index(
    registry: &Registry,
    log: &Log,
    spec: &IndexSpec,
) -> Result<StoredSpec, EnsureError> {
    let registry_error = |source| EnsureError::Registry { index: spec.name.clone(), source };
    let mut spec = spec.clone();
    match registry.get(&spec.name).await.map_err(registry_error)? {
        // the log decided when the index was made; a topic that grew since is found when it is consumed
        Some(stored) => spec.partitions = stored.spec.partitions,
        None => {
            let log_error = |source| EnsureError::Log { index: spec.name.clone(), source };
            let found = log.producer.ensure_topic(&spec.topic(), spec.partitions).await.map_err(log_error)?;
            if found != spec.partitions {
                let (index, asked) = (&spec.name, spec.partitions);
                warn!(%index, asked, found, "the topic exists with another number of partitions, which is used");
            }
            spec.partitions = found;
        }
    }
    match registry.create(&spec).await.map_err(registry_error)? {
        Created::Created(stored) => {
            info!(index = %spec.name, generation = %stored.generation, "index created");
            Ok(stored)
        }
        Created::Same(stored) => Ok(stored),
        Created::Differs { differences, .. } if differences.iter().all(|d| d.in_place) => {
            let changed: Vec<_> = differences.iter().map(|d| d.key).collect();
            let stored = registry.update(&spec).await.map_err(registry_error)?;
            info!(index = %spec.name, version = stored.version, changed = changed.join(", "), "index changed in place");
            Ok(stored)
        }
        Created::Differs { differences, .. } => {
            let fixed = differences.iter().filter(|d| !d.in_place).map(ToString::to_string);
            let differences = fixed.collect::<Vec<_>>().join("; ");
            Err(EnsureError::Differs { index: spec.name.clone(), differences })
        }
    }
}

/// Looks for indexes and tells what it finds.
pub(super) struct Discovery {
    pub(super) config: Arc<Config>,
    pub(super) registry: Registry,
    pub(super) log: Log,
    pub(super) board: Board,
    pub(super) indexes: watch::Sender<Indexes>,
    pub(super) topics: watch::Sender<BTreeSet<TopicName>>,
    pub(super) told: HashMap<IndexName, String>,
}

impl Discovery {
    /// Looks until `stop`. An outage keeps what was found before.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            match looked {
                Ok(()) if failing => {
                    failing = false;
                    info!("indexes are listed again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(%error, "indexes not listed, will retry");
                }
                Err(_) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.config.ingest.discovery_interval) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), RegistryError> {
        let stored = self.registry.list().await?;
        let (mut found, mut problems) = (Indexes::new(), BTreeMap::new());
        let before = self.indexes.borrow().clone();
        for stored in stored {
            let (name, topic) = (stored.spec.name.clone(), stored.spec.topic());
            if let Some(other) = found.get(&topic) {
                let problem = format!("its topic {topic} feeds index {} already", other.stored.spec.name);
                problems.insert(name, problem);
                continue;
            }
            match self.state(stored, before.get(&topic)).await {
                Ok(state) => drop(found.insert(topic, state)),
                Err(problem) => drop(problems.insert(name, problem)),
            }
        }
        self.tell(problems);
        let topics: BTreeSet<_> = found.keys().cloned().collect();
        self.indexes.send_if_modified(|old| {
            *old != found && {
                *old = found;
                true
            }
        });
        self.topics.send_if_modified(|old| {
            *old != topics && {
                *old = topics;
                true
            }
        });
        self.board.listed();
        Ok(())
    }

    /// The state of one index, or why it is not consumed.
    async fn state(
        &self,
        stored: StoredSpec,
        before: Option<&Arc<IndexState>>,
    ) -> Result<Arc<IndexState>, String> {
        let (topic, dimension) = (stored.spec.topic(), stored.spec.dimension);
        let max = self.config.limits.max_dimension;
        if dimension.get() > max as usize {
            return Err(format!(
                "dimension {dimension} is beyond limits.max_dimension, {max}, of this process"
            ));
        }
        let partitions = match self.log.source.partitions(&topic).await {
            Ok(Some(partitions)) => Ok(partitions),
            Ok(None) => self.log.producer.ensure_topic(&topic, stored.spec.partitions).await,
            Err(e) => Err(e),
        };
        match (partitions, before) {
            (Ok(partitions), _) => Ok(Arc::new(IndexState { stored, partitions })),
            // an outage changes nothing for an index that is known
            (Err(_), Some(before)) => Ok(Arc::new(IndexState { stored, partitions: before.partitions })),
            (Err(e), None) => Err(format!("topic {topic}: {e}")),
        }
    }

    /// Tells each problem once.
    fn tell(&mut self, problems: BTreeMap<IndexName, String>) {
        for (index, problem) in &problems {
            if self.told.get(index) != Some(problem) {
                error!(%index, problem, "index is not consumed");
            }
        }
        metrics::stopped_indexes(problems.len());
        self.told = problems.clone().into_iter().collect();
        self.board.index_problems(problems);
    }
}
