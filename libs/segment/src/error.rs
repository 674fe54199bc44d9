//! Why a segment was not opened or not built.

use std::io;

use sluice_core::{ErrorKind, Offset};
use thiserror::Error;

use crate::Cancelled;

/// Why bytes were refused as a segment. Everything but `Io` and `Version` means that they are not what was written.
#[derive(Debug, Error)]
pub enum SegmentError {
    #[error("cannot read the segment: {0}")]
    Io(#[from] io::Error),
    #[error("segment format version {found} is newer than {supported}, the newest that this program reads")]
    Version { found: u32, supported: u32 },
    #[error("the segment is damaged: {section}: {problem}")]
    Damaged { section: String, problem: String },
}

impl SegmentError {
    pub(crate) fn damaged(section: impl ToString, problem: impl ToString) -> Self {
        Self::Damaged { section: section.to_string(), problem: problem.to_string() }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Io(_) => ErrorKind::Unavailable,
            Self::Version { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Why a segment was not built. The unfinished file has been removed.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error("cannot write the segment: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("there is no live record to build a segment of")]
    Empty,
    #[error("{what} of the segment would be {got}, at most {max} are possible")]
    TooLarge { what: &'static str, got: u64, max: u64 },
    #[error("input {input} of the merge has another schema than the index")]
    Schema { input: usize },
    #[error("two live records have offset {offset}")]
    SameOffset { offset: Offset },
}

impl BuildError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::Unavailable,
            Self::Cancelled(e) => e.kind(),
            Self::Empty | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Schema { .. } => ErrorKind::Conflict,
            Self::SameOffset { .. } => ErrorKind::Corrupt,
        }
    }
}
