//! Points in fewer dimensions: enough to tell which points of a bucket may be the nearest, at a part of the cost.
//!
//! Inside a bucket only differences between its points count, and those of real vectors lie mostly along few axes.
//! How many axes will do is tried out on a few buckets: the points that are nearest by all components have to be among
//! a few more that are nearest along the axes. Where that takes too many axes, or for a bucket that is unlike those
//! (see `leaf`), all components are compared. How points are put into buckets is decided by all components.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::leaf::Leaf;
use crate::Cancelled;
use crate::build::check_cancelled;
use crate::codes::code_stride;
use crate::graph::axes::{Axes, normalise};
use crate::graph::space::Space;
use crate::kernels::codes::BEST;
use crate::random::mixed;

/// Nearest along the axes that are compared by all components.
pub(super) const CANDIDATES: usize = 10;
const _: () = assert!(CANDIDATES <= BEST);

/// So many of the nearest by all components must be among the candidates.
const WANTED: f64 = 0.9;

/// Fewer points are compared by all components: axes cost more than they spare.
const FEWEST: usize = 16_384;

/// With fewer components a comparison costs little beside what is done with its result.
const FEWEST_COMPONENTS: usize = 96;

/// Most twelfths of the components that are tried as a number of axes.
const TWELFTHS: usize = 6;

/// More axes are not tried.
const MOST: usize = 512;

/// Pairs of points of a bucket of which the differences are looked at, and pairs of any two points: how groups differ
/// that share no bucket is seen by those only.
const PAIRS: usize = 1024;
const FAR_PAIRS: usize = 128;

/// Buckets on which numbers of axes are tried out, and points of each that are looked at.
const TRIALS: usize = 6;
const PROBES: usize = 100;

/// A bucket of fewer points is not tried out.
const FEWEST_OF_TRIAL: usize = 64;

/// Bytes that a build of so many rows takes for points in fewer dimensions, and to find the axes.
pub(crate) fn rough_memory(rows: u64, dimension: usize) -> u64 {
    /// What belongs to a code, and the number of a point.
    const PER_POINT: u64 = 16 + 4;
    if rows < FEWEST as u64 || dimension.next_multiple_of(4) < FEWEST_COMPONENTS {
        return 0;
    }
    let per_row = code_stride((dimension / 2 + 3).min(MOST)) as u64 + PER_POINT;
    rows.saturating_mul(per_row)
        .saturating_add((dimension * size_of::<f32>() * (PAIRS + FAR_PAIRS + 2 * MOST)) as u64)
}

/// Axes along which points of one of `buckets` differ most, and the points of `space` along few of them, where those
/// tell near from far inside buckets.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn rough<S: Space>(
    space: &S,
    buckets: &[Vec<u32>],
    neighbours: usize,
    seed: u64,
    cancelled: &AtomicBool,
) -> Result<(Option<Axes>, Option<S>), Cancelled> {
    let trials: Vec<&Vec<u32>> = buckets.iter().filter(|bucket| bucket.len() >= FEWEST_OF_TRIAL).collect();
    if space.len() < FEWEST || trials.is_empty() {
        return Ok((None, None));
    }
    let dimension = space.components(0, &mut Vec::new());
    if dimension < FEWEST_COMPONENTS {
        return Ok((None, None));
    }
    let counts = (1..=TWELFTHS).map(|twelfths| (dimension * twelfths / 12).next_multiple_of(4));
    let counts: Vec<usize> = counts.filter(|count| *count <= MOST).collect();
    let most = counts.last().copied().unwrap_or(0);
    let axes = Axes::of(&differences(space, buckets, seed), dimension, most, seed, cancelled)?;
    let trials: Vec<&Vec<u32>> = trials.iter().copied().step_by(trials.len().div_ceil(TRIALS)).collect();
    for count in counts {
        let found = trials.par_iter().map(|bucket| {
            let Some(rough) = space.fewer(bucket, &axes, count, cancelled)? else { return Ok((0, 1)) };
            let places: Vec<u32> = (0..bucket.len() as u32).collect();
            let mut leaf = Leaf::default();
            leaf.compare(&rough, &places, CANDIDATES);
            Ok(leaf.found(space, bucket, neighbours, PROBES))
        });
        let (found, all) = found.try_reduce(|| (0, 0), |a, b| Ok((a.0 + b.0, a.1 + b.1)))?;
        check_cancelled(cancelled)?;
        if found as f64 >= WANTED * all as f64 {
            let everything: Vec<u32> = (0..space.len() as u32).collect();
            let rough = space.fewer(&everything, &axes, count, cancelled)?;
            return Ok((Some(axes), rough));
        }
    }
    Ok((Some(axes), None))
}

/// Differences of length 1 between two points of a bucket, of every bucket in turn, and between any two.
fn differences<S: Space>(space: &S, buckets: &[Vec<u32>], seed: u64) -> Vec<f32> {
    let (mut a, mut b, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let buckets: Vec<&Vec<u32>> = buckets.iter().filter(|bucket| !bucket.is_empty()).collect();
    for pair in 0..PAIRS + FAR_PAIRS {
        let drawn = |salt: u64, below: usize| mixed(seed ^ mixed(2 * pair as u64 + salt)) as usize % below;
        let (from, to) = match pair.checked_sub(PAIRS) {
            None => {
                let bucket = buckets[pair * buckets.len() / PAIRS];
                (bucket[drawn(0, bucket.len())], bucket[drawn(1, bucket.len())])
            }
            Some(_) => (drawn(0, space.len()) as u32, drawn(1, space.len()) as u32),
        };
        space.components(from, &mut a);
        space.components(to, &mut b);
        a.iter_mut().zip(&b).for_each(|(a, b)| *a -= b);
        normalise(&mut a);
        out.extend_from_slice(&a);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sluice_core::Metric;

    use super::super::slots::{Slots, lock};
    use super::*;
    use crate::codes::Codes;
    use crate::graph::axes::tests::planted;
    use crate::graph::code_space::CodeSpace;
    use crate::graph::tests::Vectors;

    const DIMENSION: usize = 96;
    static NEVER: AtomicBool = AtomicBool::new(false);

    fn codes(vectors: Vec<Vec<f32>>) -> Codes {
        Codes::of(&Vectors(vectors), DIMENSION, Metric::L2, &NEVER).unwrap()
    }

    fn components(space: &impl Space) -> usize {
        space.components(0, &mut Vec::new())
    }

    #[test]
    fn few_axes_are_taken_where_they_tell_and_none_where_they_do_not() {
        let everything: Vec<u32> = (0..FEWEST as u32).collect();
        let buckets: Vec<Vec<u32>> = everything.chunks(500).map(<[u32]>::to_vec).collect();
        for (axes, expected) in [(8, Some(8..=16)), (20, Some(16..=40)), (0, None)] {
            let codes = codes(planted(FEWEST as u64, DIMENSION as u64, axes, 0.03));
            let space = CodeSpace::new(&codes, &[]);
            let got = rough(&space, &buckets, 6, 3, &NEVER).unwrap().1.map(|rough| components(&rough));
            let fits = match (&expected, got) {
                (Some(range), Some(got)) => range.contains(&got),
                (expected, got) => expected.is_none() && got.is_none(),
            };
            assert!(fits, "{axes}: {got:?}, not {expected:?}");
            assert!(rough(&space, &buckets, 6, 3, &AtomicBool::new(true)).is_err(), "cancelled");
            // too few points to be worth it
            let part = space.reordered(&buckets[0]);
            assert!(rough(&part, &[(0..500).collect()], 6, 3, &NEVER).unwrap().1.is_none());
        }
    }

    #[test]
    fn a_bucket_is_offered_the_same_where_fewer_dimensions_miss_the_nearest() {
        let codes = codes(planted(400, DIMENSION as u64, 96, 0.03));
        let space = CodeSpace::new(&codes, &[]);
        let bucket: Vec<u32> = (0..400).collect();
        let along = |count: usize| {
            let differences = differences(&space, std::slice::from_ref(&bucket), 3);
            let axes = Axes::of(&differences, DIMENSION, count, 3, &NEVER).unwrap();
            space.fewer(&bucket, &axes, count, &NEVER).unwrap().unwrap()
        };
        let (poor, good) = (along(4), along(DIMENSION));
        assert_eq!((poor.len(), components(&poor)), (400, 4));
        let share = |rough: &CodeSpace<'_>| {
            let mut leaf = Leaf::default();
            leaf.compare(rough, &bucket, CANDIDATES);
            let (found, all) = leaf.found(&space, &bucket, 6, 400);
            assert_eq!(all, 400 * 6);
            found as f64 / all as f64
        };
        assert!(share(&poor) < 0.5 && share(&good) > 0.98, "{} {}", share(&poor), share(&good));
        let projections = space.projections(&bucket, 3);
        let offered = |rough: Option<&CodeSpace<'_>>| {
            let slots: Vec<Mutex<Slots>> = bucket.iter().map(|_| Mutex::default()).collect();
            Leaf::default().offer((&space, rough), &bucket, 6, &projections, &slots);
            let sorted = |slots: &Mutex<Slots>| {
                let mut out = Vec::new();
                lock(slots).sorted(&mut out);
                out
            };
            slots.iter().map(sorted).collect::<Vec<_>>()
        };
        let all = offered(None);
        assert!(all == offered(Some(&poor)));
        let same = all.iter().zip(offered(Some(&good))).filter(|(a, b)| **a == *b).count();
        assert!(same >= 390, "{same} of 400");
    }
}
