//! The board: what the indexer's tasks say about themselves, for `/status`, `/health/ready` and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sluice_core::{IndexName, TopicPartition};
use sluice_indexer::WorkerStatus;
use tokio::sync::watch;

use crate::metrics;

/// Where an assigned partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Claims the partition and opens its segments.
    Starting,
    Running,
    /// Failed; will be tried again.
    BackingOff,
    /// Another process has it.
    Fenced,
    /// Stopped by name: somebody has to act.
    Parked,
    /// Its index is being retired.
    Closed,
}

impl PartitionState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::BackingOff, Self::Fenced, Self::Parked, Self::Closed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff => "backing_off",
            Self::Fenced => "fenced",
            Self::Parked => "parked",
            Self::Closed => "closed",
        }
    }
}

/// One assigned partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionReport {
    pub index: Option<IndexName>,
    pub topic: String,
    pub partition: u32,
    pub state: PartitionState,
    pub restarts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerStatus>,
}

/// The whole of the indexer.
#[derive(Debug, Clone, Serialize)]
pub struct IndexerReport {
    /// Indexes were listed and the group was joined at least once.
    pub ready: bool,
    /// Indexes that are not consumed, and why.
    pub problems: BTreeMap<IndexName, String>,
    pub partitions: Vec<PartitionReport>,
}

#[derive(Debug)]
struct Entry {
    index: Option<IndexName>,
    state: PartitionState,
    restarts: u64,
    problem: Option<(String, Option<&'static str>)>,
    worker: Option<watch::Receiver<WorkerStatus>>,
}

#[derive(Debug, Default)]
struct Inner {
    listed: bool,
    joined: bool,
    problems: BTreeMap<IndexName, String>,
    partitions: BTreeMap<TopicPartition, Entry>,
}

/// Clones share the board.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<Inner>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // each change is a single store: a panic leaves nothing half done
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn listed(&self) {
        self.lock().listed = true;
    }

    pub(crate) fn joined(&self) {
        self.lock().joined = true;
    }

    pub(crate) fn index_problems(&self, problems: BTreeMap<IndexName, String>) {
        self.lock().problems = problems;
    }

    pub(crate) fn assigned(&self, at: &TopicPartition) {
        let state = PartitionState::Starting;
        let entry = Entry { index: None, state, restarts: 0, problem: None, worker: None };
        self.lock().partitions.insert(at.clone(), entry);
        self.count();
    }

    pub(crate) fn revoked(&self, at: &TopicPartition) {
        self.lock().partitions.remove(at);
        self.count();
    }

    fn change(&self, at: &TopicPartition, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().partitions.get_mut(at) {
            change(entry);
        }
        self.count();
    }

    pub(crate) fn starting(&self, at: &TopicPartition, index: &IndexName) {
        self.change(at, |e| {
            e.index = Some(index.clone());
            e.state = PartitionState::Starting;
        });
    }

    pub(crate) fn running(&self, at: &TopicPartition, worker: watch::Receiver<WorkerStatus>) {
        self.change(at, |e| {
            e.state = PartitionState::Running;
            e.problem = None;
            e.worker = Some(worker);
        });
    }

    pub(crate) fn backing_off(&self, at: &TopicPartition, problem: String) {
        self.change(at, |e| {
            e.state = PartitionState::BackingOff;
            e.restarts += 1;
            e.problem = Some((problem, None));
        });
    }

    pub(crate) fn parked(&self, at: &TopicPartition, problem: String, advice: &'static str) {
        self.change(at, |e| {
            e.state = PartitionState::Parked;
            e.problem = Some((problem, Some(advice)));
        });
    }

    pub(crate) fn ended(&self, at: &TopicPartition, state: PartitionState) {
        self.change(at, |e| e.state = state);
    }

    /// Partitions whose worker runs.
    pub(crate) fn running_partitions(&self) -> Vec<TopicPartition> {
        let inner = self.lock();
        let running = inner.partitions.iter().filter(|(_, e)| e.state == PartitionState::Running);
        running.map(|(at, _)| at.clone()).collect()
    }

    fn count(&self) {
        let inner = self.lock();
        for state in PartitionState::ALL {
            let count = inner.partitions.values().filter(|e| e.state == state).count();
            metrics::partitions(state.as_str(), count);
        }
    }

    /// Everything, as of now.
    pub fn report(&self) -> IndexerReport {
        let inner = self.lock();
        let partitions = inner.partitions.iter().map(|(at, entry)| {
            let worker = entry.worker.as_ref().map(|w| w.borrow().clone());
            PartitionReport {
                index: entry.index.clone(),
                topic: at.topic.to_string(),
                partition: at.partition.get(),
                state: entry.state,
                restarts: entry.restarts,
                problem: entry.problem.as_ref().map(|(text, _)| text.clone()),
                advice: entry.problem.as_ref().and_then(|(_, advice)| *advice),
                lag_records: worker.as_ref().map(WorkerStatus::lag),
                worker,
            }
        });
        IndexerReport {
            ready: inner.listed && inner.joined,
            problems: inner.problems.clone(),
            partitions: partitions.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::{PartitionId, TopicName};

    use super::*;

    #[test]
    fn a_parked_partition_is_told_with_its_advice_and_a_running_one_without() {
        let board = Board::default();
        let at = TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionId(3) };
        board.assigned(&at);
        board.parked(&at, "records are gone".into(), "do this");
        let report = board.report();
        assert_eq!(report.partitions[0].state, PartitionState::Parked);
        assert_eq!(report.partitions[0].advice, Some("do this"));
        board.running(&at, watch::channel(WorkerStatus::default()).1);
        assert_eq!(board.report().partitions[0].problem, None);
        assert_eq!(board.running_partitions(), std::slice::from_ref(&at));
        board.revoked(&at);
        assert!(board.report().partitions.is_empty());
    }
}
