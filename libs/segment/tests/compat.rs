//! SEG-3: segments of every released format open and answer as recorded.
//!
//! `tests/compat_data/{form}/{metric}.seg` is a kept file, `{metric}.json` what it answered when it was written.
//! `SLUICE_WRITE_COMPAT=1 cargo test -p sluice-segment --test compat` writes the files of a form that has none yet;
//! files that are there are never written again.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::PathBuf;

use common::forge::with_short_codes;
use common::{FIELDS, METRICS, Random, options, query, schema, schema_f16, sealed_bytes, upsert, vector};
use roaring::RoaringBitmap;
use serde_json::{Value, json};
use sluice_core::{Metric, Quantization, VectorType};
use sluice_segment::{FORMAT_VERSION, Filter, GrowingSet, Segment};

/// What the files of a folder have in common.
struct Form {
    folder: &'static str,
    dimension: usize,
    quantization: Quantization,
    vector_type: VectorType,
    /// Axes of short codes.
    axes: Option<u32>,
    rows: u64,
}

impl Form {
    fn has_indexes(&self) -> bool {
        !["v1", "v1_codes"].contains(&self.folder)
    }
}

/// Every form that was ever released. Codes, indexes of columns, then short codes came with version 1, as optional sections; version
/// 2 is for 16-bit floats.
const FORMS: [Form; 5] = [
    Form { folder: "v1", dimension: 4, quantization: Quantization::None, ..CODED },
    Form { folder: "v1_codes", ..CODED },
    Form { folder: "v1_indexes", ..CODED },
    Form { folder: "v2_f16", vector_type: VectorType::F16, ..CODED },
    Form { folder: "v1_short", axes: Some(32), rows: 120, ..CODED },
];

const CODED: Form = Form {
    folder: "",
    dimension: 32,
    quantization: Quantization::Sq8,
    vector_type: VectorType::F32,
    axes: None,
    rows: 64,
};

/// Three queries, which repeat four components.
fn queries(dimension: usize) -> [Vec<f32>; 3] {
    let queries = [[1.0, 0.5, -0.5, 2.0], [-1.0, 1.0, 0.25, 0.0], [0.1, -0.2, 0.3, -0.4]];
    queries.map(|query| query.iter().copied().cycle().take(dimension).collect())
}

fn filters() -> Vec<Value> {
    vec![
        json!({"tag": "even"}),
        json!({"size": {"$gte": 20, "$lt": 50}}),
        json!({"weight": {"$gt": 30.0}, "flag": true}),
        json!({"$or": [{"at": {"$lt": "1970-01-01T00:00:05Z"}}, {"tag": {"$in": ["third", "nothing"]}}]}),
        json!({"tag": {"$exists": false}}),
    ]
}

fn write(form: &Form, metric: Metric) -> Vec<u8> {
    let schema = match form.vector_type {
        VectorType::F32 => schema(form.dimension, metric, &FIELDS),
        VectorType::F16 => schema_f16(form.dimension, metric, &FIELDS),
    };
    let mut set = GrowingSet::new(schema.clone());
    let mut random = Random(42);
    for i in 0..form.rows {
        let tag = match i % 6 {
            0 => r#""tag":["even","third"],"#,
            2 | 4 => r#""tag":"even","#,
            3 => r#""tag":"third","#,
            _ => "",
        };
        let metadata =
            format!(r#"{{{tag}"size":{i},"flag":{},"weight":{}.5,"at":{}}}"#, i % 2 == 0, i, i * 1000);
        set.apply(upsert(&schema, &format!("clé-{i}"), i * i + 1, &random.vector(form.dimension), &metadata));
    }
    let mut options = options(1);
    options.graph.m = 4;
    let bytes = sealed_bytes(&set, &options);
    match form.axes {
        // only large segments are written so
        Some(axes) => with_short_codes(&bytes, axes as usize),
        None => bytes,
    }
}

/// What a segment answers, as JSON.
fn answers(segment: &Segment) -> Value {
    let dimension = segment.schema().dimension.get();
    let hits = |vector: &[f32], filter: Option<&Value>| -> Value {
        let q = vector_of(segment, vector);
        let filter = filter.map(|f| Filter::parse(f, segment.schema()).unwrap());
        let query = sluice_segment::Query { filter: filter.as_ref(), ..query(&q, 5, true) };
        let hits = segment.search(&query, &RoaringBitmap::new()).unwrap();
        hits.iter().map(|h| json!([segment.row(h.row).key, f64::from(h.score)])).collect()
    };
    let rows = (0..segment.len()).map(|row| {
        let row = segment.row(row);
        json!([row.key, row.offset, row.timestamp, row.metadata, row.vector.to_vec()])
    });
    json!({
        "rows": rows.collect::<Vec<_>>(),
        "fields": segment.schema().fields,
        "levels": segment.info().graph.map(|g| g.levels),
        "searches": queries(dimension).map(|q| hits(&q, None)),
        "filtered": filters().iter().map(|f| hits(&queries(dimension)[0], Some(f))).collect::<Vec<_>>(),
    })
}

/// Walks by whatever codes there are find what an exact search does: with so many candidates, all of it.
fn assert_found(segment: &Segment) {
    let (mut good, mut all) = (0, 0);
    for row in 0..segment.len() {
        let q = vector_of(segment, &segment.row(row).vector.to_vec());
        let exact = segment.search(&query(&q, 5, true), &RoaringBitmap::new()).unwrap();
        let got = segment.search(&query(&q, 5, false), &RoaringBitmap::new()).unwrap();
        assert_eq!(got.len(), 5);
        good += common::found(segment.schema().metric, &got, &exact);
        all += 5;
    }
    assert!(good * 100 >= all * 97, "{good} of {all}");
}

fn vector_of(segment: &Segment, components: &[f32]) -> sluice_core::Vector {
    vector(segment.schema(), components)
}

/// Equal but for the last digits of numbers, which differ between instruction sets.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|other| alike(v, other)))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-5 * (1.0 + a.abs())
        }
        (a, b) => a == b,
    }
}

#[test]
fn seg_3_kept_segments_of_every_format_open_and_answer_as_recorded() {
    assert_eq!(FORMAT_VERSION, 2, "a new version needs kept files of its own");
    for form in FORMS {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compat_data").join(form.folder);
        for metric in METRICS {
            let file = folder.join(format!("{metric}.seg"));
            let record = file.with_extension("json");
            if std::env::var_os("SLUICE_WRITE_COMPAT").is_some() && !file.exists() {
                std::fs::create_dir_all(&folder).unwrap();
                let bytes = write(&form, metric);
                let answers = answers(&Segment::from_bytes(&bytes).unwrap());
                std::fs::write(&file, bytes).unwrap();
                std::fs::write(&record, serde_json::to_string(&answers).unwrap()).unwrap();
            }
            let segment = Segment::open(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            assert_eq!(segment.info().quantization, form.quantization);
            assert_eq!(segment.info().axes, form.axes);
            assert_eq!(segment.schema().vector_type, form.vector_type);
            let version = if form.vector_type == VectorType::F16 { 2 } else { 1 };
            assert_eq!(segment.info().version, version);
            let indexes =
                segment.info().sections.iter().filter(|s| s.name.starts_with("column index")).count();
            assert_eq!(indexes, if form.has_indexes() { FIELDS.len() } else { 0 });
            let recorded: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
            let now = answers(&segment);
            assert!(alike(&now, &recorded), "{}", file.display());
            assert_eq!(now["rows"].as_array().unwrap().len() as u64, form.rows);
            assert_found(&segment);
            for row in 0..segment.len() {
                assert_eq!(segment.find(segment.row(row).key), Some(row));
            }
        }
    }
}
