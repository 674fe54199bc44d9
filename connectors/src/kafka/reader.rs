//! The reader: one consumer without a group, to which partitions are assigned by hand, each with its own queue.
//!
//! # Facts of librdkafka that this rests on
//! - Messages go to a partition's own queue once it was split off, and to the common one before. Splitting marks the
//!   queue for good, so it is done before the assignment as well as after it. Should a message reach the common
//!   queue all the same, [`Reader::pump`] finds it, and its partition is assigned anew.
//! - A partition's queue limits apply to each split queue: not polling one stops only that partition.
//! - `seek` does not work after an error of position; `incremental_unassign`, `incremental_assign` and a new split do.
//! - The common queue has to be polled always: errors and statistics come there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use sluice_core::{Offset, PartitionId, TopicName, TopicPartition};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::admin::{Topics, number};
use super::client::Reports;
use super::config::{KafkaConfig, PARTITIONS_IN_MEMORY};
use super::error::log_error;
use super::partition::PartitionReader;
use crate::batch;
use crate::error::LogError;
use crate::source::{BatchStream, LogBounds, ReadRequest, Source};

/// Batches that may wait between a partition's thread and its worker.
const AHEAD: usize = 2;
/// How often the common queue is looked at.
const PUMP: Duration = Duration::from_millis(20);

/// Reads the topics of one cluster.
pub(super) struct KafkaSource {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
    reader: Mutex<Option<Arc<Reader>>>,
}

impl KafkaSource {
    pub(super) fn new(config: Arc<KafkaConfig>, topics: Arc<Topics>) -> Self {
        Self { config, topics, reader: Mutex::default() }
    }

    fn reader(&self) -> Result<Arc<Reader>, LogError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*reader {
            return Ok(Arc::clone(reader));
        }
        let made = Reader::start(&self.config, Arc::clone(&self.topics))?;
        *reader = Some(Arc::clone(&made));
        Ok(made)
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn partitions(&self, topic: &TopicName) -> Result<Option<u32>, LogError> {
        self.topics.partitions(topic).await
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<LogBounds, LogError> {
        self.topics.bounds(at).await
    }

    fn open(&self, request: ReadRequest) -> Result<BatchStream, LogError> {
        let runtime = Handle::try_current().map_err(|_| LogError::Closed("the runtime"))?;
        let reader = self.reader()?;
        reader.warn_of_many();
        let (lane, stop) = reader.enter(&request.at);
        let (sender, receiver) = sluice_core::channel::bounded("worker", AHEAD);
        let (at, name) = (request.at.clone(), format!("read {}", request.at));
        let thread = PartitionReader::new(reader, request, runtime, stop.clone(), sender);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || thread.run(&lane))
            .map_err(|e| LogError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(batch::stream(at, receiver, stop.drop_guard()))
    }
}

/// A partition's turn: whoever holds the lock reads it.
pub(super) type Lane = Arc<tokio::sync::Mutex<()>>;

/// The consumer, and who reads what by it.
pub(super) struct Reader {
    consumer: Arc<BaseConsumer<Reports>>,
    pub(super) topics: Arc<Topics>,
    lanes: Mutex<HashMap<TopicPartition, (Lane, CancellationToken)>>,
    /// Partitions of which a message came by the common queue. Held while that queue is polled.
    strays: Mutex<HashSet<TopicPartition>>,
    open: AtomicUsize,
    warned: AtomicBool,
}

pub(super) type Queue = rdkafka::consumer::base_consumer::PartitionQueue<Reports>;

impl Reader {
    fn start(config: &KafkaConfig, topics: Arc<Topics>) -> Result<Arc<Self>, LogError> {
        let consumer: BaseConsumer<Reports> =
            config.reader().create_with_context(Reports::new("reader")).map_err(|e| log_error(&e))?;
        let consumer = Arc::new(consumer);
        let reader = Arc::new(Self {
            consumer: Arc::clone(&consumer),
            topics,
            lanes: Mutex::default(),
            strays: Mutex::default(),
            open: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&reader);
        std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || pump_always(&weak, consumer))
            .map_err(|e| LogError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(reader)
    }

    /// Ends whoever reads `at`, and gives the lane to wait in.
    fn enter(&self, at: &TopicPartition) -> (Lane, CancellationToken) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let (lane, stop) = lanes.entry(at.clone()).or_default();
        stop.cancel();
        *stop = CancellationToken::new();
        (Arc::clone(lane), stop.clone())
    }

    fn warn_of_many(&self) {
        let open = self.open.load(Ordering::Relaxed) as u64 + 1;
        if open > PARTITIONS_IN_MEMORY && !self.warned.swap(true, Ordering::Relaxed) {
            warn!(open, "more partitions are read than their fetch buffers were given memory for");
        }
    }

    /// Starts the fetching of `at` at `start`, into the queue that is given back.
    pub(super) fn assign(self: &Arc<Self>, at: &TopicPartition, start: Offset) -> Result<Assigned, LogError> {
        let raw = i64::try_from(start.get()).unwrap_or(i64::MAX);
        let list = list_of(at, rdkafka::Offset::Offset(raw))?;
        let split = || {
            let queue = self.consumer.split_partition_queue(at.topic.as_str(), number(at));
            queue.ok_or_else(|| LogError::Unavailable(format!("kafka has no queue for {at}")))
        };
        let early = split()?;
        self.strays().remove(at);
        self.consumer.incremental_assign(&list).map_err(|e| log_error(&e))?;
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut assigned = Assigned { reader: Arc::clone(self), at: at.clone(), queue: None };
        // the early handle goes first: dropping it later would reset what the new one is set up for
        drop(early);
        assigned.queue = Some(split()?);
        Ok(assigned)
    }

    /// Serves the common queue until it is empty.
    pub(super) fn pump(&self) {
        let mut strays = self.strays();
        // an event that was served reads like an empty queue, so one silence proves nothing
        let mut silent = 0;
        while silent < 3 {
            match self.consumer.poll(Duration::ZERO) {
                None => silent += 1,
                Some(Ok(message)) => {
                    silent = 0;
                    if let (Ok(topic), Ok(number)) =
                        (TopicName::new(message.topic()), u32::try_from(message.partition()))
                    {
                        strays.insert(TopicPartition { topic, partition: PartitionId(number) });
                    }
                }
                Some(Err(error)) => {
                    silent = 0;
                    self.reports().outlived(&error, "consumer");
                }
            }
        }
    }

    /// Whether a message of `at` came by the common queue since it was assigned.
    pub(super) fn has_strayed(&self, at: &TopicPartition) -> bool {
        self.strays().contains(at)
    }

    /// First offset of `at` that was not handed out, gaps included; `None` before anything was.
    pub(super) fn position(&self, at: &TopicPartition) -> Option<Offset> {
        let positions = self.consumer.position().ok()?;
        match positions.find_partition(at.topic.as_str(), number(at))?.offset() {
            rdkafka::Offset::Offset(offset) => u64::try_from(offset).ok().map(Offset),
            _ => None,
        }
    }

    pub(super) fn reports(&self) -> &Reports {
        self.consumer.context()
    }

    fn strays(&self) -> MutexGuard<'_, HashSet<TopicPartition>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition that is being fetched; dropping it stops that.
pub(super) struct Assigned {
    reader: Arc<Reader>,
    at: TopicPartition,
    queue: Option<Queue>,
}

impl Assigned {
    pub(super) fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.queue = None;
        self.reader.open.fetch_sub(1, Ordering::Relaxed);
        let removed = list_of(&self.at, rdkafka::Offset::Invalid)
            .and_then(|list| self.reader.consumer.incremental_unassign(&list).map_err(|e| log_error(&e)));
        if let Err(error) = removed {
            warn!(partition = %self.at, %error, "kafka does not stop fetching a partition");
        }
    }
}

fn list_of(at: &TopicPartition, offset: rdkafka::Offset) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(at.topic.as_str(), number(at), offset).map_err(|e| log_error(&e))?;
    Ok(list)
}

/// Serves the common queue while the reader lives. The last handle on the consumer is dropped here, since closing it
/// takes its time.
fn pump_always(reader: &Weak<Reader>, consumer: Arc<BaseConsumer<Reports>>) {
    while let Some(reader) = reader.upgrade() {
        reader.pump();
        drop(reader);
        std::thread::sleep(PUMP);
    }
    drop(consumer);
}
