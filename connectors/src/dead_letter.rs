//! Where a bad message goes: a topic beside its own, with its reason, its place and its bytes.

use async_trait::async_trait;
use std::sync::Arc;
use sluice_core::{Offset, TopicName, TopicPartition};

use crate::decode::Reject;
use crate::error::LogError;
use crate::source::Producer;

/// A message that could not be decoded or validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub at: TopicPartition,
    pub offset: Offset,
    pub reject: Reject,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Keeps dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Returns when every letter is durable. Waits out an outage, so it may be pending for long: dropping the
    /// future gives up.
    ///
    /// # Errors
    /// Only what no waiting can cure.
    async fn store(&self, letters: Vec<DeadLetter>) -> Result<(), LogError>;
}

/// Dead letters in the topic `{topic}.dead-letter` of the same log.
pub struct TopicDeadLetters {
    #[expect(dead_code, reason = "signatures first")]
    producer: Arc<dyn Producer>,
}

impl TopicDeadLetters {
    pub fn new(producer: Arc<dyn Producer>) -> Self {
        Self { producer }
    }

    /// The dead-letter topic of `topic`.
    ///
    /// # Errors
    /// When the name would be too long for a topic.
    pub fn topic_of(topic: &TopicName) -> Result<TopicName, LogError> {
        TopicName::new(&format!("{topic}.dead-letter")).map_err(|e| LogError::config("topic", e.to_string()))
    }
}

#[async_trait]
impl DeadLetters for TopicDeadLetters {
    async fn store(&self, _letters: Vec<DeadLetter>) -> Result<(), LogError> {
        Ok(())
    }
}
