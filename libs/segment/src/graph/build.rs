//! Builds a graph with hnsw_rs and freezes it to flat arrays.
//!
//! Each distinct vector enters hnsw_rs once: among many equal ones its pruning would keep edges to equals only.
//! The others are strung on a ring through the one that entered, with that one's neighbours for their own.
//!
//! hnsw_rs holds a read lock on a new point's edges, level by level, while it writes its neighbours'. With three
//! levels or more two points can wait for each other for ever; with two they cannot, since a point that is not yet
//! linked on its highest level is not seen on it by others. So it builds two; the second holds one row in m.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use hnsw_rs::hnsw::{Hnsw, Neighbour};
use rayon::prelude::*;
use sluice_core::{GraphSpec, Metric};

use super::repair;
use super::space::{RowDistance, Space};
use super::walk::Scratch;
use super::{Graph, Level};
use crate::build::check_cancelled;
use crate::format::NO_ROW;
use crate::row::Rows;
use crate::{BuildError, BuildOptions};

/// Levels that hnsw_rs builds; see above.
const LEVELS: usize = 2;

/// Points that enter one after another before the others enter in parallel: the very first have nothing to link to.
const SERIAL: usize = 256;

/// Places kept free in every list, for edges that repairs and rings of equal vectors add.
const SPARE: usize = 2;

/// Builds the graph of `rows`, on the rayon pool that it is called in.
pub(crate) fn build(
    rows: &impl Rows,
    metric: Metric,
    options: &BuildOptions,
    cancelled: &AtomicBool,
) -> Result<Graph, BuildError> {
    let space = Space::new(rows, metric);
    let equals = Equals::find(&space);
    let mut graph = {
        let hnsw = insert(&space, equals.firsts(options.seed), &options.graph, cancelled)?;
        freeze(&hnsw, space.len(), &options.graph)
    };
    check_cancelled(cancelled)?;
    graph.seeds = space.seeds().to_vec();
    equals.string(&mut graph);
    repair(&mut graph, &space, cancelled)?;
    Ok(graph)
}

/// Which rows have bitwise equal vectors: for each row the first row with its vector.
struct Equals {
    first: Vec<u32>,
}

impl Equals {
    fn find(space: &Space<'_>) -> Self {
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

    /// One row of each set of equals, in an order that `seed` decides.
    fn firsts(&self, seed: u64) -> Vec<u32> {
        let mut rows: Vec<u32> =
            (0..self.first.len() as u32).filter(|r| self.first[*r as usize] == *r).collect();
        let mut state = seed;
        for at in (1..rows.len()).rev() {
            // splitmix64; the modulo's bias is of no consequence for an order of insertion
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            rows.swap(at, ((mixed ^ (mixed >> 31)) % (at as u64 + 1)) as usize);
        }
        rows
    }

    /// Links each row that did not enter the graph: it gets the neighbours of its first, which leads to it.
    fn string(&self, graph: &mut Graph) {
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

type Points<'a> = Hnsw<'a, u32, RowDistance<'a>>;

fn insert<'a>(
    space: &'a Space<'a>,
    order: Vec<u32>,
    spec: &GraphSpec,
    cancelled: &AtomicBool,
) -> Result<Points<'a>, BuildError> {
    // hnsw_rs ends the process beyond 256
    let m = spec.m.clamp(2, 64) as usize;
    let hnsw = Hnsw::new(m, order.len(), LEVELS, spec.ef_construction.max(1) as usize, RowDistance(space));
    let one = |row: &u32| {
        check_cancelled(cancelled)?;
        hnsw.insert_slice((std::slice::from_ref(row), *row as usize));
        Ok(())
    };
    let serial = if rayon::current_num_threads() == 1 { order.len() } else { order.len().min(SERIAL) };
    let (first, rest) = order.split_at(serial);
    first.iter().try_for_each(one)?;
    rest.par_iter().try_for_each(one).map_err(|e: BuildError| e)?;
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
    let mut graph = Graph { stride0, stride, entry: 0, seeds: Vec::new(), level0, upper: Vec::new() };
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

/// Makes every level one piece.
fn repair(graph: &mut Graph, space: &Space<'_>, cancelled: &AtomicBool) -> Result<(), BuildError> {
    let mut scratch = Scratch::default();
    let mut entry = graph.entry;
    for Level { rows, below, neighbours } in graph.upper.iter_mut().rev() {
        let mut level =
            repair::Level { neighbours, stride: graph.stride, entry, rows: Some(rows.as_slice()), space };
        level.reach_all(&mut scratch)?;
        level.return_all(&mut scratch)?;
        entry = below[entry as usize];
        check_cancelled(cancelled)?;
    }
    let mut level =
        repair::Level { neighbours: &mut graph.level0, stride: graph.stride0, entry, rows: None, space };
    level.reach_all(&mut scratch)?;
    check_cancelled(cancelled)?;
    level.return_all(&mut scratch)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sluice_core::{Offset, Timestamp};

    use super::*;
    use crate::RowRef;
    use crate::row::ValueRef;

    struct Vectors(Vec<Vec<f32>>);

    impl Rows for Vectors {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn row(&self, at: usize) -> RowRef<'_> {
            let offset = Offset(at as u64);
            RowRef { key: "", offset, timestamp: Timestamp(0), vector: &self.0[at], metadata: "{}" }
        }

        fn values<'a>(&'a self, _: usize, _: usize, _: &mut dyn FnMut(ValueRef<'a>)) {}
    }

    fn built(vectors: Vec<Vec<f32>>, metric: Metric, m: u32) -> Graph {
        let options =
            BuildOptions { graph: GraphSpec { m, ef_construction: 40, ..GraphSpec::default() }, seed: 3 };
        build(&Vectors(vectors), metric, &options, &AtomicBool::new(false)).unwrap()
    }

    /// What can be reached from `from` by edges `(a, b)`.
    fn reach(edges: &[(u32, u32)], from: u32, nodes: usize) -> BTreeSet<u32> {
        let mut next = vec![Vec::new(); nodes];
        edges.iter().for_each(|(a, b)| next[*a as usize].push(*b));
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(node) = open.pop() {
            open.extend(next[node as usize].iter().copied().filter(|n| seen.insert(*n)));
        }
        seen
    }

    fn assert_one_piece(neighbours: &[u32], stride: usize, entry: u32) {
        let lists = neighbours.chunks(stride).zip(0u32..);
        let edges: Vec<(u32, u32)> =
            lists.flat_map(|(list, a)| list.iter().filter(|n| **n != NO_ROW).map(move |b| (a, *b))).collect();
        let nodes = neighbours.len() / stride;
        assert_eq!(reach(&edges, entry, nodes).len(), nodes, "from the entry point");
        let back: Vec<(u32, u32)> = edges.into_iter().map(|(a, b)| (b, a)).collect();
        assert_eq!(reach(&back, entry, nodes).len(), nodes, "to the entry point");
    }

    /// Tight groups far apart, with many equal and nearly equal vectors.
    fn groups(n: usize) -> Vec<Vec<f32>> {
        let value = |i: usize| ((i.wrapping_mul(2_654_435_761)) >> 7) % 1000;
        (0..n)
            .map(|i| {
                let group = (i % 9) as f32 * 50.0 + 1.0;
                let noise = if i % 4 == 0 { 0.0 } else { value(i) as f32 * 1e-5 };
                vec![group, group * 0.5 + noise, noise, 1.0 - noise]
            })
            .collect()
    }

    #[test]
    fn every_row_is_reached_from_the_entry_point_and_leads_back_to_it() {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for (n, m) in [(1, 4), (2, 4), (40, 4), (1500, 4), (1500, 16)] {
                let graph = built(groups(n), metric, m);
                assert_eq!(graph.level0.len(), n * graph.stride0);
                let mut entry = graph.entry;
                for level in &graph.upper {
                    assert_one_piece(&level.neighbours, graph.stride, entry);
                    entry = level.below[entry as usize];
                }
                assert_one_piece(&graph.level0, graph.stride0, entry);
            }
        }
    }

    #[test]
    fn equal_vectors_are_strung_on_one_ring() {
        let graph = built(vec![vec![1.0, 2.0]; 300], Metric::L2, 4);
        assert!(
            graph.level0.chunks(graph.stride0).all(|list| list.iter().filter(|n| **n != NO_ROW).count() <= 2)
        );
        assert_one_piece(&graph.level0, graph.stride0, 0);
    }
}
