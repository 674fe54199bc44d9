//! One bucket: all its pairs are compared, and each point's nearest are offered to it and it to them.

use std::sync::Mutex;

use super::nearest::Nearest;
use super::partition::valid;
use super::rough::CANDIDATES;
use super::slots::{Slots, lock};
use crate::graph::space::{Bounds, Projection, Space};
use crate::kernels::codes::{TILE, TileOut, code_kernels};
use crate::kernels::prefetch_lines;

/// Points whose slots are fetched ahead of those that are offered to.
const AHEAD: usize = 2;

/// Points of a bucket on which it is tried out whether fewer dimensions will do: three in four of their nearest must
/// be found.
const PROBES: usize = 8;

/// Memory of one thread for buckets, kept from one to the next.
pub(super) struct Leaf<B> {
    block: B,
    nearest: Nearest,
    out: Box<TileOut>,
    lines: Vec<Projection>,
    /// Points that are compared once more.
    points: Vec<u32>,
    /// Offers by receiver: where each one's begin, and (distance, who is offered).
    starts: Vec<u32>,
    offers: Vec<(f32, u32)>,
}

impl<B: Default> Default for Leaf<B> {
    fn default() -> Self {
        Self {
            block: B::default(),
            nearest: Nearest::default(),
            out: Box::default(),
            lines: Vec::new(),
            points: Vec::new(),
            starts: Vec::new(),
            offers: Vec::new(),
        }
    }
}

impl<B: Default + Send + Sync> Leaf<B> {
    /// Compares all pairs of `bucket` and offers each point its `k` nearest, and to those the point. With `rough`, pairs
    /// are compared there, and what is nearest there once more in `space`; but where that misses too many, all are
    /// compared in `space`.
    pub(super) fn offer<S: Space<Block = B>>(
        &mut self,
        (space, rough): (&S, Option<&S>),
        bucket: &[u32],
        k: usize,
        projections: &[Projection],
        slots: &[Mutex<Slots>],
    ) {
        let found = rough.is_some_and(|rough| {
            self.compare(rough, bucket, CANDIDATES.max(k));
            let (found, all) = self.found(space, bucket, k, PROBES);
            found * 4 >= all * 3
        });
        if found {
            self.nearest.refine(k, |point, others, out| {
                self.points.clear();
                self.points.extend(others.iter().map(|other| bucket[*other as usize]));
                space.distances(bucket[point], &self.points, out);
            });
        } else {
            self.compare(space, bucket, k);
        }
        self.group(bucket.len());
        self.lines.clear();
        self.lines.extend(bucket.iter().map(|point| projections[*point as usize]));
        for (at, point) in bucket.iter().enumerate() {
            if let Some(ahead) = bucket.get(at + AHEAD) {
                prefetch_lines::<_, 13>(std::slice::from_ref(&slots[*ahead as usize]));
            }
            let mut slots = lock(&slots[*point as usize]);
            let own = self.nearest.of(at);
            let others = &self.offers[self.starts[at] as usize..self.starts[at + 1] as usize];
            for (distance, other) in own.chain(others.iter().copied()) {
                let there = &self.lines[other as usize];
                slots.offer(&self.lines[at], there, distance, bucket[other as usize]);
            }
        }
    }

    /// Finds the `k` nearest of each point of `bucket` among the others.
    pub(super) fn compare<S: Space<Block = B>>(&mut self, space: &S, bucket: &[u32], k: usize) {
        space.gather(bucket, &mut self.block);
        self.nearest.reset(bucket.len(), k);
        let tiles = bucket.len().div_ceil(TILE);
        // near the diagonal first: neighbours in number are near in space, and make the bounds tight
        for apart in 0..tiles {
            for row in 0..tiles - apart {
                self.tile(space, row, row + apart, bucket.len());
            }
        }
        self.nearest.cut();
    }

    /// How many of the `k` nearest in `space` of about `probes` points of `bucket` are among what was found near them,
    /// and how many there are.
    pub(super) fn found<S: Space>(
        &self,
        space: &S,
        bucket: &[u32],
        k: usize,
        probes: usize,
    ) -> (usize, usize) {
        let (mut distances, mut others, mut found, mut all) = (Vec::new(), Vec::new(), 0, 0);
        for at in (0..bucket.len()).step_by(bucket.len().div_ceil(probes).max(1)) {
            distances.clear();
            space.distances(bucket[at], bucket, &mut distances);
            others.clear();
            others.extend(distances.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, d)| *d));
            let nearest = k.min(others.len());
            if nearest < others.len() {
                others.select_nth_unstable_by(nearest, f32::total_cmp);
            }
            // of equals any will do
            let bound = others.iter().take(nearest).fold(0f32, |bound, distance| bound.max(*distance));
            let near = self.nearest.of(at).filter(|(_, other)| distances[*other as usize] <= bound);
            found += near.count().min(nearest);
            all += nearest;
        }
        (found, all)
    }

    /// Compares the points of two tiles; distances are the same both ways, so one tile serves both.
    fn tile<S: Space<Block = B>>(&mut self, space: &S, i: usize, j: usize, points: usize) {
        let Self { block, nearest, out, .. } = self;
        let bounds = Bounds { rows: nearest.bounds(i), columns: nearest.bounds(j) };
        space.tile((block, i), (block, j), bounds, out);
        let (kernels, there) = (code_kernels(), valid(points, j));
        if i == j {
            (kernels.start)(out, there.count_ones() as usize, true, (i * TILE) as u32, nearest.receivers(i));
            return;
        }
        for (row, column) in out.row_masks.iter_mut().zip(&mut out.column_masks) {
            *row &= there;
            *column &= there;
        }
        (kernels.collect_rows)(out, (j * TILE) as u32, nearest.receivers(i));
        (kernels.collect_columns)(out, (i * TILE) as u32, nearest.receivers(j));
    }

    /// Groups by receiver what each point is to be offered as, but where the receiver found it by itself.
    fn group(&mut self, points: usize) {
        let Self { nearest, starts, offers, .. } = self;
        let wanted = |point: usize, other: u32| !nearest.has(other as usize, point as u32);
        starts.clear();
        starts.resize(points + 1, 0);
        for point in 0..points {
            for (_, other) in nearest.of(point).filter(|(_, other)| wanted(point, *other)) {
                starts[other as usize + 1] += 1;
            }
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        offers.clear();
        offers.resize(starts[points] as usize, (0.0, 0));
        let mut next = starts.clone();
        for point in 0..points {
            for (distance, other) in nearest.of(point).filter(|(_, other)| wanted(point, *other)) {
                let place = &mut next[other as usize];
                offers[*place as usize] = (distance, point as u32);
                *place += 1;
            }
        }
    }
}
