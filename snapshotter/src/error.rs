//! The errors of this crate, each with the coarse kind that says what its handler does.

use sluice_core::{ErrorKind, IndexName, ManifestSeq, PartitionRef, SegmentId, TopicName};
use thiserror::Error;

use crate::manifest::ManifestError;
use crate::protocol::PublishRefusal;

/// Why the store did not do what it was asked. Messages hold no credentials.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The configuration is refused; `key` is what the user wrote.
    #[error("{key}: {message}")]
    Config { key: String, message: String },
    #[error("{key} does not exist")]
    NotFound { key: String },
    #[error("{key} exists already")]
    AlreadyExists { key: String },
    #[error("the store refuses {operation} of {key}: {message}")]
    Denied { operation: &'static str, key: String, message: String },
    #[error("{operation} of {key} failed: {message}")]
    Unavailable { operation: &'static str, key: String, message: String },
    #[error("{key} has {bytes} bytes, at most {limit} are read")]
    TooLarge { key: String, bytes: u64, limit: u64 },
    /// The stored or local bytes are not the ones that were announced.
    #[error("{key} is damaged: {message}")]
    Damaged { key: String, message: String },
    /// The store cannot carry the protocol.
    #[error("the store is unfit: {0}")]
    Unfit(String),
    #[error("{path}: {source}")]
    Local { path: String, source: std::io::Error },
    #[error("a background task ended early: {0}")]
    Task(String),
}

impl StoreError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::Denied { .. } | Self::Unfit(_) => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::Conflict,
            Self::Unavailable { .. } | Self::Local { .. } => ErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Task(_) => ErrorKind::Internal,
        }
    }
}

/// Why a chain of manifests could not be read or extended.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// A newer owner has the partition. Nothing more is written; the task is not restarted.
    #[error("{partition}: fenced, manifest {seq} is another owner's")]
    Fenced { partition: PartitionRef, seq: ManifestSeq },
    /// The generation was retired: its chain is closed for good.
    #[error("{partition}: the generation was retired")]
    Retired { partition: PartitionRef },
    /// KEY-1: a key could live in two partitions.
    #[error(
        "{partition}: the manifest was written for {stored} partitions, the topic has {found}; rebuild the index"
    )]
    PartitionsChanged { partition: PartitionRef, stored: u32, found: u32 },
    /// The publication breaks a rule of the chain; a bug of the caller.
    #[error("{partition}: publication refused: {refusal}")]
    Refused { partition: PartitionRef, refusal: PublishRefusal },
    #[error("{key}: {source}")]
    Manifest { key: String, source: ManifestError },
    /// Two good manifests that cannot follow one another.
    #[error("{partition}: manifest {seq} does not follow its predecessor: {message}")]
    Broken { partition: PartitionRef, seq: ManifestSeq, message: String },
    /// The store did not say in time whether a create happened; calling again resolves it first.
    #[error("{partition}: the outcome of creating manifest {seq} is still open")]
    Unresolved { partition: PartitionRef, seq: ManifestSeq },
    #[error("{partition}: manifests move faster than they can be read")]
    Restless { partition: PartitionRef },
    #[error("{partition}: segment {segment} was not uploaded by this owner")]
    NotUploaded { partition: PartitionRef, segment: SegmentId },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProtocolError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Retired { .. } => ErrorKind::Closed,
            Self::PartitionsChanged { .. } => ErrorKind::Conflict,
            Self::Refused { .. } | Self::NotUploaded { .. } => ErrorKind::Internal,
            Self::Manifest { .. } | Self::Broken { .. } => ErrorKind::Corrupt,
            Self::Unresolved { .. } | Self::Restless { .. } => ErrorKind::Unavailable,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Why a segment is not at hand.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The object is not in the store; a newer manifest may have dropped it.
    #[error("segment {segment} of {partition} is not in the store")]
    Missing { partition: PartitionRef, segment: SegmentId },
    /// The object is not what its manifest says.
    #[error("segment {segment} of {partition} is damaged: {message}")]
    Damaged { partition: PartitionRef, segment: SegmentId, message: String },
    /// A segment that was just built does not open.
    #[error("the built segment {path} is refused: {message}")]
    Built { path: String, message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CacheError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Built { .. } => ErrorKind::Internal,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Why a spec was not stored or read.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error(transparent)]
    Spec(#[from] sluice_core::SpecError),
    #[error("index {0} does not exist")]
    Unknown(IndexName),
    #[error("index {index} cannot change in place: {keys}")]
    NeedsRebuild { index: IndexName, keys: String },
    /// One topic feeds one index.
    #[error("index {index} cannot be created: its topic {topic} feeds index {other} already")]
    TopicTaken { index: IndexName, topic: TopicName, other: IndexName },
    #[error("{key} is not a spec: {message}")]
    Damaged { key: String, message: String },
    /// Somebody else stored specs faster than this call could follow.
    #[error("the spec of index {0} changes too fast")]
    Restless(IndexName),
    #[error("whether the spec of index {0} was stored is still open")]
    Unresolved(IndexName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistryError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(_) => ErrorKind::Invalid,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::NeedsRebuild { .. } | Self::TopicTaken { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Restless(_) | Self::Unresolved(_) => ErrorKind::Unavailable,
            Self::Store(error) => error.kind(),
        }
    }
}
