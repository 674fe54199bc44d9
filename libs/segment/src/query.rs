//! What is asked of a set of rows, and what comes back.

use std::sync::atomic::{AtomicBool, Ordering};

use sluice_core::{ErrorKind, Vector};
use thiserror::Error;

use crate::Filter;

/// One search over one growing set or segment.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Validated against the same schema as the rows.
    pub vector: &'a Vector,
    /// Most hits wanted; 0 is answered with none.
    pub k: usize,
    /// Candidates that a graph search keeps; at least `k` are kept.
    pub ef: usize,
    /// Scans every row that matches instead of walking the graph.
    pub exact: bool,
    pub filter: Option<&'a Filter>,
    /// Smallest score under cosine and dot, largest distance under l2, both inclusive.
    pub bound: Option<f32>,
    /// Set by whoever gave up on the answer; looked at every few hundred rows.
    pub cancelled: &'a AtomicBool,
}

impl Query<'_> {
    pub(crate) fn check_cancelled(&self) -> Result<(), Cancelled> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
    }
}

/// One row of an answer. Answers are best first; equal scores stand in row order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub row: u32,
    /// Cosine in [-1, 1] or dot product (larger is better), Euclidean distance under l2 (smaller is better).
    pub score: f32,
}

/// The caller gave up before there was an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the work was cancelled")]
pub struct Cancelled;

impl Cancelled {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Closed
    }
}
