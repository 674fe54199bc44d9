//! A store in a directory, a log in memory, a clock by hand, and the fold that is the oracle.
#![allow(dead_code, reason = "every test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "tests only")]

pub(crate) mod log;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use futures::Stream;
use proptest::test_runner::Config;
use sluice_core::budget::PartitionBudget;
use sluice_core::{
    ByteBudget, Clock, Dimension, Generation, GraphSpec, IndexName, IndexSpec, MergeSpec, Metric,
    PartitionId, PartitionRef, RecordBatch, SealSpec, Timestamp,
};
use sluice_indexer::{
    BuildBudget, ComputePool, EdgeError, Exit, IndexerError, PartitionWorker, WorkerParams, WorkerStatus,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::store::Store;

/// `quick` cases of a property, or as many as `PROPTEST_CASES` says.
pub(crate) fn cases(quick: u32) -> Config {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    Config::with_cases(wanted.unwrap_or(quick))
}

/// A clock that moves when told to.
#[derive(Debug)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) fn spec() -> IndexSpec {
    IndexSpec {
        name: IndexName::new("test").unwrap(),
        topic: None,
        partitions: 1,
        format: Default::default(),
        dimension: Dimension::new(4).unwrap(),
        metric: Metric::L2,
        quantization: Default::default(),
        vector_type: Default::default(),
        fields: BTreeMap::new(),
        graph: GraphSpec { m: 4, ef_construction: 16, ef: 16, min_records: 12, ..GraphSpec::default() },
        seal: SealSpec { max_records: 8, max_bytes: ByteSize::mib(1), max_age: Duration::from_secs(10) },
        merge: MergeSpec { max_similar: 3, ..MergeSpec::default() },
        mapping: None,
    }
}

pub(crate) fn partition() -> PartitionRef {
    let index = IndexName::new("test").unwrap();
    PartitionRef { index, generation: Generation(1), partition: PartitionId(0) }
}

/// Everything around a worker.
pub(crate) struct Bench {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) pool: ComputePool,
    pub(crate) memory: PartitionBudget,
    pub(crate) build: BuildBudget,
    pub(crate) spec: IndexSpec,
    pub(crate) drain: Duration,
    pub(crate) scratch: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let store = Store::new();
        Self {
            scratch: store.dir().join("scratch"),
            store,
            clock: HandClock::new(),
            pool: ComputePool::new(2).unwrap(),
            memory: ByteBudget::new(64 << 20).unreserved(),
            build: BuildBudget::new(256 << 20),
            spec: spec(),
            drain: Duration::from_secs(60),
        }
    }

    /// A worker that has claimed the partition, and its status.
    pub(crate) fn worker(&self) -> (PartitionWorker, watch::Receiver<WorkerStatus>) {
        let (publisher, recovered) = self.store.claim();
        let (progress, status) = watch::channel(WorkerStatus::default());
        let params = WorkerParams {
            partition: partition(),
            spec: Arc::new(self.spec.clone()),
            recovered,
            publisher: Box::new(publisher),
            fetch: Arc::clone(&self.store) as _,
            pool: self.pool.clone(),
            build_budget: self.build.clone(),
            memory: self.memory.clone(),
            clock: Arc::clone(&self.clock) as _,
            scratch_dir: self.scratch.clone(),
            slow_build_after: Duration::from_secs(3600),
            drain: self.drain,
            progress,
        };
        (PartitionWorker::new(params), status)
    }

    /// Runs a worker over `input` to its end.
    pub(crate) async fn run<S>(&self, input: S) -> Result<Exit, IndexerError>
    where
        S: Stream<Item = Result<RecordBatch, EdgeError>> + Send,
    {
        self.worker().0.run(input, CancellationToken::new()).await
    }
}
