//! Searches that run together find what each finds alone.

mod common;

use common::*;
use proptest::prelude::*;
use roaring::RoaringBitmap;
use sluice_core::{FieldType, Vector};
use sluice_segment::{Filter, GrowingSet, Hit, Query};

const DIMENSION: usize = 40;

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn qry_3_a_batch_gives_what_its_searches_give_alone(
        seed in any::<u64>(),
        metric in prop::sample::select(METRICS.to_vec()),
        rows in prop::sample::select(vec![1usize, 7, 300, 4000]),
        graph in any::<bool>(),
        dead in 0usize..10,
        asked in prop::collection::vec((any::<bool>(), any::<bool>(), 0usize..30, any::<bool>()), 0..12),
    ) {
        let mut random = Random(seed);
        let schema = schema(DIMENSION, metric, &[("size", FieldType::Integer)]);
        let mut set = GrowingSet::new(schema.clone());
        for row in 0..rows {
            let metadata = format!(r#"{{"size": {}}}"#, random.below(10));
            set.apply(upsert(&schema, &format!("k{row}"), row as u64, &random.vector(DIMENSION), &metadata));
        }
        let segment = sealed(&set, &options(if graph { 100 } else { u32::MAX }));
        let deleted: RoaringBitmap = (0..rows as u32).filter(|_| random.below(10) < dead).collect();
        let filter = Filter::parse(&serde_json::json!({"size": {"$lt": 5}}), &schema).unwrap();
        let vectors: Vec<Vector> = asked.iter().map(|_| vector(&schema, &random.vector(DIMENSION))).collect();
        let queries: Vec<Query<'_>> = asked
            .iter()
            .zip(&vectors)
            .map(|((exact, filtered, k, bounded), vector)| Query {
                filter: filtered.then_some(&filter),
                bound: bounded.then_some(0.1),
                ..query(vector, *k, *exact)
            })
            .collect();
        let alone: Vec<Vec<Hit>> =
            queries.iter().map(|query| segment.search(query, &deleted).unwrap()).collect();
        prop_assert_eq!(segment.search_batch(&queries, &deleted).unwrap(), alone);
    }
}

#[test]
fn a_batch_is_given_up_when_one_of_its_searches_is() {
    let schema = schema(DIMENSION, METRICS[0], &[]);
    let segment = sealed(&set_of(&schema, &clustered(1, 500, 0, DIMENSION, 5).0), &options(u32::MAX));
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let q = vector(&schema, &Random(3).vector(DIMENSION));
    let queries = [query(&q, 5, true), Query { cancelled: &cancelled, ..query(&q, 5, true) }];
    assert!(segment.search_batch(&queries, &RoaringBitmap::new()).is_err());
    assert_eq!(segment.search_batch(&[], &RoaringBitmap::new()).unwrap(), Vec::<Vec<Hit>>::new());
}
