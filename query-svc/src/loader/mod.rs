//! Keeps the catalogue up to date: one task looks for indexes, one per partition looks for newer snapshots.
//!
//! A newer manifest is fetched, verified and warmed first and swapped in last, by one atomic store. Whatever goes
//! wrong on the way leaves the snapshot before it serving (SEG-2) and is shown as the partition's trouble.

mod discovery;
mod error;
mod partition;

use std::sync::Arc;

use sluice_core::Clock;
use sluice_snapshotter::{SegmentCache, Store};
use tokio::sync::Semaphore;

pub(crate) use discovery::Discovery;

use crate::limits::LoaderOptions;

/// What every loader works with.
pub(crate) struct Supplies {
    pub(crate) store: Store,
    pub(crate) cache: SegmentCache,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: LoaderOptions,
    /// Snapshots being fetched and opened at once.
    pub(crate) loading: Semaphore,
}
