//! What an error of librdkafka makes the caller do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::LogError;

/// The error as ours; what has to do with a topic or partition is told apart by the caller.
pub(super) fn log_error(error: &KafkaError) -> LogError {
    match error {
        // the value, which is last, may be a secret; so may the description, which repeats it
        KafkaError::ClientConfig(_, _, key, _) => LogError::config(
            key,
            "is refused by librdkafka: there is no such property, or not with this value",
        ),
        KafkaError::ClientCreation(text) => LogError::config("log.kafka", text),
        other => match other.rdkafka_error_code() {
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::PolicyViolation
                | Code::InvalidPartitions
                | Code::InvalidReplicationFactor
                | Code::InvalidTopic
                | Code::InvalidGroupId,
            ) => LogError::Refused(format!("kafka: {other}")),
            _ => LogError::Unavailable(format!("kafka: {other}")),
        },
    }
}
