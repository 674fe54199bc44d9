//! The vocabulary of Sluice: what the other crates mean by record, partition, offset, version and budget.
//!
//! Reading this file is reading the glossary. Nothing here does I/O, and a thing enters only when two crates
//! need it.

pub mod backoff;
pub mod budget;
pub mod channel;
pub mod clock;
pub mod error;
pub mod failpoint;
pub mod ids;
pub mod invariant;
pub mod metadata;
pub mod mishap;
pub mod record;
pub mod schema;
pub mod secret;
pub mod shutdown;
pub mod size;
pub mod spec;
pub mod telemetry;
pub mod vector;

pub use backoff::{Backoff, Retry};
pub use budget::{ByteBudget, BytePermit};
pub use channel::{Receiver, Sender};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::ErrorKind;
pub use ids::{
    Epoch, Generation, IdError, IndexName, Key, ManifestSeq, Offset, PartitionId, PartitionRef, SegmentId,
    TopicName, TopicPartition,
};
pub use metadata::{Metadata, MetadataError};
pub use record::{Document, Op, Record, RecordBatch};
pub use schema::{FieldError, FieldName, FieldType, FieldValue, FieldValues, Schema};
pub use secret::Secret;
pub use shutdown::Gate;
pub use spec::{
    Format, GraphBuilder, GraphSpec, IndexSpec, Mapping, MergeSpec, Quantization, SealSpec, SpecDifference,
    SpecError,
};
pub use vector::{Dimension, Metric, Vector, VectorError, VectorType};
