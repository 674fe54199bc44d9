//! Overlapping buckets of points that lie near one another.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::nearest::Nearest;
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::graph::space::{Bounds, Space};
use crate::kernels::codes::{TILE, TileOut, code_kernels};
use crate::random::mixed;

/// How points are split into buckets.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Nearest leaders that a point joins at first; one when a bucket is split again.
    fanout: usize,
    /// Points that a bucket is to hold on average.
    target: usize,
    /// A larger bucket is split again.
    largest: usize,
    /// Smaller buckets are put together.
    smallest: usize,
    /// Most leaders of one split.
    leaders: usize,
}

impl Plan {
    /// Found by measurement on real text: large leaves and much overlap are worth more than more neighbours.
    pub(super) fn new(fanout: usize) -> Self {
        Self { fanout, target: 800, largest: 2048, smallest: 64, leaders: 2000 }
    }
}

/// Splits deeper than this are cut without looking.
const DEEPEST: usize = 8;

/// What a split gave.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub(super) buckets: Vec<Vec<u32>>,
    /// The nearest leader of each point that was given, by its place in the list; empty where nothing was split.
    pub(super) nearest: Vec<u32>,
}

/// Splits `points` of `space` into buckets.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn split<S: Space>(
    space: &S,
    points: Vec<u32>,
    plan: &Plan,
    seed: u64,
    cancelled: &AtomicBool,
) -> Result<Buckets, Cancelled> {
    let mut done = Buckets::default();
    // points, fanout, depth, seed
    let mut open = vec![(points, plan.fanout, 0, seed)];
    while let Some((points, fanout, depth, seed)) = open.pop() {
        if points.len() <= plan.largest {
            done.buckets.push(points);
            continue;
        }
        if depth > DEEPEST {
            done.buckets.extend(points.chunks(plan.largest).map(<[u32]>::to_vec));
            continue;
        }
        let wanted = (points.len() * fanout / plan.target).clamp(2 * fanout, plan.leaders);
        let leaders = sample(&points, wanted, seed);
        let joined = assign(space, &points, &leaders, fanout, cancelled)?;
        if depth == 0 {
            done.nearest = joined.iter().step_by(fanout).copied().collect();
        }
        let mut buckets = vec![Vec::new(); leaders.len()];
        for (point, leaders) in points.iter().zip(joined.chunks_exact(fanout)) {
            leaders.iter().for_each(|leader| buckets[*leader as usize].push(*point));
        }
        for (number, bucket) in (0u64..).zip(pooled(buckets, plan)) {
            if bucket.len() * 10 > points.len() * 9 {
                // the leaders tell nothing apart: copies of one point, say
                done.buckets.extend(bucket.chunks(plan.largest).map(<[u32]>::to_vec));
            } else {
                open.push((bucket, 1, depth + 1, mixed(seed ^ number)));
            }
        }
    }
    Ok(done)
}

/// Some of the points, in an order that `seed` decides.
fn sample(points: &[u32], wanted: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = points.iter().map(|p| (mixed(seed ^ u64::from(*p)), *p)).collect();
    if wanted < order.len() {
        order.select_nth_unstable(wanted);
        order.truncate(wanted);
    }
    order.sort_unstable();
    order.into_iter().map(|(_, point)| point).collect()
}

/// The nearest `fanout` leaders of each point, by their places in the list.
fn assign<S: Space>(
    space: &S,
    points: &[u32],
    leaders: &[u32],
    fanout: usize,
    cancelled: &AtomicBool,
) -> Result<Vec<u32>, Cancelled> {
    let mut columns = S::Block::default();
    space.gather(leaders, &mut columns);
    let mut joined = vec![0u32; points.len() * fanout];
    let scratch = || (S::Block::default(), Nearest::default(), Box::<TileOut>::default());
    points.par_chunks(TILE).zip(joined.par_chunks_mut(TILE * fanout)).try_for_each_init(
        scratch,
        |(rows, nearest, out), (points, joined)| {
            check_cancelled(cancelled)?;
            space.gather(points, rows);
            nearest.reset(points.len(), fanout);
            let nothing_below = &[f32::NEG_INFINITY; TILE];
            let kernels = code_kernels();
            // the other way round, as the kernel that starts wants it
            let no_marks = Bounds { rows: nothing_below, columns: nothing_below };
            space.tile((&columns, 0), (rows, 0), no_marks, out);
            (kernels.start)(out, leaders.len().min(TILE), false, 0, nearest.receivers(0));
            for tile in 1..leaders.len().div_ceil(TILE) {
                let bounds = Bounds { rows: nearest.bounds(0), columns: nothing_below };
                space.tile((rows, 0), (&columns, tile), bounds, out);
                let there = valid(leaders.len(), tile);
                out.row_masks.iter_mut().for_each(|mask| *mask &= there);
                (kernels.collect_rows)(out, (tile * TILE) as u32, nearest.receivers(0));
            }
            for (row, joined) in joined.chunks_exact_mut(fanout).enumerate() {
                for (place, (_, leader)) in joined.iter_mut().zip(nearest.of(row)) {
                    *place = leader;
                }
            }
            Ok(())
        },
    )?;
    Ok(joined)
}

/// A bit for each column of tile number `tile` that stands for one of `points` points.
pub(super) fn valid(points: usize, tile: usize) -> u64 {
    let there = points.saturating_sub(tile * TILE).min(TILE);
    (1u64 << there) - 1
}

/// Puts small buckets together, in the order of their leaders.
fn pooled(buckets: Vec<Vec<u32>>, plan: &Plan) -> Vec<Vec<u32>> {
    let mut out = Vec::with_capacity(buckets.len());
    let mut pool: Vec<u32> = Vec::new();
    for bucket in buckets {
        if bucket.len() >= plan.smallest {
            out.push(bucket);
            continue;
        }
        pool.extend(bucket);
        if pool.len() >= plan.target {
            out.push(distinct(std::mem::take(&mut pool)));
        }
    }
    if !pool.is_empty() {
        out.push(distinct(pool));
    }
    out
}

fn distinct(mut points: Vec<u32>) -> Vec<u32> {
    points.sort_unstable();
    points.dedup();
    points
}
