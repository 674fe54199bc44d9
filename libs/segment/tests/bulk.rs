//! The bulk builder on sets large enough to be partitioned: SEG-4 and SEG-5, merging, and data that hurts.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{
    METRICS, Random, clustered, found, merged, options, query, schema, sealed, sealed_bytes, set_of, vector,
};
use roaring::RoaringBitmap;
use sluice_core::{Metric, Quantization};
use sluice_segment::{BuildOptions, Segment};

/// Recall@10 over `queries` at the default ef.
fn recall(segment: &Segment, queries: &[Vec<f32>]) -> f64 {
    let none = RoaringBitmap::new();
    let (mut good, mut all) = (0, 0);
    for q in queries {
        let q = vector(segment.schema(), q);
        let exact = segment.search(&query(&q, 10, true), &none).unwrap();
        let got = segment.search(&query(&q, 10, false), &none).unwrap();
        assert_eq!(got.len(), exact.len());
        good += found(segment.schema().metric, &got, &exact);
        all += exact.len();
    }
    good as f64 / all as f64
}

fn quantization(segment: &Segment) -> Quantization {
    segment.info().quantization
}

#[test]
fn seg_4_graphs_of_partitioned_sets_are_found_in_at_every_metric_and_dimension() {
    for metric in METRICS {
        for dimension in [2, 33, 64] {
            let (vectors, queries) = clustered(5, 5000, 40, dimension, 40);
            let schema = schema(dimension, metric, &[]);
            let set = set_of(&schema, &vectors);
            for wanted in [Quantization::Sq8, Quantization::None] {
                let options = BuildOptions { quantization: wanted, ..options(1) };
                let segment = sealed(&set, &options);
                let coded = wanted == Quantization::Sq8 && dimension >= 32;
                assert_eq!(quantization(&segment) == Quantization::Sq8, coded);
                let got = recall(&segment, &queries);
                assert!(got >= 0.95, "{metric} {dimension} {wanted:?}: {got}");
            }
        }
    }
}

#[test]
fn seg_5_the_same_records_and_seed_give_the_same_bytes_at_any_number_of_threads() {
    for vectors in [clustered(6, 6000, 0, 40, 30).0, few_axes(17_000, 0, usize::MAX).0] {
        let set = set_of(&schema(vectors[0].len(), Metric::Cosine, &[]), &vectors);
        let built = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sealed_bytes(&set, &options(1)))
        };
        let one = built(1);
        for threads in [1, 2, 5] {
            assert!(built(threads) == one, "{threads} threads");
        }
        let other = BuildOptions { seed: 8, ..options(1) };
        assert!(sealed_bytes(&set, &other) != one, "another seed is another graph");
    }
}

/// Vectors that vary along ten axes, but for one in `every`, which varies along all; and queries of the first kind.
fn few_axes(n: usize, queries: usize, every: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    const DIMENSION: usize = 96;
    let mut random = Random(11);
    let axes: Vec<Vec<f32>> = (0..10).map(|_| random.vector(DIMENSION)).collect();
    let mut draw = |i: usize| -> Vec<f32> {
        let mut vector = random.vector(DIMENSION);
        if !i.is_multiple_of(every) {
            vector.iter_mut().for_each(|c| *c = 0.1 * *c + 3.0);
            for axis in &axes {
                let along = random.normal();
                vector.iter_mut().zip(axis).for_each(|(c, d)| *c += along * d);
            }
        }
        vector
    };
    let vectors = (1..=n).map(&mut draw).collect();
    (vectors, (1..every).cycle().map(draw).take(queries).collect())
}

#[test]
fn seg_4_vectors_that_vary_along_few_axes_are_found() {
    for (metric, every) in METRICS.into_iter().flat_map(|metric| [(metric, usize::MAX), (metric, 4)]) {
        let (vectors, queries) = few_axes(20_000, 60, every);
        let segment = sealed(&set_of(&schema(96, metric, &[]), &vectors), &options(1));
        assert_eq!(quantization(&segment), Quantization::Sq8);
        let axes = segment.info().axes;
        if every == usize::MAX {
            assert!(axes.is_some_and(|axes| axes <= 48), "{metric}: {axes:?}");
        }
        let got = recall(&segment, &queries);
        assert!(got >= 0.95, "{metric} {every} {axes:?}: {got}");
    }
}

#[test]
fn seg_4_short_codes_are_as_long_as_tells_rows_apart_and_absent_where_none_do() {
    let axes = |vectors: &[Vec<f32>]| {
        let segment = sealed(&set_of(&schema(vectors[0].len(), Metric::L2, &[]), vectors), &options(1));
        assert_eq!(quantization(&segment), Quantization::Sq8);
        segment.info().axes
    };
    let mut random = Random(5);
    // rows that vary alike along all components, and too few rows to be worth it
    let all: Vec<Vec<f32>> = (0..17_000).map(|_| random.vector(96)).collect();
    assert_eq!(axes(&all), None);
    assert_eq!(axes(&few_axes(8000, 0, usize::MAX).0), None);
    // forty axes of 256 have room in one line, eighty do not
    for (planted, expected) in [(40, 56), (80, 120)] {
        let along: Vec<Vec<f32>> = (0..planted).map(|_| random.vector(256)).collect();
        let mut one = || {
            let mut vector = vec![0.0; 256];
            for axis in &along {
                let by = random.normal();
                vector.iter_mut().zip(axis).for_each(|(c, a)| *c += by * a);
            }
            vector
        };
        let vectors: Vec<Vec<f32>> = (0..17_000).map(|_| one()).collect();
        assert_eq!(axes(&vectors), Some(expected), "{planted}");
    }
}

#[test]
fn seg_4_short_codes_find_deleted_and_filtered_rows_out() {
    let (vectors, queries) = few_axes(20_000, 20, usize::MAX);
    let schema = schema(96, Metric::Cosine, &[("n", sluice_core::FieldType::Integer)]);
    let mut set = sluice_segment::GrowingSet::new(schema.clone());
    for (i, v) in vectors.iter().enumerate() {
        set.apply(common::upsert(&schema, &format!("k{i}"), i as u64, v, &format!(r#"{{"n":{}}}"#, i % 100)));
    }
    let segment = sealed(&set, &options(1));
    assert!(segment.info().axes.is_some());
    let dead: RoaringBitmap = (0..segment.len()).filter(|row| row % 3 == 0).collect();
    for most in [1, 10, 60] {
        let filter = serde_json::json!({"n": {"$lt": most}});
        let filter = sluice_segment::Filter::parse(&filter, &schema).unwrap();
        let (mut good, mut all) = (0, 0);
        for q in &queries {
            let q = vector(&schema, q);
            for k in [10, 100] {
                let exact = segment.search(&common::filtered(&q, k, true, &filter), &dead).unwrap();
                let got = segment.search(&common::filtered(&q, k, false, &filter), &dead).unwrap();
                assert_eq!((got.len(), exact.len()), (k, k));
                assert!(got.iter().all(|hit| !dead.contains(hit.row) && hit.row % 100 < most));
                good += found(Metric::Cosine, &got, &exact);
                all += k;
            }
        }
        assert!(good * 100 >= all * 95, "{most}: {good} of {all}");
    }
}

/// Moves vectors in turn by one of these.
fn moved(mut vectors: Vec<Vec<f32>>, by: &[Vec<f32>]) -> Vec<Vec<f32>> {
    for (vector, by) in vectors.iter_mut().zip(by.iter().cycle()) {
        vector.iter_mut().zip(by).for_each(|(c, by)| *c += by);
    }
    vectors
}

#[test]
fn seg_4_groups_far_apart_whose_rows_vary_along_other_axes_are_all_come_down_in() {
    let mut random = Random(3);
    // eight, each moved along an axis of its own, and a hundred moved anywhere
    let own: Vec<Vec<f32>> = (80..88).map(|own| (0..96).map(|at| f32::from(at == own)).collect()).collect();
    let any: Vec<Vec<f32>> = (0..100).map(|_| random.vector(96)).collect();
    for (metric, by, far) in METRICS.into_iter().flat_map(|metric| {
        [(&own, 40.0), (&own, 150.0), (&own, 1000.0), (&any, 15.0), (&any, 100.0)]
            .map(|(by, far)| (metric, by, far))
    }) {
        let by: Vec<Vec<f32>> = by.iter().map(|by| by.iter().map(|c| c * far).collect()).collect();
        let (vectors, queries) = few_axes(20_000, 60, usize::MAX);
        let (vectors, queries) = (moved(vectors, &by), moved(queries, &by));
        let segment = sealed(&set_of(&schema(96, metric, &[]), &vectors), &options(1));
        let got = recall(&segment, &queries);
        assert!(got >= 0.95, "{metric}, {} groups {far} apart: {got}", by.len());
    }
}

#[test]
fn seg_4_a_merged_graph_finds_as_much_as_a_fresh_one() {
    for metric in METRICS {
        let (vectors, queries) = clustered(7, 8000, 60, 40, 40);
        let schema = schema(40, metric, &[]);
        let parts: Vec<Segment> = (0..4)
            .map(|part| {
                let mut set = sluice_segment::GrowingSet::new(schema.clone());
                for (i, v) in vectors.iter().enumerate().filter(|(i, _)| i % 4 == part) {
                    set.apply(common::upsert(&schema, &format!("k{i}"), i as u64, v, "{}"));
                }
                sealed(&set, &options(1))
            })
            .collect();
        let mut random = Random(1);
        let dead: Vec<RoaringBitmap> =
            parts.iter().map(|p| (0..p.len()).filter(|_| random.below(5) == 0).collect()).collect();
        let inputs: Vec<_> = parts.iter().zip(&dead).collect();
        let merged = merged(&inputs, &schema, &options(1));
        let live: Vec<Vec<f32>> = (0..merged.len()).map(|row| merged.row(row).vector.to_vec()).collect();
        let fresh = sealed(&set_of(&schema, &live), &options(1));
        let (merged, fresh) = (recall(&merged, &queries), recall(&fresh, &queries));
        assert!(merged >= fresh - 0.01 && merged >= 0.95, "{metric}: merged {merged}, fresh {fresh}");
    }
}

#[test]
fn seg_4_thousands_of_copies_and_near_copies_hide_nothing() {
    for (metric, near) in METRICS.into_iter().flat_map(|metric| [(metric, false), (metric, true)]) {
        let (mut vectors, queries) = clustered(9, 9000, 40, 40, 20);
        for i in 0..3000 {
            // one vector three thousand times, and three thousand that differ in their last digits only
            vectors[3 * i] = vectors[1].clone();
            if near {
                vectors[3 * i + 2] = vectors[2].iter().map(|c| c * (1.0 + i as f32 * 1e-7)).collect();
            }
        }
        let segment = sealed(&set_of(&schema(40, metric, &[]), &vectors), &options(1));
        assert_eq!(quantization(&segment), Quantization::Sq8);
        let got = recall(&segment, &queries);
        assert!(got >= 0.95, "{metric} {got}");
        for like in [1, 2] {
            let q = vector(segment.schema(), &vectors[like]);
            let hits = segment.search(&query(&q, 50, false), &RoaringBitmap::new()).unwrap();
            let rows: RoaringBitmap = hits.iter().map(|hit| hit.row).collect();
            assert_eq!(rows.len(), 50, "{metric}");
        }
    }
}

#[test]
fn seg_4_groups_that_a_code_cannot_tell_apart_are_walked_by_full_vectors() {
    let (mut vectors, mut queries) = clustered(8, 5000, 50, 40, 1);
    for (i, v) in vectors.iter_mut().chain(&mut queries).enumerate() {
        v[i % 10] += 1000.0;
    }
    let segment = sealed(&set_of(&schema(40, Metric::L2, &[]), &vectors), &options(1));
    assert_eq!(quantization(&segment), Quantization::None);
    let got = recall(&segment, &queries);
    assert!(got >= 0.95, "{got}");
}

#[test]
fn a_build_tells_how_far_it_is_and_ends_with_all() {
    let schema = schema(48, METRICS[0], &[]);
    let set = set_of(&schema, &clustered(5, 12_000, 0, 48, 40).0);
    let options = options(1);
    let (progress, done) = (options.progress.clone(), std::sync::atomic::AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                seen.push(progress.share());
                std::thread::yield_now();
            }
            seen
        });
        sealed_bytes(&set, &options);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen.is_sorted(), "progress went back");
    assert!(seen.iter().any(|share| (0.1..0.9).contains(share)), "nothing was told on the way");
    assert_eq!(options.progress.share(), 1.0);
}
