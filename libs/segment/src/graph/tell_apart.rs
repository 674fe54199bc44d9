//! Whether codes tell rows apart: not so where tight groups lie far apart, since a step of the code is then wider than
//! a group.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::as_searched::AsSearched;
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::distances::Distances;
use crate::near::Near;
use crate::random::sampled;

/// Distances by code that are computed, about, but no fewer and no more than so many rows are looked for.
const WORK: usize = 4 << 20;
const FEWEST: usize = 16;
const MOST: usize = 64;

/// So many of the nearest rows are to stand ..
const WANTED: usize = 10;
/// .. among so many of the nearest by code.
const AMONG: usize = 30;
/// The nearest rows are looked for among so many of the nearest by code.
const FAR: usize = 200;

/// What share of the rows nearest to a row stand among the nearest by code, for some of `rows`, which are distinct.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn told_apart(
    searched: AsSearched<'_>,
    rows: &[u32],
    cancelled: &AtomicBool,
) -> Result<f64, Cancelled> {
    let count = (WORK / rows.len().max(1)).clamp(FEWEST, MOST);
    let looked_for: Vec<u32> = sampled(rows.len(), count).map(|at| rows[at]).collect();
    let found = looked_for.par_iter().map(|row| {
        check_cancelled(cancelled)?;
        Ok(searched.with_query(*row, |vectors, codes| {
            let mut distances = Vec::with_capacity(rows.len());
            codes.distances_in_turn(rows, &mut distances);
            let near = rows.iter().zip(distances).map(|(row, distance)| Near::new(distance, *row));
            found_among(near.collect(), vectors)
        }))
    });
    let (found, all) = found.try_reduce(|| (0, 0), |a, b| Ok((a.0 + b.0, a.1 + b.1)))?;
    Ok(found as f64 / all.max(1) as f64)
}

/// How many of the nearest by `vectors` are among the nearest by code, and how many were asked for.
fn found_among(mut by_code: Vec<Near>, vectors: &impl Distances) -> (usize, usize) {
    let far = FAR.min(by_code.len());
    if far < by_code.len() {
        by_code.select_nth_unstable(far);
        by_code.truncate(far);
    }
    by_code.sort_unstable();
    let rows: Vec<u32> = by_code.iter().map(|near| near.row()).collect();
    let mut exact = Vec::with_capacity(rows.len());
    vectors.distances(&rows, &mut exact);
    let mut order: Vec<(f32, Near)> = exact.into_iter().zip(by_code.iter().copied()).collect();
    // of equally near rows any will do
    order.sort_unstable_by(|(a, near), (b, other)| a.total_cmp(b).then(near.cmp(other)));
    order.truncate(WANTED);
    let found = order.iter().filter(|(_, near)| {
        // all that are as near by code come before it, for all a walk knows
        by_code.partition_point(|other| other < near || other.is_as_near_as(*near)) <= AMONG
    });
    (found.count(), order.len())
}
