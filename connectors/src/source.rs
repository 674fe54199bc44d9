//! The contract of a log: what `Source`, `Producer` and `Membership` promise, whichever log stands behind them.
//!
//! # Reading ([`Source::open`])
//! - **Order.** A stream yields the records of one partition in offset order, each offset at most once.
//! - **Start.** The first record has an offset of `start` or more. A start position comes from a manifest, never
//!   from the log's memory of a group.
//! - **Next offset and gaps.** Offsets may skip (compaction, transaction markers, dead letters). The `next_offset`
//!   of a batch is the first offset that the batch says nothing about; it only grows, and every record before it
//!   has been yielded or is stored as a dead letter. A batch without records moves `next_offset` over a gap.
//! - **Bytes.** Records are charged to the request's budget before they are yielded, and stay charged until the
//!   batch's permit is dropped. A stream never holds bytes while it waits for more, so streams cannot starve each
//!   other. While a stream waits, only its own partition stands still. Beyond what is charged a stream holds at
//!   most one decoded record, and the log's own fetch buffers (bounded by its configuration).
//! - **Bad messages** go to the request's [`DeadLetters`](crate::DeadLetters) and are acknowledged there before the
//!   batch that covers their offset is yielded.
//! - **Restart.** Opening again at any offset that is still in the log yields the same records from there on. At
//!   most one stream per partition and [`Source`] is open at a time; opening another one ends the first.
//! - **End.** A stream ends only after it yielded an error. [`LogError::Truncated`]: records from `start` on were
//!   removed before they were read. [`LogError::BeyondEnd`]: the log is shorter than `start`. Outages are not
//!   errors: a stream waits until the log answers again.
//! - **Cancellation.** Dropping the stream releases the partition, its threads and its bytes.
//!
//! # Writing ([`Producer::produce`])
//! A result of `Ok` means that the message is durable at that offset. Messages with equal keys go to one partition
//! in the order in which they were given. An error other than `TooLarge`, `UnknownTopic` and `Invalid` leaves open
//! whether the message was written: writing it again is harmless, since a record is a fold by key.
//!
//! # Membership
//! A lease that says who should work, and no more: two members may believe that they own a partition, which the
//! commit protocol makes harmless. Events come in order. After `Revoked` the log waits (bounded) for `done` before
//! another member is told to begin.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::Stream;
use sluice_core::budget::PartitionBudget;
use sluice_core::{Offset, PartitionId, RecordBatch, Timestamp, TopicName, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};

use crate::dead_letter::DeadLetters;
use crate::decode::Decoder;
use crate::error::LogError;

/// The batches of one partition; dropping it releases the partition.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, LogError>> + Send>>;

/// What a partition of the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// First offset that may still be read.
    pub start: Offset,
    /// The offset that the next message will get.
    pub end: Offset,
}

/// How large a batch may become; whichever limit is met first closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub max_records: usize,
    pub max_bytes: usize,
}

impl Default for BatchLimits {
    /// 2,048 records or 1 MiB: enough to make the cost of a hand-over vanish, small beside any budget.
    fn default() -> Self {
        Self { max_records: 2048, max_bytes: 1 << 20 }
    }
}

/// Where a stream tells the time of the oldest message that it holds back until dead letters are stored; `None` while it
/// holds none. Nothing else says so: no batch comes while they wait.
pub type HeldBack = watch::Sender<Option<Timestamp>>;

/// What to read, from where, and at whose cost.
#[derive(Clone)]
pub struct ReadRequest {
    pub at: TopicPartition,
    pub start: Offset,
    pub decoder: Decoder,
    pub budget: PartitionBudget,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub held_back: HeldBack,
    pub limits: BatchLimits,
}

/// Reads partitions of a log.
#[async_trait]
pub trait Source: Send + Sync {
    /// The number of partitions of `topic`; `None` when there is no such topic.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn partitions(&self, topic: &TopicName) -> Result<Option<u32>, LogError>;

    /// What `at` holds now.
    ///
    /// # Errors
    /// `UnknownTopic` or `UnknownPartition`, or when the log does not answer.
    async fn bounds(&self, at: &TopicPartition) -> Result<LogBounds, LogError>;

    /// Begins to read; see the contract above. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the log cannot be read at all; what concerns the position is the stream's first item.
    fn open(&self, request: ReadRequest) -> Result<BatchStream, LogError>;
}

/// One message to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    pub key: Option<Vec<u8>>,
    /// `None` deletes the key.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// By the key's hash unless given.
    pub partition: Option<PartitionId>,
}

/// Where a message was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub partition: PartitionId,
    pub offset: Offset,
}

/// Writes to a log.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Writes `messages` and waits until each one is durable or failed; results are in the order of `messages`.
    async fn produce(&self, topic: &TopicName, messages: Vec<Outgoing>) -> Vec<Result<Placed, LogError>>;

    /// Creates `topic` with `partitions` unless it exists; returns how many it has. An existing topic stays as it
    /// is, whatever its number of partitions.
    ///
    /// # Errors
    /// When the topic can neither be found nor created.
    async fn ensure_topic(&self, topic: &TopicName, partitions: u32) -> Result<u32, LogError>;
}

/// A change in what this process should work on.
#[derive(Debug)]
pub enum MembershipEvent {
    /// These partitions are ours, in addition to those that we have.
    Assigned(Vec<TopicPartition>),
    /// These are no longer ours. The log waits for `done` (sent or dropped), at most [`REVOKE_WAIT`].
    Revoked { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
    /// The membership has ended; joining again is up to the receiver.
    Failed(LogError),
}

/// How long a revocation waits for its `done`.
pub const REVOKE_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// The lease on partitions that the members of a group share.
#[async_trait]
pub trait Membership: Send + Sync {
    /// Joins the group for whatever `topics` holds, now and later; a process joins once at a time. The membership
    /// ends with [`Membership::leave`] or when the receiver is dropped.
    ///
    /// # Errors
    /// When the group cannot be joined at all.
    async fn join(
        &self,
        topics: watch::Receiver<BTreeSet<TopicName>>,
    ) -> Result<mpsc::Receiver<MembershipEvent>, LogError>;

    /// Notes how far `at` is published, for lag tools; nothing ever starts from it.
    ///
    /// # Errors
    /// When the log refuses; a lost lease is no error.
    async fn commit(&self, at: &TopicPartition, next: Offset) -> Result<(), LogError>;

    /// Leaves the group, giving back every partition by `Revoked` first.
    async fn leave(&self);
}

impl fmt::Debug for ReadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest")
            .field("at", &self.at)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
