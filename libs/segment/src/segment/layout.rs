//! Where each section lies in a file and that it has the length that rows, dimension and fields demand.

use bytemuck::AnyBitPattern;
use sluice_core::{FieldType, Metric, Quantization, VectorType};

use super::column::{Column, Values, Words};
use super::column_index::ColumnIndexSpans;
use crate::SegmentError;
use crate::codes::{CodeView, ShortView, WholeView, code_stride, short_stride};
use crate::components::Components;
use crate::format::{Entry, GraphMeta, Kind, Meta, Table, encoding_of, key_slots};
use crate::graph::Upper;

type Span = std::ops::Range<usize>;

/// The sections of a segment by name. Every span lies in the file, on a 64-byte boundary, and has the right length.
#[derive(Debug)]
pub(super) struct Layout {
    vectors: Span,
    vector_type: VectorType,
    inverse_norms: Option<Span>,
    offsets: Span,
    timestamps: Span,
    key_starts: Span,
    key_bytes: Span,
    key_index: Span,
    metadata_starts: Span,
    metadata_bytes: Span,
    columns: Vec<ColumnSpans>,
    level0: Option<Span>,
    upper: Vec<UpperSpans>,
    codes: Option<CodeSpans>,
    short: Option<ShortSpans>,
}

#[derive(Debug)]
struct ShortSpans {
    codes: Span,
    axes: Span,
    scales: Span,
    means: Span,
}

#[derive(Debug)]
struct CodeSpans {
    codes: Span,
    scales: Span,
    /// Under l2 only.
    norms: Option<Span>,
    means: Span,
}

#[derive(Debug)]
struct ColumnSpans {
    kind: FieldType,
    starts: Span,
    values: Span,
    /// Starts and bytes of the words of a keyword column.
    words: Option<(Span, Span)>,
    index: Option<ColumnIndexSpans>,
    /// Rows that have a value.
    present: u32,
}

#[derive(Debug)]
struct UpperSpans {
    span: Span,
    nodes: usize,
}

/// Finds sections and counts them, so that one too many is noticed.
struct Finder<'a> {
    bytes: &'a [u8],
    table: &'a Table,
    found: usize,
}

impl Finder<'_> {
    fn any(&mut self, kind: Kind, part: u32) -> Result<Span, SegmentError> {
        let span = self.table.find(kind, part);
        let span = span.ok_or_else(|| SegmentError::damaged(kind, format!("section {part} is missing")))?;
        self.found += 1;
        Ok(span)
    }

    /// A section of `count` elements of `size` bytes.
    fn of(&mut self, kind: Kind, part: u32, count: usize, size: usize) -> Result<Span, SegmentError> {
        let span = self.any(kind, part)?;
        if count.checked_mul(size) != Some(span.len()) {
            let problem = format!("{} bytes are not {count} elements of {size} bytes", span.len());
            return Err(SegmentError::damaged(kind, problem));
        }
        Ok(span)
    }

    fn vectors(&mut self, components: usize, kind: VectorType) -> Result<Span, SegmentError> {
        let wanted = encoding_of(Kind::Vectors, kind);
        let of_kind = |entry: &&Entry| entry.kind == Kind::Vectors as u16;
        if let Some(entry) = self.table.entries().iter().find(of_kind)
            && entry.encoding != wanted
        {
            let problem = format!("encoding {} is not that of {kind}", entry.encoding);
            return Err(SegmentError::damaged(Kind::Vectors, problem));
        }
        let size = match kind {
            VectorType::F32 => 4,
            VectorType::F16 => 2,
        };
        self.of(Kind::Vectors, 0, components, size)
    }

    /// A section of whole elements of `size` bytes.
    fn whole(&mut self, kind: Kind, part: u32, size: usize) -> Result<Span, SegmentError> {
        let span = self.any(kind, part)?;
        if !span.len().is_multiple_of(size) {
            let problem = format!("{} bytes are no whole number of {size}", span.len());
            return Err(SegmentError::damaged(kind, problem));
        }
        Ok(span)
    }

    fn column(&mut self, field: u32, kind: FieldType, rows: usize) -> Result<ColumnSpans, SegmentError> {
        let starts = self.of(Kind::ColumnStarts, field, rows + 1, 4)?;
        let size = match kind {
            FieldType::Keyword => 4,
            FieldType::Integer | FieldType::Float | FieldType::Timestamp => 8,
            FieldType::Boolean => 1,
        };
        let values = self.whole(Kind::ColumnValues, field, size)?;
        let words = match kind {
            FieldType::Keyword => {
                let starts = self.whole(Kind::DictionaryStarts, field, 8)?;
                Some((starts, self.any(Kind::DictionaryBytes, field)?))
            }
            _ => None,
        };
        let index = match self.table.find(Kind::ColumnIndex, field) {
            Some(section) => {
                self.found += 1;
                // one start more than there are words; a dictionary without any is refused later
                let count = words.as_ref().map_or(0, |(starts, _)| (starts.len() / 8).saturating_sub(1));
                Some(ColumnIndexSpans::new(self.bytes, section, (field, kind), count)?)
            }
            None => None,
        };
        let pairs = cast::<u32>(self.bytes, &starts).windows(2);
        let present = pairs.filter(|pair| pair[0] != pair[1]).count() as u32;
        Ok(ColumnSpans { kind, starts, values, words, index, present })
    }

    fn codes(&mut self, meta: &Meta) -> Result<CodeSpans, SegmentError> {
        let (rows, dimension) = (meta.rows as usize, meta.dimension.get());
        Ok(CodeSpans {
            codes: self.of(Kind::Codes, 0, rows.saturating_mul(code_stride(dimension)), 1)?,
            scales: self.of(Kind::CodeScales, 0, rows, 4)?,
            norms: match meta.metric {
                Metric::L2 => Some(self.of(Kind::CodeNorms, 0, rows, 4)?),
                _ => None,
            },
            means: self.of(Kind::CodeMeans, 0, dimension, 4)?,
        })
    }

    fn short(&mut self, axes: usize, meta: &Meta) -> Result<ShortSpans, SegmentError> {
        let (rows, dimension) = (meta.rows as usize, meta.dimension.get());
        Ok(ShortSpans {
            codes: self.of(Kind::ShortCodes, 0, rows.saturating_mul(short_stride(axes)), 1)?,
            axes: self.of(Kind::CodeAxes, 0, axes.saturating_mul(code_stride(dimension)), 1)?,
            scales: self.of(Kind::AxisScales, 0, axes, 4)?,
            means: self.of(Kind::ShortMeans, 0, dimension, 4)?,
        })
    }

    fn upper(&mut self, graph: &GraphMeta) -> Result<Vec<UpperSpans>, SegmentError> {
        let levels = graph.levels.iter().zip(1..);
        let words = graph.stride as usize + 2;
        levels
            .map(|(nodes, level)| {
                let nodes = *nodes as usize;
                // a level's nodes are a part of the rows, so this cannot overflow
                Ok(UpperSpans { span: self.of(Kind::GraphUpper, level, nodes * words, 4)?, nodes })
            })
            .collect()
    }
}

impl Layout {
    pub(super) fn new(bytes: &[u8], table: &Table, meta: &Meta) -> Result<Self, SegmentError> {
        debug_assert_eq!(bytes.as_ptr() as usize % 64, 0);
        let rows = meta.rows as usize;
        let mut find = Finder { bytes, table, found: 0 };
        find.any(Kind::Meta, 0)?;
        let components = rows.saturating_mul(meta.dimension.get());
        let columns = meta.fields.values().zip(0..);
        let layout = Self {
            vectors: find.vectors(components, meta.vector_type)?,
            vector_type: meta.vector_type,
            inverse_norms: match meta.metric {
                Metric::Cosine => Some(find.of(Kind::InverseNorms, 0, rows, 4)?),
                _ => None,
            },
            offsets: find.of(Kind::Offsets, 0, rows, 8)?,
            timestamps: find.of(Kind::Timestamps, 0, rows, 8)?,
            key_starts: find.of(Kind::KeyStarts, 0, rows + 1, 8)?,
            key_bytes: find.any(Kind::KeyBytes, 0)?,
            key_index: find.of(Kind::KeyIndex, 0, key_slots(rows), 4)?,
            metadata_starts: find.of(Kind::MetadataStarts, 0, rows + 1, 8)?,
            metadata_bytes: find.any(Kind::MetadataBytes, 0)?,
            columns: columns.map(|(k, field)| find.column(field, *k, rows)).collect::<Result<_, _>>()?,
            level0: match &meta.graph {
                Some(g) => Some(find.of(Kind::GraphLevel0, 0, rows.saturating_mul(g.stride0 as usize), 4)?),
                None => None,
            },
            upper: match &meta.graph {
                Some(graph) => find.upper(graph)?,
                None => Vec::new(),
            },
            codes: match meta.quantization {
                Quantization::Sq8 => Some(find.codes(meta)?),
                Quantization::None => None,
            },
            short: match meta.axes {
                Some(axes) => Some(find.short(axes as usize, meta)?),
                None => None,
            },
        };
        let unknown = table.entries().iter().filter(|e| Kind::from_number(e.kind).is_none()).count();
        if find.found + unknown != table.entries().len() {
            return Err(SegmentError::damaged(
                "table",
                "it has sections that the meta section does not explain",
            ));
        }
        Ok(layout)
    }

    pub(super) fn vectors<'a>(&self, bytes: &'a [u8]) -> Components<'a> {
        match self.vector_type {
            VectorType::F32 => Components::F32(cast(bytes, &self.vectors)),
            VectorType::F16 => Components::F16(cast(bytes, &self.vectors)),
        }
    }

    /// Empty unless the metric is cosine.
    pub(super) fn inverse_norms<'a>(&self, bytes: &'a [u8]) -> &'a [f32] {
        self.inverse_norms.as_ref().map_or(&[], |span| cast(bytes, span))
    }

    pub(super) fn offsets<'a>(&self, bytes: &'a [u8]) -> &'a [u64] {
        cast(bytes, &self.offsets)
    }

    pub(super) fn timestamps<'a>(&self, bytes: &'a [u8]) -> &'a [i64] {
        cast(bytes, &self.timestamps)
    }

    pub(super) fn key_index<'a>(&self, bytes: &'a [u8]) -> &'a [u32] {
        cast(bytes, &self.key_index)
    }

    pub(super) fn key_parts<'a>(&self, bytes: &'a [u8]) -> (&'a [u64], &'a [u8]) {
        (cast(bytes, &self.key_starts), &bytes[self.key_bytes.clone()])
    }

    pub(super) fn metadata_parts<'a>(&self, bytes: &'a [u8]) -> (&'a [u64], &'a [u8]) {
        (cast(bytes, &self.metadata_starts), &bytes[self.metadata_bytes.clone()])
    }

    pub(super) fn key<'a>(&self, bytes: &'a [u8], at: usize) -> &'a [u8] {
        let (starts, text) = self.key_parts(bytes);
        &text[starts[at] as usize..starts[at + 1] as usize]
    }

    pub(super) fn metadata<'a>(&self, bytes: &'a [u8], at: usize) -> &'a [u8] {
        let (starts, text) = self.metadata_parts(bytes);
        &text[starts[at] as usize..starts[at + 1] as usize]
    }

    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn column<'a>(&self, bytes: &'a [u8], field: usize) -> Column<'a> {
        let spans = &self.columns[field];
        let values = match (spans.kind, &spans.words) {
            (FieldType::Integer, _) => Values::Integer(cast(bytes, &spans.values)),
            (FieldType::Float, _) => Values::Float(cast(bytes, &spans.values)),
            (FieldType::Boolean, _) => Values::Boolean(&bytes[spans.values.clone()]),
            (FieldType::Timestamp, _) => Values::Timestamp(cast(bytes, &spans.values)),
            (FieldType::Keyword, words) => {
                let (starts, text): (&[u64], &[u8]) = match words {
                    Some((starts, text)) => (cast(bytes, starts), &bytes[text.clone()]),
                    None => (&[], &[]),
                };
                Values::Keyword { ids: cast(bytes, &spans.values), words: Words { starts, bytes: text } }
            }
        };
        Column {
            starts: cast(bytes, &spans.starts),
            values,
            present: spans.present,
            index: spans.index.as_ref().map(|index| index.view(bytes, spans.kind)),
        }
    }

    /// The neighbours of every row, a fixed number each; empty without a graph.
    pub(super) fn level0<'a>(&self, bytes: &'a [u8]) -> &'a [u32] {
        self.level0.as_ref().map_or(&[], |span| cast(bytes, span))
    }

    /// What searches go by instead of full vectors, where there is such; `dimension` is that of the vectors.
    pub(super) fn codes<'a>(&self, bytes: &'a [u8], dimension: usize) -> Option<CodeView<'a>> {
        let whole = self.codes.as_ref().map(|spans| WholeView {
            codes: &bytes[spans.codes.clone()],
            stride: code_stride(dimension),
            scales: cast(bytes, &spans.scales),
            norms: spans.norms.as_ref().map_or(&[], |span| cast(bytes, span)),
            means: cast(bytes, &spans.means),
        });
        let short = self.short.as_ref().map(|spans| ShortView {
            codes: &bytes[spans.codes.clone()],
            axes: &bytes[spans.axes.clone()],
            scales: cast(bytes, &spans.scales),
            means: cast(bytes, &spans.means),
        });
        short.map(CodeView::Short).or(whole.map(CodeView::Whole))
    }

    pub(super) fn upper_levels(&self) -> usize {
        self.upper.len()
    }

    /// Level `level`, which is at least 1.
    pub(super) fn upper<'a>(&self, bytes: &'a [u8], level: usize) -> Upper<'a> {
        let UpperSpans { span, nodes } = &self.upper[level - 1];
        let words: &[u32] = cast(bytes, span);
        let (rows, rest) = words.split_at(*nodes);
        let (below, neighbours) = rest.split_at(*nodes);
        Upper { rows, below, neighbours }
    }
}

/// The elements of a section. Sections begin on 64-byte boundaries and hold whole elements, so the cast cannot fail.
fn cast<'a, T: AnyBitPattern>(bytes: &'a [u8], span: &Span) -> &'a [T] {
    bytemuck::cast_slice(&bytes[span.clone()])
}
