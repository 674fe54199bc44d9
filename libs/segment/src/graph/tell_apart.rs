//! Whether codes tell rows apart: not so where tight groups lie far apart, since a step of the code is then wider than
//! a group.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::as_searched::{AsSearched, Exact};
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::distances::Distances;
use crate::near::{Near, TopK};
use crate::random::sampled;

/// Distances by code that are computed at most, about, but no fewer and no more than so many rows are looked for, so
/// many at once.
const WORK: usize = 1 << 20;
const FEWEST: usize = 16;
const MOST: usize = 40;
const AT_ONCE: usize = 8;

/// Rows whose distances by code are held at once.
const BLOCK: usize = 512;

/// So many of the nearest rows are to stand among the nearest by code.
const WANTED: usize = 10;
/// The nearest rows are looked for among so many of the nearest by code.
const FAR: usize = 200;

/// What is asked of codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    /// The nearest rows are to stand among so many of the nearest by code, ..
    pub(super) among: usize,
    /// .. but for this share of them.
    pub(super) missed: f64,
}

/// Whether the rows nearest to a row stand among the nearest by code, for some of `rows`, which are distinct.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn told_apart(
    searched: AsSearched<'_>,
    rows: &[u32],
    bar: Bar,
    cancelled: &AtomicBool,
) -> Result<bool, Cancelled> {
    let count = (WORK / rows.len().max(1)).clamp(FEWEST, MOST);
    let looked_for: Vec<u32> = sampled(rows.len(), count).map(|at| rows[at]).collect();
    let may_miss = (bar.missed * (looked_for.len() * WANTED) as f64) as usize;
    let mut missed = 0;
    for some in looked_for.chunks(AT_ONCE) {
        check_cancelled(cancelled)?;
        let each = some.par_iter().map(|row| {
            searched.with_query(*row, |vectors, codes| missed_by(codes, rows, vectors, bar.among))
        });
        missed += each.sum::<usize>();
        if missed > may_miss {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many of the nearest of `rows` by their vectors are not among so many nearest by code.
fn missed_by(codes: &dyn Distances, rows: &[u32], vectors: &Exact<'_>, among: usize) -> usize {
    let mut nearest = TopK::new(FAR, rows.len());
    let mut distances = Vec::with_capacity(BLOCK);
    for rows in rows.chunks(BLOCK) {
        distances.clear();
        codes.distances_in_turn(rows, &mut distances);
        rows.iter().zip(&distances).for_each(|(row, distance)| nearest.offer(Near::new(*distance, *row)));
    }
    let by_code = nearest.into_sorted();
    let mut room = Vec::new();
    let mut order: Vec<(f64, Near)> =
        by_code.iter().map(|near| (vectors.rank(near.row(), &mut room), *near)).collect();
    // of equally near rows any will do
    order.sort_unstable_by(|(a, near), (b, other)| a.total_cmp(b).then(near.cmp(other)));
    order.truncate(WANTED);
    let missed = order.iter().filter(|(_, near)| {
        // all that are as near by code come before it, for all a walk knows
        by_code.partition_point(|other| other < near || other.is_as_near_as(*near)) > among
    });
    missed.count()
}
