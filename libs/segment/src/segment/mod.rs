//! A segment opened for reading: what stands in it, by row, by key and by column.
//!
//! A `Segment` exists only if every byte of it was checked (see `validate`); its accessors count on that.

mod batch;
mod by_vector;
mod column;
mod column_index;
mod layout;
mod search;
mod select;
mod validate;

use std::path::Path;

use serde::Serialize;
use sluice_core::{GraphBuilder, Offset, Quantization, Schema, Timestamp};

pub(crate) use column::{Column, Values};
pub(crate) use column_index::ColumnIndex;

use crate::codes::CodeView;
use crate::format::{self, GraphMeta, Kind, Meta, Table};
use crate::mapping::Bytes;
use crate::row::ValueRef;
use crate::{Components, RowRef, SegmentError};
use layout::Layout;

/// An immutable, verified file of live records, with or without a graph.
#[derive(Debug)]
pub struct Segment {
    bytes: Bytes,
    table: Table,
    meta: Meta,
    schema: Schema,
    layout: Layout,
}

/// What stands in a segment, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SegmentInfo {
    /// Format version.
    pub version: u32,
    /// The program that wrote it.
    pub writer: String,
    pub rows: u32,
    /// Length of the file.
    pub bytes: u64,
    #[serde(flatten)]
    pub schema: Schema,
    /// Version of the oldest row.
    pub first_offset: Offset,
    /// Version of the newest row.
    pub last_offset: Offset,
    /// Absent where the segment is scanned.
    pub graph: Option<GraphInfo>,
    /// How vectors are coded for traversal.
    pub quantization: Quantization,
    /// Axes along which they are coded; absent where all components are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axes: Option<u32>,
    pub sections: Vec<SectionInfo>,
}

/// The shape of a segment's graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GraphInfo {
    pub builder: GraphBuilder,
    pub m: u32,
    pub ef_construction: u32,
    pub ef: u32,
    /// Nodes that walks keep on each upper level.
    pub width: u32,
    /// Nodes of level 0, 1, ..
    pub levels: Vec<u32>,
}

/// One section of a segment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionInfo {
    pub name: String,
    pub bytes: u64,
}

impl Segment {
    /// Maps `path` and checks all of it. The file must not be written to or cut while the segment is open.
    ///
    /// # Errors
    /// When the file cannot be read, or is not, byte for byte, a segment that this program could have written.
    pub fn open(path: &Path) -> Result<Self, SegmentError> {
        Self::from_aligned(Bytes::map(path)?)
    }

    /// As [`Segment::open`], from memory; the bytes are copied to an aligned place.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Self, SegmentError> {
        Self::from_aligned(Bytes::copy(bytes.as_ref()))
    }

    fn from_aligned(bytes: Bytes) -> Result<Self, SegmentError> {
        let table = format::parse(&bytes)?;
        let meta = validate::meta(&bytes, &table)?;
        let layout = Layout::new(&bytes, &table, &meta)?;
        let schema = meta.schema();
        let segment = Self { bytes, table, meta, schema, layout };
        validate::contents(&segment)?;
        Ok(segment)
    }

    /// Rows; at least one.
    #[allow(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u32 {
        self.meta.rows
    }

    /// Values of declared fields that its rows have.
    pub fn values_len(&self) -> u64 {
        (0..self.layout.columns()).map(|field| self.column(field).values.len() as u64).sum()
    }

    fn rows(&self) -> usize {
        self.meta.rows as usize
    }

    /// What the segment's records were checked against.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether searches walk a graph; else they scan.
    pub fn has_graph(&self) -> bool {
        self.meta.graph.is_some()
    }

    fn codes(&self) -> Option<CodeView<'_>> {
        self.layout.codes(&self.bytes, self.meta.dimension.get())
    }

    /// The rows that a row is linked to on level 0 of the graph; none without a graph.
    pub(crate) fn neighbours(&self, row: u32) -> impl Iterator<Item = u32> {
        let stride = self.meta.graph.as_ref().map_or(0, |graph| graph.stride0 as usize);
        let list = &self.layout.level0(&self.bytes)[row as usize * stride..][..stride];
        list.iter().copied().take_while(|n| *n != format::NO_ROW)
    }

    /// Neighbours that a row has on level 0 of the graph, on average.
    pub fn mean_degree(&self) -> Option<f64> {
        let degree = |row| self.neighbours(row).count() as f64;
        self.has_graph().then(|| (0..self.meta.rows).map(degree).sum::<f64>() / f64::from(self.meta.rows))
    }

    /// The row of `key`.
    pub fn find(&self, key: &str) -> Option<u32> {
        let slots = self.layout.key_index(&self.bytes);
        let mask = slots.len() - 1;
        let mut at = format::key_hash(key) as usize & mask;
        // there is an empty slot: rows fill half of them at most
        loop {
            let row = slots[at].checked_sub(1)?;
            if self.key(row as usize) == key {
                return Some(row);
            }
            at = (at + 1) & mask;
        }
    }

    /// One row.
    ///
    /// # Panics
    /// When `row` is not below [`Segment::len`].
    pub fn row(&self, row: u32) -> RowRef<'_> {
        let at = row as usize;
        RowRef {
            key: self.key(at),
            offset: Offset(self.layout.offsets(&self.bytes)[at]),
            timestamp: Timestamp(self.layout.timestamps(&self.bytes)[at]),
            vector: self.vector(at),
            metadata: text(self.layout.metadata(&self.bytes, at)),
        }
    }

    fn key(&self, at: usize) -> &str {
        text(self.layout.key(&self.bytes, at))
    }

    fn vector(&self, at: usize) -> Components<'_> {
        self.layout.vectors(&self.bytes).vector(at, self.meta.dimension.get())
    }

    fn column(&self, field: usize) -> Column<'_> {
        self.layout.column(&self.bytes, field)
    }

    /// Calls `each` with every value of field `field` of row `at`.
    pub(crate) fn values<'a>(&'a self, at: usize, field: usize, each: &mut dyn FnMut(ValueRef<'a>)) {
        let column = self.column(field);
        for place in column.starts[at]..column.starts[at + 1] {
            each(column.values.get(place as usize));
        }
    }

    /// Brings into memory what every query reads, so that the first ones do not wait for the disk. Where there are
    /// codes, full vectors and metadata are not part of it: few of them are read at a time, as pages come and go.
    pub fn warm(&self) {
        const PAGE: usize = 4096;
        let coded = self.codes().is_some();
        let cold = |entry: &&format::Entry| {
            coded && [Kind::Vectors as u16, Kind::MetadataBytes as u16].contains(&entry.kind)
        };
        for entry in self.table.entries() {
            let section = &self.bytes[entry.start as usize..(entry.start + entry.length) as usize];
            if cold(&entry) {
                self.bytes.read_here_and_there(section);
                continue;
            }
            self.bytes.will_need(section);
            let touched: u64 = section.iter().step_by(PAGE).map(|b| u64::from(*b)).sum();
            std::hint::black_box(touched);
        }
    }

    /// What stands in the segment.
    pub fn info(&self) -> SegmentInfo {
        let offsets = self.layout.offsets(&self.bytes);
        let at = |row: usize| Offset(offsets.get(row).copied().unwrap_or_default());
        let graph = self.meta.graph.as_ref().map(|graph: &GraphMeta| GraphInfo {
            builder: graph.builder,
            m: graph.m,
            ef_construction: graph.ef_construction,
            ef: graph.ef,
            width: graph.width,
            levels: std::iter::once(self.meta.rows).chain(graph.levels.iter().copied()).collect(),
        });
        let sections = self.table.entries().iter();
        SegmentInfo {
            version: self.table.version(),
            writer: self.meta.writer.clone(),
            rows: self.meta.rows,
            bytes: self.bytes(),
            schema: self.schema.clone(),
            first_offset: at(0),
            last_offset: at(self.rows() - 1),
            graph,
            quantization: if self.codes().is_some() { Quantization::Sq8 } else { Quantization::None },
            axes: self.meta.axes,
            sections: sections.map(|e| SectionInfo { name: e.name(), bytes: e.length }).collect(),
        }
    }
}

/// Bytes that were found to be UTF-8 when the segment was opened.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
