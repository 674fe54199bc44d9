//! Vectors kept as 16-bit floats: what is searched, sealed, merged and read back is the nearest that these can hold.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::{
    METRICS, assert_scores, best, clustered, found, merged, options, query, schema, schema_f16, sealed,
    set_of, vector,
};
use roaring::RoaringBitmap;
use sluice_core::{GraphBuilder, Metric, Quantization, Schema, VectorError, VectorType};
use sluice_segment::{Components, GrowingSet, Segment};

fn kept(vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut kept = vectors.to_vec();
    kept.iter_mut().for_each(|vector| VectorType::F16.round(vector));
    kept
}

fn rows(segment: &Segment) -> Vec<Vec<f32>> {
    (0..segment.len()).map(|row| segment.row(row).vector.to_vec()).collect()
}

fn vector_bytes(segment: &Segment) -> u64 {
    segment.info().sections.iter().find(|section| section.name == "vectors").unwrap().bytes
}

#[test]
fn a_set_and_its_segment_hold_the_same_rounded_vectors_in_half_the_bytes() {
    for metric in METRICS {
        let (vectors, _) = clustered(1, 40, 0, 33, 5);
        let set = set_of(&schema_f16(33, metric, &[]), &vectors);
        let segment = sealed(&set, &options(1));
        assert_eq!(rows(&segment), kept(&vectors));
        for row in 0..segment.len() {
            let row = segment.row(row);
            assert!(matches!(row.vector, Components::F16(_)));
            let held = set.live_rows().find(|held| held.key == row.key).unwrap();
            assert_eq!(held, row);
        }
        assert_eq!(segment.info().version, 2);
        let full = sealed(&set_of(&schema(33, metric, &[]), &vectors), &options(1));
        assert_eq!(full.info().version, 1);
        assert_eq!(vector_bytes(&segment) * 2, vector_bytes(&full));
    }
}

#[test]
fn what_f16_cannot_hold_is_refused_by_its_position() {
    let schema = schema_f16(3, Metric::Cosine, &[]);
    let refused = |components: [f32; 3]| schema.vector(components.to_vec()).unwrap_err();
    assert!(schema.vector(vec![65_504.0, -65_519.0, 0.0]).is_ok());
    assert_eq!(refused([1.0, 2.0, 65_520.0]), VectorError::BeyondF16 { position: 2 });
    assert_eq!(refused([-1e9, 2.0, 1.0]), VectorError::BeyondF16 { position: 0 });
    // its length is zero once it is rounded
    assert_eq!(refused([1e-9, 0.0, 0.0]), VectorError::ZeroLength);
    assert_eq!(refused([f32::NAN, 0.0, 0.0]), VectorError::NotFinite { position: 0 });
}

#[test]
fn seg_4_searches_of_set_and_segment_compare_with_what_is_kept() {
    for metric in METRICS {
        let (vectors, queries) = clustered(2, 1500, 20, 40, 12);
        let schema = schema_f16(40, metric, &[]);
        let set = set_of(&schema, &vectors);
        let held = kept(&vectors);
        for (quantization, builder) in [
            (Quantization::Sq8, GraphBuilder::Bulk),
            (Quantization::None, GraphBuilder::Bulk),
            (Quantization::None, GraphBuilder::HnswRs),
        ] {
            let mut options = options(1);
            (options.quantization, options.graph.builder) = (quantization, builder);
            check_searches(&schema, &set, &sealed(&set, &options), &held, &queries);
        }
    }
}

fn check_searches(
    schema: &Arc<Schema>,
    set: &GrowingSet,
    segment: &Segment,
    held: &[Vec<f32>],
    queries: &[Vec<f32>],
) {
    let none = RoaringBitmap::new();
    let mut right = 0;
    for q in queries {
        let q = vector(schema, q);
        let exact = segment.search(&query(&q, 10, true), &none).unwrap();
        assert_scores(&exact, &best(schema.metric, q.as_slice(), held.iter().map(Vec::as_slice), 10));
        let before = set.search(&query(&q, 10, true)).unwrap();
        let scores =
            |hits: &[sluice_segment::Hit]| hits.iter().map(|h| f64::from(h.score)).collect::<Vec<_>>();
        assert_scores(&before, &scores(&exact));
        right += found(schema.metric, &segment.search(&query(&q, 10, false), &none).unwrap(), &exact);
    }
    assert!(right * 100 >= queries.len() * 10 * 95, "{right} of {}", queries.len() * 10);
    let asked: Vec<_> = queries.iter().map(|q| vector(schema, q)).collect();
    let together: Vec<_> = asked.iter().map(|q| query(q, 10, true)).collect();
    for (hits, one) in segment.search_batch(&together, &none).unwrap().iter().zip(&together) {
        assert_eq!(hits, &segment.search(one, &none).unwrap());
    }
}

#[test]
fn fold_4_merging_rounds_nothing_again() {
    for metric in METRICS {
        let (vectors, _) = clustered(3, 600, 0, 40, 6);
        let schema = schema_f16(40, metric, &[]);
        let whole = sealed(&set_of(&schema, &vectors), &options(1));
        let none = RoaringBitmap::new();
        let dead: RoaringBitmap = (0..100).collect();
        let same = merged(&[(&whole, &none)], &schema, &options(1));
        assert_eq!(rows(&same), kept(&vectors));
        let fewer = merged(&[(&whole, &dead)], &schema, &options(1000));
        assert_eq!(rows(&fewer), kept(&vectors[100..]));
    }
}
