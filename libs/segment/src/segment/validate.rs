//! Everything that must hold of a segment's contents before it may answer: starts in range and growing, text
//! UTF-8, keys indexed and distinct, vectors finite, neighbours that exist.
//!
//! Checksums say that bytes are those that were written; this says that whoever wrote them cannot make a reader
//! panic, loop or look beyond the file.

use sluice_core::Quantization;
use sluice_core::ids::MAX_KEY_BYTES;
use sluice_core::schema::MAX_FIELDS;

use super::{Segment, Values};
use crate::SegmentError;
use crate::codes::{CodeView, MOST_AXES};
use crate::format::{GraphMeta, Kind, MAX_META, MAX_ROWS, Meta, NO_ROW, Table};
use crate::graph::Upper;
use crate::kernels::kernels;

type Checked = Result<(), SegmentError>;

/// Most neighbours per node and most levels that a graph may have.
const MAX_STRIDE: u32 = 1024;
const MAX_LEVELS: usize = 32;
const MAX_SEEDS: usize = 1024;
const MAX_WIDTH: u32 = 1024;

fn refuse<T>(section: impl ToString, problem: impl ToString) -> Result<T, SegmentError> {
    Err(SegmentError::damaged(section, problem))
}

/// Reads the meta section and checks what it says by itself.
pub(super) fn meta(bytes: &[u8], table: &Table) -> Result<Meta, SegmentError> {
    let Some(span) = table.find(Kind::Meta, 0) else { return refuse(Kind::Meta, "the section is missing") };
    if span.len() > MAX_META {
        return refuse(Kind::Meta, format!("{} bytes are too many", span.len()));
    }
    let meta: Meta = match serde_json::from_slice(&bytes[span]) {
        Ok(meta) => meta,
        Err(error) => return refuse(Kind::Meta, error),
    };
    if meta.rows == 0 || meta.rows as usize > MAX_ROWS {
        return refuse(Kind::Meta, format!("{} rows are impossible", meta.rows));
    }
    if meta.fields.len() > MAX_FIELDS {
        return refuse(Kind::Meta, format!("{} fields are too many", meta.fields.len()));
    }
    if let Some(axes) = meta.axes {
        let most = MOST_AXES.min(meta.dimension.get());
        if axes == 0 || axes as usize > most || meta.quantization != Quantization::None {
            return refuse(Kind::Meta, format!("short codes along {axes} axes are impossible"));
        }
    }
    if let Some(graph) = &meta.graph {
        graph_meta(graph, meta.rows)?;
    }
    Ok(meta)
}

fn graph_meta(graph: &GraphMeta, rows: u32) -> Checked {
    let strides = [graph.stride0, graph.stride];
    if strides.iter().any(|s| *s == 0 || *s > MAX_STRIDE) || graph.levels.len() > MAX_LEVELS {
        return refuse(Kind::Meta, "the graph has an impossible shape");
    }
    if graph.seeds.len() > MAX_SEEDS || graph.seeds.iter().any(|row| *row >= rows) {
        return refuse(Kind::Meta, "the graph's seeds are too many or do not exist");
    }
    if !(1..=MAX_WIDTH).contains(&graph.width) {
        return refuse(Kind::Meta, "the upper levels are walked at an impossible width");
    }
    // each level is a part of the one below it
    let mut below = rows;
    for nodes in &graph.levels {
        if *nodes == 0 || *nodes > below {
            return refuse(Kind::Meta, "a level of the graph has an impossible number of nodes");
        }
        below = *nodes;
    }
    if graph.entry >= below {
        return refuse(Kind::Meta, "the graph's entry point does not exist");
    }
    Ok(())
}

/// Checks every section of a segment whose sections have the right lengths.
pub(super) fn contents(segment: &Segment) -> Checked {
    vectors(segment)?;
    let offsets = segment.layout.offsets(&segment.bytes);
    if !offsets.is_sorted_by(|a, b| a < b) {
        return refuse(Kind::Offsets, "offsets do not grow");
    }
    let (starts, bytes) = segment.layout.key_parts(&segment.bytes);
    texts(Kind::KeyStarts, starts, bytes)?;
    if starts.windows(2).any(|pair| !(1..=MAX_KEY_BYTES as u64).contains(&(pair[1] - pair[0]))) {
        return refuse(Kind::KeyStarts, "a key is empty or too long");
    }
    key_index(segment)?;
    let (starts, bytes) = segment.layout.metadata_parts(&segment.bytes);
    texts(Kind::MetadataStarts, starts, bytes)?;
    let is_object = |text: &[u8]| text.first() == Some(&b'{') && text.last() == Some(&b'}');
    if !starts.windows(2).all(|pair| is_object(&bytes[pair[0] as usize..pair[1] as usize])) {
        return refuse(Kind::MetadataBytes, "metadata is no object");
    }
    for field in 0..segment.layout.columns() {
        column(segment, field)?;
    }
    if let Some(graph) = &segment.meta.graph {
        self::graph(segment, graph)?;
    }
    codes(segment)
}

/// What distances are computed from is finite; a code may be anything.
fn codes(segment: &Segment) -> Checked {
    let is_sound = |value: f32| value.is_finite() && value >= 0.0;
    let sound = |values: &[f32]| values.iter().all(|value| is_sound(*value));
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    match segment.codes() {
        Some(CodeView::Whole(codes))
            if !sound(codes.scales) || !sound(codes.norms) || !finite(codes.means) =>
        {
            refuse(Kind::CodeScales, "a scale, norm or mean is impossible")
        }
        Some(CodeView::Short(codes)) if !sound(codes.scales) || !finite(codes.means) => {
            refuse(Kind::AxisScales, "a scale or mean is impossible")
        }
        Some(CodeView::Short(codes)) if !codes.constants().all(|(a, b)| is_sound(a) && is_sound(b)) => {
            refuse(Kind::ShortCodes, "a scale or norm is impossible")
        }
        _ => Ok(()),
    }
}

/// Every vector is one that `Vector::try_new` would have let pass, and under cosine its inverse norm is right.
fn vectors(segment: &Segment) -> Checked {
    let norms = segment.layout.inverse_norms(&segment.bytes);
    let dot = kernels().dot;
    let mut room = Vec::new();
    // kernels round differently from the check that admitted the vector
    const LARGEST: f32 = f32::MAX / 4.0 * 1.001;
    for row in 0..segment.rows() {
        let vector = segment.vector(row).in_f32(&mut room);
        // a component that is not finite makes this not finite
        let squared = dot(vector, vector);
        if !squared.is_finite() || squared > LARGEST {
            return refuse(Kind::Vectors, format!("the vector of row {row} is not finite or too large"));
        }
        // there is one per row under cosine, else none
        let Some(norm) = norms.get(row) else { continue };
        if !norm.is_finite() || !(0.99..1.01).contains(&(norm * squared.sqrt())) {
            return refuse(Kind::InverseNorms, format!("the norm of row {row} is not that of its vector"));
        }
    }
    Ok(())
}

/// `starts` cut `bytes`, which are UTF-8, into texts from front to end.
fn texts(kind: Kind, starts: &[u64], bytes: &[u8]) -> Checked {
    let whole = starts.first() == Some(&0) && starts.last() == Some(&(bytes.len() as u64));
    if !whole || !starts.is_sorted() {
        return refuse(kind, "starts do not grow from 0 to the end of the text");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return refuse(kind, "the text is not UTF-8") };
    // growing and ending at the length of the text, so each is in range
    if !starts.iter().all(|start| text.is_char_boundary(*start as usize)) {
        return refuse(kind, "a start lies inside a character");
    }
    Ok(())
}

/// Each key is found by the index, at its own row: so keys are distinct, and no slot is left over for anything else.
fn key_index(segment: &Segment) -> Checked {
    let slots = segment.layout.key_index(&segment.bytes);
    let mut used = 0;
    for slot in slots {
        match *slot {
            0 => {}
            row if row <= segment.meta.rows => used += 1,
            _ => return refuse(Kind::KeyIndex, "a slot names a row that does not exist"),
        }
    }
    if used != segment.rows() {
        return refuse(Kind::KeyIndex, "it has not one slot per row");
    }
    for row in 0..segment.meta.rows {
        if segment.find(segment.key(row as usize)) != Some(row) {
            return refuse(Kind::KeyIndex, format!("the key of row {row} is not found, or stands twice"));
        }
    }
    Ok(())
}

fn column(segment: &Segment, field: usize) -> Checked {
    let name = |kind: Kind| format!("{kind} {field}");
    let column = segment.column(field);
    let whole = column.starts.first() == Some(&0)
        && column.starts.last().is_some_and(|end| *end as usize == column.values.len());
    if !whole || !column.starts.is_sorted() {
        return refuse(name(Kind::ColumnStarts), "starts do not grow from 0 to the end of the values");
    }
    let sound = match column.values {
        Values::Keyword { ids, words } => {
            if words.starts.is_empty() {
                return refuse(name(Kind::DictionaryStarts), "the section is empty");
            }
            texts(Kind::DictionaryStarts, words.starts, words.bytes)?;
            if (1..words.len()).any(|at| words.get(at - 1) >= words.get(at)) {
                return refuse(name(Kind::DictionaryBytes), "words are out of order");
            }
            ids.iter().all(|id| (*id as usize) < words.len())
        }
        Values::Float(values) => values.iter().all(|v| v.is_finite()),
        Values::Boolean(values) => values.iter().all(|v| *v <= 1),
        Values::Integer(_) | Values::Timestamp(_) => true,
    };
    if !sound {
        return refuse(name(Kind::ColumnValues), "a value is impossible");
    }
    column.index.map_or(Ok(()), |index| index.check(&column, field as u32))
}

fn graph(segment: &Segment, graph: &GraphMeta) -> Checked {
    let level0 = segment.layout.level0(&segment.bytes);
    if !lists_are_sound(level0, graph.stride0, segment.meta.rows) {
        return refuse(Kind::GraphLevel0, "a list of neighbours is unsound");
    }
    let mut below: Option<&[u32]> = None;
    for level in 1..=segment.layout.upper_levels() {
        let upper = segment.layout.upper(&segment.bytes, level);
        let name = format!("{} {level}", Kind::GraphUpper);
        if !lists_are_sound(upper.neighbours, graph.stride, upper.rows.len() as u32) {
            return refuse(name, "a list of neighbours is unsound");
        }
        if !nodes_are_sound(&upper, below, segment.meta.rows) {
            return refuse(name, "its nodes are not nodes of the level below");
        }
        below = Some(upper.rows);
    }
    Ok(())
}

/// Neighbours exist, and after the first gap there is none.
fn lists_are_sound(lists: &[u32], stride: u32, nodes: u32) -> bool {
    lists.chunks_exact(stride as usize).all(|list| {
        let end = list.iter().position(|n| *n == NO_ROW).unwrap_or(list.len());
        let (there, gap) = list.split_at(end);
        there.iter().all(|n| *n < nodes) && gap.iter().all(|n| *n == NO_ROW)
    })
}

fn nodes_are_sound(upper: &Upper<'_>, below: Option<&[u32]>, rows: u32) -> bool {
    let same = |(row, place): (&u32, &u32)| match below {
        Some(below) => below.get(*place as usize) == Some(row),
        None => row == place && *row < rows,
    };
    upper.rows.is_sorted_by(|a, b| a < b) && upper.rows.iter().zip(upper.below).all(same)
}
