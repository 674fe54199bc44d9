//! A walk over one level of a graph: from an entry point to the nearest nodes, best first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Cancelled;
use crate::format::NO_ROW;
use crate::near::Near;

/// One level: a fixed number of neighbours per node, filled up with `NO_ROW`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Links<'a> {
    pub(crate) neighbours: &'a [u32],
    pub(crate) stride: usize,
}

impl<'a> Links<'a> {
    #[inline]
    pub(crate) fn of(&self, node: u32) -> impl Iterator<Item = u32> + use<'a> {
        let list = &self.neighbours[node as usize * self.stride..][..self.stride];
        list.iter().copied().take_while(|n| *n != NO_ROW)
    }
}

/// What a walk needs to know of its query.
pub(crate) trait Target {
    fn distance(&self, node: u32) -> f32;

    /// Asks the processor to fetch what `distance` will read.
    fn prefetch(&self, _node: u32) {}

    /// Whether a node may stand in the answer. Others are walked over all the same.
    fn admits(&self, _node: u32) -> bool {
        true
    }

    fn check_cancelled(&self) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// Memory of walks, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The walk in which a node was last seen.
    seen: Vec<u8>,
    walk: u8,
    candidates: BinaryHeap<Reverse<Near>>,
    best: BinaryHeap<Near>,
    batch: Vec<u32>,
    sorted: Vec<Near>,
}

impl Scratch {
    fn begin(&mut self, nodes: usize) {
        if self.seen.len() < nodes {
            self.seen.resize(nodes, 0);
        }
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.seen.fill(0);
            self.walk = 1;
        }
        self.candidates.clear();
        self.best.clear();
    }

    /// Whether `node` is seen for the first time in this walk.
    #[inline]
    fn first_sight(&mut self, node: u32) -> bool {
        let seen = &mut self.seen[node as usize];
        let first = *seen != self.walk;
        *seen = self.walk;
        first
    }

    /// What the last walk found, best first.
    pub(crate) fn found(&mut self) -> &[Near] {
        self.sorted.clear();
        self.sorted.extend(self.best.drain());
        self.sorted.sort_unstable();
        &self.sorted
    }

    /// How many nodes the last walk found.
    pub(crate) fn found_len(&self) -> usize {
        self.best.len()
    }
}

/// Walks to the nearest node that can be reached by always going on to a nearer neighbour.
pub(crate) fn descend(links: Links<'_>, from: u32, target: &impl Target) -> u32 {
    let mut at = Near::new(target.distance(from), from);
    loop {
        let before = at;
        for node in links.of(before.row()) {
            at = at.min(Near::new(target.distance(node), node));
        }
        if at == before {
            return at.row();
        }
    }
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// No nearer node was left to look at.
    Done,
    /// `limit` distances were computed before that.
    OverLimit,
}

/// Keeps the nearest `ef` admitted nodes of all that it meets from `starts` on; they are then `scratch.found()`.
///
/// # Errors
/// When the target says that the query was cancelled.
pub(crate) fn beam(
    links: Links<'_>,
    starts: impl Iterator<Item = u32>,
    ef: usize,
    limit: usize,
    target: &impl Target,
    scratch: &mut Scratch,
) -> Result<Walked, Cancelled> {
    const CHECK_EVERY: usize = 64;
    scratch.begin(links.neighbours.len() / links.stride);
    let (mut steps, mut distances) = (0usize, 0usize);
    for start in starts {
        if scratch.first_sight(start) {
            distances += 1;
            consider(Near::new(target.distance(start), start), ef, target, scratch);
        }
    }
    while let Some(Reverse(nearest)) = scratch.candidates.pop() {
        if scratch.best.len() >= ef && scratch.best.peek().is_some_and(|worst| nearest > *worst) {
            break;
        }
        if steps.is_multiple_of(CHECK_EVERY) {
            target.check_cancelled()?;
        }
        steps += 1;
        let mut batch = std::mem::take(&mut scratch.batch);
        batch.clear();
        for node in links.of(nearest.row()) {
            if scratch.first_sight(node) {
                target.prefetch(node);
                batch.push(node);
            }
        }
        distances += batch.len();
        for node in &batch {
            consider(Near::new(target.distance(*node), *node), ef, target, scratch);
        }
        scratch.batch = batch;
        if distances > limit {
            return Ok(Walked::OverLimit);
        }
    }
    Ok(Walked::Done)
}

#[inline]
fn consider(near: Near, ef: usize, target: &impl Target, scratch: &mut Scratch) {
    let full = scratch.best.len() >= ef;
    if full && scratch.best.peek().is_some_and(|worst| near >= *worst) {
        return;
    }
    scratch.candidates.push(Reverse(near));
    if target.admits(near.row()) {
        if full {
            scratch.best.pop();
        }
        scratch.best.push(near);
    }
}
