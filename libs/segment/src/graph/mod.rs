//! The graph of a segment: flat arrays of neighbours, level by level.

mod as_searched;
mod axes;
mod bulk;
mod code_space;
mod equals;
mod full_space;
mod hnsw;
mod repair;
mod shorten;
mod space;
mod tell_apart;
mod walk;
mod width;

use std::sync::atomic::AtomicBool;

use sluice_core::{GraphBuilder, Metric, Quantization};

use crate::codes::{CodeView, Codes, ShortCodes};
use crate::random::mixed;
use crate::row::Rows;
use crate::{BuildOptions, Cancelled};
use as_searched::AsSearched;
use axes::Axes;
pub(crate) use bulk::{Known, SLOT_MEMORY, fanout, rough_memory};
use code_space::CodeSpace;
use equals::Equals;
use full_space::FullSpace;
use shorten::shorten;
use space::Space;
use tell_apart::{Bar, told_apart};
pub(crate) use walk::{Keep, Links, Scratch, Target, Upper, Walked, approach, beam, pool};

/// A graph as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Neighbours per row of level 0.
    pub(crate) stride0: usize,
    /// Neighbours per node of an upper level.
    pub(crate) stride: usize,
    /// Place of the entry point in the highest level; its row, where there is no upper level.
    pub(crate) entry: u32,
    /// Rows from which every walk over level 0 starts, beside the one that the upper levels lead to.
    pub(crate) seeds: Vec<u32>,
    /// Nodes that a walk keeps on each upper level.
    pub(crate) width: u32,
    /// `stride0` neighbours per row, filled up with `NO_ROW`.
    pub(crate) level0: Vec<u32>,
    /// Level 1, 2, ..
    pub(crate) upper: Vec<Level>,
}

/// One upper level of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    /// The rows of its nodes, in growing order.
    pub(crate) rows: Vec<u32>,
    /// Each node's place in the level below.
    pub(crate) below: Vec<u32>,
    /// `stride` neighbours per node, as places in this level, filled up with `NO_ROW`.
    pub(crate) neighbours: Vec<u32>,
}

/// Places kept free in every list, for edges that repairs and rings of equal vectors add.
const SPARE: usize = 2;

/// Vectors of fewer components have no codes: a code takes a line of 64 bytes, and with few components its rounding
/// does not even out.
pub(crate) const SMALLEST_CODED: usize = 32;

/// What is asked of codes of all components: that few rows need to be compared once more.
const BAR: Bar = Bar { among: 30, missed: 0.02 };

/// What searches go by.
pub(crate) struct Made {
    /// Absent where rows are scanned.
    pub(crate) graph: Option<Graph>,
    /// Absent where they are not wanted, do not tell rows apart, or gain nothing.
    pub(crate) codes: Option<MadeCodes>,
}

/// Codes of rows, whole or along few axes.
pub(crate) enum MadeCodes {
    Whole(Codes),
    Short(ShortCodes),
}

impl MadeCodes {
    fn view(&self, metric: Metric) -> CodeView<'_> {
        match self {
            Self::Whole(codes) => CodeView::Whole(codes.view(metric)),
            Self::Short(codes) => CodeView::Short(codes.view()),
        }
    }
}

/// Builds the graph of `rows`, on the rayon pool that it is called in. `known` gives edges that are there already.
///
/// # Errors
/// When `cancelled` was set.
pub(crate) fn build(
    rows: &impl Rows,
    dimension: usize,
    metric: Metric,
    options: &BuildOptions,
    known: Option<Known<'_>>,
    cancelled: &AtomicBool,
) -> Result<Made, Cancelled> {
    let full = FullSpace::new(rows, metric);
    let (equals, codes) = match coded(rows, &full, dimension, metric, cancelled)? {
        Some((equals, codes)) => (equals, Some(codes)),
        None => (Equals::find(full.len(), |row| full.look(row), |_, _| true, cancelled)?, None),
    };
    let firsts = equals.firsts();
    let spec = &options.graph;
    let (mut graph, axes) = match (spec.builder, &codes) {
        (GraphBuilder::HnswRs, _) => {
            (hnsw::build(&full, &shuffled(&firsts, options.seed), spec, cancelled)?, None)
        }
        (GraphBuilder::Bulk, Some(codes)) => {
            let space = CodeSpace::new(codes, full.extras());
            bulk_of(space, &firsts, options, known, cancelled)?
        }
        (GraphBuilder::Bulk, None) => bulk_of(full.clone(), &firsts, options, known, cancelled)?,
    };
    graph.seeds = full.seeds().to_vec();
    equals.string(&mut graph);
    repair::every_level(&mut graph, &full, cancelled)?;
    let codes = match (options.quantization, codes, axes) {
        (Quantization::None, ..) => None,
        (Quantization::Sq8, Some(codes), Some(axes)) => {
            let short = shorten(&codes, &axes, (&full, metric), &firsts, cancelled)?;
            Some(short.map_or_else(|| MadeCodes::Whole(codes), MadeCodes::Short))
        }
        (Quantization::Sq8, codes, None) => codes.map(MadeCodes::Whole),
        (Quantization::Sq8, None, _) => None,
    };
    let searched = AsSearched { full: &full, metric, codes: codes.as_ref().map(|codes| codes.view(metric)) };
    graph.width = width::find(&graph, searched, &firsts, spec.ef as usize, cancelled)?;
    Ok(Made { graph: Some(graph), codes })
}

/// Codes of `rows` by which they may be scanned, where codes tell them apart.
///
/// # Errors
/// When `cancelled` was set.
pub(crate) fn codes(
    rows: &impl Rows,
    dimension: usize,
    metric: Metric,
    cancelled: &AtomicBool,
) -> Result<Option<Codes>, Cancelled> {
    let full = FullSpace::new(rows, metric);
    Ok(coded(rows, &full, dimension, metric, cancelled)?.map(|(_, codes)| codes))
}

/// Codes of `rows`, and which of them are equal; `None` where codes do not tell rows apart.
fn coded(
    rows: &impl Rows,
    full: &FullSpace<'_>,
    dimension: usize,
    metric: Metric,
    cancelled: &AtomicBool,
) -> Result<Option<(Equals, Codes)>, Cancelled> {
    if dimension < SMALLEST_CODED {
        return Ok(None);
    }
    let codes = Codes::of(rows, dimension, metric, cancelled)?;
    let space = CodeSpace::new(&codes, full.extras());
    let equals = Equals::find(full.len(), |row| space.look(row), |a, b| full.are_as_one(a, b), cancelled)?;
    let searched = AsSearched { full, metric, codes: Some(CodeView::Whole(codes.view(metric))) };
    let told = told_apart(searched, &equals.firsts(), BAR, cancelled)?;
    Ok(told.then_some((equals, codes)))
}

/// The bulk graph of some rows, as a graph of all rows, and the axes that [`bulk::build`] found.
fn bulk_of<S: Space>(
    space: S,
    firsts: &[u32],
    options: &BuildOptions,
    known: Option<Known<'_>>,
    cancelled: &AtomicBool,
) -> Result<(Graph, Option<Axes>), Cancelled> {
    let rows = space.len();
    let control = bulk::Control { cancelled, progress: Some(&options.progress) };
    if firsts.len() == rows {
        return bulk::build(space, &options.graph, options.seed, known, &control);
    }
    // edges that are known name rows; those of rows that do not enter are of no use
    let known = known.map(|known| {
        move |point: u32, out: &mut Vec<u32>| {
            known(firsts[point as usize], out);
            let mut kept = 0;
            for at in 0..out.len() {
                if let Ok(point) = firsts.binary_search(&out[at]) {
                    out[kept] = point as u32;
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
    });
    let known: Option<Known<'_>> = known.as_ref().map(|k| k as Known<'_>);
    let (part, axes) = bulk::build(space.reordered(firsts), &options.graph, options.seed, known, &control)?;
    let mut level0 = vec![crate::format::NO_ROW; rows * part.stride0];
    for (list, row) in part.level0.chunks_exact(part.stride0).zip(firsts) {
        let places = level0[*row as usize * part.stride0..].iter_mut();
        let there = list.iter().take_while(|n| **n != crate::format::NO_ROW);
        places.zip(there).for_each(|(place, point)| *place = firsts[*point as usize]);
    }
    let mut upper = part.upper;
    for level in &mut upper {
        level.rows.iter_mut().for_each(|row| *row = firsts[*row as usize]);
    }
    if let Some(first) = upper.first_mut() {
        first.below.clone_from(&first.rows);
    }
    let entry =
        if upper.is_empty() { firsts.get(part.entry as usize).copied().unwrap_or(0) } else { part.entry };
    Ok((Graph { level0, upper, entry, ..part }, axes))
}

/// The rows in an order that `seed` decides.
fn shuffled(rows: &[u32], seed: u64) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = rows.iter().map(|row| (mixed(seed ^ u64::from(*row)), *row)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use sluice_core::{GraphBuilder, GraphSpec, Offset, Timestamp};

    use super::*;
    use crate::format::NO_ROW;
    use crate::row::ValueRef;
    use crate::{Components, RowRef};

    pub(crate) struct Vectors(pub(crate) Vec<Vec<f32>>);

    impl Rows for Vectors {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn row(&self, at: usize) -> RowRef<'_> {
            let offset = Offset(at as u64);
            let vector = Components::F32(&self.0[at]);
            RowRef { key: "", offset, timestamp: Timestamp(0), vector, metadata: "{}" }
        }

        fn values<'a>(&'a self, _: usize, _: usize, _: &mut dyn FnMut(ValueRef<'a>)) {}
    }

    const BUILDERS: [GraphBuilder; 2] = [GraphBuilder::HnswRs, GraphBuilder::Bulk];

    fn built(builder: GraphBuilder, vectors: Vec<Vec<f32>>, metric: Metric, m: u32) -> Graph {
        let graph = GraphSpec { builder, m, ef_construction: 40, ..GraphSpec::default() };
        let options = BuildOptions { graph, seed: 3, ..BuildOptions::default() };
        let dimension = vectors[0].len();
        build(&Vectors(vectors), dimension, metric, &options, None, &AtomicBool::new(false))
            .unwrap()
            .graph
            .unwrap()
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
        for builder in BUILDERS {
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                for (n, m) in [(1, 4), (2, 4), (40, 4), (1500, 4), (1500, 16)] {
                    let graph = built(builder, groups(n), metric, m);
                    assert_eq!(graph.level0.len(), n * graph.stride0);
                    let mut entry = graph.entry;
                    for level in graph.upper.iter().rev() {
                        assert_one_piece(&level.neighbours, graph.stride, entry);
                        entry = level.below[entry as usize];
                    }
                    assert_one_piece(&graph.level0, graph.stride0, entry);
                }
            }
        }
    }

    #[test]
    fn codes_are_given_up_when_the_flag_is_set() {
        for (n, dimension) in [(600, 64), (600, 4)] {
            let vectors = Vectors(vec![vec![1.0; dimension]; n]);
            let full = FullSpace::new(&vectors, Metric::L2);
            let (set, unset) = (AtomicBool::new(true), AtomicBool::new(false));
            assert_eq!(codes(&vectors, dimension, Metric::L2, &set).is_err(), dimension >= SMALLEST_CODED);
            assert!(codes(&vectors, dimension, Metric::L2, &unset).is_ok());
            assert!(Equals::find(n, |row| full.look(row), |_, _| true, &set).is_err());
            let made = Codes::of(&vectors, dimension, Metric::L2, &unset).unwrap();
            let searched = AsSearched {
                full: &full,
                metric: Metric::L2,
                codes: Some(CodeView::Whole(made.view(Metric::L2))),
            };
            assert!(told_apart(searched, &[0, 1, 2], BAR, &set).is_err());
        }
    }

    #[test]
    fn equal_vectors_are_strung_on_one_ring() {
        for builder in BUILDERS {
            let graph = built(builder, vec![vec![1.0, 2.0]; 300], Metric::L2, 4);
            let edges = |list: &[u32]| list.iter().filter(|n| **n != NO_ROW).count();
            assert!(graph.level0.chunks(graph.stride0).all(|list| edges(list) <= 2));
            assert_one_piece(&graph.level0, graph.stride0, 0);
        }
    }
}
