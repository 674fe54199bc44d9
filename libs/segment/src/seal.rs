//! Seal: the growing set's live records become a segment.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::build::build;
use crate::growing::SetRows;
use crate::{BuildError, BuildOptions, Built, GrowingSet};

/// Writes the live records of `set`, in offset order, to a segment at `path` and syncs it. Tombstones are not
/// written: they act on older segments, which is the caller's business.
///
/// The same records and seed give the same bytes, whatever the number of threads; but where the graph is built by
/// hnsw_rs on more than one, since that links points as they come.
///
/// # Errors
/// When there is no live record, when the file cannot be written, or when `cancelled` was set; nothing is left
/// at `path` then.
pub fn seal(
    set: &GrowingSet,
    options: &BuildOptions,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<Built, BuildError> {
    build(&SetRows::new(set), set.schema(), options, None, path, cancelled)
}
