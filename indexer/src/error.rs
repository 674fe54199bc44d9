//! Errors of a worker. Their kind tells the supervisor whether to restart the partition.

use sluice_core::ErrorKind;
use sluice_segment::{BuildError, SegmentError};

use crate::PoolError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of a neighbour (log, store, cache) with the kind that says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct EdgeError {
    kind: ErrorKind,
    source: Source,
}

impl EdgeError {
    pub fn new(kind: ErrorKind, source: impl Into<Source>) -> Self {
        Self { kind, source: source.into() }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum IndexerError {
    #[error("reading the log: {0}")]
    Input(#[source] EdgeError),
    #[error("opening the published segments: {0}")]
    Recover(#[source] EdgeError),
    #[error("publishing: {0}")]
    Publish(#[source] EdgeError),
    #[error("building a segment: {0}")]
    Build(#[from] BuildError),
    #[error("a segment that was just built does not open: {0}")]
    Unreadable(#[from] SegmentError),
    #[error("{0}")]
    Pool(#[from] PoolError),
    #[error("the scratch directory: {0}")]
    Scratch(#[from] std::io::Error),
}

impl IndexerError {
    /// Whether it comes from the files that the worker itself makes.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Build(_) | Self::Unreadable(_) | Self::Scratch(_))
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input(e) | Self::Recover(e) | Self::Publish(e) => e.kind(),
            Self::Build(e) => e.kind(),
            // the bytes were made here: a bug or a bad disk, not a damaged store
            Self::Unreadable(_) | Self::Pool(_) => ErrorKind::Internal,
            Self::Scratch(_) => ErrorKind::Unavailable,
        }
    }
}
