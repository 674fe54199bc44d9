//! The log: keyed changes at growing offsets, with gaps, its fold, and batches cut anywhere.

use std::collections::BTreeMap;

use sluice_core::{
    BytePermit, Dimension, Document, FieldValues, Key, Metadata, Metric, Offset, Op, PartitionId, Record,
    RecordBatch, Timestamp, Vector,
};
use sluice_indexer::EdgeError;

/// One change: what it does to which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) offset: u64,
    pub(crate) key: u8,
    pub(crate) delete: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) changes: Vec<Change>,
    /// First offset after the log; offsets between the last change and here hold nothing.
    pub(crate) end: u64,
}

impl Log {
    /// `changes` as (gap before it, key, delete).
    pub(crate) fn new(changes: &[(u64, u8, bool)], gap_at_end: u64) -> Self {
        let mut offset = 0;
        let place = |&(gap, key, delete): &(u64, u8, bool)| {
            let at = offset + gap;
            offset = at + 1;
            Change { offset: at, key, delete }
        };
        let changes = changes.iter().map(place).collect();
        Self { changes, end: offset + gap_at_end }
    }

    /// Upserts of these keys, at offsets 0, 1, 2 ..
    pub(crate) fn upserts(keys: impl IntoIterator<Item = u8>) -> Self {
        let changes: Vec<_> = keys.into_iter().map(|key| (0, key, false)).collect();
        Self::new(&changes, 0)
    }

    /// The same changes, and then these.
    pub(crate) fn then(&self, keys: impl IntoIterator<Item = (u8, bool)>) -> Self {
        let mut longer = self.clone();
        for (key, delete) in keys {
            longer.changes.push(Change { offset: longer.end, key, delete });
            longer.end += 1;
        }
        longer
    }

    /// What is live before `next`: the oracle.
    pub(crate) fn fold(&self, next: u64) -> BTreeMap<String, (u64, f32, String)> {
        let mut live = BTreeMap::new();
        for change in self.changes.iter().filter(|c| c.offset < next) {
            let key = format!("k{}", change.key);
            match change.delete {
                true => drop(live.remove(&key)),
                false => {
                    drop(live.insert(key, (change.offset, change.offset as f32, metadata(change.offset))))
                }
            }
        }
        live
    }

    /// The batch of all changes from `from` up to `to`.
    pub(crate) fn batch(&self, from: u64, to: u64) -> RecordBatch {
        let changes = self.changes.iter().filter(|c| (from..to).contains(&c.offset));
        RecordBatch {
            partition: PartitionId(0),
            records: changes.map(record).collect(),
            next_offset: Offset(to),
            log_end: Offset(self.end),
            dead_letters: 0,
            permit: BytePermit::none(),
        }
    }

    /// Batches of at most `size` offsets from `from` to the end.
    pub(crate) fn batches(&self, from: u64, size: u64) -> Vec<Result<RecordBatch, EdgeError>> {
        let starts = (from..self.end).step_by(usize::try_from(size).unwrap());
        starts.map(|at| Ok(self.batch(at, (at + size).min(self.end)))).collect()
    }
}

fn metadata(offset: u64) -> String {
    format!("{{\"offset\":{offset}}}")
}

pub(crate) fn record(change: &Change) -> Record {
    let components = vec![change.offset as f32, f32::from(change.key), 1.0, -1.0];
    let document = || Document {
        vector: Vector::try_new(components, Dimension::new(4).unwrap(), Metric::L2).unwrap(),
        metadata: Metadata::parse(&metadata(change.offset), 1000).unwrap(),
        fields: FieldValues::default(),
    };
    Record {
        key: Key::new(&format!("k{}", change.key)).unwrap(),
        offset: Offset(change.offset),
        timestamp: Timestamp(500_000 + i64::try_from(change.offset).unwrap()),
        op: if change.delete { Op::Delete } else { Op::Upsert(document()) },
    }
}
