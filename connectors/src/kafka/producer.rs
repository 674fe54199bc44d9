//! Writes: acks=all, idempotent, keys placed by murmur2, a result for each message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use sluice_core::{Offset, PartitionId, TopicName, TopicPartition};
use tracing::warn;

use super::admin::Topics;
use super::client::Reports;
use super::config::KafkaConfig;
use super::error::log_error;
use crate::error::LogError;
use crate::metrics;
use crate::source::{Outgoing, Placed, Producer};

/// How long a message may wait for room in the client's queue, which deliveries empty.
const ROOM: Duration = Duration::from_secs(60);

type Client = FutureProducer<Reports>;

/// Writes to the topics of one cluster.
pub(super) struct KafkaProducer {
    config: Arc<KafkaConfig>,
    topics: Arc<Topics>,
    client: Mutex<Client>,
    /// Partitions of the topics that were written to; librdkafka would wait long for a topic that does not exist.
    known: Mutex<HashMap<TopicName, u32>>,
}

impl KafkaProducer {
    pub(super) fn new(config: Arc<KafkaConfig>, topics: Arc<Topics>) -> Result<Self, LogError> {
        let client = Mutex::new(create(&config)?);
        Ok(Self { config, topics, client, known: Mutex::default() })
    }

    /// The client; a new one where the old one is beyond recovery, as an idempotent producer can become.
    fn client(&self) -> Result<Client, LogError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, reason)) = client.client().fatal_error() {
            warn!(?code, reason, "the kafka producer cannot go on, making a new one");
            *client = create(&self.config)?;
        }
        Ok(client.clone())
    }

    /// The number of partitions of `topic`, asked for when it is unknown or smaller than `at_least`.
    async fn partitions(&self, topic: &TopicName, at_least: u32) -> Result<u32, LogError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        if let Some(count) = known.filter(|count| *count >= at_least) {
            return Ok(count);
        }
        let count = self.topics.partitions(topic).await?;
        let count = count.ok_or_else(|| LogError::UnknownTopic(topic.clone()))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), count);
        Ok(count)
    }

    fn forget(&self, topic: &TopicName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    async fn produce_all(
        &self,
        topic: &TopicName,
        messages: Vec<Outgoing>,
    ) -> Result<Vec<Result<Placed, LogError>>, LogError> {
        let wanted = messages.iter().filter_map(|m| m.partition).map(|p| p.get().saturating_add(1)).max();
        let count = self.partitions(topic, wanted.unwrap_or(1)).await?;
        let client = self.client()?;
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages {
            let bytes = size(&message);
            let at = message.partition.map(|partition| TopicPartition { topic: topic.clone(), partition });
            let delivery = match at {
                Some(at) if at.partition.get() >= count => Err(LogError::UnknownPartition(at)),
                _ => send(&client, topic, &message).await.map_err(|e| self.failure(topic, bytes, &e)),
            };
            sent.push((bytes, delivery));
        }
        let mut results = Vec::with_capacity(sent.len());
        for (bytes, delivery) in sent {
            results.push(match delivery {
                Ok(delivery) => match delivery.await {
                    Ok(Ok(delivered)) => placed(delivered.partition, delivered.offset),
                    Ok(Err((error, _))) => Err(self.failure(topic, bytes, &error)),
                    Err(_) => Err(LogError::Closed("the kafka producer")),
                },
                Err(error) => Err(error),
            });
        }
        Ok(results)
    }

    fn failure(&self, topic: &TopicName, bytes: usize, error: &KafkaError) -> LogError {
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) => LogError::TooLarge { bytes },
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                self.forget(topic);
                LogError::UnknownTopic(topic.clone())
            }
            _ => log_error(error),
        }
    }
}

fn create(config: &KafkaConfig) -> Result<Client, LogError> {
    config.producer().create_with_context(Reports::new("producer")).map_err(|e| log_error(&e))
}

fn placed(partition: i32, offset: i64) -> Result<Placed, LogError> {
    match (u32::try_from(partition), u64::try_from(offset)) {
        (Ok(partition), Ok(offset)) => {
            Ok(Placed { partition: PartitionId(partition), offset: Offset(offset) })
        }
        _ => Err(LogError::Unavailable("kafka acknowledged a message without its offset".into())),
    }
}

fn size(message: &Outgoing) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    length(&message.key) + length(&message.value) + headers
}

/// Queues one message, waiting while the queue is full.
async fn send(client: &Client, topic: &TopicName, message: &Outgoing) -> Result<DeliveryFuture, KafkaError> {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
    for (key, value) in &message.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = FutureRecord::<[u8], [u8]>::to(topic.as_str());
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.partition = message.partition.and_then(|p| i32::try_from(p.get()).ok());
    record.headers = (!message.headers.is_empty()).then_some(headers);
    let since = Instant::now();
    loop {
        match client.send_result(record) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(Code::QueueFull), again)) if since.elapsed() < ROOM => {
                record = again;
            }
            Err((error, _)) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn produce(&self, topic: &TopicName, messages: Vec<Outgoing>) -> Vec<Result<Placed, LogError>> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let results = match self.produce_all(topic, messages).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); count],
        };
        let ok = results.iter().filter(|r| r.is_ok()).count();
        metrics::produced(topic.as_str(), ok as u64, (count - ok) as u64);
        results
    }

    async fn ensure_topic(&self, topic: &TopicName, partitions: u32) -> Result<u32, LogError> {
        if !(1..=sluice_core::spec::MAX_PARTITIONS).contains(&partitions) {
            return Err(LogError::Refused(format!("a topic cannot have {partitions} partitions")));
        }
        self.topics.ensure(topic, partitions).await
    }
}
