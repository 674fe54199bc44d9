//! The few kinds of error that a caller must tell apart; every crate's error enum says which kind it is.

use std::fmt;

/// What an error makes its handler do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is wrong: refuse it (400, dead letter, exit 2). Trying again gives the same answer.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// A dependency did not answer: try again with back-off.
    Unavailable,
    /// A newer epoch owns the partition: stop, do not restart.
    Fenced,
    /// Stored bytes are not what was written: quarantine, go on serving what is loaded, tell the operator.
    Corrupt,
    /// Retention removed records that were not indexed: stop the partition, the operator decides.
    LogTruncated,
    /// The set-up changed in a way that needs a rebuild (partition count grown, spec differs): stop by name.
    Conflict,
    /// The other side was shut down on purpose.
    Closed,
    /// A bug: restart the task, keep the report.
    Internal,
}

impl ErrorKind {
    /// Whether the supervisor may restart the task that failed so.
    pub fn is_restartable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Internal)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Fenced => "fenced",
            Self::Corrupt => "corrupt",
            Self::LogTruncated => "log_truncated",
            Self::Conflict => "conflict",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
