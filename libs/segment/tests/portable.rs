//! The way of a record through memory alone, small enough for miri: set, file, opened from bytes, searched, damaged.
//!
//! Miri has neither vector instructions nor mapped files, so what it sees are the plain kernels and the copied bytes;
//! flat segments only, for the graph builder would take hours there. `cargo xtask miri` runs it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{FIELDS, METRICS, Random, delete, options, query, schema, sealed_bytes, upsert, vector};
use roaring::RoaringBitmap;
use sluice_segment::{Filter, GrowingSet, Segment};

const ROWS: usize = if cfg!(miri) { 12 } else { 200 };
const DAMAGES: usize = if cfg!(miri) { 40 } else { 4000 };

fn set(metric: sluice_core::Metric) -> GrowingSet {
    let schema = schema(5, metric, &FIELDS);
    let mut set = GrowingSet::new(schema.clone());
    let mut random = Random(3);
    for i in 0..ROWS as u64 * 2 {
        let key = format!("k{}", random.below(ROWS));
        if i % 7 == 6 {
            set.apply(delete(&key, i));
        } else {
            let metadata =
                format!(r#"{{"tag":["a","b{}"],"size":{i},"flag":true,"weight":0.5,"at":{i}}}"#, i % 3);
            set.apply(upsert(&schema, &key, i, &random.vector(5), &metadata));
        }
    }
    set
}

#[test]
fn a_set_and_its_segment_answer_alike_and_damage_is_refused() {
    for metric in METRICS {
        let set = set(metric);
        let schema = set.schema().clone();
        let bytes = sealed_bytes(&set, &options(1_000_000));
        let segment = Segment::from_bytes(&bytes).unwrap();
        let filter = Filter::parse(&serde_json::json!({"tag": "b1", "size": {"$gt": 3}}), &schema).unwrap();
        let vector = vector(&schema, &[0.5, -1.0, 2.0, 0.25, 1.0]);
        for filter in [None, Some(&filter)] {
            for k in [1, 3, ROWS * 2] {
                let query = sluice_segment::Query { filter, ..query(&vector, k, false) };
                let of_set = set.search(&query).unwrap();
                let of_segment = segment.search(&query, &RoaringBitmap::new()).unwrap();
                let of_set: Vec<_> = of_set.iter().map(|h| set.row(h.row).key).collect();
                let of_segment: Vec<_> = of_segment.iter().map(|h| segment.row(h.row).key).collect();
                assert_eq!(of_set, of_segment);
            }
        }
        for row in 0..segment.len() {
            assert_eq!(segment.find(segment.row(row).key), Some(row));
        }
        let mut random = Random(9);
        for _ in 0..DAMAGES {
            let mut bad = bytes.clone();
            let at = random.below(bytes.len());
            bad[at] ^= 1 << random.below(8);
            assert!(Segment::from_bytes(&bad).is_err(), "byte {at}");
            assert!(Segment::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
