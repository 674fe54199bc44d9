//! Kernels for NEON, which every 64-bit Arm processor has.

use std::arch::aarch64::*;

use super::{CodeKernels, plain};

pub(super) const KERNELS: CodeKernels = CodeKernels {
    name: "neon",
    dot,
    dot4,
    // NEON is in the baseline of the target: the compiler uses it for these as they stand
    tile: plain::tile,
    find: plain::find,
    larger: plain::larger,
    start: plain::start,
    collect_rows: plain::collect_rows,
    collect_columns: plain::collect_columns,
    panel: plain::panel,
};

fn dot(codes: &[u8], query: &[i8]) -> i32 {
    // SAFETY: handed out by `available` only after NEON was detected on this machine.
    unsafe { inner_dot(codes, query) }
}

fn dot4(codes: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    codes.map(|codes| dot(codes, query))
}

#[target_feature(enable = "neon")]
fn inner_dot(codes: &[u8], query: &[i8]) -> i32 {
    let n = codes.len().min(query.len());
    let mut sums = [vdupq_n_s32(0); 2];
    let mut at = 0;
    while at + 16 <= n {
        // SAFETY: at + 16 <= n, so sixteen bytes from at on lie in both slices.
        let (c, q) = unsafe { (vld1q_u8(codes.as_ptr().add(at)), vld1q_s8(query.as_ptr().add(at))) };
        let wide = |c: uint8x8_t| vreinterpretq_s16_u16(vmovl_u8(c));
        let (c_low, c_high) = (wide(vget_low_u8(c)), wide(vget_high_u8(c)));
        let (q_low, q_high) = (vmovl_s8(vget_low_s8(q)), vmovl_s8(vget_high_s8(q)));
        for (sum, c, q) in [(0, c_low, q_low), (1, c_high, q_high)] {
            sums[sum] = vmlal_s16(sums[sum], vget_low_s16(c), vget_low_s16(q));
            sums[sum] = vmlal_s16(sums[sum], vget_high_s16(c), vget_high_s16(q));
        }
        at += 16;
    }
    vaddvq_s32(vaddq_s32(sums[0], sums[1])) + plain::dot(&codes[at..n], &query[at..n])
}
