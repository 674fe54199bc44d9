//! Kernels for AVX-512 with VNNI.

use std::arch::x86_64::*;

use super::super::tile::{PANEL_STEP, TILE, Tile, TileOut};

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
