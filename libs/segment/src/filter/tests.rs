//! Every way from a filter to rows gives the same rows, and what is said of their number beforehand is so.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_core::{
    Dimension, Document, FieldName, FieldType, Key, Metadata, Metric, Offset, Op, Record, Schema, Timestamp,
    Vector,
};

use super::*;
use crate::{BuildOptions, GrowingSet, Segment, seal};

const FIELDS: [(&str, FieldType); 5] = [
    ("at", FieldType::Timestamp),
    ("flag", FieldType::Boolean),
    ("size", FieldType::Integer),
    ("tag", FieldType::Keyword),
    ("weight", FieldType::Float),
];

fn schema() -> Arc<Schema> {
    let fields = FIELDS.iter().map(|(name, kind)| (FieldName::new(name).unwrap(), *kind)).collect();
    Arc::new(Schema::new(Dimension::new(2).unwrap(), Metric::L2, fields))
}

fn segment(rows: &[Value]) -> Segment {
    let schema = schema();
    let mut set = GrowingSet::new(schema.clone());
    for (row, metadata) in rows.iter().enumerate() {
        let metadata = Metadata::parse(&metadata.to_string(), 1 << 20).unwrap();
        let fields = schema.field_values(&metadata).unwrap();
        let vector = Vector::try_new(vec![1.0, row as f32], schema.dimension, schema.metric).unwrap();
        set.apply(Record {
            key: Key::new(&row.to_string()).unwrap(),
            offset: Offset(row as u64),
            timestamp: Timestamp(0),
            op: Op::Upsert(Document { vector, metadata, fields }),
        });
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    seal(&set, &BuildOptions::default(), &path, &AtomicBool::new(false)).unwrap();
    Segment::open(&path).unwrap()
}

fn value(field: &'static str) -> BoxedStrategy<Value> {
    match field {
        "tag" => prop::sample::select(vec!["", "a", "ab", "b", "ä"]).prop_map(|s| json!(s)).boxed(),
        "size" => prop_oneof![-2i64..3, Just(i64::MAX), Just(i64::MIN)].prop_map(|n| json!(n)).boxed(),
        "weight" => {
            prop_oneof![Just(-0.0), Just(0.0), Just(-1e300), Just(f64::MAX), (-2i32..3).prop_map(f64::from)]
                .prop_map(|n| json!(n))
                .boxed()
        }
        "flag" => any::<bool>().prop_map(|b| json!(b)).boxed(),
        _ => (-1i64..3).prop_map(|n| json!(n)).boxed(),
    }
}

/// Rows in which each field has at most `most` values.
fn rows(most: usize) -> impl Strategy<Value = Vec<Value>> {
    let one = move |name: &'static str| {
        prop::collection::vec(value(name), 0..=most).prop_map(move |v| (name.to_owned(), Value::Array(v)))
    };
    let row = FIELDS.map(|(name, _)| one(name).boxed()).to_vec();
    let row = row.prop_map(|fields| Value::Object(fields.into_iter().collect()));
    prop::collection::vec(row, 1..150)
}

fn filter() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(FIELDS.map(|(name, _)| name).to_vec());
    let condition = names.prop_flat_map(|name| {
        let list = prop::collection::vec(value(name), 0..4).prop_map(Value::Array);
        let operators = prop_oneof![
            (prop::sample::select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), value(name)),
            (prop::sample::select(vec!["$in", "$nin"]), list),
            (Just("$exists"), any::<bool>().prop_map(Value::Bool)),
        ];
        operators.prop_map(move |(operator, value)| json!({ name: { operator: value } }))
    });
    condition.prop_recursive(3, 10, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            list.clone().prop_map(|l| json!({"$and": l})),
            list.prop_map(|l| json!({"$or": l})),
            inner.prop_map(|f| json!({"$not": f})),
        ]
    })
}

/// Checks a filter on a segment in every way; returns the bounds and the count.
fn check(segment: &Segment, filter: &Value) -> (CountBounds, usize) {
    let filter = Filter::parse(filter, segment.schema()).unwrap();
    let bound = segment.bound(&filter);
    let one_by_one: Vec<u32> = (0..segment.len()).filter(|row| bound.passes(*row)).collect();
    assert_eq!(bound.bits().iter().collect::<Vec<_>>(), one_by_one);
    let bounds = bound.bounds();
    let count = one_by_one.len();
    assert!((bounds.least..=bounds.most).contains(&count), "{count} is not within {bounds:?}");
    let candidates = bound.candidates();
    if let Some(candidates) = &candidates {
        assert_eq!(bound.list(candidates, |_| true), one_by_one);
        assert!(candidates.len() >= count);
        let even: Vec<u32> = one_by_one.iter().copied().filter(|row| row % 2 == 0).collect();
        assert_eq!(bound.list(candidates, |row| row % 2 == 0), even);
    }
    for sample in [1, 7, 1000] {
        let estimate = bound.estimate(candidates.as_ref(), sample);
        assert!((bounds.least..=bounds.most).contains(&estimate));
    }
    (bounds, count)
}

proptest! {
    #[test]
    fn indexes_columns_and_rows_give_the_same_and_bounds_hold(
        rows in rows(3), filters in prop::collection::vec(filter(), 1..6)
    ) {
        let segment = segment(&rows);
        for filter in &filters {
            check(&segment, filter);
        }
    }

    #[test]
    fn a_condition_on_a_field_of_single_values_is_counted_exactly(rows in rows(1), filters in filters_of_one()) {
        let segment = segment(&rows);
        for filter in &filters {
            let (bounds, count) = check(&segment, filter);
            prop_assert_eq!(bounds, CountBounds { least: count, most: count }, "{}", filter);
        }
    }

    #[test]
    fn one_value_is_counted_exactly_where_rows_have_several(rows in rows(3), word in value("tag")) {
        let (bounds, count) = check(&segment(&rows), &json!({ "tag": word }));
        prop_assert_eq!(bounds, CountBounds { least: count, most: count });
    }
}

fn filters_of_one() -> impl Strategy<Value = Vec<Value>> {
    let one = |name: &'static str| {
        let operator = prop::sample::select(vec!["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
        (operator, value(name)).prop_map(move |(operator, value)| json!({ name: { operator: value } }))
    };
    FIELDS.map(|(name, _)| one(name).boxed()).to_vec()
}

#[test]
fn an_estimate_is_near_where_the_sample_is_large() {
    let rows: Vec<Value> =
        (0..4000).map(|i| json!({"size": i % 10, "tag": if i / 7 % 2 == 0 { "a" } else { "b" }})).collect();
    let segment = segment(&rows);
    let filter = json!({"size": {"$lt": 3}, "tag": "a"});
    let bound_of = Filter::parse(&filter, segment.schema()).unwrap();
    let bound = segment.bound(&bound_of);
    let candidates = bound.candidates().unwrap();
    assert_eq!(candidates.len(), 1200);
    let count = bound.bits().iter().count();
    let estimate = bound.estimate(Some(&candidates), 512);
    assert!(estimate.abs_diff(count) * 5 <= count, "{estimate} for {count}");
}

#[test]
fn few_matches_are_scanned_and_many_are_walked_to() {
    let plan = |matches, candidates| choose(Facts { rows: 1_000_000, matches, candidates, ef: 100 });
    assert_eq!(plan(0, 0), Plan::Scan);
    assert_eq!(plan(1_000, 1_000), Plan::Scan);
    assert_eq!(plan(500_000, 500_000), Plan::Walk);
    assert_eq!(plan(1_000_000, 0), Plan::Walk);
}
