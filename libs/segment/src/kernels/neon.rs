//! Kernels for NEON, which every 64-bit Arm processor has.

use std::arch::aarch64::*;

macro_rules! kernel {
    ($name:ident, $inner:ident, |$x:ident, $y:ident, $sum:ident| $step:expr, $tail:expr) => {
        pub(super) fn $name(a: &[f32], b: &[f32]) -> f32 {
            // SAFETY: handed out by `available` only after NEON was detected on this machine.
            unsafe { $inner(a, b) }
        }

        #[target_feature(enable = "neon")]
        fn $inner(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let mut sums = [vdupq_n_f32(0.0); 4];
            let mut at = 0;
            while at + 16 <= n {
                for (i, $sum) in sums.iter_mut().enumerate() {
                    // SAFETY: at + 16 <= n, so four floats from at + 4 * i on lie in both slices.
                    let ($x, $y) = unsafe { (vld1q_f32(pa.add(at + 4 * i)), vld1q_f32(pb.add(at + 4 * i))) };
                    *$sum = $step;
                }
                at += 16;
            }
            let [s0, s1, s2, s3] = sums;
            let sum = vaddvq_f32(vaddq_f32(vaddq_f32(s0, s1), vaddq_f32(s2, s3)));
            let term: fn(f32, f32) -> f32 = $tail;
            let tail: f32 = a[at..n].iter().zip(&b[at..n]).map(|(x, y)| term(*x, *y)).sum();
            sum + tail
        }
    };
}

kernel!(dot, inner_dot, |x, y, sum| vfmaq_f32(*sum, x, y), |x, y| x * y);
kernel!(
    l2,
    inner_l2,
    |x, y, sum| {
        let d = vsubq_f32(x, y);
        vfmaq_f32(*sum, d, d)
    },
    |x, y| (x - y) * (x - y)
);
