//! Segments as one of the systems of the protocol: built as the product builds them, by sealing a growing set.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use roaring::RoaringBitmap;
use sluice_core::{
    Dimension, Document, FieldName, FieldType, GraphBuilder, GraphSpec, Key, Metadata, Metric, Offset, Op,
    Quantization, Record, Schema, Timestamp, Vector, VectorType,
};
use sluice_segment::{BuildOptions, Filter, GrowingSet, Query, Segment, SegmentInfo, instruction_set, seal};
use tempfile::TempDir;

use super::protocol::{Built, Open};
use super::serve::Library;
use crate::clock::Clock;
use crate::counting;
use crate::npy::Matrix;
use crate::process::{forget_peak_memory, memory, peak_memory};

const MAX_METADATA: usize = 64 << 10;

/// Nobody cancels here.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// A segment and the queries that it answers.
pub(crate) struct Ours {
    options: BuildOptions,
    metric: Metric,
    vector_type: VectorType,
    clock: Clock,
    k: usize,
    queries: Vec<Vector>,
    none: RoaringBitmap,
    dir: TempDir,
    segment: Option<Segment>,
    ef: usize,
}

impl Ours {
    pub(crate) fn new(
        open: &Open,
        (builder, vector_type): (GraphBuilder, VectorType),
        queries: &Matrix<f32>,
    ) -> Result<Self> {
        Ok(Self {
            options: options(open, builder),
            metric: open.metric,
            vector_type,
            clock: open.clock,
            k: open.k,
            queries: vectors(queries, open.metric)?,
            none: RoaringBitmap::new(),
            dir: TempDir::with_prefix_in("sluice-", &open.work_dir)?,
            segment: None,
            ef: 0,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Library for Ours {
    fn version(&self) -> String {
        format!("{} ({})", env!("CARGO_PKG_VERSION"), instruction_set())
    }

    /// The graph's time is that of the seal without that of a seal of the same rows without a graph.
    fn build(&mut self, vectors: Matrix<f32>) -> Result<Built> {
        self.segment = None;
        let schema = schema(vectors.columns(), self.metric, &[])?;
        let schema = Arc::new(Schema { vector_type: self.vector_type, ..(*schema).clone() });
        let set = growing_set(&schema, &vectors, 0..vectors.rows(), |_| Metadata::empty())?;
        drop(vectors);
        let mut flat = self.options.clone();
        flat.graph.min_records = u32::MAX;
        flat.quantization = Quantization::None;
        let clock = self.clock.of_threads(rayon::current_num_threads());
        let since = clock.start();
        seal(&set, &flat, &self.path("flat"), &NEVER)?;
        let flat_seconds = since.seconds();

        forget_peak_memory();
        counting::forget_peak();
        let (before, allocated_before) = (memory("VmRSS"), counting::allocated());
        let (since, wall) = (clock.start(), Clock::Wall.start());
        let built = seal(&set, &self.options, &self.path("segment"), &NEVER)?;
        let (seconds, file_seconds) = (since.seconds(), wall.seconds());
        let allocated = counting::peak().saturating_sub(allocated_before) as u64;
        let peak = peak_memory().zip(before).map_or(allocated, |(peak, before)| peak.saturating_sub(before));
        drop(set);

        let segment = Segment::open(&built.path)?;
        segment.warm();
        let ram_bytes = hot_bytes(&segment.info());
        let degree = segment.mean_degree();
        self.segment = Some(segment);
        Ok(Built {
            seconds: (seconds - flat_seconds).max(0.0),
            file_seconds: Some(file_seconds),
            peak_bytes: peak,
            peak_allocated_bytes: Some(allocated),
            ram_bytes,
            disk_bytes: built.bytes,
            degree,
        })
    }

    fn set(&mut self, ef: usize) {
        self.ef = ef;
    }

    fn search(&self, query: usize) -> Result<Vec<i64>> {
        let segment = self.segment.as_ref().context("nothing is built")?;
        let query = Query { ef: self.ef, ..plain(&self.queries[query], self.k) };
        Ok(segment.search(&query, &self.none)?.iter().map(|hit| i64::from(hit.row)).collect())
    }
}

/// A search without conditions.
pub(crate) fn plain(vector: &Vector, k: usize) -> Query<'_> {
    Query { vector, k, ef: k, exact: false, filter: None, bound: None, cancelled: &NEVER }
}

/// A search among the rows that pass a filter.
pub(crate) fn filtered<'a>(vector: &'a Vector, k: usize, filter: &'a Filter) -> Query<'a> {
    Query { filter: Some(filter), ..plain(vector, k) }
}

pub(crate) fn options(open: &Open, builder: GraphBuilder) -> BuildOptions {
    let graph = GraphSpec {
        builder,
        m: open.m,
        ef_construction: open.ef_construction,
        min_records: 0,
        ..GraphSpec::default()
    };
    BuildOptions { graph, seed: open.seed, ..BuildOptions::default() }
}

/// Vectors as the product holds them once it has checked them.
pub(crate) fn vectors(matrix: &Matrix<f32>, metric: Metric) -> Result<Vec<Vector>> {
    let dimension = Dimension::new(u32::try_from(matrix.columns())?)?;
    let checked = matrix.iter().map(|row| Vector::try_new(row.to_vec(), dimension, metric));
    checked.collect::<Result<_, _>>().context("a query")
}

/// As [`Schema::new`].
pub(crate) fn schema(dimension: usize, metric: Metric, fields: &[(&str, FieldType)]) -> Result<Arc<Schema>> {
    let dimension = Dimension::new(u32::try_from(dimension)?)?;
    let named = |(name, kind): &(&str, FieldType)| Ok((FieldName::new(name)?, *kind));
    let fields = fields.iter().map(named).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    Ok(Arc::new(Schema::new(dimension, metric, fields)))
}

/// Records of some rows: keys and offsets are row numbers, so a segment of all rows has them in the same order.
pub(crate) fn growing_set(
    schema: &Arc<Schema>,
    matrix: &Matrix<f32>,
    rows: impl Iterator<Item = usize>,
    metadata: impl Fn(usize) -> Metadata,
) -> Result<GrowingSet> {
    let mut set = GrowingSet::new(Arc::clone(schema));
    for row in rows {
        let vector = schema.vector(matrix.row(row).to_vec()).with_context(|| format!("row {row}"))?;
        let metadata = metadata(row);
        let fields = schema.field_values(&metadata)?;
        set.apply(Record {
            key: Key::new(&row.to_string())?,
            offset: Offset(row as u64),
            timestamp: Timestamp(0),
            op: Op::Upsert(Document { vector, metadata, fields }),
        });
    }
    Ok(set)
}

/// Metadata of a record from JSON text.
pub(crate) fn metadata(text: &str) -> Result<Metadata> {
    Ok(Metadata::parse(text, MAX_METADATA)?)
}

/// What a search touches at every query, and keys: all but what is read of the few rows of an answer. Full vectors
/// are among that where there are codes to walk by.
pub(crate) fn hot_bytes(info: &SegmentInfo) -> u64 {
    let has = |name: &str| info.sections.iter().any(|section| section.name.starts_with(name));
    let cold: &[&str] = match has("codes") || has("short codes") {
        true => &["meta", "offsets", "timestamps", "column", "dictionary", "vectors", "inverse norms"],
        false => &["meta", "offsets", "timestamps", "column", "dictionary"],
    };
    let hot = info.sections.iter().filter(|section| !cold.iter().any(|name| section.name.starts_with(name)));
    hot.map(|section| section.bytes).sum()
}

#[cfg(test)]
mod tests {
    use sluice_segment::SectionInfo;

    use super::*;

    #[test]
    fn full_vectors_are_hot_unless_there_are_codes() {
        let matrix = Matrix::new(vec![1.0, 0.0, 0.0, 1.0], 2);
        let schema = schema(2, Metric::L2, &[]).unwrap();
        let set = growing_set(&schema, &matrix, 0..2, |_| Metadata::empty()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let built =
            seal(&set, &BuildOptions { seed: 1, ..BuildOptions::default() }, &dir.path().join("x"), &NEVER);
        let mut info = Segment::open(&built.unwrap().path).unwrap().info();
        let section = |name: &str, bytes| SectionInfo { name: name.into(), bytes };
        info.sections = vec![
            section("metadata bytes", 1),
            section("vectors", 10),
            section("key bytes", 100),
            section("graph level 0", 1000),
        ];
        assert_eq!(hot_bytes(&info), 1110);
        info.sections.push(section("codes", 10_000));
        assert_eq!(hot_bytes(&info), 11_100);
        info.sections.pop();
        info.sections.push(section("short codes", 5_000));
        assert_eq!(hot_bytes(&info), 6_100);
    }
}
