//! What can go wrong with a log, and what each case makes the caller do.

use sluice_core::{ErrorKind, Offset, TopicName, TopicPartition};
use thiserror::Error;

/// An error of a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// Retention removed records that were not read.
    #[error("{at}: the records from offset {lost_from} to {lost_to} (exclusive) are no longer in the log")]
    Truncated { at: TopicPartition, lost_from: Offset, lost_to: Offset },
    /// The log ends before the position to read from: the topic was created anew, or the log lost data.
    #[error("{at}: offset {start} is beyond the end of the log, {end}; was the topic created anew?")]
    BeyondEnd { at: TopicPartition, start: Offset, end: Offset },
    #[error("there is no topic {0}")]
    UnknownTopic(TopicName),
    #[error("there is no partition {0}")]
    UnknownPartition(TopicPartition),
    /// The log did not answer, or not in time.
    #[error("{0}")]
    Unavailable(String),
    /// A setting is refused.
    #[error("{key}: {message}")]
    Config { key: String, message: String },
    /// The message is larger than the log takes.
    #[error("a message of {bytes} bytes is larger than the log takes")]
    TooLarge { bytes: usize },
    /// The log refuses the request as it stands: no permission, wrong credentials, a bad argument.
    #[error("{0}")]
    Refused(String),
    /// Dead letters can never be stored as things are. Their messages stay in the log, unread.
    #[error(
        "the bad messages of {at} cannot be stored in {topic}: {reason}. Create that topic, allow this client to \
         create and write it, or raise its max.message.bytes; then restart: the partition goes on where it stopped"
    )]
    DeadLettersRefused { at: TopicPartition, topic: TopicName, reason: String },
    /// The local log's file is damaged or not ours.
    #[error("{0}")]
    Corrupt(String),
    /// The stream or membership was ended from this side.
    #[error("{0} was closed")]
    Closed(&'static str),
    /// A bug: a thread or task of the log ended without a word.
    #[error("the reader of {0} has panicked")]
    Panicked(TopicPartition),
}

impl LogError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Truncated { .. } => ErrorKind::LogTruncated,
            Self::BeyondEnd { .. } => ErrorKind::Conflict,
            Self::UnknownTopic(_) | Self::UnknownPartition(_) => ErrorKind::NotFound,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::Refused(_)
            | Self::DeadLettersRefused { .. } => ErrorKind::Invalid,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Panicked(_) => ErrorKind::Internal,
        }
    }

    /// Whether no waiting cures it: the same request fails again until somebody changes the set-up.
    pub fn is_permanent(&self) -> bool {
        matches!(self.kind(), ErrorKind::Invalid | ErrorKind::Corrupt)
    }

    pub(crate) fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { key: key.into(), message: message.into() }
    }
}
