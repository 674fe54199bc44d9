//! How many nodes walks keep on the upper levels: found out by looking for some of the rows.
//!
//! A greedy walk ends in the nearest group of those that it meets. Where groups differ in few components and vary in
//! many, the nearest node of a sparse level is often one of another group, and from there level 0 leads no farther. A
//! walk that keeps several nodes comes down in several groups.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use sluice_core::Metric;

use super::as_searched::AsSearched;
use super::walk::{Keep, Links, Scratch, Target, Upper, approach, pool};
use super::{Graph, Level};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::distances::Distances;
use crate::random::sampled;

/// Widths that are tried.
const WIDTHS: [u32; 5] = [1, 4, 16, 64, WIDEST];
const WIDEST: u32 = 256;

/// Rows that are looked for: one in so many, but no more than these.
const ONE_IN: usize = 32;
const LOOKED_FOR: usize = 384;

/// Nodes that are kept on level 0 at most, whatever a search keeps.
const MOST_KEPT: usize = 128;

impl Target for &dyn Distances {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        (**self).distances_of_prefetched(rows, out);
    }

    fn prefetch(&self, row: u32) {
        (**self).prefetch(row);
    }
}

/// The least width by which walks that keep `ef` nodes on level 0, but no more than [`MOST_KEPT`], find about as many
/// of `rows` as by any.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn find(
    graph: &Graph,
    searched: AsSearched<'_>,
    rows: &[u32],
    ef: usize,
    cancelled: &AtomicBool,
) -> Result<u32, Cancelled> {
    if graph.upper.is_empty() {
        return Ok(1);
    }
    // with fewer it is harder
    let ef = ef.clamp(1, MOST_KEPT);
    let most = LOOKED_FOR.min(rows.len().div_ceil(ONE_IN));
    let sample: Vec<u32> = sampled(rows.len(), most).map(|at| rows[at]).collect();
    let each = |width: u32, judge: &(dyn Fn(usize, &Scratch) -> u32 + Sync)| -> Result<Vec<u32>, Cancelled> {
        let walks = sample.par_iter().enumerate().with_min_len(8);
        let judged = walks.map_init(Scratch::default, |scratch, (at, row)| {
            check_cancelled(cancelled)?;
            searched
                .with_query(*row, |_, distances| walk(graph, (width as usize, ef), distances, scratch))?;
            Ok(judge(at, scratch))
        });
        judged.collect()
    };
    // a row is the nearest to itself; but under dot a longer one is, as far as the widest walk tells
    let wanted = match searched.metric {
        Metric::Dot => each(WIDEST, &|_, scratch| scratch.found().first().map_or(0, |near| near.row()))?,
        Metric::Cosine | Metric::L2 => sample.clone(),
    };
    let is_lost =
        |at: usize, scratch: &Scratch| u32::from(scratch.found().iter().all(|near| near.row() != wanted[at]));
    let enough = |lost: u32| lost as usize * 200 <= sample.len();
    let mut tried = Vec::with_capacity(WIDTHS.len());
    for width in WIDTHS {
        let lost = each(width, &is_lost)?.iter().sum();
        if enough(lost) {
            return Ok(width);
        }
        tried.push((width, lost));
    }
    let least = tried.iter().map(|(_, lost)| *lost).min().unwrap_or(0);
    Ok(tried.iter().find(|(_, lost)| enough(lost - least)).map_or(1, |(width, _)| *width))
}

/// As a search walks, where nothing is filtered.
fn walk(
    graph: &Graph,
    (width, ef): (usize, usize),
    distances: &dyn Distances,
    scratch: &mut Scratch,
) -> Result<(), Cancelled> {
    let levels = graph.upper.iter().rev().map(Level::view);
    approach(levels, graph.entry, (graph.stride, width), &distances, scratch)?;
    let links = Links { neighbours: &graph.level0, stride: graph.stride0 };
    let reached = scratch.take_starts();
    let starts = reached.iter().chain(&graph.seeds).copied();
    let walked = pool(links, starts, Keep::all(ef), &distances, scratch);
    scratch.give_back(reached);
    walked
}

impl Level {
    fn view(&self) -> Upper<'_> {
        Upper { rows: &self.rows, below: &self.below, neighbours: &self.neighbours }
    }
}
