//! Garbage collection: plan, durable boundary, delete.

use std::time::Duration;

use serde::Serialize;
use sluice_core::{Clock, IndexName, PartitionRef};

use crate::error::ProtocolError;
use crate::store::Store;

/// What is kept.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Newest manifests that are kept in any case, at least 1.
    pub retain: u32,
    /// A manifest superseded less than this ago is kept too.
    pub grace: Duration,
    /// Plan and report only.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { retain: 4, grace: Duration::from_secs(15 * 60), dry_run: false }
    }
}

/// What was collected (or would be).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    pub dry_run: bool,
    pub partitions: u64,
    pub boundaries: u64,
    pub manifests: u64,
    pub segments: u64,
    pub bytes: u64,
}

/// Collects one partition of a live generation.
pub async fn run(
    store: &Store,
    partition: &PartitionRef,
    options: &GcOptions,
    clock: &dyn Clock,
) -> Result<GcReport, ProtocolError> {
    let _ = (store, partition, options, clock.now());
    unimplemented!()
}

/// Collects everything, or one index: every partition of live generations, and retired generations as a whole.
pub async fn run_all(
    store: &Store,
    index: Option<&IndexName>,
    options: &GcOptions,
    clock: std::sync::Arc<dyn Clock>,
) -> Result<GcReport, ProtocolError> {
    let _ = (store, index, options, clock);
    unimplemented!()
}
