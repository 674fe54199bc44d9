//! The growing set: the newest records of a partition in memory, one version per key, searchable at any moment.
//!
//! Applying the same records again, or records older than those held, changes nothing: the larger offset wins, and
//! a delete leaves a tombstone, which hides older versions in segments until the set is sealed. Vectors stand in
//! chunks that are never moved; the place of a record that was deleted or overwritten is used again. Row numbers
//! are good until the next [`GrowingSet::apply`].

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;

use sluice_core::{
    Document, FieldValue, FieldValues, Key, Metadata, Metric, Offset, Op, Record, Schema, Timestamp,
};

use crate::near::{Near, TopK};
use crate::row::{Rows, ValueRef};
use crate::score::{Scorer, inverse_norm};
use crate::{Cancelled, Components, Filter, Hit, Query, RowRef};

/// About this many bytes of vectors stand in one chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// What a record did to the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The key had no live record here.
    Inserted,
    /// The key's live record was overwritten.
    Replaced,
    /// The key has a tombstone now.
    Deleted,
    /// The set holds this version or a newer one: nothing changed.
    Stale,
}

/// The newest version of a key that the set knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Newest<'a> {
    /// A live record and its row.
    Live(u32, RowRef<'a>),
    /// A tombstone, written by this offset.
    Deleted(Offset),
}

impl Newest<'_> {
    /// The offset that wrote the version.
    pub fn offset(&self) -> Offset {
        match self {
            Self::Live(_, row) => row.offset,
            Self::Deleted(offset) => *offset,
        }
    }
}

/// What is known of a key: its version, and its row unless it was deleted.
#[derive(Debug, Clone, Copy)]
struct Known {
    offset: Offset,
    row: Option<u32>,
}

/// A live record but for its vector.
#[derive(Debug)]
struct Slot {
    key: Box<str>,
    offset: Offset,
    timestamp: Timestamp,
    metadata: Metadata,
    fields: FieldValues,
}

impl Slot {
    fn values_len(&self) -> u64 {
        self.fields.0.iter().map(|values| values.len() as u64).sum()
    }

    fn heap_bytes(&self) -> usize {
        let field = |values: &[FieldValue]| {
            let text = |v: &FieldValue| if let FieldValue::Keyword(s) = v { s.len() } else { 0 };
            size_of::<Box<[FieldValue]>>()
                + values.iter().map(|v| size_of::<FieldValue>() + text(v)).sum::<usize>()
        };
        self.key.len() + self.metadata.as_str().len() + self.fields.0.iter().map(|v| field(v)).sum::<usize>()
    }
}

/// Rows that never move: `None` is a free place.
#[derive(Debug, Default)]
struct Chunk {
    vectors: Vec<f32>,
    /// 1 / length of each vector under cosine; beside the slots, so that a scan reads nothing but this and vectors.
    inverse_norms: Vec<Option<f32>>,
    slots: Vec<Option<Slot>>,
}

/// The newest records of a partition, in memory.
#[derive(Debug)]
pub struct GrowingSet {
    schema: Arc<Schema>,
    keys: HashMap<Key, Known>,
    chunks: Vec<Chunk>,
    /// Rows per chunk, as a power of two.
    chunk_shift: u32,
    free: Vec<u32>,
    live: usize,
    /// Values of declared fields of live records.
    values: u64,
    /// Bytes behind pointers: keys, metadata, field values.
    heap: usize,
}

impl GrowingSet {
    /// An empty set.
    pub fn new(schema: Arc<Schema>) -> Self {
        let rows = (CHUNK_BYTES / (schema.dimension.get() * 4)).clamp(64, 4096);
        Self {
            schema,
            keys: HashMap::new(),
            chunks: Vec::new(),
            chunk_shift: rows.next_power_of_two().trailing_zeros(),
            free: Vec::new(),
            live: 0,
            values: 0,
            heap: 0,
        }
    }

    /// What the set demands of its records.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Applies one record. A version that is not newer than the one held is passed over.
    ///
    /// # Panics
    /// When the vector was validated against another dimension, which is a bug of the caller.
    pub fn apply(&mut self, record: Record) -> Applied {
        let Record { key, offset, timestamp, op } = record;
        let key_bytes = key.as_str().len();
        let text: Box<str> = key.as_str().into();
        let before = match self.keys.entry(key) {
            MapEntry::Occupied(entry) if entry.get().offset >= offset => return Applied::Stale,
            MapEntry::Occupied(mut entry) => entry.insert(Known { offset, row: None }).row,
            MapEntry::Vacant(entry) => {
                entry.insert(Known { offset, row: None });
                self.heap += key_bytes;
                None
            }
        };
        if let Some(row) = before {
            self.release(row);
        }
        match op {
            Op::Delete => Applied::Deleted,
            Op::Upsert(document) => {
                let row = self.place(&text, offset, timestamp, document);
                if let Some(known) = self.keys.get_mut(&*text) {
                    known.row = Some(row);
                }
                if before.is_some() { Applied::Replaced } else { Applied::Inserted }
            }
        }
    }

    fn place(&mut self, key: &str, offset: Offset, timestamp: Timestamp, document: Document) -> u32 {
        let Document { vector, metadata, fields } = document;
        let mut vector = vector.into_inner();
        // what a segment will hold is what is searched before
        self.schema.vector_type.round(&mut vector);
        assert_eq!(vector.len(), self.schema.dimension.get(), "a vector of another index");
        let inverse_norm = if self.schema.metric == Metric::Cosine { inverse_norm(&vector) } else { 0.0 };
        let slot = Slot { key: key.into(), offset, timestamp, metadata, fields };
        self.heap += slot.heap_bytes();
        self.values += slot.values_len();
        self.live += 1;
        if let Some(row) = self.free.pop() {
            let (chunk, at) = self.locate(row);
            let dimension = vector.len();
            let chunk = &mut self.chunks[chunk];
            chunk.vectors[at * dimension..][..dimension].copy_from_slice(&vector);
            chunk.inverse_norms[at] = Some(inverse_norm);
            chunk.slots[at] = Some(slot);
            return row;
        }
        let full = 1usize << self.chunk_shift;
        if self.chunks.last().is_none_or(|c| c.slots.len() == full) {
            self.chunks.push(Chunk::default());
        }
        let before = self.chunks.len() - 1;
        let chunk = &mut self.chunks[before];
        chunk.vectors.extend_from_slice(&vector);
        chunk.inverse_norms.push(Some(inverse_norm));
        chunk.slots.push(Some(slot));
        ((before << self.chunk_shift) + chunk.slots.len() - 1) as u32
    }

    fn release(&mut self, row: u32) {
        let (chunk, at) = self.locate(row);
        let chunk = &mut self.chunks[chunk];
        chunk.inverse_norms[at] = None;
        if let Some(slot) = chunk.slots[at].take() {
            self.heap -= slot.heap_bytes();
            self.values -= slot.values_len();
            self.live -= 1;
            self.free.push(row);
        }
    }

    fn locate(&self, row: u32) -> (usize, usize) {
        (row as usize >> self.chunk_shift, row as usize & ((1 << self.chunk_shift) - 1))
    }

    /// Live records.
    pub fn live_len(&self) -> usize {
        self.live
    }

    /// Values of declared fields that live records have.
    pub fn values_len(&self) -> u64 {
        self.values
    }

    /// Whether no key was touched, not even by a delete.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes that the set takes, tombstones and free places included.
    pub fn bytes(&self) -> usize {
        let places: usize = self.chunks.iter().map(|c| c.slots.len()).sum();
        let place = self.schema.dimension.get() * 4 + size_of::<Option<Slot>>() + size_of::<Option<f32>>();
        let known = (size_of::<Key>() + size_of::<Known>() + 1) * 2;
        self.heap + places * place + self.keys.len() * known + self.free.len() * 4
    }

    /// The newest version of `key` that was applied here.
    pub fn get(&self, key: &str) -> Option<Newest<'_>> {
        let known = self.keys.get(key)?;
        match known.row.and_then(|row| Some((row, self.live_row(row)?))) {
            Some((row, live)) => Some(Newest::Live(row, live)),
            None => Some(Newest::Deleted(known.offset)),
        }
    }

    /// Every key that was touched here with its newest version, live or tombstone, in no order.
    pub fn newest(&self) -> impl Iterator<Item = (&str, Offset)> {
        self.keys.iter().map(|(key, known)| (key.as_str(), known.offset))
    }

    /// A row of an answer.
    ///
    /// # Panics
    /// When `row` is no live row: rows are good until the next `apply`.
    pub fn row(&self, row: u32) -> RowRef<'_> {
        match self.live_row(row) {
            Some(live) => live,
            None => panic!("row {row} of the growing set is not live"),
        }
    }

    fn live_row(&self, row: u32) -> Option<RowRef<'_>> {
        let (chunk, at) = self.locate(row);
        let chunk = self.chunks.get(chunk)?;
        let slot = chunk.slots.get(at)?.as_ref()?;
        Some(row_of(slot, &chunk.vectors, at, self.schema.dimension.get()))
    }

    /// Live records, in no order.
    pub fn live_rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        self.slots().map(|(chunk, at, _, slot)| row_of(slot, &chunk.vectors, at, self.schema.dimension.get()))
    }

    /// Live slots: their chunk, their place in it and their row.
    fn slots(&self) -> impl Iterator<Item = (&Chunk, usize, u32, &Slot)> {
        self.chunks.iter().enumerate().flat_map(move |(i, chunk)| {
            let first = i << self.chunk_shift;
            let live = chunk.slots.iter().enumerate();
            live.filter_map(move |(at, slot)| Some((chunk, at, (first + at) as u32, slot.as_ref()?)))
        })
    }

    /// Live records that pass `filter`.
    pub fn count(&self, filter: Option<&Filter>) -> usize {
        match filter {
            None => self.live,
            Some(filter) => self.slots().filter(|(_, _, _, slot)| passes(filter, slot)).count(),
        }
    }

    /// The nearest live records that pass the filter: an exact scan.
    ///
    /// # Errors
    /// When the query was cancelled.
    pub fn search(&self, query: &Query<'_>) -> Result<Vec<Hit>, Cancelled> {
        if query.k == 0 {
            return Ok(Vec::new());
        }
        let dimension = self.schema.dimension.get();
        let scorer = Scorer::new(self.schema.metric, query.vector.as_slice());
        let mut top = TopK::new(query.k, self.live);
        for (chunk, first) in self.chunks.iter().zip((0u32..).step_by(1 << self.chunk_shift)) {
            let vectors = chunk.vectors.chunks_exact(dimension).zip(&chunk.inverse_norms);
            for (at, (vector, inverse_norm)) in vectors.enumerate() {
                if at.is_multiple_of(256) {
                    query.check_cancelled()?;
                }
                let Some(inverse_norm) = inverse_norm else { continue };
                let matches = |filter| chunk.slots[at].as_ref().is_some_and(|slot| passes(filter, slot));
                if query.filter.is_none_or(matches) {
                    top.offer(Near::new(
                        scorer.distance(Components::F32(vector), *inverse_norm),
                        first + at as u32,
                    ));
                }
            }
        }
        Ok(top.into_hits(&scorer, query.bound))
    }
}

fn row_of<'a>(slot: &'a Slot, vectors: &'a [f32], at: usize, dimension: usize) -> RowRef<'a> {
    RowRef {
        key: &slot.key,
        offset: slot.offset,
        timestamp: slot.timestamp,
        vector: Components::F32(vectors).vector(at, dimension),
        metadata: slot.metadata.as_str(),
    }
}

fn field_values(slot: &Slot, field: usize) -> &[FieldValue] {
    slot.fields.0.get(field).map_or(&[], |values| values)
}

fn passes(filter: &Filter, slot: &Slot) -> bool {
    filter.matches(&|field| field_values(slot, field))
}

/// A growing set's live rows in offset order.
pub(crate) struct SetRows<'a> {
    rows: Vec<(RowRef<'a>, &'a FieldValues)>,
}

impl<'a> SetRows<'a> {
    pub(crate) fn new(set: &'a GrowingSet) -> Self {
        let dimension = set.schema.dimension.get();
        let mut rows: Vec<_> = set
            .slots()
            .map(|(c, at, _, slot)| (row_of(slot, &c.vectors, at, dimension), &slot.fields))
            .collect();
        rows.sort_unstable_by_key(|(row, _)| row.offset);
        Self { rows }
    }
}

impl Rows for SetRows<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, at: usize) -> RowRef<'_> {
        self.rows[at].0
    }

    fn values<'a>(&'a self, at: usize, field: usize, each: &mut dyn FnMut(ValueRef<'a>)) {
        if let Some(values) = self.rows[at].1.0.get(field) {
            values.iter().for_each(|v| each(v.into()));
        }
    }
}
