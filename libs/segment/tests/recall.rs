//! SEG-4: the exact path equals brute force, the graph path finds 0.95 of it, on good data and on bad.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{
    METRICS, Random, assert_scores, best, clustered, filtered, found, merged, options, query, schema,
};
use common::{sealed, sealed_bytes, set_of, upsert, vector};
use roaring::RoaringBitmap;
use serde_json::json;
use sluice_core::{FieldType, Metric};
use sluice_segment::{Filter, GrowingSet, Hit, Segment};

const COLUMN_INDEX: u16 = 0x8005;

/// Recall@k at the default ef over `queries`, without the rows of `dead`.
fn recall(segment: &Segment, queries: &[Vec<f32>], k: usize, dead: &RoaringBitmap) -> f64 {
    let metric = segment.schema().metric;
    let (mut good, mut all) = (0, 0);
    for q in queries {
        let q = vector(segment.schema(), q);
        let exact = segment.search(&query(&q, k, true), dead).unwrap();
        let got = segment.search(&query(&q, k, false), dead).unwrap();
        assert_eq!(got.len(), exact.len());
        assert!(got.iter().all(|hit| !dead.contains(hit.row)));
        good += found(metric, &got, &exact);
        all += exact.len();
    }
    good as f64 / all as f64
}

fn distinct(hits: &[Hit]) -> bool {
    let rows: RoaringBitmap = hits.iter().map(|h| h.row).collect();
    rows.len() == hits.len() as u64
}

#[test]
fn seg_4_recall_is_at_least_95_percent_fresh_with_deletes_and_merged() {
    for metric in METRICS {
        let (vectors, queries) = clustered(21, 3000, 60, 24, 30);
        let schema = schema(24, metric, &[]);
        let fresh = sealed(&set_of(&schema, &vectors), &options(1));
        let none = RoaringBitmap::new();
        let got = recall(&fresh, &queries, 10, &none);
        assert!(got >= 0.95, "{metric} fresh {got}");

        let mut random = Random(3);
        let dead: RoaringBitmap = (0..3000).filter(|_| random.below(10) < 3).collect();
        let got = recall(&fresh, &queries, 10, &dead);
        assert!(got >= 0.95, "{metric} with 30 % deleted {got}");

        let merged = merged(&[(&fresh, &dead)], &schema, &options(1));
        assert_eq!(u64::from(merged.len()), 3000 - dead.len());
        let got = recall(&merged, &queries, 10, &none);
        assert!(got >= 0.95, "{metric} merged {got}");
    }
}

#[test]
fn seg_4_the_exact_path_equals_brute_force() {
    for metric in METRICS {
        let (vectors, queries) = clustered(4, 700, 20, 17, 5);
        let schema = schema(17, metric, &[]);
        let set = set_of(&schema, &vectors);
        for segment in [sealed(&set, &options(1)), sealed(&set, &options(10_000))] {
            assert_eq!(segment.has_graph(), segment.info().graph.is_some());
            for q in &queries {
                let expected = best(metric, q, vectors.iter().map(Vec::as_slice), 12);
                let q = vector(&schema, q);
                assert_scores(
                    &segment.search(&query(&q, 12, true), &RoaringBitmap::new()).unwrap(),
                    &expected,
                );
                assert_scores(&set.search(&query(&q, 12, false)).unwrap(), &expected);
            }
        }
    }
}

#[test]
fn seg_4_clusters_far_apart_are_all_found() {
    for metric in METRICS {
        let (mut vectors, mut queries) = clustered(8, 2500, 50, 16, 1);
        for (i, v) in vectors.iter_mut().chain(&mut queries).enumerate() {
            // ten groups, each far away on an axis of its own
            v[i % 10] += 1000.0;
        }
        let segment = sealed(&set_of(&schema(16, metric, &[]), &vectors), &options(1));
        let got = recall(&segment, &queries, 10, &RoaringBitmap::new());
        assert!(got >= 0.95, "{metric} {got}");
    }
}

#[test]
fn seg_4_equal_vectors_by_the_hundred_hide_nothing() {
    for metric in METRICS {
        let (mut vectors, queries) = clustered(9, 3500, 40, 16, 20);
        for i in 0..1500 {
            // five vectors, three hundred times each
            vectors[i * 2] = vectors[(i % 5) * 2 + 1].clone();
        }
        let schema = schema(16, metric, &[]);
        let segment = sealed(&set_of(&schema, &vectors), &options(1));
        let none = RoaringBitmap::new();
        let got = recall(&segment, &queries, 10, &none);
        assert!(got >= 0.95, "{metric} {got}");
        for i in 0..5 {
            let q = vector(&schema, &vectors[i * 2 + 1]);
            let hits = segment.search(&query(&q, 90, false), &none).unwrap();
            assert!(hits.len() == 90 && distinct(&hits));
        }
    }
}

#[test]
fn seg_4_a_few_vectors_of_huge_norm_do_not_hide_the_others() {
    for metric in METRICS {
        let (mut vectors, queries) = clustered(10, 2500, 50, 16, 20);
        for i in [7, 700, 2400] {
            vectors[i].iter_mut().for_each(|c| *c *= 1e6);
        }
        let segment = sealed(&set_of(&schema(16, metric, &[]), &vectors), &options(1));
        let got = recall(&segment, &queries, 10, &RoaringBitmap::new());
        assert!(got >= 0.95, "{metric} {got}");
    }
}

#[test]
fn seg_4_all_equal_vectors_and_too_few_vectors_are_searched() {
    for metric in METRICS {
        let schema = schema(4, metric, &[]);
        for n in [1, 2, 3, 50, 2500] {
            let segment = sealed(&set_of(&schema, &vec![vec![0.5, -1.0, 2.0, 0.0]; n]), &options(1));
            assert!(segment.has_graph());
            let q = vector(&schema, &[1.0, 1.0, 1.0, 1.0]);
            for (k, ef) in [(0, 10), (1, 1), (10, 10), (100, 20), (usize::MAX, 100)] {
                let mut query = query(&q, k, false);
                query.ef = ef;
                let hits = segment.search(&query, &RoaringBitmap::new()).unwrap();
                assert_eq!(hits.len(), k.min(n), "{metric} {n} {k}");
                assert!(distinct(&hits));
            }
        }
    }
}

#[test]
fn seg_4_a_vector_of_length_zero_is_found_where_the_metric_admits_it() {
    for metric in [Metric::Dot, Metric::L2] {
        let schema = schema(3, metric, &[]);
        let segment = sealed(&set_of(&schema, &[vec![0.0; 3], vec![1.0; 3], vec![0.0; 3]]), &options(1));
        let q = vector(&schema, &[0.0; 3]);
        let hits = segment.search(&query(&q, 3, false), &RoaringBitmap::new()).unwrap();
        assert_eq!(hits.len(), 3);
        assert_eq!(hits[0], Hit { row: 0, score: 0.0 });
    }
}

/// A set whose field `n` counts rows, with field `side` by the first component: it goes along with the query.
fn counted(metric: Metric, rows: usize) -> (GrowingSet, Vec<Vec<f32>>) {
    let schema = schema(16, metric, &[("n", FieldType::Integer), ("side", FieldType::Boolean)]);
    let (vectors, queries) = clustered(13, rows, 30, 16, 30);
    let mut set = GrowingSet::new(schema.clone());
    for (i, v) in vectors.iter().enumerate() {
        let metadata = format!(r#"{{"n":{i},"side":{}}}"#, v[0] > 1.0);
        set.apply(upsert(&schema, &format!("k{i}"), i as u64, v, &metadata));
    }
    (set, queries)
}

#[test]
fn qry_3_filters_of_any_selectivity_leave_k_hits_and_recall() {
    for metric in METRICS {
        let (set, queries) = counted(metric, 9000);
        let bytes = sealed_bytes(&set, &options(1));
        let segment = Segment::from_bytes(&bytes).unwrap();
        let old = Segment::from_bytes(common::forge::without(&bytes, COLUMN_INDEX)).unwrap();
        let mut random = Random(17);
        let dead: RoaringBitmap = (0..9000).filter(|_| random.below(10) < 1).collect();
        let filters = [
            json!({"n": {"$lt": 8}}),
            json!({"n": {"$lt": 90}}),
            json!({"n": {"$gte": 8100}}),
            json!({"n": {"$lt": 4500}}),
            json!({"n": {"$lt": 8100}}),
            json!({"n": {"$lt": 8100}, "$not": {"n": {"$lt": 900}}}),
            json!({"side": true}),
            json!({"side": false}),
            json!({"n": -1}),
        ];
        for filter in &filters {
            let parsed = Filter::parse(filter, segment.schema()).unwrap();
            let matching = segment.matching(&parsed, &dead);
            let (mut good, mut good_without, mut all) = (0, 0, 0);
            for q in &queries {
                let q = vector(segment.schema(), q);
                let exact = segment.search(&filtered(&q, 10, true, &parsed), &dead).unwrap();
                // so few candidates that most rows are walked to
                let walk = sluice_segment::Query { ef: 40, ..filtered(&q, 10, false, &parsed) };
                let got = segment.search(&walk, &dead).unwrap();
                assert_eq!(got.len() as u64, matching.len().min(10));
                let without_indexes = old.search(&walk, &dead).unwrap();
                assert_eq!(without_indexes.len(), got.len());
                good_without += found(metric, &without_indexes, &exact);
                assert_eq!(exact.len(), got.len());
                assert!(got.iter().all(|hit| matching.contains(hit.row)));
                good += found(metric, &got, &exact);
                all += exact.len();
            }
            for good in [good, good_without] {
                assert!(good as f64 >= 0.95 * all as f64, "{metric} {filter}: {good} of {all}");
            }
        }
    }
}

#[test]
fn qry_3_matches_that_lie_far_from_the_query_are_all_found() {
    let schema = schema(2, Metric::L2, &[("far", FieldType::Boolean)]);
    let mut set = GrowingSet::new(schema.clone());
    let mut random = Random(1);
    for i in 0..9000u64 {
        let far = i % 2 == 0;
        let x = random.unit() + if far { 1e6 } else { 0.0 };
        set.apply(upsert(&schema, &format!("k{i}"), i, &[x, random.unit()], &format!(r#"{{"far":{far}}}"#)));
    }
    let segment = sealed(&set, &options(1));
    let filter = Filter::parse(&json!({"far": true}), &schema).unwrap();
    let q = vector(&schema, &[0.5, 0.5]);
    // so few candidates that a walk is tried, which does not come so far
    let query = sluice_segment::Query { ef: 20, ..filtered(&q, 10, false, &filter) };
    let got = segment.search(&query, &RoaringBitmap::new()).unwrap();
    let exact = segment.search(&filtered(&q, 10, true, &filter), &RoaringBitmap::new()).unwrap();
    assert_eq!(got, exact);
    assert!(got.iter().all(|hit| hit.score > 1e5));
}

#[test]
fn a_bound_cuts_the_answer_as_the_user_sees_scores() {
    for metric in METRICS {
        let (set, queries) = counted(metric, 3000);
        let segment = sealed(&set, &options(1));
        let q = vector(segment.schema(), &queries[0]);
        let all = segment.search(&query(&q, 20, true), &RoaringBitmap::new()).unwrap();
        let bound = Some(all[6].score);
        for exact in [true, false] {
            let query = sluice_segment::Query { bound, ..query(&q, 20, exact) };
            let within = segment.search(&query, &RoaringBitmap::new()).unwrap();
            assert_eq!(within, all[..7], "{metric} {exact}");
            let scores = |hits: &[Hit]| hits.iter().map(|h| h.score).collect::<Vec<_>>();
            assert_eq!(scores(&set.search(&query).unwrap()), scores(&within));
        }
        let nothing = sluice_segment::Query { bound: Some(f32::NAN), ..query(&q, 20, true) };
        assert!(segment.search(&nothing, &RoaringBitmap::new()).unwrap().is_empty());
    }
}

#[test]
fn a_cancelled_search_says_so() {
    let (set, queries) = counted(Metric::Cosine, 3000);
    let segment = sealed(&set, &options(1));
    let q = vector(segment.schema(), &queries[0]);
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    for exact in [true, false] {
        let query = sluice_segment::Query { cancelled: &cancelled, ..query(&q, 10, exact) };
        assert!(segment.search(&query, &RoaringBitmap::new()).is_err());
        assert!(set.search(&query).is_err());
    }
}
