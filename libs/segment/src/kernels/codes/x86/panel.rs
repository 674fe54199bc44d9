//! Panels by AVX-512: rows of codes turned into columns.

use std::arch::x86_64::*;

use super::super::tile::TILE;
use super::super::{SIGNS, plain};

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
pub(super) fn turned(lines: [__m512i; 16]) -> [__m512i; 16] {
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
