//! Signatures only.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roaring::RoaringBitmap;
use serde::Serialize;
use sluice_core::*;

use crate::*;

#[derive(Debug, Clone, PartialEq)]
pub struct Filter;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(pub(crate) String);
impl FilterError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
impl Filter {
    pub fn parse(value: &serde_json::Value, schema: &Schema) -> Result<Self, FilterError> {
        unimplemented!()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Inserted,
    Replaced,
    Deleted,
    Stale,
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Newest<'a> {
    Live(u32, RowRef<'a>),
    Deleted(Offset),
}
impl Newest<'_> {
    pub fn offset(&self) -> Offset {
        unimplemented!()
    }
}
#[derive(Debug)]
pub struct GrowingSet;
impl GrowingSet {
    pub fn new(schema: Arc<Schema>) -> Self {
        unimplemented!()
    }
    pub fn schema(&self) -> &Arc<Schema> {
        unimplemented!()
    }
    pub fn apply(&mut self, record: Record) -> Applied {
        unimplemented!()
    }
    pub fn live_len(&self) -> usize {
        unimplemented!()
    }
    /// No key was touched, not even by a delete.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn get(&self, key: &str) -> Option<Newest<'_>> {
        unimplemented!()
    }
    pub fn newest(&self) -> impl Iterator<Item = (&str, Offset)> {
        std::iter::empty()
    }
    pub fn search(&self, query: &Query<'_>) -> Result<Vec<Hit>, Cancelled> {
        unimplemented!()
    }
    pub fn row(&self, row: u32) -> RowRef<'_> {
        unimplemented!()
    }
    pub fn count(&self, filter: Option<&Filter>) -> usize {
        unimplemented!()
    }
    pub fn live_rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        std::iter::empty()
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct SegmentInfo {
    pub version: u32,
    pub rows: u32,
    pub bytes: u64,
}
#[derive(Debug)]
pub struct Segment;
impl Segment {
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        unimplemented!()
    }
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SegmentError> {
        unimplemented!()
    }
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        unimplemented!()
    }
    pub fn schema(&self) -> &Schema {
        unimplemented!()
    }
    pub fn bytes(&self) -> u64 {
        unimplemented!()
    }
    pub fn find(&self, key: &str) -> Option<u32> {
        unimplemented!()
    }
    pub fn row(&self, row: u32) -> RowRef<'_> {
        unimplemented!()
    }
    pub fn has_graph(&self) -> bool {
        unimplemented!()
    }
    pub fn info(&self) -> SegmentInfo {
        unimplemented!()
    }
    pub fn search(&self, query: &Query<'_>, deleted: &RoaringBitmap) -> Result<Vec<Hit>, Cancelled> {
        unimplemented!()
    }
    pub fn matching(&self, filter: &Filter, deleted: &RoaringBitmap) -> RoaringBitmap {
        unimplemented!()
    }
    pub fn warm(&self) {}
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    pub graph: GraphSpec,
    pub seed: u64,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub path: PathBuf,
    pub bytes: u64,
    pub digest: blake3::Hash,
    pub records: u32,
}
pub fn seal(
    set: &GrowingSet,
    options: &BuildOptions,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<Built, BuildError> {
    unimplemented!()
}
pub fn merge(
    inputs: &[(&Segment, &RoaringBitmap)],
    schema: &Schema,
    options: &BuildOptions,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<Built, BuildError> {
    unimplemented!()
}
pub fn build_memory(rows: u64, dimension: Dimension, graph: &GraphSpec) -> u64 {
    unimplemented!()
}
