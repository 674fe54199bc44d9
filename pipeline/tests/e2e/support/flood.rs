//! Writes many messages to a log as fast as it takes them, without the product.

use std::path::Path;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rusqlite::{TransactionBehavior, params};

use super::log::{Log, client, open_local};

/// What a producer writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) partition: u32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Outgoing {
    /// Bytes of its key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl Log {
    /// Writes all `messages` in their order; they are durable when this returns.
    pub(crate) fn flood(&self, topic: &str, messages: impl Iterator<Item = Outgoing>) {
        match self {
            Self::Local { dir } => flood_local(dir, topic, messages),
            Self::Kafka { bootstrap } => flood_kafka(bootstrap, topic, messages),
        }
    }
}

/// Messages that one transaction holds.
const GROUP: usize = 20_000;

fn flood_local(dir: &Path, topic: &str, messages: impl Iterator<Item = Outgoing>) {
    let mut connection = open_local(dir);
    let mut messages = messages.peekable();
    while messages.peek().is_some() {
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        {
            let mut place = change
                .prepare("SELECT slot, next FROM partition JOIN topic ON topic.id = topic WHERE name = ?1 AND number = ?2")
                .unwrap();
            let mut insert = change
                .prepare(
                    "INSERT INTO message (place, timestamp, key, headers, value) VALUES (?1, 0, ?2, ?3, ?4)",
                )
                .unwrap();
            let mut advance = change.prepare("UPDATE partition SET next = next + 1 WHERE slot = ?1").unwrap();
            for Outgoing { partition, key, value, headers } in messages.by_ref().take(GROUP) {
                let found = place.query_row(params![topic, partition], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                });
                let (slot, next) = found.unwrap();
                insert.execute(params![slot << 40 | next, key, local_headers(&headers), value]).unwrap();
                advance.execute([slot]).unwrap();
            }
        }
        change.commit().unwrap();
    }
}

fn local_headers(headers: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(part);
    }
    (!bytes.is_empty()).then_some(bytes)
}

fn flood_kafka(bootstrap: &str, topic: &str, messages: impl Iterator<Item = Outgoing>) {
    let producer: BaseProducer = client(bootstrap)
        .set("message.max.bytes", "2000000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("linger.ms", "5")
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    for message in messages {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(i32::try_from(message.partition).unwrap());
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        record.headers = (!message.headers.is_empty()).then_some(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}
