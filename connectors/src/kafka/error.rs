//! What an error of librdkafka makes the caller do: wait, or stop and say what to change.
//!
//! Permanent is what a broker or the client answers to the request itself, whatever the time: permissions, policies,
//! impossible numbers, versions that do not speak to each other. All else may pass: brokers away, leaders that move,
//! credentials that are being rotated, quotas, time-outs.

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
            Some(code) if is_permanent(code) => LogError::Refused(format!("kafka: {other}")),
            _ => LogError::Unavailable(format!("kafka: {other}")),
        },
    }
}

/// Whether the same request is answered so until somebody changes something.
fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        // permissions
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SecurityDisabled
            // policies and limits
            | Code::PolicyViolation
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidConfig
            | Code::InvalidTopic
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InvalidRequiredAcks
            | Code::OffsetMetadataTooLarge
            // what the broker finds wrong with a message as such: no key where the topic is compacted, and the like
            | Code::InvalidRecord
            | Code::InvalidMessageSize
            // versions
            | Code::UnsupportedVersion
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedFeature
            | Code::UnsupportedCompressionType
            | Code::UnsupportedSASLMechanism
            | Code::InvalidRequest
            | Code::InvalidArgument
            | Code::NotImplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_refuses_for_good_is_permanent_and_what_passes_is_not() {
        let produce = |code| log_error(&KafkaError::MessageProduction(code));
        for code in [
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::PolicyViolation,
            Code::InvalidReplicationFactor,
            Code::InvalidRecord,
            Code::UnsupportedForMessageFormat,
        ] {
            assert!(produce(code).is_permanent(), "{code:?}");
        }
        for code in [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::MessageTimedOut,
            Code::RequestTimedOut,
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::NotController,
            Code::KafkaStorageError,
            Code::ThrottlingQuotaExceeded,
            Code::UnknownTopicOrPartition,
            Code::OutOfOrderSequenceNumber,
            Code::PurgeQueue,
            Code::QueueFull,
            Code::Resolve,
            Code::SaslAuthenticationFailed,
            Code::Authentication,
            Code::Fatal,
            Code::Fail,
            // clocks are set right
            Code::InvalidTimestamp,
        ] {
            assert!(!produce(code).is_permanent(), "{code:?}");
        }
    }
}
