//! Kernels for AVX-512 with VNNI, and for AVX2.
//!
//! The functions without `inner` in their names may only be called where the features were detected: they are
//! private to `codes`, and `available` is the only place that hands them out.

mod avx2;
mod avx512;
mod collect;
mod collect_avx2;
mod panel;

use super::best::Receivers;
use super::tile::{Tile, TileOut};
use super::{CodeKernels, plain};
use avx2::*;
use avx512::*;
use collect::*;
use collect_avx2::*;
use panel::*;

pub(super) fn available() -> Vec<CodeKernels> {
    let mut found = Vec::new();
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        found.push(CodeKernels {
            name: "avx512vnni",
            dot: dot_vnni,
            dot4: dot4_vnni,
            tile: tile_vnni,
            find: find_vnni,
            larger: larger_vnni,
            start: start_vnni,
            collect_rows: collect_rows_vnni,
            collect_columns: collect_columns_vnni,
            panel: panel_vnni,
        });
    }
    if is_x86_feature_detected!("avx2") {
        found.push(CodeKernels {
            name: "avx2",
            dot: dot_avx2,
            dot4: dot4_avx2,
            tile: tile_avx2,
            find: find_avx2,
            larger: larger_avx2,
            start: start_avx2,
            collect_rows: collect_rows_avx2,
            collect_columns: collect_columns_avx2,
            // the compiler has no use for wider vectors in this
            panel: plain::panel,
        });
    }
    found
}

macro_rules! kernel {
    ($name:ident, $inner:ident, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: handed out by `available` only after the features were detected on this machine.
            unsafe { $inner($($argument),*) }
        }
    };
}

kernel!(dot_vnni, inner_dot_vnni, (codes: &[u8], query: &[i8]) -> i32);
kernel!(dot4_vnni, inner_dot4_vnni, (codes: [&[u8]; 4], query: &[i8]) -> [i32; 4]);
kernel!(tile_vnni, inner_tile_vnni, (tile: &Tile<'_>, out: &mut TileOut));
kernel!(find_vnni, inner_find_vnni, (numbers: &[u16], number: u16) -> Option<usize>);
kernel!(larger_vnni, inner_larger_vnni, (a: &[f32; 16], b: &[f32; 16]) -> u16);
kernel!(
    start_vnni,
    inner_start_vnni,
    (out: &TileOut, rows: usize, itself: bool, first: u32, into: Receivers<'_>)
);
kernel!(
    collect_rows_vnni,
    inner_collect_rows_vnni,
    (out: &TileOut, first: u32, into: Receivers<'_>)
);
kernel!(
    collect_columns_vnni,
    inner_collect_columns_vnni,
    (out: &TileOut, first: u32, into: Receivers<'_>)
);
kernel!(panel_vnni, inner_panel_vnni, (rows: &[u8], stride: usize, panel: &mut [u32]));
kernel!(dot_avx2, inner_dot_avx2, (codes: &[u8], query: &[i8]) -> i32);
kernel!(dot4_avx2, inner_dot4_avx2, (codes: [&[u8]; 4], query: &[i8]) -> [i32; 4]);
kernel!(tile_avx2, inner_tile_avx2, (tile: &Tile<'_>, out: &mut TileOut));
kernel!(
    start_avx2,
    inner_start_avx2,
    (out: &TileOut, rows: usize, itself: bool, first: u32, into: Receivers<'_>)
);
kernel!(
    collect_rows_avx2,
    inner_collect_rows_avx2,
    (out: &TileOut, first: u32, into: Receivers<'_>)
);
kernel!(
    collect_columns_avx2,
    inner_collect_columns_avx2,
    (out: &TileOut, first: u32, into: Receivers<'_>)
);
kernel!(find_avx2, inner_find_avx2, (numbers: &[u16], number: u16) -> Option<usize>);
kernel!(larger_avx2, inner_larger_avx2, (a: &[f32; 16], b: &[f32; 16]) -> u16);
