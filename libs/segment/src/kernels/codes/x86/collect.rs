//! Kernels for AVX-512 that collect the nearest of tiles.

use std::arch::x86_64::*;

use super::super::best::{Best, Receivers};
use super::super::tile::{TILE, TileOut};
use super::panel::turned;

/// The sixteen best in registers.
#[derive(Clone, Copy)]
struct Sorted {
    distances: __m512,
    others: __m512i,
}

impl Sorted {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(best: &Best) -> Self {
        // SAFETY: both arrays hold the sixteen values that are read.
        unsafe {
            Self {
                distances: _mm512_loadu_ps(best.distances.as_ptr()),
                others: _mm512_loadu_epi32(best.others.as_ptr().cast()),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(self, best: &mut Best) {
        // SAFETY: both arrays hold the sixteen values that are written.
        unsafe {
            _mm512_storeu_ps(best.distances.as_mut_ptr(), self.distances);
            _mm512_storeu_epi32(best.others.as_mut_ptr().cast(), self.others);
        }
    }

    /// Each place keeps its own, takes the new one, or takes what stood before it: the middle one of the three.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn insert(self, distance: f32, other: u32) -> Self {
        let new = _mm512_set1_ps(distance);
        let bits = _mm512_castps_si512(self.distances);
        let lowest = _mm512_castps_si512(_mm512_set1_ps(f32::NEG_INFINITY));
        let before = _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(bits, lowest));
        let others_before = _mm512_alignr_epi32::<15>(self.others, self.others);
        let farther = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.distances, new);
        let before_farther = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(before, new);
        let new_other = _mm512_set1_epi32(other.cast_signed());
        let placed = _mm512_mask_mov_epi32(self.others, farther, new_other);
        Self {
            distances: _mm512_min_ps(self.distances, _mm512_max_ps(before, new)),
            others: _mm512_mask_mov_epi32(placed, before_farther, others_before),
        }
    }

    /// The distance at the place that `at` holds in every lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn distance(self, at: __m512i) -> f32 {
        _mm512_cvtss_f32(_mm512_permutexvar_ps(at, self.distances))
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn inner_collect_rows_vnni(out: &TileOut, first: u32, into: Receivers<'_>) {
    let last = _mm512_set1_epi32(into.last_place());
    let rows = into.best.iter_mut().zip(into.bounds).zip(out.row_masks.iter().zip(&out.distances));
    for ((best, bound), (mask, distances)) in rows {
        if *mask == 0 {
            continue;
        }
        let mut sorted = Sorted::load(best);
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

#[target_feature(enable = "avx512f")]
pub(super) fn inner_collect_columns_vnni(out: &TileOut, first: u32, into: Receivers<'_>) {
    let last = _mm512_set1_epi32(into.last_place());
    for ((mask, distances), other) in out.column_masks.iter().zip(&out.distances).zip(first..) {
        let mut rest = *mask;
        while rest != 0 {
            let column = rest.trailing_zeros() as usize % TILE;
            rest &= rest - 1;
            let distance = distances[column];
            if distance < into.bounds[column]
                && let Some(best) = into.best.get_mut(column)
            {
                let sorted = Sorted::load(best).insert(distance, other);
                into.bounds[column] = sorted.distance(last);
                sorted.store(best);
            }
        }
    }
}

/// Lists of the nearest for sixteen columns, a lane each: place by place, distances and who they belong to.
#[inline]
#[target_feature(enable = "avx512f")]
fn nearest_rows<const PLACES: usize>(
    out: &TileOut,
    (vector, rows): (usize, usize),
    itself: bool,
    first: u32,
) -> [[__m512i; 16]; 2] {
    let nothing = (_mm512_set1_ps(f32::INFINITY), _mm512_set1_epi32(-1));
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut list = [nothing; PLACES];
    for (row, distances) in out.distances.iter().take(rows).enumerate() {
        // SAFETY: a row holds 48 values, and 16 of them from 16 x vector <= 32 on are read.
        let read = unsafe { _mm512_loadu_ps(distances.as_ptr().add(16 * vector)) };
        let own = if itself && row / 16 == vector { 1u16 << (row % 16) } else { 0 };
        let distance = _mm512_mask_mov_ps(read, own, nothing.0);
        let new = _mm512_set1_epi32((first + row as u32).cast_signed());
        // as in `Sorted::insert`, place by place
        let (mut before, mut before_farther, mut whose_before) = (lowest, 0, new);
        for (there, whose) in &mut list {
            let (was, whose_was) = (*there, *whose);
            let farther = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(was, distance);
            *there = _mm512_min_ps(was, _mm512_max_ps(before, distance));
            let placed = _mm512_mask_mov_epi32(whose_was, farther, new);
            *whose = _mm512_mask_mov_epi32(placed, before_farther, whose_before);
            (before, before_farther, whose_before) = (was, farther, whose_was);
        }
    }
    let mut lines = [[_mm512_castps_si512(nothing.0); 16], [nothing.1; 16]];
    for (place, (distance, other)) in list.into_iter().enumerate() {
        lines[0][place] = _mm512_castps_si512(distance);
        lines[1][place] = other;
    }
    lines.map(|lines| turned(lines))
}

#[target_feature(enable = "avx512f")]
pub(super) fn inner_start_vnni(out: &TileOut, rows: usize, itself: bool, first: u32, into: Receivers<'_>) {
    let last = _mm512_set1_epi32(into.last_place());
    let receivers = into.best.chunks_mut(16).zip(into.bounds.chunks_mut(16)).enumerate();
    for (vector, (best, bounds)) in receivers {
        let [distances, others] = match into.k {
            ..=8 => nearest_rows::<8>(out, (vector, rows), itself, first),
            _ => nearest_rows::<16>(out, (vector, rows), itself, first),
        };
        let found = distances.into_iter().zip(others);
        for ((best, bound), (distances, others)) in best.iter_mut().zip(bounds).zip(found) {
            let sorted = Sorted { distances: _mm512_castsi512_ps(distances), others };
            *bound = sorted.distance(last);
            sorted.store(best);
        }
    }
}
