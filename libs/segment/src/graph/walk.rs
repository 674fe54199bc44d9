//! A walk over one level of a graph: from an entry point to the nearest nodes, best first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Cancelled;
use crate::format::NO_ROW;
use crate::kernels::prefetch;
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
        self.list(node).iter().copied().take_while(|n| *n != NO_ROW)
    }

    /// The neighbours of `node`, and what fills the list up.
    #[inline]
    pub(crate) fn list(&self, node: u32) -> &'a [u32] {
        &self.neighbours[node as usize * self.stride..][..self.stride]
    }
}

/// One upper level of a graph, as it is walked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upper<'a> {
    /// The rows of the level's nodes, in growing order.
    pub(crate) rows: &'a [u32],
    /// Each node's place in the level below.
    pub(crate) below: &'a [u32],
    /// Neighbours as places in this level, a fixed number per node.
    pub(crate) neighbours: &'a [u32],
}

/// What a walk needs to know of its query.
pub(crate) trait Target {
    /// Appends the distance of each of `nodes`, all of which were prefetched.
    fn distances(&self, nodes: &[u32], out: &mut Vec<f32>);

    /// Says that the distance of a node will be asked for soon: it may be fetched meanwhile.
    fn prefetch(&self, _node: u32) {}

    /// Whether a node may stand in the answer. Others are walked over all the same.
    fn admits(&self, _node: u32) -> bool {
        true
    }

    fn check_cancelled(&self) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// Memory of walks, kept from one to the next: a walk allocates nothing once it has grown.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The walk in which a node was last seen.
    seen: Vec<u8>,
    walk: u8,
    candidates: BinaryHeap<Reverse<Near>>,
    best: BinaryHeap<Near>,
    batch: Vec<u32>,
    distances: Vec<f32>,
    /// What the last walk found, best first, once it is done.
    found: Vec<Near>,
    /// Where the next walk starts.
    starts: Vec<u32>,
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
        self.found.clear();
    }

    /// Puts those of `nodes` that were not seen in this walk, with their distances, into the batch.
    #[inline]
    fn visit(&mut self, nodes: impl Iterator<Item = u32>, target: &impl Target) {
        self.batch.clear();
        self.distances.clear();
        for node in nodes {
            let seen = &mut self.seen[node as usize];
            if *seen != self.walk {
                *seen = self.walk;
                target.prefetch(node);
                self.batch.push(node);
            }
        }
        target.distances(&self.batch, &mut self.distances);
    }

    /// Where the next walk starts; to be given back.
    pub(crate) fn take_starts(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.starts)
    }

    pub(crate) fn give_back(&mut self, starts: Vec<u32>) {
        self.starts = starts;
    }

    /// What the last walk found, best first.
    pub(crate) fn found(&self) -> &[Near] {
        &self.found
    }
}

/// A target on an upper level, whose nodes stand for these rows.
struct OnRows<'a, T> {
    target: &'a T,
    rows: &'a [u32],
}

impl<T: Target> Target for OnRows<'_, T> {
    #[inline]
    fn distances(&self, nodes: &[u32], out: &mut Vec<f32>) {
        for nodes in nodes.chunks(32) {
            let mut buffer = [0; 32];
            let rows = &mut buffer[..nodes.len()];
            rows.iter_mut().zip(nodes).for_each(|(row, node)| *row = self.rows[*node as usize]);
            self.target.distances(rows, out);
        }
    }

    #[inline]
    fn prefetch(&self, node: u32) {
        self.target.prefetch(self.rows[node as usize]);
    }

    fn check_cancelled(&self) -> Result<(), Cancelled> {
        self.target.check_cancelled()
    }
}

/// Walks down the upper levels, which come from the highest on, and leaves in `scratch` where to start on level 0:
/// at the nearest `width` nodes of each level. Of one node the walk is greedy, as in HNSW.
///
/// # Errors
/// When the target says that the query was cancelled.
pub(crate) fn approach<'a>(
    levels: impl Iterator<Item = Upper<'a>>,
    entry: u32,
    (stride, width): (usize, usize),
    target: &impl Target,
    scratch: &mut Scratch,
) -> Result<(), Cancelled> {
    let mut starts = std::mem::take(&mut scratch.starts);
    starts.clear();
    starts.push(entry);
    for Upper { rows, below, neighbours } in levels {
        let links = Links { neighbours, stride };
        let target = OnRows { target, rows };
        if width == 1 {
            starts[0] = below[descend(links, starts[0], &target, scratch)? as usize];
        } else {
            pool(links, starts.drain(..), Keep::all(width), &target, scratch)?;
            starts.extend(scratch.found.iter().map(|near| below[near.row() as usize]));
        }
    }
    scratch.starts = starts;
    Ok(())
}

/// Walks to the nearest node that can be reached by always going on to a nearer neighbour.
///
/// # Errors
/// When the target says that the query was cancelled.
fn descend(
    links: Links<'_>,
    from: u32,
    target: &impl Target,
    scratch: &mut Scratch,
) -> Result<u32, Cancelled> {
    scratch.begin(links.neighbours.len() / links.stride);
    scratch.visit(std::iter::once(from), target);
    let mut at = Near::new(scratch.distances.first().copied().unwrap_or(f32::INFINITY), from);
    for step in 1usize.. {
        if step.is_multiple_of(CHECK_EVERY) {
            target.check_cancelled()?;
        }
        let before = at;
        scratch.visit(links.of(before.row()), target);
        for (node, distance) in scratch.batch.iter().zip(&scratch.distances) {
            at = at.min(Near::new(*distance, *node));
        }
        if at == before {
            break;
        }
    }
    Ok(at.row())
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// No nearer node was left to look at.
    Done,
    /// `limit` distances were computed before that.
    OverLimit,
}

/// Steps between two looks at whether the query was cancelled.
const CHECK_EVERY: usize = 64;

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
    scratch.begin(links.neighbours.len() / links.stride);
    let (mut steps, mut distances) = (0usize, 0usize);
    scratch.visit(starts, target);
    let walked = loop {
        let Scratch { batch, distances: lengths, candidates, best, .. } = scratch;
        for (node, distance) in batch.iter().zip(lengths.iter()) {
            consider(Near::new(*distance, *node), ef, target, candidates, best);
        }
        if distances > limit {
            break Walked::OverLimit;
        }
        let Some(Reverse(nearest)) = candidates.pop() else { break Walked::Done };
        if best.len() >= ef && best.peek().is_some_and(|worst| nearest > *worst) {
            break Walked::Done;
        }
        if steps.is_multiple_of(CHECK_EVERY) {
            target.check_cancelled()?;
        }
        steps += 1;
        scratch.visit(links.of(nearest.row()), target);
        distances += scratch.batch.len();
    };
    scratch.found.extend(scratch.best.drain());
    scratch.found.sort_unstable();
    Ok(walked)
}

#[inline]
fn consider(
    near: Near,
    ef: usize,
    target: &impl Target,
    candidates: &mut BinaryHeap<Reverse<Near>>,
    best: &mut BinaryHeap<Near>,
) {
    let full = best.len() >= ef;
    if full && best.peek().is_some_and(|worst| near >= *worst) {
        return;
    }
    candidates.push(Reverse(near));
    if target.admits(near.row()) {
        if full {
            best.pop();
        }
        best.push(near);
    }
}

/// How much a walk keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Nearest nodes from which it goes on.
    pub(crate) ef: usize,
    /// Nearest nodes that it finds, if more.
    pub(crate) found: usize,
    /// Of nodes that are equally near about so many are kept, so that copies of one vector do not push all others out.
    pub(crate) alike: usize,
}

impl Keep {
    /// As many of all.
    pub(crate) fn all(count: usize) -> Self {
        Self { ef: count, found: count, alike: count }
    }
}

/// As [`beam`], where every node is admitted: one sorted list holds candidates and answer.
///
/// # Errors
/// When the target says that the query was cancelled.
pub(crate) fn pool(
    links: Links<'_>,
    starts: impl Iterator<Item = u32>,
    keep: Keep,
    target: &impl Target,
    scratch: &mut Scratch,
) -> Result<(), Cancelled> {
    let Keep { ef, found, alike } = keep;
    let most = ef.max(found);
    scratch.begin(links.neighbours.len() / links.stride);
    scratch.visit(starts, target);
    let mut first_new = offer_all(scratch, links, most, alike, 0);
    let mut steps = 0usize;
    while first_new < scratch.found.len().min(ef) {
        if steps.is_multiple_of(CHECK_EVERY) {
            target.check_cancelled()?;
        }
        steps += 1;
        let near = scratch.found[first_new];
        scratch.found[first_new] = near.marked();
        scratch.visit(links.of(near.row()), target);
        first_new = offer_all(scratch, links, most, alike, first_new + 1);
        while scratch.found.get(first_new).is_some_and(|near| near.is_marked()) {
            first_new += 1;
        }
        if let Some(next) = scratch.found.get(first_new) {
            prefetch(links.list(next.row()));
        }
    }
    scratch.found.iter_mut().for_each(|near| *near = near.unmarked());
    Ok(())
}

/// Puts the batch into the list of the nearest `most`; gives the first place that may be new, at most `first_new`.
#[inline]
fn offer_all(
    scratch: &mut Scratch,
    links: Links<'_>,
    most: usize,
    alike: usize,
    mut first_new: usize,
) -> usize {
    let Scratch { batch, distances, found, .. } = scratch;
    for (node, distance) in batch.iter().zip(distances.iter()) {
        let near = Near::new(*distance, *node);
        if found.len() >= most && found.last().is_some_and(|worst| near >= *worst) {
            continue;
        }
        let place = found.partition_point(|there| *there < near);
        let same = |at: Option<usize>| {
            at.and_then(|at| found.get(at)).is_some_and(|there| there.is_as_near_as(near))
        };
        if same(place.checked_sub(alike)) || same(place.checked_add(alike - 1)) {
            continue;
        }
        if found.len() >= most {
            found.pop();
        }
        found.insert(place, near);
        if place <= first_new {
            // it may be the next to go on from
            prefetch(links.list(*node));
            first_new = place;
        }
    }
    first_new
}
