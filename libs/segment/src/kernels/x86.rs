//! Kernels for AVX-512 (masked tail) and AVX2 with FMA.
//!
//! The functions without `inner` in their names may only be called where the features were detected: they are
//! private to `kernels`, and `available` is the only place that hands them out.

use std::arch::x86_64::*;

use half::f16;

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $inner:ident) => {
        $(#[$doc])*
        pub(super) fn $name(a: &[f32], b: &[f32]) -> f32 {
            // SAFETY: handed out by `available` only after the features were detected on this machine.
            unsafe { $inner(a, b) }
        }
    };
}

macro_rules! kernel4 {
    ($name:ident, $inner:ident) => {
        pub(super) fn $name(rows: [&[f32]; 4], b: &[f32]) -> [f32; 4] {
            // SAFETY: handed out by `available` only after the features were detected on this machine.
            unsafe { $inner(rows, b) }
        }
    };
}

macro_rules! kernel_f16 {
    ($name:ident, $inner:ident) => {
        pub(super) fn $name(a: &[f16], b: &[f32]) -> f32 {
            // SAFETY: handed out by `available` only after the features were detected on this machine.
            unsafe { $inner(a, b) }
        }
    };
}

kernel_f16!(dot_f16_avx512, inner_dot_f16_avx512);
kernel_f16!(l2_f16_avx512, inner_l2_f16_avx512);
kernel4!(dot4_avx512, inner_dot4_avx512);
kernel4!(l2_4_avx512, inner_l2_4_avx512);
kernel!(dot_avx512, inner_dot_avx512);
kernel!(l2_avx512, inner_l2_avx512);
kernel!(dot_avx2, inner_dot_avx2);
kernel!(l2_avx2, inner_l2_avx2);

/// The lowest `n` of sixteen lanes.
fn lanes(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

macro_rules! avx512 {
    ($name:ident, |$x:ident, $y:ident, $sum:ident| $step:expr) => {
        #[target_feature(enable = "avx512f")]
        fn $name(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let mut sums = [_mm512_setzero_ps(); 4];
            let mut at = 0;
            while at + 64 <= n {
                for (i, $sum) in sums.iter_mut().enumerate() {
                    // SAFETY: at + 64 <= n, so sixteen floats from at + 16 * i on lie in both slices.
                    let ($x, $y) = unsafe {
                        (_mm512_loadu_ps(pa.add(at + 16 * i)), _mm512_loadu_ps(pb.add(at + 16 * i)))
                    };
                    *$sum = $step;
                }
                at += 64;
            }
            let mut i = 0;
            while at < n {
                let mask = lanes(n - at);
                // SAFETY: the mask keeps the load within the n - at floats that both slices still hold.
                let ($x, $y) = unsafe {
                    (_mm512_maskz_loadu_ps(mask, pa.add(at)), _mm512_maskz_loadu_ps(mask, pb.add(at)))
                };
                let $sum = &mut sums[i % 4];
                *$sum = $step;
                at += 16;
                i += 1;
            }
            let [s0, s1, s2, s3] = sums;
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
        }
    };
}

avx512!(inner_dot_avx512, |x, y, sum| _mm512_fmadd_ps(x, y, *sum));
avx512!(inner_l2_avx512, |x, y, sum| {
    let d = _mm512_sub_ps(x, y);
    _mm512_fmadd_ps(d, d, *sum)
});

/// The same sums in the same order as the kernels over `f32` give for the values of `a`.
macro_rules! avx512_f16 {
    ($name:ident, |$x:ident, $y:ident, $sum:ident| $step:expr) => {
        #[target_feature(enable = "avx512f")]
        fn $name(a: &[f16], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (a_blocks, a_rest) = a[..n].as_chunks::<64>();
            let (b_blocks, b_rest) = b[..n].as_chunks::<64>();
            let (mut a_last, mut b_last) = ([f16::ZERO; 64], [0f32; 64]);
            a_last[..a_rest.len()].copy_from_slice(a_rest);
            b_last[..b_rest.len()].copy_from_slice(b_rest);
            let last = (!a_rest.is_empty()).then_some((&a_last, &b_last));
            let mut sums = [_mm512_setzero_ps(); 4];
            for (a, b) in a_blocks.iter().zip(b_blocks).chain(last) {
                for (i, $sum) in sums.iter_mut().enumerate() {
                    // SAFETY: sixteen elements from 16 * i on lie in both blocks of 64.
                    let ($x, $y) = unsafe {
                        let halves = _mm256_loadu_si256(a.as_ptr().add(16 * i).cast());
                        (_mm512_cvtph_ps(halves), _mm512_loadu_ps(b.as_ptr().add(16 * i)))
                    };
                    *$sum = $step;
                }
            }
            let [s0, s1, s2, s3] = sums;
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
        }
    };
}

avx512_f16!(inner_dot_f16_avx512, |x, y, sum| _mm512_fmadd_ps(x, y, *sum));
avx512_f16!(inner_l2_f16_avx512, |x, y, sum| {
    let d = _mm512_sub_ps(x, y);
    _mm512_fmadd_ps(d, d, *sum)
});

/// Four rows at once, so that `b` is read once for all; sums are made in the order of the kernel for one row.
macro_rules! avx512_4 {
    ($name:ident, $one:ident, |$x:ident, $y:ident, $sum:ident| $step:expr) => {
        #[target_feature(enable = "avx512f")]
        fn $name(rows: [&[f32]; 4], b: &[f32]) -> [f32; 4] {
            let n = b.len();
            if rows.iter().any(|row| row.len() != n) {
                return rows.map(|row| $one(row, b));
            }
            let pb = b.as_ptr();
            let mut sums = [[_mm512_setzero_ps(); 4]; 4];
            let mut at = 0;
            while at + 64 <= n {
                for i in 0..4 {
                    // SAFETY: at + 64 <= n, so sixteen floats from at + 16 * i on lie in `b` and in every row.
                    let $y = unsafe { _mm512_loadu_ps(pb.add(at + 16 * i)) };
                    for (row, sums) in rows.iter().zip(&mut sums) {
                        // SAFETY: as above.
                        let $x = unsafe { _mm512_loadu_ps(row.as_ptr().add(at + 16 * i)) };
                        let $sum = &mut sums[i];
                        *$sum = $step;
                    }
                }
                at += 64;
            }
            let mut i = 0;
            while at < n {
                let mask = lanes(n - at);
                // SAFETY: the mask keeps the load within the n - at floats that are left of all.
                let $y = unsafe { _mm512_maskz_loadu_ps(mask, pb.add(at)) };
                for (row, sums) in rows.iter().zip(&mut sums) {
                    // SAFETY: as above.
                    let $x = unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr().add(at)) };
                    let $sum = &mut sums[i % 4];
                    *$sum = $step;
                }
                at += 16;
                i += 1;
            }
            sums.map(|[s0, s1, s2, s3]| {
                _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)))
            })
        }
    };
}

avx512_4!(inner_dot4_avx512, inner_dot_avx512, |x, y, sum| _mm512_fmadd_ps(x, y, *sum));
avx512_4!(inner_l2_4_avx512, inner_l2_avx512, |x, y, sum| {
    let d = _mm512_sub_ps(x, y);
    _mm512_fmadd_ps(d, d, *sum)
});

macro_rules! avx2 {
    ($name:ident, |$x:ident, $y:ident, $sum:ident| $step:expr, $tail:expr) => {
        #[target_feature(enable = "avx2,fma")]
        fn $name(a: &[f32], b: &[f32]) -> f32 {
            let n = a.len().min(b.len());
            let (pa, pb) = (a.as_ptr(), b.as_ptr());
            let mut sums = [_mm256_setzero_ps(); 4];
            let mut at = 0;
            while at + 32 <= n {
                for (i, $sum) in sums.iter_mut().enumerate() {
                    let at = at + 8 * i;
                    // SAFETY: the block of 32 floats lies in both slices, and these eight lie in the block.
                    let ($x, $y) = unsafe { (_mm256_loadu_ps(pa.add(at)), _mm256_loadu_ps(pb.add(at))) };
                    *$sum = $step;
                }
                at += 32;
            }
            while at + 8 <= n {
                // SAFETY: at + 8 <= n, so eight floats from at on lie in both slices.
                let ($x, $y) = unsafe { (_mm256_loadu_ps(pa.add(at)), _mm256_loadu_ps(pb.add(at))) };
                let $sum = &mut sums[0];
                *$sum = $step;
                at += 8;
            }
            let [s0, s1, s2, s3] = sums;
            let sum = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
            let half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            let one = _mm_add_ss(pair, _mm_movehdup_ps(pair));
            let term: fn(f32, f32) -> f32 = $tail;
            let tail: f32 = a[at..n].iter().zip(&b[at..n]).map(|(x, y)| term(*x, *y)).sum();
            _mm_cvtss_f32(one) + tail
        }
    };
}

avx2!(inner_dot_avx2, |x, y, sum| _mm256_fmadd_ps(x, y, *sum), |x, y| x * y);
avx2!(
    inner_l2_avx2,
    |x, y, sum| {
        let d = _mm256_sub_ps(x, y);
        _mm256_fmadd_ps(d, d, *sum)
    },
    |x, y| (x - y) * (x - y)
);
