//! Segments on the local disk.

use std::path::Path;

use crate::error::CacheError;
use crate::store::Store;

/// Segments on the local disk, named by digest, verified, opened once, shared.
#[derive(Debug, Clone)]
pub struct SegmentCache {}

impl SegmentCache {
    pub fn open(dir: &Path, max_bytes: u64, store: Store) -> Result<Self, CacheError> {
        unimplemented!("{dir:?} {max_bytes} {store:?}")
    }
}
