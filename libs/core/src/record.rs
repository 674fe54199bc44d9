//! A record: one keyed change, upsert or delete, and the batch in which records travel.

use crate::{BytePermit, FieldValues, Key, Metadata, Offset, PartitionId, Timestamp, Vector};

/// What an upsert carries. `fields` are the declared fields read out of `metadata`.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub vector: Vector,
    pub metadata: Metadata,
    pub fields: FieldValues,
}

/// What a record does to its key.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Upsert(Document),
    Delete,
}

/// One keyed change. Its version is `offset`; `timestamp` is the log's and decides only between partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub key: Key,
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub op: Op,
}

impl Record {
    /// Bytes that this record is charged for while it travels and while it stands in a growing set.
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 160;
        let body = match &self.op {
            Op::Upsert(d) => d.vector.as_slice().len() * 4 + d.metadata.as_str().len() * 2,
            Op::Delete => 0,
        };
        FIXED + self.key.as_str().len() * 2 + body
    }
}

/// Consecutive records of one partition, in offset order, with the bytes they are charged for.
///
/// A batch may be empty: it then only moves `next_offset` over offsets that hold no record (compaction,
/// transaction markers, dead letters).
#[derive(Debug)]
pub struct RecordBatch {
    pub partition: PartitionId,
    pub records: Vec<Record>,
    /// First offset after this batch.
    pub next_offset: Offset,
    /// End of the log as last seen by the source; `log_end - next_offset` is the lag in records.
    pub log_end: Offset,
    /// Messages of this span that became dead letters.
    pub dead_letters: u64,
    /// Freed when the last holder of the batch's bytes drops it.
    pub permit: BytePermit,
}
