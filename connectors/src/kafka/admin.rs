//! Questions about topics, and their creation.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use sluice_core::{Offset, TopicName, TopicPartition};

use super::client::Reports;
use super::config::KafkaConfig;
use super::error::log_error;
use crate::error::LogError;
use crate::source::LogBounds;

/// How long a question waits for its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a new topic may take until the brokers know of it.
const PROPAGATION: Duration = Duration::from_secs(15);

/// Knows the topics of a cluster.
pub(super) struct Topics {
    admin: Arc<AdminClient<Reports>>,
}

impl Topics {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let admin = config.client().create_with_context(Reports::new("admin")).map_err(|e| log_error(&e))?;
        Ok(Self { admin: Arc::new(admin) })
    }

    /// The number of partitions of `topic`, if there is such a topic. Blocks.
    pub(super) fn partitions_blocking(&self, topic: &TopicName) -> Result<Option<u32>, LogError> {
        partitions(self.admin.inner(), topic)
    }

    /// Start and end of `at`. Blocks.
    pub(super) fn bounds_blocking(&self, at: &TopicPartition) -> Result<LogBounds, LogError> {
        let client = self.admin.inner();
        match partitions(client, &at.topic)? {
            None => return Err(LogError::UnknownTopic(at.topic.clone())),
            Some(count) if at.partition.get() >= count => {
                return Err(LogError::UnknownPartition(at.clone()));
            }
            Some(_) => {}
        }
        let watermarks = client.fetch_watermarks(at.topic.as_str(), number(at), ANSWER);
        let (start, end) = watermarks.map_err(|e| log_error(&e))?;
        match (u64::try_from(start), u64::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(LogBounds { start: Offset(start), end: Offset(end) }),
            _ => Err(LogError::Unavailable(format!("kafka does not know the bounds of {at}"))),
        }
    }

    pub(super) async fn partitions(self: &Arc<Self>, topic: &TopicName) -> Result<Option<u32>, LogError> {
        let (topics, topic) = (Arc::clone(self), topic.clone());
        blocking(move || topics.partitions_blocking(&topic)).await
    }

    pub(super) async fn bounds(self: &Arc<Self>, at: &TopicPartition) -> Result<LogBounds, LogError> {
        let (topics, at) = (Arc::clone(self), at.clone());
        blocking(move || topics.bounds_blocking(&at)).await
    }

    pub(super) async fn ensure(
        self: &Arc<Self>,
        topic: &TopicName,
        partitions: u32,
    ) -> Result<u32, LogError> {
        if let Some(actual) = self.partitions(topic).await? {
            return Ok(actual);
        }
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        // the broker's own default decides how many replicas there are
        let new = NewTopic::new(topic.as_str(), count, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
        let created = self.admin.create_topics([&new], &options).await.map_err(|e| log_error(&e))?;
        match created.into_iter().next() {
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => {
                return Err(log_error(&KafkaError::AdminOp(code)));
            }
            _ => {}
        }
        let visible = async {
            loop {
                if let Some(actual) = self.partitions(topic).await? {
                    return Ok(actual);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let unseen =
            || LogError::Unavailable(format!("topic {topic} was created, but no broker knows it yet"));
        tokio::time::timeout(PROPAGATION, visible).await.unwrap_or_else(|_| Err(unseen()))
    }
}

fn partitions(client: &Client<Reports>, topic: &TopicName) -> Result<Option<u32>, LogError> {
    let metadata = client.fetch_metadata(Some(topic.as_str()), ANSWER).map_err(|e| log_error(&e))?;
    client.context().answered();
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic.as_str()) else { return Ok(None) };
    match found.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
        Some(other) => return Err(log_error(&KafkaError::MetadataFetch(other.into()))),
    }
    // a new topic may be known before its partitions are
    Ok(u32::try_from(found.partitions().len()).ok().filter(|count| *count > 0))
}

/// The partition's number as librdkafka counts.
pub(super) fn number(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition.get()).unwrap_or(i32::MAX)
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(ask).await.unwrap_or(Err(LogError::Closed("the runtime")))
}
