//! Builds a graph with hnsw_rs and freezes it to flat arrays.
//!
//! hnsw_rs holds a read lock on a new point's edges, level by level, while it writes its neighbours'. With three
//! levels or more two points can wait for each other for ever; with two they cannot, since a point that is not yet
//! linked on its highest level is not seen on it by others. So it builds two; the second holds one row in m.

use std::sync::atomic::AtomicBool;

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::{Hnsw, Neighbour};
use rayon::prelude::*;
use sluice_core::GraphSpec;

use super::full_space::FullSpace;
use super::space::Space;
use super::{Graph, Level, SPARE};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::format::NO_ROW;

/// Levels that hnsw_rs builds; see above.
const LEVELS: usize = 2;

/// Points that enter one after another before the others enter in parallel: the very first have nothing to link to.
const SERIAL: usize = 256;

/// Row numbers as the points of hnsw_rs.
struct RowDistance<'a>(&'a FullSpace<'a>);

impl Distance<u32> for RowDistance<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        self.0.distance(a[0], b[0])
    }
}

/// Links `order`, rows with distinct vectors, on the rayon pool that it is called in.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn build(
    space: &FullSpace<'_>,
    order: &[u32],
    spec: &GraphSpec,
    cancelled: &AtomicBool,
) -> Result<Graph, Cancelled> {
    let hnsw = insert(space, order, spec, cancelled)?;
    Ok(freeze(&hnsw, space.len(), spec))
}

type Points<'a> = Hnsw<'a, u32, RowDistance<'a>>;

fn insert<'a>(
    space: &'a FullSpace<'a>,
    order: &[u32],
    spec: &GraphSpec,
    cancelled: &AtomicBool,
) -> Result<Points<'a>, Cancelled> {
    // hnsw_rs ends the process beyond 256
    let m = spec.m.clamp(2, 64) as usize;
    let hnsw = Hnsw::new(m, order.len(), LEVELS, spec.ef_construction.max(1) as usize, RowDistance(space));
    let one = |row: &u32| {
        check_cancelled(cancelled)?;
        hnsw.insert_slice((std::slice::from_ref(row), *row as usize));
        Ok::<_, Cancelled>(())
    };
    let serial = if rayon::current_num_threads() == 1 { order.len() } else { order.len().min(SERIAL) };
    let (first, rest) = order.split_at(serial);
    first.iter().try_for_each(one)?;
    rest.par_iter().try_for_each(one)?;
    Ok(hnsw)
}

/// Copies the edges out of hnsw_rs.
fn freeze(hnsw: &Points<'_>, rows: usize, spec: &GraphSpec) -> Graph {
    let m = spec.m.clamp(2, 64) as usize;
    let (stride0, stride) = (2 * m + SPARE, m + SPARE);
    let mut level0 = vec![NO_ROW; rows * stride0];
    let mut upper = Vec::new();
    for level in 0..LEVELS {
        for point in hnsw.get_point_indexation().get_layer_iterator(level) {
            let row = point.get_origin_id();
            let lists = point.get_neighborhood_id();
            fill(&mut level0[row * stride0..][..2 * m], row, lists.first(), 0);
            if level > 0 {
                upper.push((row as u32, lists.into_iter().nth(1).unwrap_or_default()));
            }
        }
    }
    upper.sort_unstable_by_key(|(row, _)| *row);
    let mut graph =
        Graph { stride0, stride, entry: 0, seeds: Vec::new(), width: 1, level0, upper: Vec::new() };
    if !upper.is_empty() {
        graph.upper.push(first_level(&upper, m, stride));
    }
    graph
}

fn first_level(nodes: &[(u32, Vec<Neighbour>)], m: usize, stride: usize) -> Level {
    let rows: Vec<u32> = nodes.iter().map(|(row, _)| *row).collect();
    let mut neighbours = vec![NO_ROW; nodes.len() * stride];
    for ((row, list), places) in nodes.iter().zip(neighbours.chunks_exact_mut(stride)) {
        fill(&mut places[..m], *row as usize, Some(list), 1);
        for place in places.iter_mut().take_while(|n| **n != NO_ROW) {
            // neighbours on this level are nodes of it
            *place = rows.binary_search(place).map_or(0, |at| at as u32);
        }
    }
    Level { below: rows.clone(), rows, neighbours }
}

/// Writes the rows of `found` that stand on `level`, each once, to the front of `list`.
fn fill(list: &mut [u32], row: usize, found: Option<&Vec<Neighbour>>, level: u8) {
    let mut end = 0;
    for neighbour in found.into_iter().flatten() {
        let id = neighbour.get_origin_id();
        let there = list[..end].contains(&(id as u32));
        if end < list.len() && id != row && !there && neighbour.p_id.0 >= level {
            list[end] = id as u32;
            end += 1;
        }
    }
}
