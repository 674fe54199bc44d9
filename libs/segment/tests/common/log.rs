//! A log of operations on few keys, and its fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sluice_core::{FieldType, Metric, Record, Schema};
use sluice_segment::Segment;

use super::{delete, schema, upsert};

/// One operation on one of few keys: an upsert of a vector, or a delete.
pub type Operation = (u8, Option<[f32; 3]>);

/// What is known of a key: the offset of its newest version, and its vector unless it was deleted.
pub type Fold = BTreeMap<String, (u64, Option<[f32; 3]>)>;

/// At most `most` operations on twelve keys.
pub fn operations(most: usize) -> impl Strategy<Value = Vec<Operation>> {
    let vector =
        prop::array::uniform3(-10f32..10.0).prop_filter("not zero", |v| v.iter().any(|c| c.abs() > 0.1));
    prop::collection::vec((0u8..12, prop::option::weighted(0.75, vector)), 0..most)
}

/// The oracle: what the whole log amounts to.
pub fn fold(log: &[Operation]) -> Fold {
    let entries = log.iter().enumerate();
    entries.map(|(offset, (key, vector))| (format!("key{key}"), (offset as u64, *vector))).collect()
}

/// The record at `offset` of a log.
pub fn record(schema: &Schema, offset: usize, operation: &Operation) -> Record {
    let key = format!("key{}", operation.0);
    match operation.1 {
        Some(v) => upsert(schema, &key, offset as u64, &v, &format!(r#"{{"n":{offset}}}"#)),
        None => delete(&key, offset as u64),
    }
}

/// A live record: key, offset, vector.
pub type LiveRow = (String, u64, [f32; 3]);

/// The live records of a fold, in offset order.
pub fn live(fold: &Fold) -> Vec<LiveRow> {
    let mut rows: Vec<_> =
        fold.iter().filter_map(|(key, (offset, vector))| Some((key.clone(), *offset, (*vector)?))).collect();
    rows.sort_by_key(|(_, offset, _)| *offset);
    rows
}

/// The rows of a segment, each checked to be whole.
pub fn rows_of(segment: &Segment) -> Vec<LiveRow> {
    let rows = (0..segment.len()).map(|row| segment.row(row));
    rows.map(|r| {
        assert_eq!(r.metadata, format!(r#"{{"n":{}}}"#, r.offset));
        assert_eq!(r.timestamp.0, 1_700_000_000_000 + r.offset.0 as i64);
        (r.key.to_owned(), r.offset.0, r.vector.to_vec().try_into().unwrap())
    })
    .collect()
}

/// A schema whose metadata carry the offset that wrote them.
pub fn counted() -> Arc<Schema> {
    schema(3, Metric::L2, &[("n", FieldType::Integer)])
}
