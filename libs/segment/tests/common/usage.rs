//! Everything that can be done with a segment, whatever it holds.

use roaring::RoaringBitmap;
use sluice_segment::{Filter, Segment, merge};

use super::{NEVER, filtered, options, query, vector};

/// Does with a segment all that can be done; it must not panic.
pub fn use_all(segment: &Segment) {
    read_all(segment);
    merge_with_itself(segment);
}

/// Reads every row, searches and filters.
pub fn read_all(segment: &Segment) {
    let schema = segment.schema().clone();
    let dead: RoaringBitmap = [1, 7, 1_000_000].into_iter().collect();
    for row in 0..segment.len() {
        let row = segment.row(row);
        segment.find(row.key);
    }
    segment.find("not there");
    segment.info();
    segment.warm();
    let components: Vec<f32> = (0..schema.dimension.get()).map(|i| i as f32 - 0.5).collect();
    let vector = vector(&schema, &components);
    let filter = serde_json::json!({"$or": [{"tag": {"$gt": "a"}}, {"size": {"$lt": 50}}, {"flag": true},
        {"weight": {"$in": [0.5, 1.5]}}, {"at": {"$not": {"$exists": true}}}]});
    for exact in [true, false] {
        for k in [1, 10, 1000] {
            let mut plain = query(&vector, k, exact);
            plain.ef = 1;
            assert!(segment.search(&plain, &RoaringBitmap::new()).is_ok());
            assert!(segment.search(&plain, &dead).is_ok());
            if let Ok(filter) = Filter::parse(&filter, &schema) {
                assert!(segment.search(&filtered(&vector, k, exact, &filter), &dead).is_ok());
                segment.matching(&filter, &dead);
            }
        }
    }
}

/// Merges two inputs that are alike: whatever they hold, it ends, and what it makes opens.
pub fn merge_with_itself(segment: &Segment) {
    let dead: RoaringBitmap = [1, 7, 1_000_000].into_iter().collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("merged");
    let none = RoaringBitmap::new();
    if merge(&[(segment, &none), (segment, &dead)], segment.schema(), &options(1), &path, &NEVER).is_ok() {
        Segment::open(&path).unwrap();
    }
}
