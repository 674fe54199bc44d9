//! The ingest role: membership says which partitions are ours, each one gets a supervised worker.
//!
//! # Contract
//! - One task per assigned partition; it ends before the revocation of that partition is acknowledged.
//! - Membership is a lease and no more: what two owners of a partition may do to each other is settled by the
//!   manifest protocol, so no mistake made here can lose or repeat a record.
//! - The loop below does nothing slow: indexes are looked for elsewhere, so a store that is away delays no revocation.

mod adapters;
mod board;
mod collector;
mod discovery;
mod partition;
mod rebalance;
mod supervisor;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sluice_connectors::source::REVOKE_WAIT;
use sluice_connectors::{Log, MembershipEvent};
use sluice_core::{ByteBudget, Clock, ErrorKind, Gate, TopicName, TopicPartition};
use sluice_indexer::{BuildBudget, ComputePool};
use sluice_snapshotter::{Registry, SegmentCache, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use board::{Board, IndexerReport, PartitionReport, PartitionState};
pub use discovery::{EnsureError, ensure_index};
pub use supervisor::{Decision, Ended, History, RestartPolicy, advice};

use crate::config::Config;
use crate::patience::Patience;
use crate::topology::RunError;
use crate::wake::Wake;
use collector::Collector;
use discovery::{Discovery, Indexes};
use partition::{Partition, Shared};
use rebalance::Assignment;

/// What the ingest role is made of.
pub(crate) struct IndexParts {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) cache: SegmentCache,
    pub(crate) pool: ComputePool,
    pub(crate) build_budget: BuildBudget,
    pub(crate) ingest_budget: ByteBudget,
    pub(crate) gate: Gate,
    pub(crate) board: Board,
    pub(crate) wake: Wake,
}

/// A partition's supervisor.
struct Slot {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How a membership ended.
enum Left {
    Stopped,
    /// Join again, at once or after a pause.
    Again {
        failed: bool,
    },
}

/// The ingest role at work.
struct Coordinator {
    shared: Arc<Shared>,
    topics: watch::Receiver<BTreeSet<TopicName>>,
    rejoin: mpsc::Receiver<TopicPartition>,
    assignment: Assignment,
    slots: HashMap<TopicPartition, Slot>,
}

/// Runs the ingest role until `stop`; then every worker has published what it could.
///
/// # Errors
/// When an index of the configuration cannot be had as it is asked for, or when indexes are no longer looked for.
pub(crate) async fn run(parts: IndexParts, stop: CancellationToken) -> Result<(), RunError> {
    if !ensure_indexes(&parts, &stop).await? {
        return Ok(());
    }
    let (indexes, indexes_seen) = watch::channel(Indexes::new());
    let (topics, topics_seen) = watch::channel(BTreeSet::new());
    let (rejoin, rejoin_asked) = mpsc::channel(1);
    let discovery = Discovery {
        config: Arc::clone(&parts.config),
        registry: parts.registry.clone(),
        log: parts.log.clone(),
        board: parts.board.clone(),
        indexes,
        topics,
        told: HashMap::new(),
    };
    let collector = Collector {
        config: Arc::clone(&parts.config),
        clock: Arc::clone(&parts.clock),
        store: parts.store.clone(),
        board: parts.board.clone(),
        indexes: indexes_seen.clone(),
    };
    let shared = Arc::new(Shared {
        config: parts.config,
        clock: parts.clock,
        log: parts.log,
        store: parts.store,
        cache: parts.cache,
        pool: parts.pool,
        build_budget: parts.build_budget,
        ingest_budget: parts.ingest_budget,
        board: parts.board,
        gate: parts.gate,
        wake: parts.wake,
        indexes: indexes_seen,
        rejoin,
    });
    // the partitions end before discovery does: they wait for what it finds
    let background = CancellationToken::new();
    let guard = background.clone().drop_guard();
    let collector = tokio::spawn(collector.run(stop.child_token()));
    let mut discovery = tokio::spawn(discovery.run(background.clone()));
    let coordinator = Coordinator {
        shared,
        topics: topics_seen,
        rejoin: rejoin_asked,
        assignment: Assignment::default(),
        slots: HashMap::new(),
    };
    let inner = stop.child_token();
    let coordinator = coordinator.run(inner.clone());
    tokio::pin!(coordinator);
    let broken = tokio::select! {
        () = &mut coordinator => None,
        ended = &mut discovery => {
            inner.cancel();
            coordinator.await;
            Some(ended)
        }
    };
    drop(guard);
    if let Err(error) = collector.await {
        warn!(%error, "the collector ended early");
    }
    match broken {
        None => discovery.await.map_err(|e| RunError::Bug("discovery", e.to_string())),
        Some(ended) => {
            let how = ended.err().map_or_else(|| "it returned".into(), |e| e.to_string());
            Err(RunError::Bug("discovery", how))
        }
    }
}

/// Makes sure of the configured indexes; waits out outages. `false` when told to stop.
async fn ensure_indexes(parts: &IndexParts, stop: &CancellationToken) -> Result<bool, EnsureError> {
    for spec in &parts.config.indexes {
        let mut patience = Patience::new("index not ensured, will retry");
        loop {
            let ensured = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(false),
                ensured = ensure_index(&parts.registry, &parts.log, spec) => ensured,
            };
            match ensured {
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::Unavailable => {
                    if !patience.pause(&e, stop).await {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(true)
}

impl Coordinator {
    async fn run(mut self, stop: CancellationToken) {
        let mut patience = Patience::new("group not joined, will retry");
        while !stop.is_cancelled() {
            // joining is what was asked for
            while self.rejoin.try_recv().is_ok() {}
            let membership = Arc::clone(&self.shared.log.membership);
            match membership.join(self.topics.clone()).await {
                Ok(events) => {
                    self.shared.board.joined();
                    match self.serve(events, &stop).await {
                        Left::Stopped => break,
                        Left::Again { failed: false } => patience.reset(),
                        Left::Again { failed: true } => {
                            patience.pause(&"the membership ended", &stop).await;
                        }
                    }
                }
                Err(error) => {
                    patience.pause(&error, &stop).await;
                }
            }
        }
        self.stop_all().await;
    }

    /// Serves one membership to its end; no partition is left running, except when told to stop.
    async fn serve(&mut self, mut events: mpsc::Receiver<MembershipEvent>, stop: &CancellationToken) -> Left {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.stop_all().await;
                    self.leave(&mut events).await;
                    return Left::Stopped;
                }
                event = events.recv() => match event {
                    Some(MembershipEvent::Failed(error)) => {
                        warn!(%error, "membership failed");
                        self.stop_all().await;
                        return Left::Again { failed: true };
                    }
                    Some(event) => self.on(event).await,
                    None => {
                        self.stop_all().await;
                        return Left::Again { failed: true };
                    }
                },
                Some(at) = self.rejoin.recv() => {
                    warn!(partition = %at, "fenced though assigned: the group is left and joined again");
                    self.leave(&mut events).await;
                    self.stop_all().await;
                    return Left::Again { failed: false };
                }
            }
        }
    }

    /// Leaves the group, serving the revocations that this brings.
    async fn leave(&mut self, events: &mut mpsc::Receiver<MembershipEvent>) {
        let membership = Arc::clone(&self.shared.log.membership);
        let leaving = async move { membership.leave().await };
        tokio::pin!(leaving);
        loop {
            tokio::select! {
                () = &mut leaving => break,
                Some(event) = events.recv() => self.on(event).await,
            }
        }
        while let Ok(event) = events.try_recv() {
            self.on(event).await;
        }
    }

    async fn on(&mut self, event: MembershipEvent) {
        match event {
            MembershipEvent::Assigned(partitions) => {
                let started = self.assignment.assign(partitions);
                info!(partitions = started.len(), owned = self.assignment.len(), "partitions assigned");
                for at in started {
                    self.start(at);
                }
            }
            MembershipEvent::Revoked { partitions, done } => {
                let ended = self.assignment.revoke(partitions);
                info!(partitions = ended.len(), owned = self.assignment.len(), "partitions revoked");
                self.end(ended).await;
                if done.send(()).is_err() {
                    warn!("the revocation had ended before the partitions had");
                }
            }
            MembershipEvent::Failed(error) => warn!(%error, "membership failed while it was left"),
        }
    }

    fn start(&mut self, at: TopicPartition) {
        let stop = CancellationToken::new();
        let partition = Partition { shared: Arc::clone(&self.shared), at: at.clone(), stop: stop.clone() };
        let task = tokio::spawn(partition.supervise());
        self.slots.insert(at, Slot { stop, task });
    }

    /// Ends partitions, within the time that a revocation may take; then they are cut off.
    async fn end(&mut self, partitions: Vec<TopicPartition>) {
        let slots: Vec<_> =
            partitions.into_iter().filter_map(|at| self.slots.remove(&at).map(|slot| (at, slot))).collect();
        for (_, slot) in &slots {
            slot.stop.cancel();
        }
        let board = self.shared.board.clone();
        join_all(slots.into_iter().map(|(at, mut slot)| {
            let board = board.clone();
            async move {
                let limit = REVOKE_WAIT.saturating_sub(Duration::from_millis(500));
                match tokio::time::timeout(limit, &mut slot.task).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(partition = %at, %error, "supervisor ended early"),
                    Err(_) => {
                        warn!(partition = %at, "partition did not end in time and is cut off");
                        slot.task.abort();
                        board.revoked(&at);
                    }
                }
            }
        }))
        .await;
    }

    async fn stop_all(&mut self) {
        let all = self.assignment.clear();
        self.end(all).await;
    }
}

impl IndexerReport {
    /// Partitions that somebody has to act on.
    pub fn parked(&self) -> impl Iterator<Item = &PartitionReport> {
        self.partitions.iter().filter(|p| p.state == PartitionState::Parked)
    }

    /// How many partitions are in each state.
    pub fn states(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for partition in &self.partitions {
            *counts.entry(partition.state.as_str()).or_default() += 1;
        }
        counts
    }
}
