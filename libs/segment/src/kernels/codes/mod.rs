//! Kernels over 8-bit codes, chosen once at run time: AVX-512 with VNNI, AVX2, NEON, plain.
//!
//! A code is a byte that stands for itself minus 128 (in the rows of a narrow tile, minus 32). Sums of products are
//! integers, so every instruction set gives the same result, and the distances of a tile follow from them by the same
//! float operations in the same order: a graph built from codes is the same on every machine.

#![allow(unsafe_code, reason = "vector instructions; each block says why it is sound")]

mod best;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

pub(crate) use best::{BEST, Best, Receivers};
#[cfg(test)]
use tile::PANEL_STEP;
pub(crate) use tile::{Constants, NARROW_ZERO, NARROWEST, TILE, Tile, TileOut};

/// Largest component of a narrow query: two products with a byte have room in 16 bits.
pub(crate) const NARROW_QUERY: i8 = 63;
const _: () = assert!(2 * u8::MAX as i32 * NARROW_QUERY as i32 <= i16::MAX as i32);

/// What code 0 of a component looks like.
pub(crate) const ZERO: u8 = 128;

/// Turns the four codes of a group into signed ones.
const SIGNS: u32 = u32::from_ne_bytes([ZERO; 4]);

/// Kernels over codes of one instruction set. Codes and query have equal lengths, at most [`MAX_LENGTH`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeKernels {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests name the kernel that failed"))]
    pub(crate) name: &'static str,
    /// Sum of code byte times query component.
    pub(crate) dot: fn(&[u8], &[i8]) -> i32,
    /// The same for four rows of codes, and a query of which no component is more than [`NARROW_QUERY`], either way.
    pub(crate) dot4: fn([&[u8]; 4], &[i8]) -> [i32; 4],
    /// Distances of a block of rows to a block of columns, and which of them are within bounds.
    pub(crate) tile: fn(&Tile<'_>, &mut TileOut),
    /// The place of a number among numbers.
    pub(crate) find: fn(&[u16], u16) -> Option<usize>,
    /// For each of sixteen components a bit: whether `a` is larger there than `b`.
    pub(crate) larger: fn(&[f32; 16], &[f32; 16]) -> u16,
    /// Offers the columns of a tile, to which nothing was offered yet, its first `rows` rows, numbered from `first` on,
    /// in their order; with `itself`, row and column of one number are the same point.
    pub(crate) start: fn(&TileOut, rows: usize, itself: bool, first: u32, Receivers<'_>),
    /// Offers each row of a tile the columns that its row mask has, numbered from `first` on, in their order.
    pub(crate) collect_rows: fn(&TileOut, first: u32, Receivers<'_>),
    /// Offers the columns of a tile each row whose column mask has them, numbered from `first` on, in their order.
    pub(crate) collect_columns: fn(&TileOut, first: u32, Receivers<'_>),
    /// Makes a panel, a number for each group of four components, of [`TILE`] rows of `stride` codes.
    pub(crate) panel: fn(rows: &[u8], stride: usize, panel: &mut [u32]),
}

/// Longest code; sums of products of 255 x 127 stay far below the largest `i32`.
pub(crate) const MAX_LENGTH: usize = 4096;

/// The kernels that this machine can run, fastest first; the last is always the plain one.
fn available() -> Vec<CodeKernels> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    found.extend(x86::available());
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(neon::KERNELS);
    }
    found.push(plain::KERNELS);
    found
}

/// The fastest kernels of this machine.
pub(crate) fn code_kernels() -> &'static CodeKernels {
    static CHOSEN: OnceLock<CodeKernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().first().copied().unwrap_or(plain::KERNELS))
}

#[cfg(test)]
mod tests;
