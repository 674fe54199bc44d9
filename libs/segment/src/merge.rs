//! Merge: many segments of one partition become one.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use roaring::RoaringBitmap;
use sluice_core::{Offset, Schema};

use crate::build::{build, check_cancelled};
use crate::format::NO_ROW;
use crate::graph::Known;
use crate::row::{Rows, ValueRef};
use crate::{BuildError, BuildOptions, Built, RowRef, Segment};

/// Writes the live rows of `inputs`, each given with its deleted rows, to a segment at `path`, in offset order.
///
/// Of a key that stands in several inputs only the newest version counts, and if that one is deleted the key is
/// gone: a version that some input supersedes never comes back. Bytes are the same for the same inputs as far as
/// [`crate::seal()`] promises.
///
/// # Errors
/// As [`crate::seal()`]; also when an input has another schema, or two rows that stay have one offset.
pub fn merge(
    inputs: &[(&Segment, &RoaringBitmap)],
    schema: &Schema,
    options: &BuildOptions,
    path: &Path,
    cancelled: &AtomicBool,
) -> Result<Built, BuildError> {
    if let Some(input) = inputs.iter().position(|(segment, _)| segment.schema() != schema) {
        return Err(BuildError::Schema { input });
    }
    let mut order = Vec::new();
    for (input, (segment, deleted)) in inputs.iter().enumerate() {
        for row in 0..segment.len() {
            if row % 4096 == 0 {
                check_cancelled(cancelled)?;
            }
            if !deleted.contains(row) && is_newest(inputs, input, segment.row(row)) {
                order.push(Place { offset: segment.row(row).offset, input: input as u32, row });
            }
        }
    }
    order.sort_unstable_by_key(|place| place.offset);
    if let Some(pair) = order.windows(2).find(|pair| pair[0].offset == pair[1].offset) {
        return Err(BuildError::SameOffset { offset: pair[0].offset });
    }
    let edges = Edges::of(inputs, &order);
    let known = |row: u32, out: &mut Vec<u32>| edges.append(row, out);
    let known: Option<Known<'_>> = if edges.are_worthwhile() { Some(&known) } else { None };
    build(&MergedRows { inputs, order: &order }, schema, options, known, path, cancelled)
}

/// Edges of the inputs' graphs, between the rows of the merged segment.
struct Edges<'a> {
    inputs: &'a [(&'a Segment, &'a RoaringBitmap)],
    order: &'a [Place],
    /// For each input the new row of each of its rows, or `NO_ROW`.
    places: Vec<Vec<u32>>,
}

impl<'a> Edges<'a> {
    fn of(inputs: &'a [(&'a Segment, &'a RoaringBitmap)], order: &'a [Place]) -> Self {
        let mut places: Vec<_> = inputs.iter().map(|(s, _)| vec![NO_ROW; s.len() as usize]).collect();
        for (place, row) in order.iter().zip(0..) {
            places[place.input as usize][place.row as usize] = row;
        }
        Self { inputs, order, places }
    }

    /// Whether so many rows have edges that a graph can be built mostly of them.
    fn are_worthwhile(&self) -> bool {
        let linked = self.order.iter().filter(|place| self.inputs[place.input as usize].0.has_graph());
        linked.count() * 4 >= self.order.len() * 3
    }

    /// Appends the neighbours of a row; in the place of one that is gone come its own neighbours.
    fn append(&self, row: u32, out: &mut Vec<u32>) {
        let Place { input, row, .. } = self.order[row as usize];
        let (segment, places) = (self.inputs[input as usize].0, &self.places[input as usize]);
        for neighbour in segment.neighbours(row) {
            match places[neighbour as usize] {
                NO_ROW => out.extend(
                    segment
                        .neighbours(neighbour)
                        .map(|n| places[n as usize])
                        .filter(|place| *place != NO_ROW),
                ),
                place => out.push(place),
            }
        }
        out.sort_unstable();
        out.dedup();
    }
}

/// Whether no other input holds a newer version of the row's key; of two equal versions the first input's counts.
fn is_newest(inputs: &[(&Segment, &RoaringBitmap)], input: usize, row: RowRef<'_>) -> bool {
    inputs.iter().enumerate().all(|(other, (segment, _))| {
        other == input
            || segment.find(row.key).is_none_or(|found| {
                let offset = segment.row(found).offset;
                offset < row.offset || (offset == row.offset && other > input)
            })
    })
}

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: Offset,
    input: u32,
    row: u32,
}

struct MergedRows<'a> {
    inputs: &'a [(&'a Segment, &'a RoaringBitmap)],
    order: &'a [Place],
}

impl Rows for MergedRows<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn row(&self, at: usize) -> RowRef<'_> {
        let place = self.order[at];
        self.inputs[place.input as usize].0.row(place.row)
    }

    fn values<'a>(&'a self, at: usize, field: usize, each: &mut dyn FnMut(ValueRef<'a>)) {
        let place = self.order[at];
        self.inputs[place.input as usize].0.values(place.row as usize, field, each);
    }
}
