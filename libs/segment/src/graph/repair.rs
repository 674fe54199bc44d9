//! Makes every node of a level reachable from its entry point, and the entry point from every node.
//!
//! hnsw_rs keeps the nearest of the edges that come back to a node, without a test of diversity, so that a tight
//! group may lose all its edges from or to the rest. A node that is not reached is linked from the nearest reached
//! one that has room; where none has, it is put in between a node and its farthest neighbour, which stays reachable
//! through it.

use std::sync::atomic::AtomicBool;

use super::Graph;
use super::full_space::FullSpace;
use super::walk::{Links, Scratch, Target, beam};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::format::NO_ROW;

/// Reached nodes that are asked for room.
const NEAREST: usize = 64;

/// A level that is being repaired.
pub(super) struct Level<'a> {
    pub(super) neighbours: &'a mut [u32],
    pub(super) stride: usize,
    pub(super) entry: u32,
    /// The rows of its nodes; level 0 has none here, its nodes are the rows.
    pub(super) rows: Option<&'a [u32]>,
    pub(super) space: &'a FullSpace<'a>,
}

/// The way to one node.
struct ToNode<'a> {
    node: u32,
    rows: Option<&'a [u32]>,
    space: &'a FullSpace<'a>,
}

impl Target for ToNode<'_> {
    fn distances(&self, nodes: &[u32], out: &mut Vec<f32>) {
        let row = |node: u32| self.rows.map_or(node, |rows| rows[node as usize]);
        out.extend(nodes.iter().map(|node| self.space.distance(row(self.node), row(*node))));
    }
}

impl Level<'_> {
    fn nodes(&self) -> usize {
        self.neighbours.len() / self.stride
    }

    fn links(&self) -> Links<'_> {
        Links { neighbours: self.neighbours, stride: self.stride }
    }

    fn list(&mut self, node: u32) -> &mut [u32] {
        &mut self.neighbours[node as usize * self.stride..][..self.stride]
    }

    /// Adds an edge where there is room for one.
    fn push(&mut self, from: u32, to: u32) -> bool {
        let free = self.list(from).iter_mut().find(|n| **n == NO_ROW);
        free.map(|place| *place = to).is_some()
    }

    /// Puts an edge in the place of the last one, which it returns.
    fn replace_last(&mut self, from: u32, to: u32) -> u32 {
        let last = self.stride - 1;
        std::mem::replace(&mut self.list(from)[last], to)
    }

    /// The nodes that a walk from the entry point to `node` meets nearest to it.
    fn nearest(&self, node: u32, scratch: &mut Scratch) -> Result<Vec<u32>, Cancelled> {
        let target = ToNode { node, rows: self.rows, space: self.space };
        let start = std::iter::once(self.entry);
        beam(self.links(), start, NEAREST, usize::MAX, &target, scratch)?;
        Ok(scratch.found().iter().map(|near| near.row()).filter(|found| *found != node).collect())
    }

    /// Links every node from nodes that the entry point reaches.
    pub(super) fn reach_all(&mut self, scratch: &mut Scratch) -> Result<(), Cancelled> {
        let mut reached = vec![false; self.nodes()];
        self.spread(self.entry, &mut reached);
        for node in 0..self.nodes() as u32 {
            if reached[node as usize] {
                continue;
            }
            let nearest = self.nearest(node, scratch)?;
            let linked = nearest.iter().any(|from| self.push(*from, node));
            if !linked && let Some(from) = nearest.first() {
                let cut_off = self.replace_last(*from, node);
                // nothing that is reached depends on the edges of a node that is not
                if !self.push(node, cut_off) {
                    self.replace_last(node, cut_off);
                }
            }
            self.spread(node, &mut reached);
        }
        Ok(())
    }

    /// Marks what can be reached from `from`, itself included.
    fn spread(&self, from: u32, reached: &mut [bool]) {
        let links = self.links();
        let mut open = vec![from];
        reached[from as usize] = true;
        while let Some(node) = open.pop() {
            for next in links.of(node) {
                if !std::mem::replace(&mut reached[next as usize], true) {
                    open.push(next);
                }
            }
        }
    }

    /// Gives every node a way to the entry point.
    pub(super) fn return_all(&mut self, scratch: &mut Scratch) -> Result<(), Cancelled> {
        let reverse = Reverse::of(self.links(), self.nodes());
        let mut returns = vec![false; self.nodes()];
        reverse.spread(self.entry, &mut returns);
        for node in 0..self.nodes() as u32 {
            if returns[node as usize] {
                continue;
            }
            let nearest = self.nearest(node, scratch)?;
            let ways: Vec<u32> =
                nearest.into_iter().filter(|to| returns[*to as usize]).chain([self.entry]).collect();
            if !self.push(node, ways[0]) {
                // the neighbour that gives way stays reachable, through a node with room for it
                let last = self.list(node).last().copied().unwrap_or(NO_ROW);
                let mut holders = ways.iter().copied().chain(0..self.nodes() as u32);
                if holders.any(|holder| holder != last && self.push(holder, last)) {
                    self.replace_last(node, ways[0]);
                }
            }
            reverse.spread(node, &mut returns);
        }
        Ok(())
    }
}

/// Makes every level one piece.
pub(super) fn every_level(
    graph: &mut Graph,
    space: &FullSpace<'_>,
    cancelled: &AtomicBool,
) -> Result<(), Cancelled> {
    let mut scratch = Scratch::default();
    let mut entry = graph.entry;
    for super::Level { rows, below, neighbours } in graph.upper.iter_mut().rev() {
        let mut level = Level { neighbours, stride: graph.stride, entry, rows: Some(rows.as_slice()), space };
        level.reach_all(&mut scratch)?;
        level.return_all(&mut scratch)?;
        entry = below[entry as usize];
        check_cancelled(cancelled)?;
    }
    let mut level = Level { neighbours: &mut graph.level0, stride: graph.stride0, entry, rows: None, space };
    level.reach_all(&mut scratch)?;
    check_cancelled(cancelled)?;
    level.return_all(&mut scratch)?;
    Ok(())
}

/// The edges of a level turned round.
struct Reverse {
    starts: Vec<u32>,
    sources: Vec<u32>,
}

impl Reverse {
    fn of(links: Links<'_>, nodes: usize) -> Self {
        let mut starts = vec![0u32; nodes + 1];
        for node in 0..nodes as u32 {
            links.of(node).for_each(|to| starts[to as usize + 1] += 1);
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut sources = vec![0u32; starts.last().map_or(0, |end| *end as usize)];
        for node in 0..nodes as u32 {
            for to in links.of(node) {
                let place = &mut next[to as usize];
                sources[*place as usize] = node;
                *place += 1;
            }
        }
        Self { starts, sources }
    }

    fn spread(&self, from: u32, reached: &mut [bool]) {
        let mut open = vec![from];
        reached[from as usize] = true;
        while let Some(node) = open.pop() {
            let range = self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize;
            for source in &self.sources[range] {
                if !std::mem::replace(&mut reached[*source as usize], true) {
                    open.push(*source);
                }
            }
        }
    }
}
