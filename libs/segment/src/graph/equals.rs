//! Rows that look equal: one of each enters the graph, the others are strung on a ring through it.
//!
//! Among many equal ones pruning would keep edges to equals only. Those that did not enter have the neighbours of the
//! one that did for their own.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::{Graph, SPARE};
use crate::Cancelled;
use crate::build::{CHECK_EVERY, check_cancelled};
use crate::format::NO_ROW;

/// Which rows look equal, bit by bit: for each row the first row that looks like it.
pub(super) struct Equals {
    first: Vec<u32>,
}

/// What a row looks like.
pub(super) type Look<'a> = (&'a [u8], u32);

impl Equals {
    /// Groups rows that look equal, and are so by `same`.
    ///
    /// # Errors
    /// When `cancelled` was set.
    pub(super) fn find<'a>(
        rows: usize,
        look: impl Fn(u32) -> Look<'a>,
        same: impl Fn(u32, u32) -> bool,
        cancelled: &AtomicBool,
    ) -> Result<Self, Cancelled> {
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::with_capacity(rows);
        let mut firsts = Vec::with_capacity(rows);
        for row in 0..rows as u32 {
            if (row as usize).is_multiple_of(CHECK_EVERY) {
                check_cancelled(cancelled)?;
            }
            let (bytes, more) = look(row);
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, more.into());
            let known = by_hash.entry(hash).or_default();
            let first = known.iter().find(|other| look(**other) == (bytes, more) && same(**other, row));
            firsts.push(first.copied().unwrap_or(row));
            if first.is_none() {
                known.push(row);
            }
        }
        Ok(Self { first: firsts })
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
