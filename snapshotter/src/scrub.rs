//! Walks every object and reports what is missing, damaged or nobody's.

use serde::Serialize;
use sluice_core::IndexName;

use crate::error::StoreError;
use crate::store::Store;

/// What scrub looks at.
#[derive(Debug, Clone, Default)]
pub struct ScrubOptions {
    /// One index only.
    pub index: Option<IndexName>,
    /// Compare names and sizes only, do not read segments.
    pub shallow: bool,
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScrubProgress {
    pub objects_done: u64,
    pub objects_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    Missing,
    Damaged,
    Orphan,
    Foreign,
}

/// One object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub problem: Problem,
    pub key: String,
    pub detail: String,
}

/// What a scrub saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScrubReport {
    pub indexes: u64,
    pub partitions: u64,
    pub manifests: u64,
    pub segments: u64,
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

/// Walks the store.
pub async fn run(
    store: &Store,
    options: &ScrubOptions,
    progress: impl FnMut(ScrubProgress) + Send,
) -> Result<ScrubReport, StoreError> {
    let _ = (store, options, progress);
    unimplemented!()
}
