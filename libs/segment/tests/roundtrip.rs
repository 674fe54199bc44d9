//! Records to set to segment to merged segment: what is read back is the fold of what was written.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::atomic::AtomicBool;

use common::log::{counted, fold, live, operations, record, rows_of};
use common::{METRICS, NEVER, Random, cases, delete, options, schema, sealed, sealed_bytes, set_of, upsert};
use proptest::prelude::*;
use sluice_core::{ErrorKind, FieldType, Metric, Offset, Quantization, Record};
use sluice_segment::{Applied, BuildError, GrowingSet, Newest, build_memory, merge, seal};

proptest! {
    #![proptest_config(cases(200))]

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
        prop_assert_eq!(segment.values_len(), set.values_len());
        prop_assert_eq!(rows_of(&segment), expected.clone());
        for (row, (key, _, _)) in expected.iter().enumerate() {
            prop_assert_eq!(segment.find(key), Some(row as u32));
        }
        prop_assert_eq!(segment.find("another"), None);
        prop_assert_eq!(segment.find(""), None);
        prop_assert_eq!(segment.schema(), schema.as_ref());
    }
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
    let none = roaring::RoaringBitmap::new();
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
    let memory = |rows, values| build_memory(rows, values, schema.dimension, &graph, Quantization::Sq8);
    assert!(memory(1000, 0) > memory(999, 0) + 1_000_000);
    assert!(memory(999, 100_000) > memory(999, 0) + 1_000_000);
    assert_eq!(memory(u64::MAX, 0), u64::MAX);
    assert_eq!(memory(1, u64::MAX), u64::MAX);
    assert_eq!(memory(u64::MAX, u64::MAX), u64::MAX);
}

#[test]
fn codes_are_charged_to_builds_that_make_them() {
    let graph = options(1000).graph;
    let memory = |rows, dimension, quantization| {
        build_memory(rows, 0, schema(dimension, Metric::L2, &[]).dimension, &graph, quantization)
    };
    let (none, sq8) = (Quantization::None, Quantization::Sq8);
    assert!(memory(600, 384, sq8) > memory(600, 384, none) + 600 * 384);
    assert_eq!(memory(600, 384, none), memory(600, 8, none));
    // too few rows, too few components
    assert_eq!(memory(511, 384, sq8), memory(511, 384, none));
    assert_eq!(memory(600, 31, sq8), memory(600, 31, none));
    // a graph is built from codes, whether or not they are written
    assert_eq!(memory(1000, 384, sq8), memory(1000, 384, none));
}
