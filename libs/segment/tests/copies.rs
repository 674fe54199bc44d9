//! Copies of one vector do not hide what is nearer than they are, however a search is done.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{METRICS, Random, filtered, options, query, schema, sealed, upsert, vector};
use roaring::RoaringBitmap;
use sluice_core::{FieldType, Metric};
use sluice_segment::{Filter, GrowingSet};

const DIMENSION: usize = 64;

#[test]
fn qry_3_the_nearest_of_all_is_found_beside_copies_that_codes_cannot_tell_from_it() {
    for metric in METRICS.into_iter().filter(|metric| *metric != Metric::Dot) {
        let schema = schema(DIMENSION, metric, &[("half", FieldType::Boolean)]);
        for (seed, min_records) in (0..12).flat_map(|seed| [(seed, 1), (seed, u32::MAX)]) {
            let mut random = Random(seed);
            let wanted = random.vector(DIMENSION);
            let copied: Vec<f32> = wanted.iter().map(|c| c + 0.3 * random.normal()).collect();
            // a thousandth of the way nearer than the copies: less than what coding rounds away
            let nearest: Vec<f32> = copied.iter().zip(&wanted).map(|(c, w)| c + (w - c) / 1000.0).collect();
            let mut set = GrowingSet::new(schema.clone());
            for row in 0..2000u64 {
                let (vector, half) = match row {
                    77 => (nearest.clone(), true),
                    100..140 => (copied.clone(), true),
                    _ => (random.vector(DIMENSION), row % 2 == 0),
                };
                let metadata = format!(r#"{{"half": {half}}}"#);
                set.apply(upsert(&schema, &row.to_string(), row, &vector, &metadata));
            }
            let (segment, none) = (sealed(&set, &options(min_records)), RoaringBitmap::new());
            let filter = Filter::parse(&serde_json::json!({"half": true}), &schema).unwrap();
            let wanted = vector(&schema, &wanted);
            for query in [query(&wanted, 10, false), filtered(&wanted, 10, false, &filter)] {
                let hits = segment.search(&query, &none).unwrap();
                assert_eq!(hits[0].row, 77, "{metric} {seed} graph from {min_records}: {hits:?}");
            }
        }
    }
}
