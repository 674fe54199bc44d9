//! Builds a graph all at once: overlapping partitions, all pairs inside each, and one pruning of what they offer.
//!
//! The idea is PiPNN's (arXiv 2602.21247). A segment is sealed or merged as a whole, so no point has to be inserted
//! after another:
//! 1. `partition`: every point joins its few nearest of some sampled leaders; what is too large is split again. The
//!    same once more inside disjoint random parts of the points, where near means farther: edges of middle length.
//! 2. `leaf`: inside each bucket all pairs are compared by dense kernels, and each point's nearest are offered both
//!    ways. Where few axes tell near from far (`rough`), pairs are compared along those, and the nearest once more by
//!    all components.
//! 3. `slots`: a point keeps a bounded number of offers, of those in one direction the nearest.
//! 4. `link`: the offers are pruned as in HNSW, reverse edges added, and what is overfull is pruned again.
//! 5. Upper levels are built in the same way from a sixteenth of the level below, and so is the graph an HNSW graph.
//!
//! The same points and seed give the same graph on any number of threads: slots hold a function of the *set* of
//! offers, and everything else is done point by point.

mod leaf;
mod link;
mod nearest;
mod partition;
mod rough;
mod slots;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;
use sluice_core::GraphSpec;

use super::axes::Axes;
use super::space::{Part, Space};
use super::{Graph, Level, SPARE};
use crate::build::check_cancelled;
use crate::format::NO_ROW;
use crate::kernels::codes::BEST;
use crate::mapping::on_huge_pages;
use crate::random::mixed;
use crate::{Cancelled, Progress};
use leaf::Leaf;
use link::Lists;
use partition::{Buckets, Plan};
use slots::Slots;

pub(crate) use rough::rough_memory;
pub(crate) use slots::MEMORY as SLOT_MEMORY;

/// One point in so many stands on the level above.
const LEVEL_FACTOR: u64 = 16;

/// Points that a random part must have to be worth its while, on average.
const SMALLEST_PART: usize = 32;

/// A level of fewer points has none above it.
const SMALLEST_LEVEL: usize = 2;

/// Edges that are known before the build, as when segments are merged: appends the neighbours of a point.
pub(crate) type Known<'a> = &'a (dyn Fn(u32, &mut Vec<u32>) + Sync);

/// Shares of a build that are done once level 0 is partitioned, compared and linked.
const SPLIT: f64 = 0.05;
const COMPARED: f64 = 0.75;
const LINKED: f64 = 0.9;

/// What a build is told and tells while it runs.
pub(super) struct Control<'a> {
    pub(super) cancelled: &'a AtomicBool,
    /// Absent for a part whose share is not told apart.
    pub(super) progress: Option<&'a Progress>,
}

impl Control<'_> {
    fn reached(&self, share: f64) {
        if let Some(progress) = self.progress {
            progress.reached(share);
        }
    }
}

/// How much work is done for how good a graph.
#[derive(Debug, Clone)]
pub(super) struct Effort {
    /// Nearest of each point that a bucket offers.
    neighbours: usize,
    /// Buckets that a point joins.
    fanout: usize,
    /// Scales at which disjoint random parts of the points are partitioned once more: how many parts, and the
    /// buckets of its part that a point joins.
    scales: Vec<(usize, usize)>,
}

impl Effort {
    /// At `ef_construction` 200 a point joins 7 buckets of all points and 7 of a quarter of them, and a graph of real
    /// text needs no more candidates than one that hnswlib builds at 200. Merging reuses edges, many of them long,
    /// and so needs less. The two coarse scales cost little, and join groups that lie far apart.
    fn new(spec: &GraphSpec, merging: bool) -> Self {
        let fanout = fanout(spec.ef_construction);
        match merging {
            true => Self { neighbours: 6, fanout: fanout.div_ceil(2), scales: vec![(16, 1), (64, 1)] },
            false => Self { neighbours: 6, fanout, scales: vec![(4, fanout), (16, 1), (64, 1)] },
        }
    }
}

/// Buckets that a point joins at a scale.
pub(crate) fn fanout(ef_construction: u32) -> usize {
    (ef_construction as usize * 7 / 200).clamp(3, BEST)
}

/// Builds the graph of the points of `space`, on the rayon pool that it is called in. With it come the axes along which
/// near points differ most, if they were looked for.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn build<S: Space>(
    space: S,
    spec: &GraphSpec,
    seed: u64,
    known: Option<Known<'_>>,
    control: &Control<'_>,
) -> Result<(Graph, Option<Axes>), Cancelled> {
    let m = spec.m.clamp(4, 64) as usize;
    let (stride0, stride) = (2 * m, m + SPARE);
    let effort = Effort::new(spec, known.is_some());
    let plan = Plan::new(effort.fanout);
    let everything: Vec<u32> = (0..space.len() as u32).collect();
    let first = partition::split(&space, everything, &plan, seed, control.cancelled)?;
    let (space, order, buckets) = reorder(space, first);
    let place = inverse(&order);
    let renumbered = |point: u32, out: &mut Vec<u32>| {
        if let Some(known) = known {
            known(order[point as usize], out);
            out.iter_mut().for_each(|point| *point = place[*point as usize]);
        }
    };
    let known: Option<Known<'_>> = if known.is_some() { Some(&renumbered) } else { None };
    let (axes, rough) = rough::rough(&space, &buckets, effort.neighbours, seed, control.cancelled)?;
    let lists = level((&space, rough), buckets, 2 * m - SPARE, &effort, seed, known, control)?;
    control.reached(LINKED);
    let level0 = in_old_order(&lists, stride0, &order);
    drop(lists);
    let mut upper = Vec::new();
    let mut rows = above(space.len(), seed, 1);
    let mut number = 1;
    while rows.len() >= SMALLEST_LEVEL {
        let points: Vec<u32> = rows.iter().map(|row| place[*row as usize]).collect();
        upper.push(upper_level(
            &space,
            points,
            &rows,
            (m, stride),
            &effort,
            mixed(seed ^ number),
            control.cancelled,
        )?);
        number += 1;
        rows.retain(|row| stands_on(*row, seed, number));
    }
    place_below(&mut upper);
    Ok((Graph { stride0, stride, entry: 0, seeds: Vec::new(), width: 1, level0, upper }, axes))
}

/// Numbers points by their nearest leaders, so that what is compared together lies together.
fn reorder<S: Space>(space: S, first: Buckets) -> (S, Vec<u32>, Vec<Vec<u32>>) {
    let Buckets { mut buckets, nearest } = first;
    let mut order: Vec<u32> = (0..space.len() as u32).collect();
    if !nearest.is_empty() {
        order.sort_by_key(|point| (nearest[*point as usize], *point));
    }
    let place = inverse(&order);
    buckets.par_iter_mut().for_each(|bucket| {
        bucket.iter_mut().for_each(|point| *point = place[*point as usize]);
        bucket.sort_unstable();
    });
    (space.reordered(&order), order, buckets)
}

fn inverse(order: &[u32]) -> Vec<u32> {
    let mut place = vec![0; order.len()];
    for (at, point) in order.iter().enumerate() {
        place[*point as usize] = at as u32;
    }
    place
}

/// The rows that stand on `level`, which is at least 1.
fn above(rows: usize, seed: u64, level: u64) -> Vec<u32> {
    (0..rows as u32).filter(|row| (1..=level).all(|level| stands_on(*row, seed, level))).collect()
}

fn stands_on(row: u32, seed: u64, level: u64) -> bool {
    mixed(mixed(seed ^ (level << 40)) ^ u64::from(row)).is_multiple_of(LEVEL_FACTOR)
}

/// The edges of one level, from its buckets; `rough` are its points in fewer dimensions.
fn level<S: Space>(
    (space, rough): (&S, Option<S>),
    mut buckets: Vec<Vec<u32>>,
    degree: usize,
    effort: &Effort,
    seed: u64,
    known: Option<Known<'_>>,
    control: &Control<'_>,
) -> Result<Lists, Cancelled> {
    let cancelled = control.cancelled;
    for (parts, fanout) in effort.scales.iter().filter(|(parts, _)| space.len() >= parts * SMALLEST_PART) {
        let seed = mixed(seed ^ *parts as u64);
        let mut points = vec![Vec::new(); *parts];
        for point in 0..space.len() as u32 {
            points[mixed(seed ^ u64::from(point)) as usize % parts].push(point);
        }
        for (part, points) in (0u64..).zip(points) {
            let plan = Plan::new(*fanout);
            buckets.extend(partition::split(space, points, &plan, mixed(seed ^ part), cancelled)?.buckets);
        }
    }
    let everything: Vec<u32> = (0..space.len() as u32).collect();
    let projections = space.projections(&everything, seed);
    let mut slots = on_huge_pages::<Mutex<Slots>>(space.len());
    slots.resize_with(space.len(), Mutex::default);
    if let Some(known) = known {
        offer_known(space, &slots, &projections, known, cancelled)?;
    }
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.len()));
    let pairs = |bucket: &Vec<u32>| (bucket.len() * bucket.len()) as u64;
    let (all, compared) = (buckets.iter().map(pairs).sum::<u64>(), AtomicU64::new(0));
    buckets.par_iter().with_max_len(1).try_for_each_init(Leaf::default, |leaf, bucket| {
        check_cancelled(cancelled)?;
        leaf.offer((space, rough.as_ref()), bucket, effort.neighbours, &projections, &slots);
        let compared = compared.fetch_add(pairs(bucket), Ordering::Relaxed) + pairs(bucket);
        control.reached(SPLIT + (COMPARED - SPLIT) * compared as f64 / all.max(1) as f64);
        Ok(())
    })?;
    drop((buckets, projections, rough));
    link::link(space, slots, degree, cancelled)
}

fn offer_known<S: Space>(
    space: &S,
    slots: &[Mutex<Slots>],
    projections: &[super::space::Projection],
    known: Known<'_>,
    cancelled: &AtomicBool,
) -> Result<(), Cancelled> {
    (0..space.len() as u32).into_par_iter().with_min_len(256).try_for_each_init(
        || (Vec::new(), Vec::new()),
        |(neighbours, distances), point| {
            if point.is_multiple_of(1024) {
                check_cancelled(cancelled)?;
            }
            neighbours.clear();
            distances.clear();
            known(point, neighbours);
            neighbours.retain(|n| *n != point);
            space.distances(point, neighbours, distances);
            let mut slots = slots::lock(&slots[point as usize]);
            for (neighbour, distance) in neighbours.iter().zip(distances.iter()) {
                slots.offer(
                    &projections[point as usize],
                    &projections[*neighbour as usize],
                    *distance,
                    *neighbour,
                );
            }
            Ok(())
        },
    )
}

/// Lists of numbers in the new order as lists of rows in the old one.
fn in_old_order(lists: &Lists, stride: usize, order: &[u32]) -> Vec<u32> {
    let mut out = vec![NO_ROW; order.len() * stride];
    for (point, row) in order.iter().enumerate() {
        let list = &mut out[*row as usize * stride..][..stride];
        for (place, neighbour) in list.iter_mut().zip(lists.of(point)) {
            *place = order[*neighbour as usize];
        }
    }
    out
}

fn upper_level<S: Space>(
    space: &S,
    points: Vec<u32>,
    rows: &[u32],
    (m, stride): (usize, usize),
    effort: &Effort,
    seed: u64,
    cancelled: &AtomicBool,
) -> Result<Level, Cancelled> {
    let part = Part { space, points: points.into() };
    let plan = Plan::new(effort.fanout);
    let everything = (0..part.len() as u32).collect();
    let buckets = partition::split(&part, everything, &plan, seed, cancelled)?.buckets;
    let effort = Effort { neighbours: BEST, scales: Vec::new(), ..effort.clone() };
    let control = Control { cancelled, progress: None };
    let lists = level((&part, None), buckets, m, &effort, seed, None, &control)?;
    let same: Vec<u32> = (0..rows.len() as u32).collect();
    Ok(Level { rows: rows.to_vec(), below: Vec::new(), neighbours: in_old_order(&lists, stride, &same) })
}

/// Fills in where the nodes of each level stand in the one below.
fn place_below(upper: &mut [Level]) {
    for at in 0..upper.len() {
        let (below, level) = upper.split_at_mut(at);
        let level = &mut level[0];
        level.below = match below.last() {
            None => level.rows.clone(),
            Some(below) => {
                let place = |row: &u32| below.rows.binary_search(row).map_or(0, |at| at as u32);
                level.rows.iter().map(place).collect()
            }
        };
    }
}
