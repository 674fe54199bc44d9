//! What the tests share: a dumb random generator, data with clusters, and sets and segments made of them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part")]

pub mod forge;
pub mod log;
pub mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::test_runner::Config;
use roaring::RoaringBitmap;
use sluice_core::{
    Dimension, Document, FieldName, FieldType, GraphSpec, Key, Metadata, Metric, Offset, Op, Record, Schema,
    Timestamp, Vector, VectorType,
};
use sluice_segment::{BuildOptions, Filter, GrowingSet, Hit, Query, Segment, merge, seal};

pub static NEVER: AtomicBool = AtomicBool::new(false);

pub const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

/// One field of each type.
pub const FIELDS: [(&str, FieldType); 5] = [
    ("at", FieldType::Timestamp),
    ("flag", FieldType::Boolean),
    ("size", FieldType::Integer),
    ("tag", FieldType::Keyword),
    ("weight", FieldType::Float),
];

/// `quick` cases of a property, or as many as `PROPTEST_CASES` says.
pub fn cases(quick: u32) -> Config {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    Config::with_cases(wanted.unwrap_or(quick))
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal: the sum of twelve uniforms.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    pub fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.normal()).collect()
    }
}

/// `n` vectors around `clusters` centres, centres in random order, and `queries` drawn in the same way.
pub fn clustered(
    seed: u64,
    n: usize,
    queries: usize,
    dimension: usize,
    clusters: usize,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut random = Random(seed);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| random.vector(dimension)).collect();
    let mut draw = |count: usize| -> Vec<Vec<f32>> {
        let mut one = || {
            let centre = &centres[random.below(clusters)];
            centre.iter().map(|c| c + 0.4 * random.normal()).collect()
        };
        (0..count).map(|_| one()).collect()
    };
    (draw(n), draw(queries))
}

pub fn schema(dimension: usize, metric: Metric, fields: &[(&str, FieldType)]) -> Arc<Schema> {
    let fields = fields.iter().map(|(n, t)| (FieldName::new(n).unwrap(), *t)).collect();
    Arc::new(Schema::new(Dimension::new(dimension as u32).unwrap(), metric, fields))
}

/// The same, for vectors that are kept as 16-bit floats.
pub fn schema_f16(dimension: usize, metric: Metric, fields: &[(&str, FieldType)]) -> Arc<Schema> {
    Arc::new(Schema { vector_type: VectorType::F16, ..(*schema(dimension, metric, fields)).clone() })
}

pub fn vector(schema: &Schema, components: &[f32]) -> Vector {
    schema.vector(components.to_vec()).unwrap()
}

pub fn upsert(schema: &Schema, key: &str, offset: u64, components: &[f32], metadata: &str) -> Record {
    let metadata = Metadata::parse(metadata, 1 << 20).unwrap();
    let fields = schema.field_values(&metadata).unwrap();
    let vector = vector(schema, components);
    Record {
        key: Key::new(key).unwrap(),
        offset: Offset(offset),
        timestamp: Timestamp(1_700_000_000_000 + offset as i64),
        op: Op::Upsert(Document { vector, metadata, fields }),
    }
}

pub fn delete(key: &str, offset: u64) -> Record {
    Record { key: Key::new(key).unwrap(), offset: Offset(offset), timestamp: Timestamp(0), op: Op::Delete }
}

/// A set of records "k0", "k1", .. without metadata.
pub fn set_of(schema: &Arc<Schema>, vectors: &[Vec<f32>]) -> GrowingSet {
    let mut set = GrowingSet::new(Arc::clone(schema));
    for (i, v) in vectors.iter().enumerate() {
        set.apply(upsert(schema, &format!("k{i}"), i as u64 * 3, v, "{}"));
    }
    set
}

/// Builds with a graph from `min_records` rows on.
pub fn options(min_records: u32) -> BuildOptions {
    let graph = GraphSpec { min_records, ef_construction: 100, ..GraphSpec::default() };
    BuildOptions { graph, seed: 7, ..BuildOptions::default() }
}

pub fn sealed_bytes(set: &GrowingSet, options: &BuildOptions) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.seg");
    let built = seal(set, options, &path, &NEVER).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((built.bytes, built.digest), (bytes.len() as u64, blake3::hash(&bytes)));
    bytes
}

pub fn sealed(set: &GrowingSet, options: &BuildOptions) -> Segment {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.seg");
    let built = seal(set, options, &path, &NEVER).unwrap();
    assert_eq!(built.records as usize, set.live_len());
    Segment::open(&path).unwrap()
}

pub fn merged(inputs: &[(&Segment, &RoaringBitmap)], schema: &Schema, options: &BuildOptions) -> Segment {
    let dir = tempfile::tempdir().unwrap();
    merge(inputs, schema, options, &dir.path().join("x.seg"), &NEVER).unwrap();
    Segment::open(&dir.path().join("x.seg")).unwrap()
}

pub fn query<'a>(vector: &'a Vector, k: usize, exact: bool) -> Query<'a> {
    Query {
        vector,
        k,
        ef: GraphSpec::default().ef as usize,
        exact,
        filter: None,
        bound: None,
        cancelled: &NEVER,
    }
}

pub fn filtered<'a>(vector: &'a Vector, k: usize, exact: bool, filter: &'a Filter) -> Query<'a> {
    Query { filter: Some(filter), ..query(vector, k, exact) }
}

/// The score as the documents define it, in f64.
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f((*x).into(), (*y).into())).sum::<f64>();
    match metric {
        Metric::Dot => sum(&|x, y| x * y),
        Metric::L2 => sum(&|x, y| (x - y) * (x - y)).sqrt(),
        Metric::Cosine => sum(&|x, y| x * y) / (sum(&|x, _| x * x).sqrt() * sum(&|_, y| y * y).sqrt()),
    }
}

/// The scores of the `k` best of `rows`, best first: brute force in f64.
pub fn best<'a>(metric: Metric, query: &[f32], rows: impl Iterator<Item = &'a [f32]>, k: usize) -> Vec<f64> {
    let mut scores: Vec<f64> = rows.map(|row| score(metric, query, row)).collect();
    scores.sort_by(|a, b| if metric.larger_is_better() { b.total_cmp(a) } else { a.total_cmp(b) });
    scores.truncate(k);
    scores
}

pub fn assert_scores(got: &[Hit], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (hit, score) in got.iter().zip(expected) {
        let near = (f64::from(hit.score) - score).abs() <= 1e-4 * (1.0 + score.abs());
        assert!(near, "{} is not {score}", hit.score);
    }
}

/// How many of `expected` are in `got`; a row as good as the worst expected one counts.
pub fn found(metric: Metric, got: &[Hit], expected: &[Hit]) -> usize {
    let Some(worst) = expected.last() else { return 0 };
    let good = |h: &&Hit| {
        let slack = 1e-5 * worst.score.abs().max(1e-3);
        if metric.larger_is_better() {
            h.score >= worst.score - slack
        } else {
            h.score <= worst.score + slack
        }
    };
    got.iter().filter(good).count().min(expected.len())
}
