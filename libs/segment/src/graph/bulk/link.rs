//! From offers to edges: pruning by diversity, reverse edges, and pruning again where there are too many.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::slots::{Slots, lock};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::format::NO_ROW;
use crate::graph::space::Space;
use crate::mapping::on_huge_pages;

/// Edges of every point, nearest first, with their lengths.
pub(super) struct Lists {
    degree: usize,
    neighbours: Vec<u32>,
    distances: Vec<f32>,
}

impl Lists {
    fn new(points: usize, degree: usize) -> Self {
        let (mut neighbours, mut distances) =
            (on_huge_pages(points * degree), on_huge_pages(points * degree));
        neighbours.resize(points * degree, NO_ROW);
        distances.resize(points * degree, 0.0);
        Self { degree, neighbours, distances }
    }

    /// The neighbours of `point`.
    pub(super) fn of(&self, point: usize) -> &[u32] {
        let list = &self.neighbours[point * self.degree..][..self.degree];
        &list[..list.iter().position(|n| *n == NO_ROW).unwrap_or(list.len())]
    }

    fn edges(&self, point: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        let distances = &self.distances[point * self.degree..];
        distances.iter().copied().zip(self.of(point).iter().copied())
    }

    /// Fills every list by `fill`, which is given the point and memory, and leaves the list in `Work::chosen`.
    fn fill_all(
        &mut self,
        cancelled: &AtomicBool,
        fill: impl Fn(u32, &mut Work) + Sync,
    ) -> Result<(), Cancelled> {
        let degree = self.degree;
        let lists =
            self.neighbours.par_chunks_exact_mut(degree).zip(self.distances.par_chunks_exact_mut(degree));
        lists.enumerate().with_min_len(256).try_for_each_init(Work::default, |work, (point, lists)| {
            if point.is_multiple_of(1024) {
                check_cancelled(cancelled)?;
            }
            fill(point as u32, work);
            let (neighbours, distances) = lists;
            for ((place, length), edge) in neighbours.iter_mut().zip(distances).zip(&work.chosen) {
                (*length, *place) = *edge;
            }
            Ok(())
        })
    }
}

/// Memory for one point at a time.
#[derive(Default)]
struct Work {
    candidates: Vec<(f32, u32)>,
    alive: Vec<u32>,
    lengths: Vec<f32>,
    between: Vec<f32>,
    chosen: Vec<(f32, u32)>,
}

impl Work {
    /// Chooses up to `degree` of the candidates, which come nearest first: one is passed over when a chosen one is
    /// nearer to it than the point is.
    fn prune<S: Space>(&mut self, space: &S, degree: usize) {
        let Self { candidates, alive, lengths, between, chosen } = self;
        chosen.clear();
        alive.clear();
        lengths.clear();
        alive.extend(candidates.iter().map(|(_, point)| *point));
        lengths.extend(candidates.iter().map(|(length, _)| *length));
        let mut first = 0;
        while first < alive.len() {
            let point = alive[first];
            chosen.push((lengths[first], point));
            first += 1;
            if chosen.len() == degree {
                break;
            }
            between.clear();
            space.distances(point, &alive[first..], between);
            let mut kept = first;
            for (at, between) in (first..).zip(between.iter()) {
                if *between >= lengths[at] {
                    alive[kept] = alive[at];
                    lengths[kept] = lengths[at];
                    kept += 1;
                }
            }
            alive.truncate(kept);
            lengths.truncate(kept);
        }
    }
}

/// The edges of every point, at most `degree` each, from what its slots hold.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn link<S: Space>(
    space: &S,
    slots: Vec<Mutex<Slots>>,
    degree: usize,
    cancelled: &AtomicBool,
) -> Result<Lists, Cancelled> {
    let mut forward = Lists::new(space.len(), degree);
    forward.fill_all(cancelled, |point, work| {
        lock(&slots[point as usize]).sorted(&mut work.candidates);
        work.prune(space, degree);
    })?;
    drop(slots);
    let reverse = Reverse::turn(&forward);
    let mut both = Lists::new(space.len(), degree);
    both.fill_all(cancelled, |point, work| {
        let at = point as usize;
        work.candidates.clear();
        work.candidates.extend(forward.edges(at));
        let own = work.candidates.len();
        for (length, from) in reverse.of(at) {
            if work.candidates[..own].iter().all(|(_, there)| *there != from) {
                work.candidates.push((length, from));
            }
        }
        work.candidates.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if work.candidates.len() > degree {
            work.prune(space, degree);
        } else {
            work.chosen.clone_from(&work.candidates);
        }
    })?;
    Ok(both)
}

/// The edges turned round, with their lengths.
struct Reverse {
    starts: Vec<u32>,
    edges: Vec<(f32, u32)>,
}

impl Reverse {
    fn turn(lists: &Lists) -> Self {
        let points = lists.neighbours.len() / lists.degree;
        let mut starts = vec![0u32; points + 1];
        for point in 0..points {
            lists.of(point).iter().for_each(|to| starts[*to as usize + 1] += 1);
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut edges = vec![(0.0, 0); starts.last().map_or(0, |end| *end as usize)];
        for point in 0..points {
            for (length, to) in lists.edges(point) {
                let place = &mut next[to as usize];
                edges[*place as usize] = (length, point as u32);
                *place += 1;
            }
        }
        Self { starts, edges }
    }

    fn of(&self, point: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.edges[self.starts[point] as usize..self.starts[point + 1] as usize].iter().copied()
    }
}
