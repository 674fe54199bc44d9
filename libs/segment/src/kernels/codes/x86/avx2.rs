//! Kernels for AVX2.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::tile::{NARROW_GROUPS, PANEL_STEP, TILE, Tile, TileOut};
use super::super::{NARROW_QUERY, plain};

/// Bytes as 16-bit numbers: those at even places, and those at odd places.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn signed(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
}

/// Adds the products of four bytes of each of eight lanes. No product of two bytes is too large for its 32 bits, as it
/// would be for the 16 bits of `maddubs`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sum: __m256i, a: [__m256i; 2], b: [__m256i; 2]) -> __m256i {
    let products = _mm256_add_epi32(_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1]));
    _mm256_add_epi32(sum, products)
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_of(sum: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

#[target_feature(enable = "avx2")]
pub(super) fn inner_dot_avx2(codes: &[u8], query: &[i8]) -> i32 {
    let (c_blocks, c_rest) = codes.as_chunks::<32>();
    let (q_blocks, q_rest) = query.as_chunks::<32>();
    let mut sum = _mm256_setzero_si256();
    for (c, q) in c_blocks.iter().zip(q_blocks) {
        // SAFETY: a block holds the 32 bytes that are read.
        let (c, q) =
            unsafe { (_mm256_loadu_si256(c.as_ptr().cast()), _mm256_loadu_si256(q.as_ptr().cast())) };
        sum = add_products(sum, unsigned(c), signed(q));
    }
    sum_of(sum) + plain::dot(c_rest, q_rest)
}

/// The query is so narrow that products can be added by pairs in 16 bits.
#[target_feature(enable = "avx2")]
pub(super) fn inner_dot4_avx2(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    debug_assert!(query.iter().all(|q| (-NARROW_QUERY..=NARROW_QUERY).contains(q)));
    if codes.iter().any(|codes| codes.len() != query.len()) {
        return codes.map(|codes| inner_dot_avx2(codes, query));
    }
    let (q_blocks, q_rest) = query.as_chunks::<32>();
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); 4];
    for (at, q) in q_blocks.iter().enumerate() {
        // SAFETY: a block holds the 32 bytes that are read.
        let q = unsafe { _mm256_loadu_si256(q.as_ptr().cast()) };
        for row in 0..4 {
            // SAFETY: the codes are as long as the query, which has 32 bytes from 32 x at on.
            let c = unsafe { _mm256_loadu_si256(codes[row].as_ptr().add(32 * at).cast()) };
            let pairs = _mm256_maddubs_epi16(c, q);
            sums[row] = _mm256_add_epi32(sums[row], _mm256_madd_epi16(pairs, ones));
        }
    }
    let halves = [_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3])];
    let both = _mm256_hadd_epi32(halves[0], halves[1]);
    let four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
    let mut out = [0; 4];
    // SAFETY: there is room for the four sums that are written.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), four) };
    let rest = 32 * q_blocks.len();
    if !q_rest.is_empty() {
        for row in 0..4 {
            out[row] += plain::dot(&codes[row][rest..], q_rest);
        }
    }
    out
}

/// What is kept in registers at once: sums of 4 rows x 2 vectors of eight columns.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// Groups of components whose columns are widened at once: they stay in the first level of cache.
const GROUPS: usize = 96;

/// Two vectors of eight columns, widened.
type Wide = [[__m256i; 2]; 2];

#[target_feature(enable = "avx2")]
pub(super) fn inner_tile_avx2(tile: &Tile<'_>, out: &mut TileOut) {
    tile.assert_lengths();
    if tile.narrow {
        add_narrow(tile, &mut out.distances);
    } else {
        add_wide(tile, &mut out.distances);
    }
    // nothing was added in the place of what an earlier tile left
    if tile.groups == 0 {
        out.distances = [[0.0; TILE]; TILE];
    }
    for row in 0..TILE {
        finish_avx2(tile, row, out);
    }
}

/// The sums of products. They stand where the distances will, as bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_wide(tile: &Tile<'_>, sums: &mut [[f32; TILE]; TILE]) {
    let mut room = [const { MaybeUninit::<Wide>::uninit() }; GROUPS];
    for from in (0..tile.groups).step_by(GROUPS) {
        let wide = &mut room[..GROUPS.min(tile.groups - from)];
        for column in (0..TILE).step_by(COLUMNS) {
            for (group, wide) in (from..).zip(wide.iter_mut()) {
                let step = &tile.panel[group * PANEL_STEP + 4 * column..][..4 * COLUMNS];
                // SAFETY: the step holds 64 bytes for sixteen columns.
                let columns = unsafe {
                    [
                        _mm256_loadu_si256(step.as_ptr().cast()),
                        _mm256_loadu_si256(step.as_ptr().add(32).cast()),
                    ]
                };
                wide.write([signed(columns[0]), signed(columns[1])]);
            }
            for row in (0..TILE).step_by(ROWS) {
                // SAFETY: all of it was written in the loop above.
                let wide = unsafe { wide.assume_init_ref() };
                add_block(tile, (row, column), from, wide, sums);
            }
        }
    }
}

/// As [`add_wide`], for codes that are small enough to be added in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_narrow(tile: &Tile<'_>, sums: &mut [[f32; TILE]; TILE]) {
    let ones = _mm256_set1_epi16(1);
    for from in (0..tile.groups).step_by(NARROW_GROUPS) {
        let groups = from..tile.groups.min(from + NARROW_GROUPS);
        for row in (0..TILE).step_by(ROWS) {
            let rows = tile.rows[row * tile.stride..].as_ptr();
            for column in (0..TILE).step_by(COLUMNS) {
                let mut added = [[_mm256_setzero_si256(); 2]; ROWS];
                for group in groups.clone() {
                    // SAFETY: `group` is below `groups`, so the step lies in the panel (`assert_lengths`), and it
                    // holds 64 bytes for sixteen columns from a column <= 32 on.
                    let columns = unsafe {
                        let step = tile.panel.as_ptr().add(group * PANEL_STEP + 4 * column);
                        [_mm256_loadu_si256(step.cast()), _mm256_loadu_si256(step.add(32).cast())]
                    };
                    for (row, added) in added.iter_mut().enumerate() {
                        // SAFETY: as in `add_block`.
                        let four =
                            unsafe { rows.add(row * tile.stride + 4 * group).cast::<i32>().read_unaligned() };
                        let codes = _mm256_set1_epi32(four);
                        for (sum, columns) in added.iter_mut().zip(columns) {
                            *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(codes, columns));
                        }
                    }
                }
                // not by `map`, which is compiled without this instruction set, nor by reference: they are in registers
                let mut wide = [[_mm256_setzero_si256(); 2]; ROWS];
                for row in 0..ROWS {
                    wide[row] =
                        [_mm256_madd_epi16(added[row][0], ones), _mm256_madd_epi16(added[row][1], ones)];
                }
                put(wide, from == 0, (row, column), sums);
            }
        }
    }
}

/// Adds the products of some groups for four rows and sixteen columns.
#[inline]
#[target_feature(enable = "avx2")]
fn add_block(
    tile: &Tile<'_>,
    (row, column): (usize, usize),
    from: usize,
    wide: &[Wide],
    sums: &mut [[f32; TILE]; TILE],
) {
    let mut added = [[_mm256_setzero_si256(); 2]; ROWS];
    let rows = tile.rows[row * tile.stride + 4 * from..].as_ptr();
    for (group, columns) in wide.iter().enumerate() {
        for (row, added) in added.iter_mut().enumerate() {
            // SAFETY: four rows of `stride` codes lie in the slice, and 4 x groups <= stride (`assert_lengths`).
            let four = unsafe { rows.add(row * tile.stride + 4 * group).cast::<i32>().read_unaligned() };
            let codes = unsigned(_mm256_set1_epi32(four));
            for (sum, columns) in added.iter_mut().zip(columns) {
                *sum = add_products(*sum, codes, *columns);
            }
        }
    }
    put(added, from == 0, (row, column), sums);
}

/// Adds to the sums of four rows and sixteen columns, or begins them.
#[inline]
#[target_feature(enable = "avx2")]
fn put(
    added: [[__m256i; 2]; ROWS],
    first: bool,
    (row, column): (usize, usize),
    sums: &mut [[f32; TILE]; TILE],
) {
    for (sums, added) in sums[row..].iter_mut().zip(added) {
        for (at, added) in added.into_iter().enumerate() {
            let sums = &mut sums[column + 8 * at..][..8];
            // SAFETY: there are eight sums to be read and written.
            unsafe {
                let before = match first {
                    true => _mm256_setzero_si256(),
                    false => _mm256_loadu_si256(sums.as_ptr().cast()),
                };
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi32(before, added));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn finish_avx2(tile: &Tile<'_>, row: usize, out: &mut TileOut) {
    let (r, c) = (tile.row, tile.column);
    let twice = _mm256_set1_ps(r.scales[row] + r.scales[row]);
    let (norm, extra) = (_mm256_set1_ps(r.norms[row]), _mm256_set1_ps(r.extras[row]));
    let bound = _mm256_set1_ps(tile.row_bounds[row]);
    let (mut within_row, mut within_column) = (0u64, 0u64);
    for at in (0..TILE).step_by(8) {
        // SAFETY: each array holds 48 values, and eight of them from at <= 40 on are read or written.
        unsafe {
            let bias = _mm256_loadu_si256(c.biases.as_ptr().add(at).cast());
            let sum = _mm256_loadu_si256(out.distances[row].as_ptr().add(at).cast());
            let product = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, bias));
            let scale = _mm256_mul_ps(twice, _mm256_loadu_ps(c.scales.as_ptr().add(at)));
            let apart = _mm256_sub_ps(extra, _mm256_loadu_ps(c.extras.as_ptr().add(at)));
            let norms = _mm256_add_ps(norm, _mm256_loadu_ps(c.norms.as_ptr().add(at)));
            let raw = _mm256_add_ps(
                _mm256_sub_ps(norms, _mm256_mul_ps(scale, product)),
                _mm256_mul_ps(apart, apart),
            );
            // gives the second where the first is not a number, as the plain kernel does
            let distance = _mm256_max_ps(raw, _mm256_setzero_ps());
            _mm256_storeu_ps(out.distances[row].as_mut_ptr().add(at), distance);
            let columns = _mm256_loadu_ps(tile.column_bounds.as_ptr().add(at));
            let mask = |below: __m256| u64::from(_mm256_movemask_ps(below).cast_unsigned()) << at;
            within_row |= mask(_mm256_cmp_ps::<_CMP_LT_OQ>(distance, bound));
            within_column |= mask(_mm256_cmp_ps::<_CMP_LT_OQ>(distance, columns));
        }
    }
    out.row_masks[row] = within_row;
    out.column_masks[row] = within_column;
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
