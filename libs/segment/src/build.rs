//! Builds a segment's file from rows: what seal and merge share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use sluice_core::{Dimension, GraphBuilder, GraphSpec, Metric, Quantization, Schema, VectorType};

use crate::codes::{Codes, ShortCodes, code_stride};
use crate::column_index::write_column_index;
use crate::columns::{Dictionary, write_column};
use crate::format::{GraphMeta, Kind, MAX_ROWS, Meta, SegmentWriter, key_hash, key_slots};
use crate::graph::{self, Graph, Known, Made, MadeCodes, SLOT_MEMORY, SMALLEST_CODED, fanout, rough_memory};
use crate::row::Rows;
use crate::score::inverse_norm;
use crate::{BuildError, Cancelled, Components, Progress};

/// How a segment is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildOptions {
    pub graph: GraphSpec,
    /// Whether a segment has codes to be walked or scanned by.
    pub quantization: Quantization,
    /// Decides what is left to chance: leaders, levels, the order in which rows enter.
    pub seed: u64,
    /// Told how far the build is; a build needs one of its own.
    pub progress: Progress,
}

/// A segment's file, written and synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub path: PathBuf,
    pub bytes: u64,
    /// Of the whole file.
    pub digest: blake3::Hash,
    pub records: u32,
}

/// Fewer rows without a graph are scanned by their full vectors: those fit the caches.
const FEWEST_SCANNED_BY_CODE: u64 = 512;

/// Rows between two looks at the cancelled flag.
pub(crate) const CHECK_EVERY: usize = 1024;

/// Bytes that a build of `rows` rows, which have `values` values of declared fields in all, takes at its peak, beyond
/// its inputs: to be charged before it starts.
///
/// Without a graph that is
/// - for each row its place in the order, in the key index, and what three values take;
/// - for each value more than three a row: its place in a dictionary, if it is a word that no other value is, and in
///   the column index of its field, of which one is made at a time;
/// - codes and what they are made from and compared by, where there are any.
///
/// With a graph come codes in any case, once more while points are put in order, and then:
/// - bulk: the slots of offers, projections, points in fewer dimensions and what they are found from, buckets (4 bytes
///   for each that a row joins, twice while they are made), and lists of edges with their lengths, in both directions;
/// - hnsw_rs: about 700 bytes per point and 64 per edge, of which every point has up to 2 x m on level 0 in each of
///   its lists.
pub fn build_memory(
    rows: u64,
    values: u64,
    dimension: Dimension,
    graph: &GraphSpec,
    quantization: Quantization,
) -> u64 {
    const FIXED: u64 = 2 << 20;
    const PER_ROW: u64 = 272;
    /// In a row's share.
    const VALUES: u64 = 3;
    /// A word in a tree that was filled in order takes 40, its starts 8, its row 4; a number and its row take 16.
    const PER_VALUE: u64 = 56;
    /// Of a thread: a block of points as rows and as panels, tiles, lists.
    const SCRATCH_ROWS: u64 = 2 * 2304;
    /// What codes are made from and compared by, beside themselves.
    const PER_CODE: u64 = 96;
    let codes = code_stride(dimension.get()) as u64 + 24;
    let with_graph = rows >= u64::from(graph.min_records);
    // vectors without codes are compared as they are, and are no longer than codes
    let coded = with_graph || scanned_by_code(rows, dimension.get(), quantization);
    let per_row = PER_ROW + if coded { codes + PER_CODE } else { 0 };
    let more_values = values.saturating_sub(rows.saturating_mul(VALUES));
    let flat = FIXED
        .saturating_add(rows.saturating_mul(per_row))
        .saturating_add(more_values.saturating_mul(PER_VALUE));
    if !with_graph {
        return flat;
    }
    let (m, ef) = (u64::from(graph.m), u64::from(graph.ef_construction));
    let (per_point, once) = match graph.builder {
        GraphBuilder::HnswRs => (700 + 2 * m * 64 + 3 * m * 4, ef * (m * 200 + dimension.get() as u64)),
        GraphBuilder::Bulk => {
            let buckets = 4 * 2 * (2 * fanout(graph.ef_construction) as u64 + 2);
            let lists = 2 * 2 * m * 8 + 2 * m * 12;
            let scratch = SCRATCH_ROWS * (2 * codes + 512);
            let once = scratch.saturating_add(rough_memory(rows, dimension.get()));
            (codes + SLOT_MEMORY as u64 + 64 + buckets + lists, once)
        }
    };
    flat.saturating_add(rows.saturating_mul(per_point)).saturating_add(once)
}

/// Whether rows without a graph are given codes, if those tell them apart.
fn scanned_by_code(rows: u64, dimension: usize, quantization: Quantization) -> bool {
    quantization == Quantization::Sq8 && rows >= FEWEST_SCANNED_BY_CODE && dimension >= SMALLEST_CODED
}

pub(crate) fn check_cancelled(cancelled: &AtomicBool) -> Result<(), Cancelled> {
    if cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
}

/// Builds the graph, if there are rows enough, and writes the file; a file that was not finished is removed.
pub(crate) fn build(
    rows: &impl Rows,
    schema: &Schema,
    options: &BuildOptions,
    known: Option<Known<'_>>,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<Built, BuildError> {
    if rows.len() == 0 {
        return Err(BuildError::Empty);
    }
    if rows.len() > MAX_ROWS {
        return Err(BuildError::TooLarge { what: "rows", got: rows.len() as u64, max: MAX_ROWS as u64 });
    }
    let (dimension, metric) = (schema.dimension.get(), schema.metric);
    let made = if rows.len() >= options.graph.min_records as usize {
        graph::build(rows, dimension, metric, options, known, cancelled)?
    } else {
        let coded = scanned_by_code(rows.len() as u64, dimension, options.quantization);
        let codes = if coded { graph::codes(rows, dimension, metric, cancelled)? } else { None };
        Made { graph: None, codes: codes.map(MadeCodes::Whole) }
    };
    let written = write(rows, schema, options, made, path, cancelled);
    if written.is_err()
        && let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "an unfinished segment was not removed");
    }
    let (bytes, digest) = written?;
    options.progress.reached(1.0);
    Ok(Built { path: path.to_owned(), bytes, digest, records: rows.len() as u32 })
}

fn write(
    rows: &impl Rows,
    schema: &Schema,
    options: &BuildOptions,
    made: Made,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<(u64, blake3::Hash), BuildError> {
    let mut file = SegmentWriter::create(path, schema.vector_type)?;
    let Made { graph, codes } = made;
    let meta = Meta {
        rows: rows.len() as u32,
        dimension: schema.dimension,
        metric: schema.metric,
        vector_type: schema.vector_type,
        fields: schema.fields.clone(),
        graph: graph.as_ref().map(|g| graph_meta(g, options)),
        quantization: match codes {
            Some(MadeCodes::Whole(_)) => Quantization::Sq8,
            _ => Quantization::None,
        },
        axes: match &codes {
            Some(MadeCodes::Short(codes)) => Some(codes.scales.len() as u32),
            _ => None,
        },
        writer: concat!("sluice-segment ", env!("CARGO_PKG_VERSION")).into(),
    };
    file.begin(Kind::Meta, 0)?;
    file.values(&serde_json::to_vec(&meta).map_err(std::io::Error::from)?)?;
    write_rows(&mut file, rows, schema, cancelled)?;
    write_keys(&mut file, rows, cancelled)?;
    write_texts(&mut file, Kind::MetadataStarts, Kind::MetadataBytes, rows, cancelled, |at| {
        rows.row(at).metadata
    })?;
    let dictionaries = crate::columns::dictionaries(rows, schema, cancelled)?;
    write_columns(&mut file, rows, &dictionaries, cancelled)?;
    if let Some(graph) = &graph {
        write_graph(&mut file, graph)?;
    }
    if let Some(MadeCodes::Whole(codes)) = &codes {
        write_codes(&mut file, codes, schema.metric)?;
    }
    write_column_indexes(&mut file, rows, &dictionaries, schema, cancelled)?;
    if let Some(MadeCodes::Short(codes)) = &codes {
        write_short_codes(&mut file, codes)?;
    }
    check_cancelled(cancelled)?;
    Ok(file.finish()?)
}

fn graph_meta(graph: &Graph, options: &BuildOptions) -> GraphMeta {
    GraphMeta {
        builder: options.graph.builder,
        m: options.graph.m,
        ef_construction: options.graph.ef_construction,
        seed: options.seed,
        ef: options.graph.ef,
        stride0: graph.stride0 as u32,
        stride: graph.stride as u32,
        entry: graph.entry,
        seeds: graph.seeds.clone(),
        width: graph.width,
        levels: graph.upper.iter().map(|level| level.rows.len() as u32).collect(),
    }
}

/// Calls `each` for every row, looking at the cancelled flag now and then.
pub(crate) fn for_rows(
    rows: &impl Rows,
    cancelled: &AtomicBool,
    mut each: impl FnMut(usize) -> std::io::Result<()>,
) -> Result<(), BuildError> {
    for at in 0..rows.len() {
        if at % CHECK_EVERY == 0 {
            check_cancelled(cancelled)?;
        }
        each(at)?;
    }
    Ok(())
}

fn write_rows(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    schema: &Schema,
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    file.begin(Kind::Vectors, 0)?;
    let mut halves = vec![f16::ZERO; schema.dimension.get()];
    for_rows(rows, cancelled, |at| match (rows.row(at).vector, schema.vector_type) {
        (Components::F32(vector), VectorType::F32) => file.values(vector),
        (Components::F16(vector), VectorType::F16) => file.values(vector),
        // exact: a growing set holds what is kept
        (Components::F32(vector), VectorType::F16) => {
            halves.convert_from_f32_slice(vector);
            file.values(&halves)
        }
        (Components::F16(vector), VectorType::F32) => file.values(&vector.to_f32_vec()),
    })?;
    if schema.metric == Metric::Cosine {
        file.begin(Kind::InverseNorms, 0)?;
        let mut room = Vec::new();
        for_rows(rows, cancelled, |at| {
            let vector = rows.row(at).vector.in_f32(&mut room);
            file.value(inverse_norm(vector))
        })?;
    }
    file.begin(Kind::Offsets, 0)?;
    for_rows(rows, cancelled, |at| file.value(rows.row(at).offset.0))?;
    file.begin(Kind::Timestamps, 0)?;
    for_rows(rows, cancelled, |at| file.value(rows.row(at).timestamp.0))
}

fn write_keys(file: &mut SegmentWriter, rows: &impl Rows, cancelled: &AtomicBool) -> Result<(), BuildError> {
    write_texts(file, Kind::KeyStarts, Kind::KeyBytes, rows, cancelled, |at| rows.row(at).key)?;
    let mut slots = vec![0u32; key_slots(rows.len())];
    let mask = slots.len() - 1;
    for_rows(rows, cancelled, |at| {
        let mut slot = key_hash(rows.row(at).key) as usize & mask;
        while slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        slots[slot] = at as u32 + 1;
        Ok(())
    })?;
    file.begin(Kind::KeyIndex, 0)?;
    Ok(file.values(&slots)?)
}

fn write_texts<'a, R: Rows>(
    file: &mut SegmentWriter,
    starts: Kind,
    bytes: Kind,
    rows: &'a R,
    cancelled: &AtomicBool,
    text: impl Fn(usize) -> &'a str,
) -> Result<(), BuildError> {
    file.begin(starts, 0)?;
    let mut end = 0u64;
    file.value(end)?;
    for_rows(rows, cancelled, |at| {
        end += text(at).len() as u64;
        file.value(end)
    })?;
    file.begin(bytes, 0)?;
    for_rows(rows, cancelled, |at| file.values(text(at).as_bytes()))
}

/// Sections stand in the order of (kind, field), so each kind is written for all fields before the next.
fn write_columns(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    dictionaries: &[Dictionary<'_>],
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    for kind in [Kind::ColumnStarts, Kind::ColumnValues, Kind::DictionaryStarts, Kind::DictionaryBytes] {
        for (field, dictionary) in dictionaries.iter().enumerate() {
            check_cancelled(cancelled)?;
            write_column(file, kind, rows, field, dictionary)?;
        }
    }
    Ok(())
}

fn write_column_indexes(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    dictionaries: &[Dictionary<'_>],
    schema: &Schema,
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    for (field, (kind, dictionary)) in schema.fields.values().zip(dictionaries).enumerate() {
        check_cancelled(cancelled)?;
        file.begin(Kind::ColumnIndex, field as u32)?;
        write_column_index(file, rows, (field, *kind), dictionary, cancelled)?;
    }
    Ok(())
}

fn write_graph(file: &mut SegmentWriter, graph: &Graph) -> Result<(), BuildError> {
    file.begin(Kind::GraphLevel0, 0)?;
    file.values(&graph.level0)?;
    for (level, part) in graph.upper.iter().zip(1..) {
        file.begin(Kind::GraphUpper, part)?;
        file.values(&level.rows)?;
        file.values(&level.below)?;
        file.values(&level.neighbours)?;
    }
    Ok(())
}

fn write_codes(file: &mut SegmentWriter, codes: &Codes, metric: Metric) -> Result<(), BuildError> {
    file.begin(Kind::Codes, 0)?;
    file.values(codes.bytes())?;
    file.begin(Kind::CodeScales, 0)?;
    file.values(&codes.scales)?;
    if metric == Metric::L2 {
        file.begin(Kind::CodeNorms, 0)?;
        file.values(&codes.norms)?;
    }
    file.begin(Kind::CodeMeans, 0)?;
    Ok(file.values(&codes.means)?)
}

fn write_short_codes(file: &mut SegmentWriter, codes: &ShortCodes) -> Result<(), BuildError> {
    file.begin(Kind::ShortCodes, 0)?;
    file.values(codes.bytes())?;
    file.begin(Kind::CodeAxes, 0)?;
    file.values(&codes.axes)?;
    file.begin(Kind::AxisScales, 0)?;
    file.values(&codes.scales)?;
    file.begin(Kind::ShortMeans, 0)?;
    Ok(file.values(&codes.means)?)
}
