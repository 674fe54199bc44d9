//! Filters mean the same on a growing set, on a segment and to a naive reader of the JSON.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::cmp::Ordering;
use std::sync::Arc;

use common::forge::without;
use common::{FIELDS, METRICS, cases, options, query, schema, sealed_bytes, upsert, vector};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};
use sluice_core::{ErrorKind, Metric, Schema, Timestamp};
use sluice_segment::{Filter, FilterError, GrowingSet, Segment};

const COLUMN_INDEX: u16 = 0x8005;

fn declared() -> Arc<Schema> {
    schema(2, Metric::L2, &FIELDS)
}

/// The naive reader: looks at metadata and filter as JSON, knowing of the schema only which field is a timestamp.
fn naive(filter: &Value, row: &Value) -> bool {
    filter.as_object().unwrap().iter().all(|(name, value)| match name.as_str() {
        "$and" => value.as_array().unwrap().iter().all(|f| naive(f, row)),
        "$or" => value.as_array().unwrap().iter().any(|f| naive(f, row)),
        "$not" => !naive(value, row),
        field => {
            let values: Vec<Value> = match &row[field] {
                Value::Null => vec![],
                Value::Array(items) => items.clone(),
                one => vec![one.clone()],
            };
            let values: Vec<Value> = values.into_iter().map(|v| instant(field, v)).collect();
            match value {
                Value::Object(operators) => {
                    operators.iter().all(|(o, v)| naive_operator(field, o, v, &values))
                }
                bare => naive_operator(field, "$eq", bare, &values),
            }
        }
    })
}

fn instant(field: &str, value: Value) -> Value {
    match (field, &value) {
        ("at", Value::String(text)) => json!(Timestamp::parse_rfc3339(text).unwrap().0),
        _ => value,
    }
}

fn naive_operator(field: &str, operator: &str, wanted: &Value, values: &[Value]) -> bool {
    let equal = |wanted: &Value| match wanted {
        Value::Null => values.is_empty(),
        wanted => values.iter().any(|v| order(v, &instant(field, wanted.clone())).is_eq()),
    };
    let some =
        |test: fn(Ordering) -> bool| values.iter().any(|v| test(order(v, &instant(field, wanted.clone()))));
    match operator {
        "$eq" => equal(wanted),
        "$ne" => !equal(wanted),
        "$in" => wanted.as_array().unwrap().iter().any(equal),
        "$nin" => !wanted.as_array().unwrap().iter().any(equal),
        "$gt" => some(Ordering::is_gt),
        "$gte" => some(Ordering::is_ge),
        "$lt" => some(Ordering::is_lt),
        "$lte" => some(Ordering::is_le),
        "$exists" => wanted.as_bool().unwrap() != values.is_empty(),
        "$not" => !wanted.as_object().unwrap().iter().all(|(o, v)| naive_operator(field, o, v, values)),
        other => panic!("{other}"),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap().partial_cmp(&b.as_f64().unwrap()).unwrap(),
        },
        other => panic!("{other:?}"),
    }
}

fn value_of(field: &'static str) -> BoxedStrategy<Value> {
    match field {
        "tag" => {
            prop::sample::select(vec!["", "a", "ab", "b", "zz", "ä", "日本"]).prop_map(|s| json!(s)).boxed()
        }
        "size" => prop_oneof![(-3i64..4), Just(i64::MAX), Just(i64::MIN)].prop_map(|n| json!(n)).boxed(),
        "weight" => prop_oneof![(-3i32..4).prop_map(|n| f64::from(n) / 2.0), Just(-0.0), Just(1e300)]
            .prop_map(|n| json!(n))
            .boxed(),
        "flag" => any::<bool>().prop_map(|b| json!(b)).boxed(),
        _ => prop_oneof![
            (0i64..4).prop_map(|n| json!(n * 1000)),
            (0u32..4).prop_map(|n| json!(format!("1970-01-01T00:00:0{n}Z"))),
        ]
        .boxed(),
    }
}

fn field_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FIELDS.map(|(name, _)| name).to_vec())
}

/// Metadata in which each field is missing, null, one value or an array.
fn metadata() -> impl Strategy<Value = Value> {
    let one = |name: &'static str| {
        let value = value_of(name);
        prop_oneof![
            2 => Just(None),
            1 => Just(Some(Value::Null)),
            4 => value.clone().prop_map(Some),
            2 => prop::collection::vec(value, 0..4).prop_map(|v| Some(Value::Array(v))),
        ]
        .prop_map(move |value| (name, value))
    };
    FIELDS.map(|(name, _)| one(name).boxed()).to_vec().prop_map(|fields| {
        let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(present.chain([("other".to_owned(), json!({"x": [1]}))]).collect())
    })
}

fn operators(field: &'static str) -> BoxedStrategy<Value> {
    let value = value_of(field);
    let or_null = prop_oneof![4 => value.clone(), 1 => Just(Value::Null)].boxed();
    let list = prop::collection::vec(or_null.clone(), 0..4).prop_map(Value::Array);
    let one = prop_oneof![
        (prop::sample::select(vec!["$eq", "$ne"]), or_null),
        (prop::sample::select(vec!["$in", "$nin"]), list),
        (prop::sample::select(vec!["$gt", "$gte", "$lt", "$lte"]), value),
        (Just("$exists"), any::<bool>().prop_map(Value::Bool)),
    ]
    .prop_map(|(name, value)| (name.to_owned(), value));
    let some =
        prop::collection::vec(one, 1..3).prop_map(|v| Value::Object(v.into_iter().collect::<Map<_, _>>()));
    prop_oneof![3 => some.clone(), 1 => some.prop_map(|inner| json!({"$not": inner}))].boxed()
}

fn filter() -> impl Strategy<Value = Value> {
    let condition = field_name().prop_flat_map(|name| {
        prop_oneof![value_of(name), operators(name)].prop_map(move |condition| (name.to_owned(), condition))
    });
    let leaf = prop::collection::vec(condition, 0..3)
        .prop_map(|v| Value::Object(v.into_iter().collect::<Map<_, _>>()));
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list.clone().prop_map(|l| json!({"$and": l})),
            list.prop_map(|l| json!({"$or": l})),
            inner.clone().prop_map(|f| json!({"$not": f})),
            (inner, field_name(), any::<bool>())
                .prop_map(|(f, name, there)| { json!({"$not": f, name: {"$exists": there}}) }),
        ]
    })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_filter_means_the_same_on_a_set_on_a_segment_and_to_a_naive_reader(
        rows in prop::collection::vec(metadata(), 1..90),
        filters in prop::collection::vec(filter(), 1..8),
        dead in prop::collection::vec(0u32..100, 0..10),
    ) {
        let schema = declared();
        let mut set = GrowingSet::new(schema.clone());
        for (i, row) in rows.iter().enumerate() {
            set.apply(upsert(&schema, &format!("k{i}"), i as u64, &[i as f32, 1.0], &row.to_string()));
        }
        let bytes = sealed_bytes(&set, &options(1));
        let segment = Segment::from_bytes(&bytes).unwrap();
        let old = Segment::from_bytes(without(&bytes, COLUMN_INDEX)).unwrap();
        let dead: RoaringBitmap = dead.into_iter().collect();
        let zero = vector(&schema, &[0.0, 0.0]);
        for filter in filters {
            let parsed = Filter::parse(&filter, &schema).unwrap();
            let expected: Vec<u32> = (0..rows.len() as u32).filter(|r| naive(&filter, &rows[*r as usize])).collect();
            let matching: Vec<u32> = segment.matching(&parsed, &RoaringBitmap::new()).iter().collect();
            prop_assert_eq!(&matching, &expected, "{}", filter);
            let matching: Vec<u32> = old.matching(&parsed, &RoaringBitmap::new()).iter().collect();
            prop_assert_eq!(&matching, &expected, "without indexes: {}", filter);
            prop_assert_eq!(set.count(Some(&parsed)), expected.len());
            let q = sluice_segment::Query { filter: Some(&parsed), ..query(&zero, 1000, false) };
            let rows_of = |hits: Vec<sluice_segment::Hit>| hits.into_iter().map(|h| h.row).collect::<Vec<_>>();
            // rows lie further from zero the later they came
            prop_assert_eq!(&rows_of(set.search(&q).unwrap()), &expected);
            prop_assert_eq!(&rows_of(segment.search(&q, &RoaringBitmap::new()).unwrap()), &expected);
            prop_assert_eq!(&rows_of(old.search(&q, &RoaringBitmap::new()).unwrap()), &expected);
            let alive: Vec<u32> = expected.into_iter().filter(|r| !dead.contains(*r)).collect();
            prop_assert_eq!(&rows_of(segment.search(&q, &dead).unwrap()), &alive);
            prop_assert_eq!(&rows_of(old.search(&q, &dead).unwrap()), &alive);
        }
    }
}

fn refused(filter: Value) -> FilterError {
    let error = Filter::parse(&filter, &declared()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error
}

#[test]
fn an_undeclared_field_is_refused_with_the_declared_ones() {
    let message = refused(json!({"title": "x"})).to_string();
    assert!(message.contains("\"title\"") && message.contains("size (integer)"), "{message}");
    let none = schema(2, Metric::L2, &[]);
    let message = Filter::parse(&json!({"a": 1}), &none).unwrap_err().to_string();
    assert!(message.ends_with("declared fields: none"), "{message}");
    let long = "x".repeat(1 << 20);
    assert!(refused(json!({long: 1})).to_string().len() < 1000);
}

#[test]
fn a_value_of_another_type_is_refused_with_field_and_type() {
    for (filter, got) in [
        (json!({"size": "10"}), "the text \"10\""),
        (json!({"size": 1.5}), "the number 1.5"),
        (json!({"size": 9_223_372_036_854_775_808u64}), "the number 9223372036854775808"),
        (json!({"size": {"$gt": null}}), "null"),
        (json!({"size": {"$in": [1, true]}}), "the boolean true"),
        (json!({"size": [1, 2]}), "an array (use $in)"),
        (json!({"size": {"$eq": {"a": 1}}}), "an object"),
    ] {
        let message = refused(filter).to_string();
        assert_eq!(message, format!("field size is of type integer, the filter compares it with {got}"));
    }
    assert!(matches!(refused(json!({"at": "yesterday"})), FilterError::Type { .. }));
    // 10.0 is an integer
    assert!(Filter::parse(&json!({"size": 10.0}), &declared()).is_ok());
}

#[test]
fn what_is_no_filter_is_refused() {
    for bad in [json!([]), json!("x"), json!(null), json!(1)] {
        assert_eq!(refused(bad).to_string(), "the filter must be an object");
    }
    for bad in [
        json!({"$and": []}),
        json!({"$or": {}}),
        json!({"$and": [1]}),
        json!({"$not": []}),
        json!({"size": {}}),
        json!({"size": {"$not": 1}}),
        json!({"size": {"$in": 1}}),
        json!({"size": {"$exists": 1}}),
    ] {
        assert!(matches!(refused(bad.clone()), FilterError::Shape { .. }), "{bad}");
    }
    for bad in
        [json!({"$nor": []}), json!({"size": {"$regex": "x"}}), json!({"size": {"gt": 1}}), json!({"$eq": 1})]
    {
        assert!(matches!(refused(bad.clone()), FilterError::UnknownOperator { .. }), "{bad}");
    }
}

#[test]
fn filters_beyond_the_limits_are_refused() {
    let deep = |n: usize| (0..n).fold(json!({"size": 1}), |f, _| json!({"$not": f}));
    assert!(Filter::parse(&deep(14), &declared()).is_ok());
    assert!(matches!(refused(deep(16)), FilterError::TooLarge { what: "levels", .. }));
    let wide = |n: usize| json!({"$or": vec![json!({"size": 1}); n]});
    assert!(Filter::parse(&wide(500), &declared()).is_ok());
    assert!(matches!(refused(wide(2000)), FilterError::TooLarge { what: "conditions", .. }));
    let list = |n: i64| json!({"size": {"$in": (0..n).collect::<Vec<_>>()}});
    assert!(Filter::parse(&list(4096), &declared()).is_ok());
    assert!(matches!(refused(list(4097)), FilterError::TooLarge { .. }));
}

#[test]
fn counting_without_a_filter_counts_live_records() {
    for metric in METRICS {
        let schema = schema(2, metric, &[]);
        let set = common::set_of(&schema, &[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert_eq!(set.count(None), 2);
    }
}
