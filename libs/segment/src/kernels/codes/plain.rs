//! Kernels without special instructions, written so that compilers can turn them into vector code.

use super::best::Receivers;
use super::tile::{PANEL_STEP, TILE, Tile, TileOut};
use super::{CodeKernels, SIGNS};

pub(super) const KERNELS: CodeKernels =
    CodeKernels { name: "plain", dot, dot4, tile, find, larger, start, collect_rows, collect_columns, panel };

#[inline(always)]
pub(super) fn dot(codes: &[u8], query: &[i8]) -> i32 {
    codes.iter().zip(query).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum()
}

#[inline(always)]
pub(super) fn dot4(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    codes.map(|codes| dot(codes, query))
}

/// The order of float operations here is what every other kernel repeats.
#[inline(always)]
pub(super) fn tile(tile: &Tile<'_>, out: &mut TileOut) {
    tile.assert_lengths();
    debug_assert!(!tile.narrow || tile.is_narrow());
    for row in 0..TILE {
        let codes = &tile.rows[row * tile.stride..][..4 * tile.groups];
        let mut sums = [0i32; TILE];
        for (four, step) in codes.chunks_exact(4).zip(tile.panel.chunks_exact(PANEL_STEP)) {
            for (sum, bytes) in sums.iter_mut().zip(step.chunks_exact(4)) {
                let product = |i: usize| i32::from(four[i]) * i32::from(bytes[i]);
                *sum += product(0) + product(1) + product(2) + product(3);
            }
        }
        finish(tile, row, &sums, out);
    }
}

#[inline(always)]
fn finish(tile: &Tile<'_>, row: usize, sums: &[i32; TILE], out: &mut TileOut) {
    let (r, c) = (tile.row, tile.column);
    let (mut within_row, mut within_column) = (0u64, 0u64);
    for (column, sum) in sums.iter().enumerate() {
        let product = (sum - c.biases[column]) as f32;
        let twice = (r.scales[row] + r.scales[row]) * c.scales[column];
        let apart = r.extras[row] - c.extras[column];
        let raw = ((r.norms[row] + c.norms[column]) - twice * product) + apart * apart;
        let distance = if raw > 0.0 { raw } else { 0.0 };
        out.distances[row][column] = distance;
        within_row |= u64::from(distance < tile.row_bounds[row]) << column;
        within_column |= u64::from(distance < tile.column_bounds[column]) << column;
    }
    out.row_masks[row] = within_row;
    out.column_masks[row] = within_column;
}

#[inline(always)]
pub(super) fn find(numbers: &[u16], number: u16) -> Option<usize> {
    numbers.iter().position(|n| *n == number)
}

#[inline(always)]
pub(super) fn larger(a: &[f32; 16], b: &[f32; 16]) -> u16 {
    a.iter().zip(b).enumerate().map(|(bit, (a, b))| u16::from(a > b) << bit).sum()
}

pub(super) fn start(out: &TileOut, rows: usize, itself: bool, first: u32, mut into: Receivers<'_>) {
    for (row, distances) in out.distances.iter().enumerate().take(rows) {
        for (column, distance) in distances.iter().enumerate() {
            if !(itself && row == column) {
                into.offer(column, *distance, first + row as u32);
            }
        }
    }
}

pub(super) fn collect_rows(out: &TileOut, first: u32, mut into: Receivers<'_>) {
    for (row, mask) in out.row_masks.iter().enumerate() {
        for column in bits(*mask) {
            into.offer(row, out.distances[row][column], first + column as u32);
        }
    }
}

pub(super) fn collect_columns(out: &TileOut, first: u32, mut into: Receivers<'_>) {
    for (row, mask) in out.column_masks.iter().enumerate() {
        for column in bits(*mask) {
            into.offer(column, out.distances[row][column], first + row as u32);
        }
    }
}

/// The places of the bits that are set, of those that stand for a row or column.
#[inline]
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    (0..TILE).filter(move |bit| mask >> bit & 1 == 1)
}

pub(super) fn panel(rows: &[u8], stride: usize, panel: &mut [u32]) {
    panel_from(rows, stride, 0, panel);
}

/// The steps of a panel from group `first` on.
pub(super) fn panel_from(rows: &[u8], stride: usize, first: usize, panel: &mut [u32]) {
    for (row, codes) in rows.chunks_exact(stride).take(TILE).enumerate() {
        let fours = codes.as_chunks::<4>().0.iter();
        let places = panel[row..].iter_mut().step_by(TILE);
        for (place, four) in places.zip(fours).skip(first) {
            *place = u32::from_ne_bytes(*four) ^ SIGNS;
        }
    }
}
