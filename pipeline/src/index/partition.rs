//! One assigned partition: claimed, read, built and published by a worker, under supervision, until it is revoked.
//!
//! Worker and supervision are two tasks, so that a panic in the worker ends the worker only. A change of the
//! index's spec lets the worker drain and starts it anew; so does a change of what had parked it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_connectors::{
    BatchLimits, DecodeLimits, Decoder, HeldBack, Log, LogError, ReadRequest, TopicDeadLetters,
};
use sluice_core::backoff::chance;
use sluice_core::budget::PartitionBudget;
use sluice_core::{Backoff, ByteBudget, Clock, ErrorKind, Gate, PartitionRef, Timestamp, TopicPartition};
use sluice_indexer::{
    BuildBudget, ComputePool, Exit, IndexerError, PartitionWorker, Phase, WorkerParams, WorkerStatus,
};
use sluice_snapshotter::{Chain, Claim, Owner, ProtocolError, SegmentCache, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::adapters::{self, CachedFetch, StorePublisher};
use super::board::{Board, PartitionState};
use super::discovery::{IndexState, Indexes};
use super::supervisor::{Decision, Ended, History, RestartPolicy};
use crate::config::Config;
use crate::metrics;
use crate::wake::Wake;

/// How often a running worker is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the log's end is waited for while a partition waits for its dead letters.
const END: Duration = Duration::from_millis(500);
/// A worker publishes what it holds within this when it is told to stop; less than a revocation waits.
const DRAIN: Duration = Duration::from_secs(8);

/// What all partitions of a process share.
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) cache: SegmentCache,
    pub(super) pool: ComputePool,
    pub(super) build_budget: BuildBudget,
    pub(super) ingest_budget: ByteBudget,
    pub(super) board: Board,
    pub(super) gate: Gate,
    pub(super) wake: Wake,
    pub(super) indexes: watch::Receiver<Indexes>,
    /// Asks for a new assignment.
    pub(super) rejoin: mpsc::Sender<TopicPartition>,
}

/// Why a run of a partition ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("{0}")]
    Worker(#[from] IndexerError),
    /// KEY-1.
    #[error("topic {topic} has {found} partitions, its index was made for {expected}")]
    Partitions { topic: String, expected: u32, found: u32 },
}

impl RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(e) => e.kind(),
            Self::Protocol(e) => e.kind(),
            Self::Worker(e) => e.kind(),
            Self::Partitions { .. } => ErrorKind::Conflict,
        }
    }
}

/// A task that ends with its handle.
struct Aborting(JoinHandle<Result<Exit, RunError>>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Supervises one partition.
pub(super) struct Partition {
    pub(super) shared: Arc<Shared>,
    pub(super) at: TopicPartition,
    pub(super) stop: CancellationToken,
}

/// What ended a run, and how long it was.
struct Run {
    ended: Ended,
    lasted: Duration,
    /// The state of the index has changed meanwhile.
    changed: bool,
}

impl Partition {
    /// Runs the partition until `stop`.
    pub(super) async fn supervise(self) {
        let _inside = self.shared.gate.enter(format!("partition {}", self.at));
        let mut indexes = self.shared.indexes.clone();
        let (mut history, mut last) = (History::default(), None);
        self.shared.board.assigned(&self.at);
        loop {
            let state = indexes.borrow_and_update().get(&self.at.topic).cloned();
            let Some(state) = state else {
                if self.wait_for_change(None, &mut indexes).await {
                    continue;
                } else {
                    break;
                };
            };
            self.shared.board.starting(&self.at, &state.stored.spec.name);
            last = Some(partition_ref(&state, &self.at));
            let run = self.run(&state, &mut indexes).await;
            if self.stop.is_cancelled() {
                break;
            }
            if run.changed && matches!(run.ended, Ended::Exit(Exit::Stopped { .. })) {
                continue;
            }
            let decision = history.decide(run.ended.clone(), run.lasted, &self.restarts(), chance());
            if !self.act(decision, &run.ended, &state, &mut indexes).await {
                break;
            }
        }
        metrics::parked(&self.at, false);
        last.iter().for_each(sluice_indexer::metrics::released);
        self.shared.board.revoked(&self.at);
    }

    fn restarts(&self) -> RestartPolicy {
        let ingest = &self.shared.config.ingest;
        let backoff = Backoff::new(ingest.restart_backoff_min, ingest.restart_backoff_max);
        RestartPolicy { backoff, healthy_after: ingest.healthy_after }
    }

    /// Carries out a decision; `false` when the partition is finished.
    async fn act(
        &self,
        decision: Decision,
        ended: &Ended,
        state: &Arc<IndexState>,
        indexes: &mut watch::Receiver<Indexes>,
    ) -> bool {
        let (at, board) = (&self.at, &self.shared.board);
        match decision {
            Decision::Finished => return !self.stop.is_cancelled(),
            Decision::Restart { after, problem } => {
                let pause = humantime::format_duration(after).to_string();
                warn!(partition = %at, problem, pause, "partition failed, will restart");
                metrics::restarted(at, cause(ended));
                board.backing_off(at, problem);
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return false,
                    () = tokio::time::sleep(after) => return true,
                }
            }
            Decision::Fenced => {
                warn!(partition = %at, "partition is fenced, waits for a new assignment");
                board.ended(at, PartitionState::Fenced);
                return self.wait_for_assignment().await;
            }
            Decision::Closed => board.ended(at, PartitionState::Closed),
            Decision::Park { problem, advice } => {
                error!(partition = %at, problem, advice, "partition stopped");
                metrics::parked(at, true);
                board.parked(at, problem, advice);
            }
        }
        let changed = self.wait_for_change(Some(state), indexes).await;
        metrics::parked(at, false);
        changed
    }

    /// Waits until the index is another one than `state`; `false` on stop.
    async fn wait_for_change(
        &self,
        state: Option<&Arc<IndexState>>,
        indexes: &mut watch::Receiver<Indexes>,
    ) -> bool {
        let changed = indexes.wait_for(|all| all.get(&self.at.topic) != state);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            changed = changed => changed.is_ok(),
        }
    }

    /// Fenced though still assigned: after a while the process asks its group again, and is then revoked.
    async fn wait_for_assignment(&self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return false,
            () = tokio::time::sleep(self.shared.config.ingest.rejoin_after) => {}
        }
        if self.shared.rejoin.try_send(self.at.clone()).is_err() {
            info!(partition = %self.at, "a new assignment was asked for already");
        }
        self.stop.cancelled().await;
        false
    }

    /// One run in a task of its own, watched.
    async fn run(&self, state: &Arc<IndexState>, indexes: &mut watch::Receiver<Indexes>) -> Run {
        let (progress, mut status) = watch::channel(WorkerStatus::default());
        let (held_back, held) = watch::channel(None);
        let stop = self.stop.child_token();
        let since = Instant::now();
        let attempt = Attempt {
            shared: Arc::clone(&self.shared),
            at: self.at.clone(),
            state: Arc::clone(state),
            stop: stop.clone(),
            held_back,
        };
        let mut task = Aborting(tokio::spawn(attempt.run(progress.clone())));
        let mut look = tokio::time::interval(LOOK);
        let (mut seen, mut changed) = (None, false);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut task.0 => break match ended {
                    Ok(Ok(exit)) => Ended::Exit(exit),
                    Ok(Err(e)) => Ended::Failed { kind: e.kind(), message: e.to_string() },
                    Err(e) => Ended::Panicked(panic_text(e)),
                },
                moved = status.changed() => if moved.is_ok() {
                    let now = status.borrow_and_update().clone();
                    let newest = Some((now.next_offset, now.published_at));
                    if now.phase != Phase::Recovering && seen != newest {
                        self.published(&now, state).await;
                        seen = newest;
                    }
                } else {
                    // the worker is gone: its task says how
                    tokio::task::yield_now().await;
                },
                Ok(()) = indexes.changed(), if !changed => {
                    changed = indexes.borrow_and_update().get(&self.at.topic) != Some(state);
                    if changed {
                        info!(partition = %self.at, "the index has changed, the worker starts anew");
                        stop.cancel();
                    }
                },
                _ = look.tick() => {
                    if let Some(seconds) = self.stuck(&status.borrow()) {
                        break Ended::Stuck { seconds };
                    }
                    let held_back = *held.borrow();
                    self.tell_held_back(held_back, &progress).await;
                }
            }
        };
        Run { ended, lasted: since.elapsed(), changed }
    }

    /// Tells those who want to know what is published.
    async fn published(&self, status: &WorkerStatus, state: &IndexState) {
        self.shared.wake.published(&partition_ref(state, &self.at));
        if let Err(error) = self.shared.log.membership.commit(&self.at, status.next_offset).await {
            info!(partition = %self.at, %error, "advisory offset not committed");
        }
    }

    /// Keeps lag and freshness true while the reader waits for dead letters: no batch comes that would say them.
    async fn tell_held_back(&self, held_back: Option<Timestamp>, progress: &watch::Sender<WorkerStatus>) {
        let told = progress.borrow().held_back;
        if held_back.is_none() && told.is_none() {
            return;
        }
        let bounds = self.shared.log.source.bounds(&self.at);
        // a log that does not answer leaves the end as it was last seen
        let end = tokio::time::timeout(END, bounds).await.ok().and_then(Result::ok).map(|bounds| bounds.end);
        progress.send_modify(|status| {
            status.held_back = held_back;
            status.log_end = status.log_end.max(end.unwrap_or_default());
        });
    }

    /// Seconds since a running worker last came round, when they are too many.
    fn stuck(&self, status: &WorkerStatus) -> Option<u64> {
        let limit = self.shared.config.ingest.stuck_after.as_secs_f64();
        let silent = self.shared.clock.now().seconds_since(status.beat);
        (status.phase == Phase::Running && status.beat.0 > 0 && silent > limit).then_some(silent as u64)
    }
}

fn partition_ref(state: &IndexState, at: &TopicPartition) -> PartitionRef {
    let (index, generation) = (state.stored.spec.name.clone(), state.stored.generation);
    PartitionRef { index, generation, partition: at.partition }
}

fn cause(ended: &Ended) -> &'static str {
    match ended {
        Ended::Exit(_) => "ended",
        Ended::Failed { kind, .. } => kind.as_str(),
        Ended::Panicked(_) => "panic",
        Ended::Stuck { .. } => "stuck",
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
        }
        Err(error) => error.to_string(),
    }
}

/// One run of one partition.
struct Attempt {
    shared: Arc<Shared>,
    at: TopicPartition,
    state: Arc<IndexState>,
    stop: CancellationToken,
    held_back: HeldBack,
}

impl Attempt {
    async fn run(self, progress: watch::Sender<WorkerStatus>) -> Result<Exit, RunError> {
        let prepared = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                let next_offset = progress.borrow().next_offset;
                return Ok(Exit::Stopped { next_offset, drained: true });
            }
            prepared = self.claim() => prepared?,
        };
        let memory = self.memory();
        let start = prepared.manifest().next_offset;
        let input = adapters::input(self.shared.log.source.open(self.request(start, memory.clone()))?);
        info!(partition = %prepared.partition(), epoch = %prepared.epoch(), from = %start, "partition claimed");
        self.shared.board.running(&self.at, progress.subscribe());
        let chain = Chain::new(self.shared.store.clone(), prepared.partition().clone());
        let worker = PartitionWorker::new(WorkerParams {
            partition: prepared.partition().clone(),
            spec: Arc::new(self.state.stored.spec.clone()),
            recovered: adapters::recovered(prepared.manifest()),
            fetch: CachedFetch::new(self.shared.cache.clone(), chain, prepared.epoch()),
            publisher: Box::new(StorePublisher::new(prepared)),
            pool: self.shared.pool.clone(),
            build_budget: self.shared.build_budget.clone(),
            memory,
            clock: Arc::clone(&self.shared.clock),
            scratch_dir: self.shared.config.scratch_dir(),
            slow_build_after: self.shared.config.ingest.slow_build_after,
            drain: DRAIN.min(self.shared.config.shutdown.deadline.mul_f64(0.8)),
            progress,
        });
        Ok(worker.run(input, self.stop.clone()).await?)
    }

    /// Claims the partition, once the topic is known to be what the index was made for.
    async fn claim(&self) -> Result<Owner, RunError> {
        let spec = &self.state.stored.spec;
        let found = self.shared.log.source.partitions(&self.at.topic).await?;
        let found = found.ok_or_else(|| LogError::UnknownTopic(self.at.topic.clone()))?;
        if found != spec.partitions {
            let topic = self.at.topic.to_string();
            return Err(RunError::Partitions { topic, expected: spec.partitions, found });
        }
        let bounds = self.shared.log.source.bounds(&self.at).await?;
        let chain = Chain::new(self.shared.store.clone(), partition_ref(&self.state, &self.at));
        let claim = Claim { log_start: bounds.start, partitions: found };
        Ok(Owner::claim(chain, claim, Arc::clone(&self.shared.clock)).await?)
    }

    /// This partition's part of the memory: a reserved minimum beside what is common.
    fn memory(&self) -> PartitionBudget {
        let all: usize = self.shared.indexes.borrow().values().map(|i| i.partitions as usize).sum();
        let budget = &self.shared.ingest_budget;
        // at most half of all is ever reserved, so that there is always a common part
        let share = budget.total_bytes() / 2 / all.max(1);
        let wanted =
            usize::try_from(self.shared.config.limits.partition_reserve.as_u64()).unwrap_or(usize::MAX);
        match wanted.min(share) {
            0 => budget.unreserved(),
            bytes => budget.reserve(bytes).unwrap_or_else(|| budget.unreserved()),
        }
    }

    fn request(&self, start: sluice_core::Offset, budget: PartitionBudget) -> ReadRequest {
        let (limits, ingest) = (&self.shared.config.limits, &self.shared.config.ingest);
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let spec = &self.state.stored.spec;
        ReadRequest {
            at: self.at.clone(),
            start,
            decoder: Decoder {
                format: spec.format,
                schema: Arc::new(spec.schema()),
                limits: DecodeLimits {
                    max_message_bytes: bytes(limits.max_message_bytes),
                    max_metadata_bytes: bytes(limits.max_metadata_bytes),
                },
            },
            budget,
            dead_letters: Arc::new(TopicDeadLetters::new(Arc::clone(&self.shared.log.producer))),
            held_back: self.held_back.clone(),
            limits: BatchLimits {
                max_records: ingest.batch_max_records,
                max_bytes: bytes(ingest.batch_max_bytes),
            },
        }
    }
}
