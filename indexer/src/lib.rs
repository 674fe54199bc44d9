//! Turns one partition's records into published segments. Knows neither Kafka nor object storage: records come in
//! as a `Stream` of batches, snapshots leave through [`Publisher`], segments come back through [`SegmentFetch`].
//!
//! [`PartitionWorker`] is the one task that owns a partition. What to seal and what to merge is decided by pure
//! functions ([`seal_policy`], [`merge_policy`]), built on a bounded [`ComputePool`], and becomes true only when a
//! manifest is published: at any manifest with next offset O, the live rows are the fold of the log before O.

mod build;
mod drain;
mod edge;
mod error;
mod growing;
mod mark;
pub mod merge_policy;
pub mod metrics;
mod pool;
mod publication;
mod recover;
mod running;
mod scratch;
pub mod seal_policy;
mod snapshot;
mod stage;
mod status;
mod worker;

pub use build::BuildBudget;
pub use edge::{NewSegment, Publication, Publisher, SegmentFetch, SegmentState};
pub use error::{EdgeError, IndexerError};
pub use pool::{ComputePool, Lane, PoolError};
pub use recover::Recovered;
pub use status::{Phase, SlowBuild, WorkerStatus};
pub use worker::{Exit, PartitionWorker, WorkerParams};
