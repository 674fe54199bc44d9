//! `PartitionWorker`: the one task that owns a partition, from its newest manifest to the day it is told to stop.
//!
//! # Contract
//! - Input is the partition's log from `recovered.next_offset` on, or from any offset before it: records that come
//!   again are dropped. Batches come in offset order; a batch may be empty and only move the next offset.
//! - Every manifest that is published with next offset O holds the fold of the log before O, exactly.
//! - Bytes: a batch's permit is held until its records are published. Builds are charged to the build budget. When a
//!   growing set is full while the one before it is still under way, the input is not polled.
//! - The end: [`Exit`] when it was told to stop, when the input ended, or when it was fenced; an error otherwise. A
//!   worker that is dropped loses nothing but work: its successor replays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use sluice_core::budget::PartitionBudget;
use sluice_core::{Clock, ErrorKind, IndexSpec, Offset, PartitionRef, RecordBatch, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::build::Builder;
use crate::metrics::WorkerMetrics;
use crate::running::Running;
use crate::scratch::Scratch;
use crate::{
    BuildBudget, ComputePool, EdgeError, IndexerError, Phase, Publisher, Recovered, SegmentFetch,
    WorkerStatus, recover,
};

/// What a worker is made of.
pub struct WorkerParams {
    pub partition: PartitionRef,
    pub spec: Arc<IndexSpec>,
    /// The state of the manifest that the claim of this partition wrote.
    pub recovered: Recovered,
    pub publisher: Box<dyn Publisher>,
    pub fetch: Arc<dyn SegmentFetch>,
    pub pool: ComputePool,
    pub build_budget: BuildBudget,
    /// The budget that the permits of the input come from: under pressure the worker seals early.
    pub memory: PartitionBudget,
    pub clock: Arc<dyn Clock>,
    /// Where segments are built; may be shared, the worker makes a directory of its own in it.
    pub scratch_dir: PathBuf,
    /// A build that goes on for longer is told in status, log and metrics.
    pub slow_build_after: Duration,
    /// How long the worker may take to publish what it holds once it is told to stop.
    pub drain: Duration,
    pub progress: watch::Sender<WorkerStatus>,
}

/// How a worker ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop. `drained`: everything it had applied is published.
    Stopped { next_offset: Offset, drained: bool },
    /// The input ended. `drained` as above.
    InputEnded { next_offset: Offset, drained: bool },
    /// A newer epoch owns the partition: nothing more was published, and the worker must not be restarted.
    Fenced,
}

/// Who the worker is and where it reports.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) partition: PartitionRef,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) progress: watch::Sender<WorkerStatus>,
    pub(crate) metrics: WorkerMetrics,
}

impl Context {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Shows an error that is being retried.
    pub(crate) fn report_error(&self, stage: &'static str, error: &EdgeError) {
        self.metrics.retried(stage);
        self.progress.send_modify(|status| status.last_error = Some(error.to_string()));
    }
}

/// Owns one partition from assignment to revocation.
pub struct PartitionWorker {
    params: WorkerParams,
    context: Context,
}

impl PartitionWorker {
    pub fn new(params: WorkerParams) -> Self {
        let context = Context {
            partition: params.partition.clone(),
            clock: Arc::clone(&params.clock),
            progress: params.progress.clone(),
            metrics: WorkerMetrics::new(&params.partition),
        };
        Self { params, context }
    }

    /// Runs until `stop` fires, the input ends, or something fails that only a restart can cure.
    ///
    /// # Errors
    /// The kind says what the supervisor does: restart with back-off, or stop the partition by name.
    pub async fn run<S>(self, input: S, stop: CancellationToken) -> Result<Exit, IndexerError>
    where
        S: Stream<Item = Result<RecordBatch, EdgeError>> + Send,
    {
        let context = self.context.clone();
        let ended = self.run_to_the_end(input, &stop).await;
        context.progress.send_modify(|status| status.phase = Phase::Ended);
        match ended {
            Err(IndexerError::Publish(error)) if error.kind() == ErrorKind::Fenced => {
                info!(partition = %context.partition, %error, "fenced: another owner has the partition");
                Ok(Exit::Fenced)
            }
            other => other,
        }
    }

    async fn run_to_the_end<S>(self, input: S, stop: &CancellationToken) -> Result<Exit, IndexerError>
    where
        S: Stream<Item = Result<RecordBatch, EdgeError>> + Send,
    {
        let Self { mut params, context } = self;
        let next_offset = params.recovered.next_offset;
        let run = params.publisher.new_segment_id();
        let scratch = Scratch::open(&params.scratch_dir, &params.partition, run).await?;
        let recovered = std::mem::take(&mut params.recovered);
        let snapshot = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Exit::Stopped { next_offset, drained: true }),
            snapshot = recover::open(recovered, params.fetch.as_ref(), &context) => snapshot?,
        };
        let builder = Builder {
            pool: params.pool.clone(),
            budget: params.build_budget.clone(),
            schema: Arc::new(params.spec.schema()),
            spec: Arc::clone(&params.spec),
            scratch: scratch.clone(),
            context: context.clone(),
        };
        match Running::new(params, builder, snapshot).serve(input, stop).await {
            // only a newer owner that shares the scratch directory removes what is in use
            Err(error) if error.is_local() && scratch.is_taken().await => {
                info!(partition = %context.partition, %error, "fenced: a newer owner has cleared the scratch directory");
                Ok(Exit::Fenced)
            }
            ended => ended,
        }
    }
}
