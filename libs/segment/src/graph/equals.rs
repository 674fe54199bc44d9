//! Rows with equal vectors: one of each enters the graph, the others are strung on a ring through it.
//!
//! Among many equal ones pruning would keep edges to equals only. Those that did not enter have the neighbours of the
//! one that did for their own.

use std::collections::HashMap;

use super::full_space::FullSpace;
use super::space::Space;
use super::{Graph, SPARE};
use crate::format::NO_ROW;

/// Which rows have bitwise equal vectors: for each row the first row with its vector.
pub(super) struct Equals {
    first: Vec<u32>,
}

impl Equals {
    pub(super) fn find(space: &FullSpace<'_>) -> Self {
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::new();
        let first = (0..space.len() as u32).map(|row| {
            let bytes: &[u8] = bytemuck::cast_slice(space.vector(row));
            let known = by_hash.entry(xxhash_rust::xxh3::xxh3_64(bytes)).or_default();
            let same = |other: &&u32| bytemuck::cast_slice::<f32, u8>(space.vector(**other)) == bytes;
            match known.iter().find(same) {
                Some(first) => *first,
                None => {
                    known.push(row);
                    row
                }
            }
        });
        Self { first: first.collect() }
    }

    /// The first row of each set of equals, in growing order.
    pub(super) fn firsts(&self) -> Vec<u32> {
        (0..self.first.len() as u32).filter(|row| self.first[*row as usize] == *row).collect()
    }

    /// Links each row that did not enter the graph: it gets the neighbours of its first, which leads to it.
    pub(super) fn string(&self, graph: &mut Graph) {
        let stride = graph.stride0;
        let mut last = HashMap::new();
        for (row, first) in self.first.iter().enumerate() {
            let first = *first as usize;
            if first == row {
                continue;
            }
            let before = last.insert(first, row).unwrap_or(first);
            let edges = stride - SPARE;
            graph.level0.copy_within(first * stride..first * stride + edges, row * stride);
            add(&mut graph.level0[row * stride..][..stride], first as u32, None);
            let closing = (before != first).then_some(first as u32);
            add(&mut graph.level0[before * stride..][..stride], row as u32, closing);
        }
    }
}

/// Puts `node` in the place of `instead`, else in the first free place.
fn add(list: &mut [u32], node: u32, instead: Option<u32>) {
    let wanted = instead.unwrap_or(NO_ROW);
    if let Some(place) = list.iter_mut().rev().find(|n| **n == wanted) {
        *place = node;
        // a gap may not stand before a neighbour
        list.sort_by_key(|n| *n == NO_ROW);
    }
}
