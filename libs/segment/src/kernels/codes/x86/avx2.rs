//! Kernels for AVX2.

use std::arch::x86_64::*;

use super::super::plain;
use super::super::tile::{Tile, TileOut};

/// Sixteen codes times sixteen query components, in eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn step_avx2(sum: __m256i, codes: __m128i, query: __m128i) -> __m256i {
    let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(codes), _mm256_cvtepi8_epi16(query));
    _mm256_add_epi32(sum, products)
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_dot_avx2(codes: &[u8], query: &[i8]) -> i32 {
    let n = codes.len().min(query.len());
    let mut sum = _mm256_setzero_si256();
    let mut at = 0;
    while at + 16 <= n {
        // SAFETY: at + 16 <= n, so sixteen bytes from at on lie in both slices.
        let (c, q) = unsafe {
            (_mm_loadu_si128(codes.as_ptr().add(at).cast()), _mm_loadu_si128(query.as_ptr().add(at).cast()))
        };
        sum = step_avx2(sum, c, q);
        at += 16;
    }
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` holds the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    lanes.iter().sum::<i32>() + plain::dot(&codes[at..n], &query[at..n])
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_dot4_avx2(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    codes.map(|codes| inner_dot_avx2(codes, query))
}

/// The plain tile, compiled for wider vectors.
#[target_feature(enable = "avx2")]
pub(super) fn inner_tile_avx2(tile: &Tile<'_>, out: &mut TileOut) {
    plain::tile(tile, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_find_avx2(numbers: &[u16], number: u16) -> Option<usize> {
    let wanted = _mm256_set1_epi16(number.cast_signed());
    let (blocks, rest) = numbers.as_chunks::<16>();
    for (at, block) in blocks.iter().enumerate() {
        // SAFETY: a block holds the sixteen numbers that are read.
        let block = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        let equal = _mm256_movemask_epi8(_mm256_cmpeq_epi16(block, wanted)).cast_unsigned();
        if equal != 0 {
            return Some(at * 16 + equal.trailing_zeros() as usize / 2);
        }
    }
    plain::find(rest, number).map(|at| blocks.len() * 16 + at)
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_larger_avx2(a: &[f32; 16], b: &[f32; 16]) -> u16 {
    plain::larger(a, b)
}
