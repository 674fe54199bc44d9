//! Why a newer snapshot does not serve.

use sluice_core::{ErrorKind, ManifestSeq, SegmentId};
use sluice_snapshotter::paths::Object;
use sluice_snapshotter::{CacheError, ProtocolError};
use thiserror::Error;

use crate::catalogue::Trouble;

/// Why a look for a newer snapshot failed.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Chain(#[from] ProtocolError),
    #[error("manifest {seq}: {source}")]
    Segment { seq: ManifestSeq, source: CacheError },
    #[error("manifest {seq}: segment {segment} does not fit: {message}")]
    Foreign { seq: ManifestSeq, segment: SegmentId, message: String },
    #[error("manifest {seq}: opening its segments failed")]
    Task { seq: ManifestSeq },
}

impl LoadError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Chain(error) => error.kind(),
            Self::Segment { source, .. } => source.kind(),
            Self::Foreign { .. } => ErrorKind::Corrupt,
            Self::Task { .. } => ErrorKind::Internal,
        }
    }

    /// A segment is gone: its manifest was overtaken while it was being loaded, or the store lost it.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Segment { source: CacheError::Missing { .. }, .. })
    }

    /// The manifest that cannot be served because of damage, where it is known.
    pub(crate) fn damaged(&self) -> Option<ManifestSeq> {
        match self {
            Self::Segment { seq, source: CacheError::Damaged { .. } | CacheError::Missing { .. } }
            | Self::Foreign { seq, .. } => Some(*seq),
            Self::Chain(ProtocolError::Broken { seq, .. }) => Some(*seq),
            Self::Chain(ProtocolError::Manifest { key, .. }) => match Object::parse(key) {
                Some(Object::Manifest(_, seq)) => Some(seq),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn trouble(&self) -> Trouble {
        Trouble { kind: self.kind().as_str(), detail: self.to_string() }
    }
}
