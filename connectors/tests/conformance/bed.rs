//! The logs that the suite runs on, and small helpers to write, read and take them apart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytesize::ByteSize;
use futures::StreamExt;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sluice_connectors::local::LocalLog;
use sluice_connectors::{
    BatchLimits, BatchStream, DeadLetter, DeadLetters, DecodeLimits, Decoder, Log, LogConfig, LogError,
    Outgoing, ReadRequest, Source, encode,
};
use sluice_core::{
    ByteBudget, Dimension, Format, Key, Metadata, Metric, Offset, PartitionId, Record, RecordBatch, Schema,
    TopicName, TopicPartition,
};

/// A log to be tested.
pub(crate) struct Bed {
    pub(crate) log: Log,
    config: LogConfig,
    place: Place,
}

enum Place {
    Local { dir: tempfile::TempDir, log: Arc<LocalLog> },
    Kafka { bootstrap: String },
}

pub(crate) async fn local() -> Option<Bed> {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(LocalLog::open(dir.path()).await.unwrap());
    let config = LogConfig::Local { dir: dir.path().to_owned() };
    Some(Bed { log: Arc::clone(&log).faces(), config, place: Place::Local { dir, log } })
}

pub(crate) async fn kafka() -> Option<Bed> {
    let bootstrap = std::env::var("SLUICE_TEST_KAFKA").ok()?;
    let properties = BTreeMap::from([
        ("bootstrap.servers".to_owned(), bootstrap.clone()),
        ("session.timeout.ms".to_owned(), "6000".to_owned()),
    ]);
    let config = LogConfig::Kafka { properties, group: fresh("group"), memory: ByteSize::mib(64) };
    Some(Bed { log: Log::open(&config).await.unwrap(), config, place: Place::Kafka { bootstrap } })
}

/// A name that no other test has, nor an earlier run on the same broker.
fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = std::time::Instant::now();
    let salt = format!("{run:?}").bytes().fold(std::process::id(), |a, b| a.wrapping_mul(31) + u32::from(b));
    format!("{prefix}-{salt:08x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Bed {
    /// A new topic.
    pub(crate) async fn topic(&self, partitions: u32) -> TopicName {
        let topic = TopicName::new(&fresh("conformance")).unwrap();
        assert_eq!(self.log.producer.ensure_topic(&topic, partitions).await, Ok(partitions));
        topic
    }

    /// The same log as another process would open it.
    pub(crate) async fn second(&self) -> Log {
        Log::open(&self.config).await.unwrap()
    }

    /// Removes everything before `offset`, as retention does.
    pub(crate) async fn truncate(&self, at: &TopicPartition, offset: u64) {
        match &self.place {
            Place::Local { log, .. } => {
                assert_eq!(log.truncate_before(at, Offset(offset)).await, Ok(Offset(offset)));
            }
            Place::Kafka { bootstrap } => {
                let admin: AdminClient<DefaultClientContext> =
                    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
                let mut before = rdkafka::TopicPartitionList::new();
                let offset = rdkafka::Offset::Offset(i64::try_from(offset).unwrap());
                before.add_partition_offset(at.topic.as_str(), at.partition.get() as i32, offset).unwrap();
                admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
            }
        }
    }

    /// Leaves offsets at the end of partition 0 that hold no record, and tells how many.
    pub(crate) async fn gap(&self, topic: &TopicName) -> u64 {
        match &self.place {
            Place::Local { dir, log } => {
                let end = log.bounds(&at(topic, 0)).await.unwrap().end.get() as i64;
                write(&self.log, topic, 0, &["gone-1", "gone-2"]).await;
                let file = rusqlite::Connection::open(dir.path().join("log.sqlite3")).unwrap();
                let removed = file.execute(
                    "DELETE FROM message WHERE place & 0xffffffffff >= ?1 AND place >> 40 =
                     (SELECT slot FROM partition JOIN topic ON topic.id = topic WHERE name = ?2 AND number = 0)",
                    rusqlite::params![end, topic.as_str()],
                );
                assert_eq!(removed.unwrap(), 2);
                2
            }
            Place::Kafka { bootstrap } => {
                aborted_transaction(bootstrap, topic).await;
                // the record and the marker
                2
            }
        }
    }
}

async fn aborted_transaction(bootstrap: &str, topic: &TopicName) {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.clone());
    let run = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("transactional.id", fresh("tx"))
            .create()
            .unwrap();
        let wait = Duration::from_secs(30);
        producer.init_transactions(wait).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::to(topic.as_str()).partition(0).key("gone").payload("gone");
        producer.send(record).map_err(|(e, _)| e).unwrap();
        producer.flush(wait).unwrap();
        producer.abort_transaction(wait).unwrap();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

pub(crate) fn at(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: PartitionId(partition) }
}

pub(crate) fn upsert(key: &str) -> Outgoing {
    encode::upsert(&Key::new(key).unwrap(), &[1.0, 2.0], &Metadata::empty())
}

/// Writes upserts of `keys` to one partition.
pub(crate) async fn write(log: &Log, topic: &TopicName, partition: u32, keys: &[&str]) {
    let messages =
        keys.iter().map(|k| Outgoing { partition: Some(PartitionId(partition)), ..upsert(k) }).collect();
    for result in log.producer.produce(topic, messages).await {
        assert_eq!(result.unwrap().partition, PartitionId(partition));
    }
}

/// Keeps dead letters in memory.
#[derive(Default)]
pub(crate) struct Letters(pub(crate) Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn store(&self, letters: Vec<DeadLetter>) -> Result<(), LogError> {
        self.0.lock().unwrap().extend(letters);
        Ok(())
    }
}

pub(crate) fn request(topic: &TopicName, partition: u32, start: u64) -> ReadRequest {
    let schema = Schema::new(Dimension::new(2).unwrap(), Metric::L2, BTreeMap::default());
    ReadRequest {
        at: at(topic, partition),
        start: Offset(start),
        decoder: Decoder {
            format: Format::Auto,
            schema: Arc::new(schema),
            limits: DecodeLimits { max_message_bytes: 1 << 20, max_metadata_bytes: 1 << 19 },
        },
        budget: ByteBudget::new(64 << 20).unreserved(),
        dead_letters: Arc::new(Letters::default()),
        held_back: Default::default(),
        limits: BatchLimits::default(),
    }
}

/// The next item of a stream; a minute without one is a failure.
pub(crate) async fn next(stream: &mut BatchStream) -> Result<RecordBatch, LogError> {
    tokio::time::timeout(Duration::from_secs(60), stream.next())
        .await
        .expect("an item in time")
        .expect("an item")
}

/// Reads until `next_offset` is `end`, checking what every stream promises.
pub(crate) async fn read_to(stream: &mut BatchStream, start: u64, end: u64) -> Vec<Record> {
    let (mut records, mut reached): (Vec<Record>, _) = (Vec::new(), Offset(start));
    while reached < Offset(end) {
        let batch = next(stream).await.unwrap();
        assert!(batch.next_offset > reached && batch.log_end >= batch.next_offset, "{batch:?}");
        for record in batch.records {
            assert!(record.offset >= reached && record.offset < batch.next_offset);
            reached = record.offset.next();
            records.push(record);
        }
        reached = batch.next_offset;
    }
    assert_eq!(reached, Offset(end));
    records
}

pub(crate) fn keys(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.key.as_str()).collect()
}
