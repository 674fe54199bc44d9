//! Records to set to segment to merged segment: what is read back is the fold of what was written.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use common::{METRICS, NEVER, Random, delete, merged, options, schema, sealed, sealed_bytes, set_of, upsert};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use sluice_core::{ErrorKind, FieldType, Metric, Offset, Record, Schema};
use sluice_segment::{Applied, BuildError, GrowingSet, Newest, Segment, build_memory, merge, seal};

/// One operation on one of few keys: an upsert of a vector, or a delete.
type Operation = (u8, Option<[f32; 3]>);

/// What is known of a key: the offset of its newest version, and its vector unless it was deleted.
type Fold = BTreeMap<String, (u64, Option<[f32; 3]>)>;

fn operations(most: usize) -> impl Strategy<Value = Vec<Operation>> {
    let vector =
        prop::array::uniform3(-10f32..10.0).prop_filter("not zero", |v| v.iter().any(|c| c.abs() > 0.1));
    prop::collection::vec((0u8..12, prop::option::weighted(0.75, vector)), 0..most)
}

fn fold(log: &[Operation]) -> Fold {
    let entries = log.iter().enumerate();
    entries.map(|(offset, (key, vector))| (format!("key{key}"), (offset as u64, *vector))).collect()
}

fn record(schema: &Schema, offset: usize, operation: &Operation) -> Record {
    let key = format!("key{}", operation.0);
    match operation.1 {
        Some(v) => upsert(schema, &key, offset as u64, &v, &format!(r#"{{"n":{offset}}}"#)),
        None => delete(&key, offset as u64),
    }
}

fn live(fold: &Fold) -> Vec<(String, u64, [f32; 3])> {
    let mut rows: Vec<_> =
        fold.iter().filter_map(|(key, (offset, vector))| Some((key.clone(), *offset, (*vector)?))).collect();
    rows.sort_by_key(|(_, offset, _)| *offset);
    rows
}

fn rows_of(segment: &Segment) -> Vec<(String, u64, [f32; 3])> {
    let rows = (0..segment.len()).map(|row| segment.row(row));
    rows.map(|r| {
        assert_eq!(r.metadata, format!(r#"{{"n":{}}}"#, r.offset));
        assert_eq!(r.timestamp.0, 1_700_000_000_000 + r.offset.0 as i64);
        (r.key.to_owned(), r.offset.0, r.vector.try_into().unwrap())
    })
    .collect()
}

fn counted() -> Arc<Schema> {
    schema(3, Metric::L2, &[("n", FieldType::Integer)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn fold_3_a_growing_set_is_the_fold_whatever_is_redelivered(
        log in operations(60), again in prop::collection::vec((any::<prop::sample::Index>(), 1usize..20), 0..6)
    ) {
        let schema = counted();
        let mut set = GrowingSet::new(schema.clone());
        for (offset, operation) in log.iter().enumerate() {
            set.apply(record(&schema, offset, operation));
            for (at, length) in &again {
                // some prefix of what was applied comes once more
                let from = at.index(offset + 1);
                for (o, operation) in log.iter().enumerate().take(offset + 1).skip(from).take(*length) {
                    prop_assert_eq!(set.apply(record(&schema, o, operation)), Applied::Stale);
                }
            }
        }
        let fold = fold(&log);
        prop_assert_eq!(set.live_len(), live(&fold).len());
        prop_assert_eq!(set.is_empty(), fold.is_empty());
        prop_assert_eq!(set.newest().count(), fold.len());
        for (key, (offset, vector)) in &fold {
            match (set.get(key), vector) {
                (Some(Newest::Live(row, live)), Some(v)) => {
                    prop_assert_eq!((live.offset.0, live.vector), (*offset, v.as_slice()));
                    prop_assert_eq!(set.row(row), live);
                }
                (Some(Newest::Deleted(at)), None) => prop_assert_eq!(at.0, *offset),
                (got, _) => prop_assert!(false, "{:?}", got),
            }
        }
        prop_assert_eq!(set.live_rows().count(), set.live_len());
    }

    #[test]
    fn a_segment_holds_what_was_sealed_in_offset_order(log in operations(60), graph in any::<bool>()) {
        let schema = counted();
        let mut set = GrowingSet::new(schema.clone());
        for (offset, operation) in log.iter().enumerate() {
            set.apply(record(&schema, offset, operation));
        }
        let expected = live(&fold(&log));
        prop_assume!(!expected.is_empty());
        let segment = sealed(&set, &options(if graph { 1 } else { 1000 }));
        prop_assert_eq!(segment.has_graph(), graph);
        prop_assert_eq!(rows_of(&segment), expected.clone());
        for (row, (key, _, _)) in expected.iter().enumerate() {
            prop_assert_eq!(segment.find(key), Some(row as u32));
        }
        prop_assert_eq!(segment.find("another"), None);
        prop_assert_eq!(segment.find(""), None);
        prop_assert_eq!(segment.schema(), schema.as_ref());
    }

    #[test]
    fn fold_4_merging_changes_no_version(
        log in operations(120),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..7),
        tree in prop::collection::vec((any::<prop::sample::Index>(), 2usize..5), 0..4),
        graph in any::<bool>(),
    ) {
        let schema = counted();
        let options = options(if graph { 1 } else { 1000 });
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(log.len() + 1)).chain([0, log.len()]).collect();
        cuts.sort_unstable();
        // each stretch of the log is sealed; a newer stretch marks the rows that it supersedes as deleted
        let mut segments: Vec<(Segment, RoaringBitmap)> = Vec::new();
        for pair in cuts.windows(2) {
            let mut set = GrowingSet::new(schema.clone());
            for (offset, operation) in log.iter().enumerate().take(pair[1]).skip(pair[0]) {
                set.apply(record(&schema, offset, operation));
            }
            for (segment, deleted) in &mut segments {
                deleted.extend(set.newest().filter_map(|(key, _)| segment.find(key)));
            }
            if set.live_len() > 0 {
                segments.push((sealed(&set, &options), RoaringBitmap::new()));
            }
        }
        for (at, count) in tree {
            if segments.is_empty() { break; }
            let from = at.index(segments.len());
            let group: Vec<_> = segments.drain(from..segments.len().min(from + count)).collect();
            let inputs: Vec<_> = group.iter().map(|(s, d)| (s, d)).collect();
            if group.iter().any(|(s, d)| u64::from(s.len()) > d.len()) {
                segments.push((merged(&inputs, &schema, &options), RoaringBitmap::new()));
            }
        }
        let mut got: Vec<_> = segments
            .iter()
            .flat_map(|(segment, deleted)| {
                let rows = rows_of(segment).into_iter().zip(0u32..);
                rows.filter(|(_, row)| !deleted.contains(*row)).map(|(row, _)| row)
            })
            .collect();
        got.sort_by_key(|(_, offset, _)| *offset);
        prop_assert_eq!(got, live(&fold(&log)));
    }
}

#[test]
fn fold_4_a_version_that_another_input_supersedes_is_gone_even_if_the_newer_one_is_deleted() {
    let schema = counted();
    let segment_of = |records: &[(&str, u64)]| {
        let mut set = GrowingSet::new(schema.clone());
        for (key, offset) in records {
            set.apply(upsert(&schema, key, *offset, &[1.0, 2.0, 3.0], &format!(r#"{{"n":{offset}}}"#)));
        }
        sealed(&set, &options(1000))
    };
    let (old, new) = (segment_of(&[("a", 1), ("b", 2)]), segment_of(&[("a", 5), ("b", 6), ("c", 7)]));
    let none = RoaringBitmap::new();
    let dead: RoaringBitmap = [new.find("a").unwrap()].into_iter().collect();
    let got = merged(&[(&old, &none), (&new, &dead)], &schema, &options(1000));
    let versions: Vec<_> = rows_of(&got).into_iter().map(|(key, offset, _)| (key, offset)).collect();
    assert_eq!(versions, [("b".to_owned(), 6), ("c".to_owned(), 7)]);
    // the same segment twice counts once
    let twice = merged(&[(&new, &none), (&new, &none)], &schema, &options(1000));
    assert_eq!(rows_of(&twice), rows_of(&new));
}

#[test]
fn applying_says_what_it_did() {
    let schema = counted();
    let mut set = GrowingSet::new(schema.clone());
    let put = |offset| upsert(&schema, "a", offset, &[1.0; 3], "{}");
    assert_eq!(set.apply(put(5)), Applied::Inserted);
    assert_eq!(set.apply(put(5)), Applied::Stale);
    assert_eq!(set.apply(put(4)), Applied::Stale);
    assert_eq!(set.apply(put(6)), Applied::Replaced);
    assert_eq!(set.apply(delete("a", 6)), Applied::Stale);
    assert_eq!(set.apply(delete("a", 7)), Applied::Deleted);
    assert_eq!(set.apply(put(3)), Applied::Stale);
    assert_eq!(set.get("a"), Some(Newest::Deleted(Offset(7))));
    assert_eq!((set.live_len(), set.is_empty()), (0, false));
    assert_eq!(set.apply(put(8)), Applied::Inserted);
    assert_eq!(set.get("a").unwrap().offset(), Offset(8));
    assert_eq!(set.get("b"), None);
}

#[test]
fn mem_1_overwriting_the_same_keys_does_not_grow_the_set() {
    let schema = schema(64, Metric::L2, &[]);
    let mut set = GrowingSet::new(schema.clone());
    let mut random = Random(1);
    let mut after_first = 0;
    for offset in 0..20_000u64 {
        let key = format!("k{}", offset % 100);
        let record = if offset % 7 == 6 {
            delete(&key, offset)
        } else {
            upsert(&schema, &key, offset, &random.vector(64), "{\"a\":1}")
        };
        set.apply(record);
        if offset == 999 {
            after_first = set.bytes();
        }
    }
    assert!(set.bytes() <= after_first + after_first / 2, "{} after {after_first}", set.bytes());
    assert!(set.bytes() >= 100 * 64 * 4);
}

#[test]
fn seg_5_flat_segments_are_the_same_bytes_for_the_same_records() {
    for metric in METRICS {
        let schema = schema(8, metric, &[("n", FieldType::Integer), ("t", FieldType::Keyword)]);
        let mut random = Random(2);
        let records: Vec<Record> = (0..300)
            .map(|i| {
                let metadata = format!(r#"{{"n":{i},"t":["x{}","y"]}}"#, i % 7);
                upsert(&schema, &format!("k{}", i % 250), i, &random.vector(8), &metadata)
            })
            .collect();
        let build = |records: &[Record]| {
            let mut set = GrowingSet::new(schema.clone());
            records.iter().for_each(|r| {
                set.apply(r.clone());
            });
            sealed_bytes(&set, &options(1000))
        };
        let backwards: Vec<Record> = records.iter().rev().cloned().collect();
        assert_eq!(build(&records), build(&records));
        assert_eq!(build(&records), build(&backwards));
    }
}

#[test]
fn seg_5_graphs_are_the_same_bytes_for_the_same_seed_on_one_thread() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for metric in METRICS {
        let (vectors, _) = common::clustered(6, 1500, 0, 8, 10);
        let set = set_of(&schema(8, metric, &[]), &vectors);
        let build = |seed| {
            let mut options = options(1);
            options.seed = seed;
            pool.install(|| sealed_bytes(&set, &options))
        };
        assert_eq!(build(1), build(1));
        assert_ne!(build(1), build(2));
    }
}

#[test]
fn a_build_that_was_cancelled_or_failed_leaves_no_file() {
    let (vectors, _) = common::clustered(6, 500, 0, 8, 10);
    let schema = schema(8, Metric::L2, &[]);
    let set = set_of(&schema, &vectors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.seg");
    for min_records in [1, 1000] {
        let error = seal(&set, &options(min_records), &path, &AtomicBool::new(true)).unwrap_err();
        assert!(matches!(error, BuildError::Cancelled(_)), "{error}");
        assert!(!path.exists());
    }
    let error = seal(&GrowingSet::new(schema.clone()), &options(1), &path, &NEVER).unwrap_err();
    assert!(matches!(error, BuildError::Empty));
    let error = seal(&set, &options(1000), &dir.path().join("no/such/dir"), &NEVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let segment = sealed(&set, &options(1000));
    let other = common::schema(8, Metric::Dot, &[]);
    let none = RoaringBitmap::new();
    let error = merge(&[(&segment, &none)], &other, &options(1), &path, &NEVER).unwrap_err();
    assert!(matches!(error, BuildError::Schema { input: 0 }));
    let all = (0..segment.len()).collect();
    let error = merge(&[(&segment, &all)], &schema, &options(1), &path, &NEVER).unwrap_err();
    assert!(matches!(error, BuildError::Empty));
    assert!(!path.exists());
}

#[test]
fn a_build_with_a_graph_is_charged_more_and_no_number_overflows() {
    let schema = schema(384, Metric::Cosine, &[]);
    let graph = options(1000).graph;
    let flat = build_memory(999, schema.dimension, &graph);
    let with_graph = build_memory(1000, schema.dimension, &graph);
    assert!(with_graph > flat + 1_000_000);
    assert_eq!(build_memory(u64::MAX, schema.dimension, &graph), u64::MAX);
}
