//! Reads a log from its beginning without the product: SQLite's file, or Kafka by a plain consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::set_up::SetUp;

const TIMEOUT: Duration = Duration::from_secs(20);

/// One message of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, Vec<u8>>,
}

/// One message that a test writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) partition: u32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

impl Message {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
    }
}

/// The log of a set-up.
pub(crate) enum Log {
    Local { dir: PathBuf },
    Kafka { bootstrap: String },
}

impl Log {
    pub(crate) fn of(set_up: &SetUp, data_dir: &Path) -> Self {
        match set_up {
            SetUp::Local => Self::Local { dir: data_dir.join("log") },
            SetUp::Servers { kafka, .. } => Self::Kafka { bootstrap: kafka.clone() },
        }
    }

    /// Every message of `topic`, partition by partition, in offset order.
    pub(crate) fn read(&self, topic: &str) -> Vec<Message> {
        match self {
            Self::Local { dir } => read_local(dir, topic),
            Self::Kafka { bootstrap } => read_kafka(bootstrap, topic),
        }
    }

    /// The offset that the next message of each partition gets.
    pub(crate) fn ends(&self, topic: &str) -> BTreeMap<u32, u64> {
        let mut ends = BTreeMap::new();
        for message in self.read(topic) {
            ends.insert(message.partition, message.offset + 1);
        }
        ends
    }

    /// Writes one message as it stands, without the product's checks.
    pub(crate) fn write(&self, topic: &str, partition: u32, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.write_all(topic, &[Written { partition, key, value }]);
    }

    /// Writes messages as they stand, in this order.
    pub(crate) fn write_all(&self, topic: &str, messages: &[Written<'_>]) {
        match self {
            Self::Local { dir } => write_local(dir, topic, messages),
            Self::Kafka { bootstrap } => write_kafka(bootstrap, topic, messages),
        }
    }
}

/// The local log's file: the low 40 bits of a message's place are its offset, the rest is its partition's slot.
pub(super) fn open_local(dir: &Path) -> Connection {
    let connection = Connection::open(dir.join("log.sqlite3")).unwrap();
    connection.busy_timeout(TIMEOUT).unwrap();
    connection
}

fn read_local(dir: &Path, topic: &str) -> Vec<Message> {
    let connection = open_local(dir);
    let query = "SELECT p.number, m.place & ((1 << 40) - 1), m.key, m.value, m.headers FROM message m
         JOIN partition p ON p.slot = m.place >> 40 JOIN topic t ON t.id = p.topic WHERE t.name = ?1 ORDER BY m.place";
    let mut statement = connection.prepare(query).unwrap();
    let message = |row: &Row<'_>| {
        Ok(Message {
            partition: row.get(0)?,
            offset: u64::try_from(row.get::<_, i64>(1)?).unwrap(),
            key: row.get(2)?,
            value: row.get(3)?,
            headers: local_headers(&row.get::<_, Option<Vec<u8>>>(4)?.unwrap_or_default()),
        })
    };
    let messages = statement.query_map([topic], message).unwrap();
    messages.map(Result::unwrap).collect()
}

/// Names and values in turn, each behind its length as u32.
fn local_headers(mut bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (part, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        parts.push(part.to_vec());
        bytes = rest;
    }
    let pairs = parts.chunks_exact(2);
    pairs.map(|pair| (String::from_utf8(pair[0].clone()).unwrap(), pair[1].clone())).collect()
}

fn write_local(dir: &Path, topic: &str, messages: &[Written<'_>]) {
    let mut connection = open_local(dir);
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let find =
        "SELECT slot, next FROM partition JOIN topic ON topic.id = topic WHERE name = ?1 AND number = ?2";
    let place = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    for Written { partition, key, value } in messages {
        let (slot, next) = change.query_row(find, params![topic, partition], place).unwrap();
        let insert =
            "INSERT INTO message (place, timestamp, key, headers, value) VALUES (?1, 0, ?2, NULL, ?3)";
        change.execute(insert, params![slot << 40 | next, key, value]).unwrap();
        change.execute("UPDATE partition SET next = ?2 WHERE slot = ?1", [slot, next + 1]).unwrap();
    }
    change.commit().unwrap();
}

pub(super) fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn read_kafka(bootstrap: &str, topic: &str) -> Vec<Message> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "oracle")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let mut list = TopicPartitionList::new();
    let partitions: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut open = partitions;
    let mut messages = Vec::new();
    while !open.is_empty() {
        match consumer.poll(TIMEOUT).expect("the broker answers") {
            Ok(message) => messages.push(Message {
                partition: u32::try_from(message.partition()).unwrap(),
                offset: u64::try_from(message.offset()).unwrap(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message
                    .headers()
                    .map(|h| {
                        let pairs =
                            h.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()));
                        pairs.collect()
                    })
                    .unwrap_or_default(),
            }),
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
            }
            // the broker may have been stopped a moment ago; the client tries again by itself
            Err(error) => println!("oracle: {error}"),
        }
    }
    messages.sort_by_key(|m| (m.partition, m.offset));
    messages
}

fn write_kafka(bootstrap: &str, topic: &str, messages: &[Written<'_>]) {
    let producer: BaseProducer = client(bootstrap).create().unwrap();
    for message in messages {
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(i32::try_from(message.partition).unwrap());
        record.key = message.key;
        record.payload = message.value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Gives `topic` more partitions; Kafka only.
pub(crate) async fn grow(bootstrap: &str, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let wanted = [NewPartitions::new(topic, partitions)];
    let results = admin.create_partitions(&wanted, &AdminOptions::new()).await.unwrap();
    results.into_iter().next().unwrap().unwrap();
}
