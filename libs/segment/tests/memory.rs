//! MEM-1: what a flat build holds is no more than what is charged for it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{FIELDS, NEVER, Random, options, schema, sealed, upsert};
use counting::peak;
use roaring::RoaringBitmap;
use sluice_core::{Metric, Quantization};
use sluice_segment::{GrowingSet, build_memory, merge, seal};

/// What sealing rows with this metadata holds, and what is charged: each with the set itself.
fn held_and_charged(rows: usize, metadata: impl Fn(usize) -> String) -> (usize, usize) {
    let schema = schema(3, Metric::L2, &FIELDS);
    let dir = tempfile::tempdir().unwrap();
    let options = options(u32::MAX);
    let ((live, values, bytes), held) = peak(|| {
        let mut set = GrowingSet::new(schema.clone());
        for row in 0..rows {
            set.apply(upsert(&schema, &format!("key-{row}"), row as u64, &[1.0; 3], &metadata(row)));
        }
        seal(&set, &options, &dir.path().join("x.seg"), &NEVER).unwrap();
        (set.live_len() as u64, set.values_len(), set.bytes())
    });
    let build = build_memory(live, values, schema.dimension, &options.graph, Quantization::Sq8);
    (held, bytes + build as usize)
}

fn list(of: impl Iterator<Item = String>) -> String {
    format!("[{}]", of.collect::<Vec<_>>().join(","))
}

#[test]
fn mem_1_a_flat_seal_of_rows_with_many_values_holds_no_more_than_is_charged() {
    const EACH: usize = 4000;
    let field = |name: &str, value: &dyn Fn(usize) -> String| {
        let metadata =
            |row: usize| format!("{{\"{name}\":{}}}", list((0..EACH).map(|i| value(row * EACH + i))));
        let (held, charged) = held_and_charged(60, metadata);
        assert!(held <= charged, "{name}: {held} held, {charged} charged");
    };
    field("tag", &|i| format!("\"word {i:08}\""));
    field("tag", &|i| format!("\"{}\"", i % 7));
    field("tag", &|i| format!("\"{:x}\"", Random(i as u64).bits()));
    field("size", &|i| i.to_string());
    field("size", &|i| (Random(i as u64).bits() >> 12).to_string());
    field("weight", &|i| format!("{}.5", i % 100));
    field("flag", &|i| i.is_multiple_of(3).to_string());
}

#[test]
fn mem_1_a_flat_seal_of_many_rows_holds_no_more_than_is_charged() {
    for words in [1, 3] {
        let metadata = |row: usize| {
            let tags = list((0..words).map(|i| format!("\"word {row:08} {i}\"")));
            format!("{{\"tag\":{tags},\"size\":{row},\"flag\":true}}")
        };
        let (held, charged) = held_and_charged(20_000, metadata);
        assert!(held <= charged, "{words} words: {held} held, {charged} charged");
    }
}

#[test]
fn mem_1_a_flat_merge_of_rows_with_many_values_holds_no_more_than_is_charged() {
    let schema = schema(3, Metric::L2, &FIELDS);
    let options = options(u32::MAX);
    let segments = [0, 1].map(|part: usize| {
        let mut set = GrowingSet::new(schema.clone());
        for row in (0..60).map(|row| part * 60 + row) {
            let values = |of: &dyn Fn(usize) -> String| list((0..2000).map(|i| of(row * 2000 + i)));
            let tags = values(&|i| format!("\"word {i:08}\""));
            let metadata = format!("{{\"tag\":{tags},\"size\":{}}}", values(&|i| i.to_string()));
            set.apply(upsert(&schema, &format!("key-{row}"), row as u64, &[1.0; 3], &metadata));
        }
        sealed(&set, &options)
    });
    let none = RoaringBitmap::new();
    let inputs = segments.each_ref().map(|segment| (segment, &none));
    let dir = tempfile::tempdir().unwrap();
    let (_, held) = peak(|| merge(&inputs, &schema, &options, &dir.path().join("x.seg"), &NEVER).unwrap());
    let (rows, values) = (120, segments.iter().map(|segment| segment.values_len()).sum());
    let charged = build_memory(rows, values, schema.dimension, &options.graph, Quantization::Sq8);
    assert_eq!(values, 120 * 4000);
    assert!(held as u64 <= charged, "{held} held, {charged} charged");
    assert!(held as u64 > build_memory(rows, 0, schema.dimension, &options.graph, Quantization::Sq8));
}

#[test]
fn mem_1_a_seal_with_a_graph_and_short_codes_holds_no_more_than_is_charged() {
    const DIMENSION: usize = 192;
    let mut random = Random(4);
    let axes: Vec<Vec<f32>> = (0..20).map(|_| random.vector(DIMENSION)).collect();
    let schema = schema(DIMENSION, Metric::Cosine, &[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.seg");
    let options = options(1);
    let ((live, bytes), held) = peak(|| {
        let mut set = GrowingSet::new(schema.clone());
        for row in 0..20_000 {
            let mut vector = vec![1.0; DIMENSION];
            for axis in &axes {
                let by = random.normal();
                vector.iter_mut().zip(axis).for_each(|(c, a)| *c += by * a);
            }
            set.apply(upsert(&schema, &format!("key-{row}"), row, &vector, "{}"));
        }
        seal(&set, &options, &path, &NEVER).unwrap();
        (set.live_len() as u64, set.bytes())
    });
    assert!(sluice_segment::Segment::open(&path).unwrap().info().axes.is_some());
    let charged = bytes + build_memory(live, 0, schema.dimension, &options.graph, Quantization::Sq8) as usize;
    assert!(held <= charged, "{held} held, {charged} charged");
}
