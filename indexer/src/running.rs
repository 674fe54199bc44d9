//! The loop of a worker: takes input, starts what is due, settles what is done. It owns all state of the partition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use sluice_core::channel::record_blocked;
use sluice_core::{ErrorKind, RecordBatch, Timestamp, mishap};
use sluice_segment::Progress;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::build::{Builder, Haste, Made};
use crate::growing::{Frozen, Growing, Pending};
use crate::merge_policy::{self, MergeLimits};
use crate::publication::{Press, Ready};
use crate::seal_policy::{self, Decision, SealLimits};
use crate::snapshot::{Live, Snapshot};
use crate::stage::{Building, MergeStage, Publishing, SealStage, What, done, take};
use crate::worker::WorkerParams;
use crate::{EdgeError, Exit, IndexerError, Phase, SlowBuild};

/// The longest that a worker goes without coming round its loop.
const BEAT: Duration = Duration::from_secs(1);
/// A merge that failed is not tried again before this.
const MERGE_PAUSE: Duration = Duration::from_secs(60);

/// What woke the loop.
enum Event {
    Stop,
    Input(Option<Result<RecordBatch, EdgeError>>),
    Apply,
    Sealed(Result<Option<Made>, IndexerError>),
    Merged(Result<Made, IndexerError>),
    Published(Press, Result<Snapshot, IndexerError>),
    Look,
}

/// A worker at work.
pub(crate) struct Running {
    pub(crate) builder: Builder,
    pub(crate) snapshot: Snapshot,
    pub(crate) growing: Growing,
    pub(crate) seal: SealStage,
    pub(crate) merge: MergeStage,
    pub(crate) publishing: Option<Publishing>,
    /// At home while nothing is being published.
    press: Option<Press>,
    pub(crate) drain: Duration,
    memory: sluice_core::budget::PartitionBudget,
    seal_limits: SealLimits,
    merge_limits: MergeLimits,
    batch: Option<Pending>,
    /// Whether the snapshot changed since the merge policy last looked at it.
    look_for_merge: bool,
    no_merge_before: Option<Instant>,
    full_since: Option<Instant>,
    gauged: Timestamp,
    slow_build_after: Duration,
}

impl Running {
    pub(crate) fn new(params: WorkerParams, builder: Builder, snapshot: Snapshot) -> Self {
        let spec = &params.spec;
        let memory = |rows| Builder::memory(spec, rows);
        let seal_limits = SealLimits::new(&spec.seal, params.build_budget.seal_bytes(), memory);
        let rows = Builder::max_merge_rows(spec, &params.build_budget);
        let merge_limits = MergeLimits::new(&spec.merge, &spec.graph, rows);
        let press = Press {
            publisher: params.publisher,
            fetch: params.fetch,
            pool: params.pool,
            context: builder.context.clone(),
        };
        Self {
            growing: Growing::new(Arc::clone(&builder.schema), snapshot.next_offset),
            builder,
            snapshot,
            seal: SealStage::Idle,
            merge: MergeStage::Idle,
            publishing: None,
            press: Some(press),
            drain: params.drain,
            memory: params.memory,
            seal_limits,
            merge_limits,
            batch: None,
            look_for_merge: true,
            no_merge_before: None,
            full_since: None,
            gauged: Timestamp::default(),
            slow_build_after: params.slow_build_after,
        }
    }

    /// Runs until told to stop or the input ends, then drains.
    pub(crate) async fn serve<S>(mut self, input: S, stop: &CancellationToken) -> Result<Exit, IndexerError>
    where
        S: Stream<Item = Result<RecordBatch, EdgeError>> + Send,
    {
        let mut input = Box::pin(input);
        loop {
            let (full, wait) = self.start_what_is_due();
            self.measure_blocked(full);
            self.report(Phase::Running);
            match self.next_event(&mut input, stop, full, wait).await {
                Event::Look => {}
                Event::Apply => self.apply(),
                Event::Input(Some(Ok(batch))) => {
                    mishap!("worker.input", self.builder.context.partition.partition);
                    self.accept(batch)?;
                }
                Event::Sealed(made) => self.sealed(made?),
                Event::Merged(made) => self.merged(made),
                Event::Published(press, result) => self.published(press, result)?,
                Event::Input(Some(Err(error))) => {
                    drop(input);
                    return self.input_failed(error).await;
                }
                Event::Input(None) => {
                    let (next_offset, drained) = self.drained().await?;
                    return Ok(Exit::InputEnded { next_offset, drained });
                }
                Event::Stop => {
                    // whoever reads the log for this worker stops at once
                    drop(input);
                    let (next_offset, drained) = self.drained().await?;
                    return Ok(Exit::Stopped { next_offset, drained });
                }
            }
        }
    }

    /// Waits for what comes first. Every branch can be dropped and asked again without loss: jobs and input are
    /// held by the worker, the rest has no state.
    async fn next_event<S>(
        &mut self,
        input: &mut S,
        stop: &CancellationToken,
        full: bool,
        wait: Duration,
    ) -> Event
    where
        S: Stream<Item = Result<RecordBatch, EdgeError>> + Unpin,
    {
        let may_apply = !full && self.batch.is_some();
        let may_read = !full && self.batch.is_none();
        let calm = !self.memory.is_pressed();
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            (press, result) = done(&mut self.publishing) => Event::Published(press, result),
            made = self.seal.built() => Event::Sealed(made),
            made = self.merge.built() => Event::Merged(made),
            () = tokio::task::yield_now(), if may_apply => Event::Apply,
            batch = input.next(), if may_read => Event::Input(batch),
            () = self.memory.pressed(), if calm => Event::Look,
            () = tokio::time::sleep(wait) => Event::Look,
        }
    }

    fn accept(&mut self, batch: RecordBatch) -> Result<(), IndexerError> {
        let mine = self.builder.context.partition.partition;
        if batch.partition != mine {
            let text = format!("a batch of partition {} came to the worker of {mine}", batch.partition);
            return Err(IndexerError::Input(EdgeError::new(ErrorKind::Internal, text)));
        }
        self.builder.context.progress.send_modify(|status| {
            status.log_end = status.log_end.max(batch.log_end);
            status.dead_letters += batch.dead_letters;
        });
        self.batch = Some(batch.into());
        self.apply();
        Ok(())
    }

    fn apply(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        let taken = self.growing.take(batch, self.seal_limits.max_records, self.builder.context.now());
        self.builder.context.metrics.taken(taken.applied, taken.replayed);
        if taken.all {
            self.batch = None;
        }
    }

    /// Starts every step that can start now. Returns whether the growing set can take no more, and when to look again.
    fn start_what_is_due(&mut self) -> (bool, Duration) {
        self.start_publication();
        if self.look_for_merge {
            self.start_merge();
        }
        match self.decide() {
            Decision::Wait(wait) => (false, wait.unwrap_or(BEAT).min(BEAT)),
            Decision::Seal(reason) if matches!(self.seal, SealStage::Idle) => {
                self.start_seal(reason.as_str(), Haste::None);
                (false, BEAT)
            }
            Decision::Seal(reason) => (reason.is_full(), BEAT),
        }
    }

    fn decide(&self) -> Decision {
        let facts = self.growing.facts(self.builder.context.now(), self.memory.is_pressed());
        seal_policy::decide(facts, &self.seal_limits)
    }

    pub(crate) fn start_seal(&mut self, reason: &'static str, haste: Haste) {
        let frozen = self.growing.freeze(Arc::clone(&self.builder.schema));
        self.build_seal(frozen, reason, haste);
    }

    pub(crate) fn build_seal(&mut self, frozen: Frozen, reason: &'static str, haste: Haste) {
        debug!(partition = %self.builder.context.partition, reason, records = frozen.set.live_len(), "sealing");
        let building = self.building();
        let job = self.builder.clone().seal(Arc::clone(&frozen.set), haste, building.progress.clone());
        self.seal = SealStage::Building { frozen, reason, building, job: Box::pin(job) };
    }

    fn start_merge(&mut self) {
        let paused = self.no_merge_before.is_some_and(|until| Instant::now() < until);
        if paused || !matches!(self.merge, MergeStage::Idle) {
            return;
        }
        let facts: Vec<_> = self.snapshot.segments.iter().map(Live::facts).collect();
        let Some(choice) = merge_policy::choose(&facts, &self.merge_limits) else {
            self.look_for_merge = false;
            return;
        };
        let rows = choice.inputs.iter().map(|&i| self.snapshot.segments[i].state.live()).sum();
        // when the memory is taken, the next turn asks again
        let Some(permit) = self.builder.try_merge_memory(rows) else { return };
        self.look_for_merge = false;
        let inputs: Vec<Live> = choice.inputs.iter().map(|&i| self.snapshot.segments[i].clone()).collect();
        let reason = choice.reason.as_str();
        debug!(partition = %self.builder.context.partition, reason, segments = inputs.len(), rows, "merging");
        let building = self.building();
        let job = self.builder.clone().merge(inputs.clone(), permit, building.progress.clone());
        self.merge = MergeStage::Building { inputs, reason, building, job: Box::pin(job) };
    }

    fn building(&self) -> Building {
        Building { since: self.builder.context.now(), progress: Progress::default() }
    }

    /// Publishes the seal that is built, else the merge that is: one publication at a time.
    pub(crate) fn start_publication(&mut self) {
        let Some(mut press) = self.press.take() else { return };
        let (what, ready) = match (take(&mut self.seal), take(&mut self.merge)) {
            (SealStage::Built { frozen, reason, made }, merge) => {
                self.merge = merge;
                let set = Arc::clone(&frozen.set);
                let ready = Ready::Seal { set, start: frozen.start, next: frozen.next, made };
                self.seal = SealStage::Publishing { frozen, reason };
                (What::Seal, ready)
            }
            (seal, MergeStage::Built { inputs, reason, made }) => {
                self.seal = seal;
                self.merge = MergeStage::Publishing { reason, rows: made.built.records.into() };
                (What::Merge, Ready::Merge { inputs, made })
            }
            (seal, merge) => {
                (self.seal, self.merge, self.press) = (seal, merge, Some(press));
                return;
            }
        };
        let snapshot = self.snapshot.clone();
        let job = Box::pin(async move {
            let result = press.publish(snapshot, ready).await;
            (press, result)
        });
        self.publishing = Some(Publishing { what, since: Instant::now(), job });
    }

    pub(crate) fn sealed(&mut self, made: Option<Made>) {
        if let SealStage::Building { frozen, reason, .. } = take(&mut self.seal) {
            self.seal = SealStage::Built { frozen, reason, made };
        }
    }

    fn merged(&mut self, made: Result<Made, IndexerError>) {
        let MergeStage::Building { inputs, reason, .. } = take(&mut self.merge) else { return };
        let context = &self.builder.context;
        match made {
            Ok(made) => self.merge = MergeStage::Built { inputs, reason, made },
            // nothing depends on a merge: ingestion goes on, the merge is tried again later
            Err(error) => {
                warn!(partition = %context.partition, %error, "merge failed");
                context.metrics.merged(reason, "failed", 0);
                context.progress.send_modify(|status| status.last_error = Some(error.to_string()));
                self.no_merge_before = Some(Instant::now() + MERGE_PAUSE);
                self.look_for_merge = true;
            }
        }
    }

    pub(crate) fn published(
        &mut self,
        press: Press,
        result: Result<Snapshot, IndexerError>,
    ) -> Result<(), IndexerError> {
        self.press = Some(press);
        let done = self.publishing.take();
        self.snapshot = result?;
        self.look_for_merge = true;
        let context = &self.builder.context;
        if let Some(Publishing { what, since, .. }) = done {
            context.metrics.published(since.elapsed().as_secs_f64());
            match what {
                // frees the permits of what was sealed
                What::Seal => {
                    if let SealStage::Publishing { reason, .. } = take(&mut self.seal) {
                        context.metrics.sealed(reason);
                    }
                }
                What::Merge => {
                    if let MergeStage::Publishing { reason, rows } = take(&mut self.merge) {
                        context.metrics.merged(reason, "ok", rows);
                    }
                }
            }
        }
        let now = context.now();
        context.progress.send_modify(|status| {
            status.published_at = Some(now);
            status.last_error = None;
        });
        self.gauged = Timestamp::default();
        Ok(())
    }

    /// An input that only the operator can mend is the end of what can be had: it is published first.
    async fn input_failed(mut self, error: EdgeError) -> Result<Exit, IndexerError> {
        if !error.kind().is_restartable() {
            self.drained().await?;
        }
        Err(IndexerError::Input(error))
    }

    fn measure_blocked(&mut self, full: bool) {
        if let Some(since) = self.full_since.take() {
            record_blocked("seal", since);
        }
        self.full_since = full.then(Instant::now);
    }

    /// The older build under way, once it has gone on for longer than a build should. It stands in a thread that
    /// nothing can end, or waits for one behind such a build: what is to be done is somebody else's decision.
    fn slow_build(&self, now: Timestamp) -> Option<SlowBuild> {
        let building = [("seal", self.seal.building()), ("merge", self.merge.building())];
        let builds = building.into_iter().filter_map(|(what, b)| Some(SlowBuild { what, since: b?.since }));
        let limit = self.slow_build_after.as_secs_f64();
        let oldest = builds.min_by_key(|build| build.since)?;
        if now.seconds_since(oldest.since) <= limit {
            return None;
        }
        let context = &self.builder.context;
        if context.progress.borrow().slow_build != Some(oldest) {
            let seconds = now.seconds_since(oldest.since);
            warn!(partition = %context.partition, what = oldest.what, seconds, "a build does not return");
        }
        Some(oldest)
    }

    /// Tells the outside where the worker stands; gauges once a beat.
    pub(crate) fn report(&mut self, phase: Phase) {
        let context = &self.builder.context;
        let now = context.now();
        let frozen = self.seal.frozen();
        let oldest = frozen.and_then(|f| f.oldest).into_iter().chain(self.growing.oldest()).min();
        let slow_build = self.slow_build(now);
        context.progress.send_modify(|status| {
            status.phase = phase;
            status.beat = now;
            status.next_offset = self.snapshot.next_offset;
            status.applied = self.growing.next();
            status.log_end = status.log_end.max(status.applied);
            status.growing_records = self.growing.live() + frozen.map_or(0, |f| f.set.live_len() as u64);
            status.growing_bytes = self.growing.bytes() + frozen.map_or(0, Frozen::bytes);
            status.segments = self.snapshot.segments.len();
            status.segment_records = self.snapshot.live_records();
            status.segment_bytes = self.snapshot.bytes();
            status.sealing = frozen.is_some();
            status.merging = !matches!(self.merge, MergeStage::Idle);
            status.oldest_unpublished = oldest;
            status.seal_progress = self.seal.building().map(|building| building.progress.share());
            status.merge_progress = self.merge.building().map(|building| building.progress.share());
            status.slow_build = slow_build;
        });
        if self.gauged == Timestamp::default() || now.seconds_since(self.gauged) >= BEAT.as_secs_f64() {
            self.gauged = now;
            context.metrics.state(&context.progress.borrow());
        }
    }
}
