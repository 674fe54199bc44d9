//! Kernels for AVX2 that collect the nearest of tiles.

use std::arch::x86_64::*;

use super::super::best::{BEST, Best, Receivers};
use super::super::tile::{TILE, TileOut};

/// The best 8 x `HALVES` in registers.
#[derive(Clone, Copy)]
struct Sorted<const HALVES: usize> {
    distances: [__m256; HALVES],
    others: [__m256i; HALVES],
}

impl<const HALVES: usize> Sorted<HALVES> {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(best: &Best) -> Self {
        const { assert!(8 * HALVES <= BEST) };
        let mut sorted =
            Self { distances: [_mm256_setzero_ps(); HALVES], others: [_mm256_setzero_si256(); HALVES] };
        for half in 0..HALVES {
            // SAFETY: both arrays hold eight values from 8 x half on.
            unsafe {
                sorted.distances[half] = _mm256_loadu_ps(best.distances.as_ptr().add(8 * half));
                sorted.others[half] = _mm256_loadu_si256(best.others.as_ptr().add(8 * half).cast());
            }
        }
        sorted
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(self, best: &mut Best) {
        for half in 0..HALVES {
            // SAFETY: both arrays hold eight values from 8 x half on.
            unsafe {
                _mm256_storeu_ps(best.distances.as_mut_ptr().add(8 * half), self.distances[half]);
                _mm256_storeu_si256(best.others.as_mut_ptr().add(8 * half).cast(), self.others[half]);
            }
        }
    }

    /// Each place keeps its own, takes the new one, or takes what stood before it: the middle one of the three.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn insert(mut self, distance: f32, other: u32) -> Self {
        let (new, new_other) = (_mm256_set1_ps(distance), _mm256_set1_epi32(other.cast_signed()));
        let turn = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
        // what stands before the first place of a half, in lane 0
        let (mut carried, mut whose_carried) = (_mm256_set1_ps(f32::NEG_INFINITY), new_other);
        for (there, whose) in self.distances.iter_mut().zip(&mut self.others) {
            let turned = _mm256_permutevar8x32_ps(*there, turn);
            let whose_turned = _mm256_permutevar8x32_epi32(*whose, turn);
            let before = _mm256_blend_ps::<1>(turned, carried);
            let whose_before = _mm256_blend_epi32::<1>(whose_turned, whose_carried);
            (carried, whose_carried) = (turned, whose_turned);
            let farther = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(*there, new));
            let before_farther = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(before, new));
            *there = _mm256_min_ps(*there, _mm256_max_ps(before, new));
            let placed = _mm256_blendv_epi8(*whose, new_other, farther);
            *whose = _mm256_blendv_epi8(placed, whose_before, before_farther);
        }
        self
    }

    /// The distance at `place`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn distance(self, place: i32) -> f32 {
        let half = self.distances[(place as usize / 8).min(HALVES - 1)];
        _mm256_cvtss_f32(_mm256_permutevar8x32_ps(half, _mm256_set1_epi32(place % 8)))
    }
}

/// Offers the columns that `mask` has the point `other`, at these distances.
#[inline]
#[target_feature(enable = "avx2")]
fn offer_columns<const HALVES: usize>(
    mut mask: u64,
    distances: &[f32; TILE],
    other: u32,
    last: i32,
    into: &mut Receivers<'_>,
) {
    while mask != 0 {
        let column = mask.trailing_zeros() as usize % TILE;
        mask &= mask - 1;
        let distance = distances[column];
        if distance < into.bounds[column]
            && let Some(best) = into.best.get_mut(column)
        {
            let sorted = Sorted::<HALVES>::load(best).insert(distance, other);
            into.bounds[column] = sorted.distance(last);
            sorted.store(best);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn collect_rows<const HALVES: usize>(out: &TileOut, first: u32, into: Receivers<'_>) {
    let last = into.last_place();
    let rows = into.best.iter_mut().zip(into.bounds).zip(out.row_masks.iter().zip(&out.distances));
    for ((best, bound), (mask, distances)) in rows {
        if *mask == 0 {
            continue;
        }
        let mut sorted = Sorted::<HALVES>::load(best);
        let (mut rest, mut below) = (*mask, *bound);
        while rest != 0 {
            let column = rest.trailing_zeros();
            rest &= rest - 1;
            let distance = distances[column as usize % TILE];
            if distance < below {
                sorted = sorted.insert(distance, first + column);
                below = sorted.distance(last);
            }
        }
        *bound = below;
        sorted.store(best);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn collect_columns<const HALVES: usize>(out: &TileOut, first: u32, mut into: Receivers<'_>) {
    let last = into.last_place();
    for ((mask, distances), other) in out.column_masks.iter().zip(&out.distances).zip(first..) {
        offer_columns::<HALVES>(*mask, distances, other, last, &mut into);
    }
}

/// Offers columns with nothing yet only what is below their bounds as they stand: most of a tile is not.
#[inline]
#[target_feature(enable = "avx2")]
fn start<const HALVES: usize>(out: &TileOut, rows: usize, itself: bool, first: u32, mut into: Receivers<'_>) {
    let last = into.last_place();
    let there = into.best.len();
    into.best.fill(Best::NONE);
    into.bounds[..there].fill(f32::INFINITY);
    for (row, distances) in out.distances.iter().enumerate().take(rows) {
        let mut mask = 0u64;
        for at in (0..TILE).step_by(8) {
            // SAFETY: both arrays hold 48 values, and eight of them from at <= 40 on are read.
            let below = unsafe {
                let distances = _mm256_loadu_ps(distances.as_ptr().add(at));
                _mm256_cmp_ps::<_CMP_LT_OQ>(distances, _mm256_loadu_ps(into.bounds.as_ptr().add(at)))
            };
            mask |= u64::from(_mm256_movemask_ps(below).cast_unsigned()) << at;
        }
        if itself {
            mask &= !(1 << row);
        }
        offer_columns::<HALVES>(mask, distances, first + row as u32, last, &mut into);
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_collect_rows_avx2(out: &TileOut, first: u32, into: Receivers<'_>) {
    match into.k {
        ..=8 => collect_rows::<1>(out, first, into),
        _ => collect_rows::<2>(out, first, into),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_collect_columns_avx2(out: &TileOut, first: u32, into: Receivers<'_>) {
    match into.k {
        ..=8 => collect_columns::<1>(out, first, into),
        _ => collect_columns::<2>(out, first, into),
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_start_avx2(out: &TileOut, rows: usize, itself: bool, number: u32, into: Receivers<'_>) {
    match into.k {
        ..=8 => start::<1>(out, rows, itself, number, into),
        _ => start::<2>(out, rows, itself, number, into),
    }
}
