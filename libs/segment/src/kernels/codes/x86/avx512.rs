//! Kernels for AVX-512 with VNNI.

use std::arch::x86_64::*;

use super::super::best::{Best, Receivers};
use super::super::tile::{PANEL_STEP, TILE, Tile, TileOut};
use super::super::{SIGNS, plain};

/// The lowest `n` of 64 lanes.
fn lanes(n: usize) -> __mmask64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn inner_dot_vnni(codes: &[u8], query: &[i8]) -> i32 {
    let n = codes.len().min(query.len());
    let (pc, pq) = (codes.as_ptr(), query.as_ptr());
    let mut sums = [_mm512_setzero_si512(); 2];
    let mut at = 0;
    while at + 128 <= n {
        for (i, sum) in sums.iter_mut().enumerate() {
            let at = at + 64 * i;
            // SAFETY: at + 64 <= n, so 64 bytes from at on lie in both slices.
            let (c, q) = unsafe { (_mm512_loadu_epi8(pc.add(at).cast()), _mm512_loadu_epi8(pq.add(at))) };
            *sum = _mm512_dpbusd_epi32(*sum, c, q);
        }
        at += 128;
    }
    while at < n {
        let mask = lanes(n - at);
        // SAFETY: the mask keeps the load within the n - at bytes that both slices still hold.
        let (c, q) = unsafe {
            (_mm512_maskz_loadu_epi8(mask, pc.add(at).cast()), _mm512_maskz_loadu_epi8(mask, pq.add(at)))
        };
        sums[0] = _mm512_dpbusd_epi32(sums[0], c, q);
        at += 64;
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn inner_dot4_vnni(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    let n = codes.iter().map(|c| c.len()).min().unwrap_or(0).min(query.len());
    let mut sums = [_mm512_setzero_si512(); 4];
    let pq = query.as_ptr();
    let mut at = 0;
    while at + 64 <= n {
        // SAFETY: at + 64 <= n, which is no longer than any of the slices.
        let q = unsafe { _mm512_loadu_epi8(pq.add(at)) };
        for (sum, codes) in sums.iter_mut().zip(codes) {
            // SAFETY: as above.
            let c = unsafe { _mm512_loadu_epi8(codes.as_ptr().add(at).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, c, q);
        }
        at += 64;
    }
    if at < n {
        let mask = lanes(n - at);
        // SAFETY: the mask keeps the load within the n - at bytes that the slice still holds.
        let q = unsafe { _mm512_maskz_loadu_epi8(mask, pq.add(at)) };
        for (sum, codes) in sums.iter_mut().zip(codes) {
            // SAFETY: as above.
            let c = unsafe { _mm512_maskz_loadu_epi8(mask, codes.as_ptr().add(at).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, c, q);
        }
    }
    // four sums of sixteen lanes become one vector of four sums
    let half = |v: __m512i| _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
    let [a, b, c, d] = sums.map(half);
    let both = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
    let mut out = [0; 4];
    // SAFETY: `out` holds the sixteen bytes that are written.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), four) };
    out
}

/// Rows whose sums are kept in registers at once: 8 rows x 3 vectors of sixteen columns.
const ROWS: usize = 8;
const VECTORS: usize = TILE / 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn inner_tile_vnni(tile: &Tile<'_>, out: &mut TileOut) {
    tile.assert_lengths();
    for first in (0..TILE).step_by(ROWS) {
        let sums = sums_vnni(tile, first);
        for (row, sums) in (first..).zip(&sums) {
            finish_vnni(tile, row, sums, out);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sums_vnni(tile: &Tile<'_>, first: usize) -> [[__m512i; VECTORS]; ROWS] {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    let rows = tile.rows[first * tile.stride..].as_ptr();
    let panel = tile.panel.as_ptr();
    for group in 0..tile.groups {
        // SAFETY: the panel holds `groups` steps of 3 x 64 bytes (`assert_lengths`).
        let columns: [__m512i; VECTORS] = unsafe {
            let step = panel.add(group * PANEL_STEP);
            [_mm512_loadu_epi8(step), _mm512_loadu_epi8(step.add(64)), _mm512_loadu_epi8(step.add(128))]
        };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: rows first .. first + 8 of `stride` bytes lie in the slice, and 4 x groups <= stride.
            let four = unsafe { rows.add(row * tile.stride + 4 * group).cast::<i32>().read_unaligned() };
            let four = _mm512_set1_epi32(four);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_dpbusd_epi32(*sum, four, column);
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn finish_vnni(tile: &Tile<'_>, row: usize, sums: &[__m512i; VECTORS], out: &mut TileOut) {
    let (r, c) = (tile.row, tile.column);
    let twice = _mm512_set1_ps(r.scales[row] + r.scales[row]);
    let (norm, extra) = (_mm512_set1_ps(r.norms[row]), _mm512_set1_ps(r.extras[row]));
    let bound = _mm512_set1_ps(tile.row_bounds[row]);
    let (mut within_row, mut within_column) = (0u64, 0u64);
    for (vector, sum) in sums.iter().enumerate() {
        let at = 16 * vector;
        // SAFETY: each array holds 48 values, and 16 of them from at <= 32 on are read or written.
        unsafe {
            let bias = _mm512_loadu_epi32(c.biases.as_ptr().add(at));
            let product = _mm512_cvtepi32_ps(_mm512_sub_epi32(*sum, bias));
            let scale = _mm512_mul_ps(twice, _mm512_loadu_ps(c.scales.as_ptr().add(at)));
            let apart = _mm512_sub_ps(extra, _mm512_loadu_ps(c.extras.as_ptr().add(at)));
            let norms = _mm512_add_ps(norm, _mm512_loadu_ps(c.norms.as_ptr().add(at)));
            let raw = _mm512_add_ps(
                _mm512_sub_ps(norms, _mm512_mul_ps(scale, product)),
                _mm512_mul_ps(apart, apart),
            );
            // gives the second where the first is not a number, as the plain kernel does
            let distance = _mm512_max_ps(raw, _mm512_setzero_ps());
            _mm512_storeu_ps(out.distances[row].as_mut_ptr().add(at), distance);
            let columns = _mm512_loadu_ps(tile.column_bounds.as_ptr().add(at));
            within_row |= u64::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(distance, bound)) << at;
            within_column |= u64::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(distance, columns)) << at;
        }
    }
    out.row_masks[row] = within_row;
    out.column_masks[row] = within_column;
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn inner_find_vnni(numbers: &[u16], number: u16) -> Option<usize> {
    let wanted = _mm512_set1_epi16(number.cast_signed());
    let mut at = 0;
    while at < numbers.len() {
        let mask = lanes(numbers.len() - at) as __mmask32;
        // SAFETY: the mask keeps the load within the numbers that are left.
        let found = unsafe { _mm512_maskz_loadu_epi16(mask, numbers.as_ptr().add(at).cast()) };
        let equal = _mm512_mask_cmpeq_epi16_mask(mask, found, wanted);
        if equal != 0 {
            return Some(at + equal.trailing_zeros() as usize);
        }
        at += 32;
    }
    None
}

#[target_feature(enable = "avx512f")]
pub(super) fn inner_larger_vnni(a: &[f32; 16], b: &[f32; 16]) -> u16 {
    // SAFETY: both arrays hold the sixteen floats that are read.
    let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
    _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b)
}

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

/// Sixteen steps of a panel at a time: blocks of sixteen columns by sixteen groups of four components are turned.
#[target_feature(enable = "avx512f")]
pub(super) fn inner_panel_vnni(rows: &[u8], stride: usize, panel: &mut [u32]) {
    const BLOCK: usize = 16;
    let groups = panel.len() / TILE;
    let whole = groups / BLOCK * BLOCK;
    assert!(rows.len() >= TILE * stride && 4 * groups <= stride);
    for first in (0..whole).step_by(BLOCK) {
        for column in (0..TILE).step_by(BLOCK) {
            let mut lines = [_mm512_setzero_si512(); BLOCK];
            for (at, line) in lines.iter_mut().enumerate() {
                let from = (column + at) * stride + 4 * first;
                // SAFETY: 64 bytes from group `first` of a row on lie within its stride, and the row in the slice.
                *line = unsafe { _mm512_loadu_epi32(rows.as_ptr().add(from).cast()) };
            }
            for (at, line) in turned(lines).into_iter().enumerate() {
                let to = (first + at) * TILE + column;
                let signed = _mm512_xor_si512(line, _mm512_set1_epi32(SIGNS.cast_signed()));
                // SAFETY: step `first + at` of the panel is whole, and holds sixteen columns from `column` on.
                unsafe { _mm512_storeu_epi32(panel.as_mut_ptr().add(to).cast(), signed) };
            }
        }
    }
    plain::panel_from(rows, stride, whole, panel);
}

/// Sixteen lines of sixteen numbers, turned.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(lines: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = lines;
    for at in (0..16).step_by(2) {
        pairs[at] = _mm512_unpacklo_epi32(lines[at], lines[at + 1]);
        pairs[at + 1] = _mm512_unpackhi_epi32(lines[at], lines[at + 1]);
    }
    let mut fours = pairs;
    for at in (0..16).step_by(4) {
        fours[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
        fours[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
        fours[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
        fours[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
    }
    // fours[4 i + j] holds, quarter by quarter, numbers j, 4 + j, 8 + j and 12 + j of lines 4 i ..
    let mut eights = fours;
    for j in 0..4 {
        for half in 0..2 {
            let (a, b) = (fours[8 * half + j], fours[8 * half + 4 + j]);
            eights[8 * half + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
            eights[8 * half + 4 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        }
    }
    let mut out = eights;
    for j in 0..4 {
        let (even, odd) = ((eights[j], eights[8 + j]), (eights[4 + j], eights[12 + j]));
        out[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even.0, even.1);
        out[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even.0, even.1);
        out[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd.0, odd.1);
        out[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd.0, odd.1);
    }
    out
}
