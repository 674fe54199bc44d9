//! Kernels without special instructions: sixteen sums side by side, which compilers turn into vector code.

use half::f16;

const LANES: usize = 16;

fn fold<A>(a: &[A], b: &[f32], term: impl Fn(&A, &f32) -> f32) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(&x[lane], &y[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| term(x, y)).sum();
    sums.iter().sum::<f32>() + tail
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| x * y)
}

pub(super) fn l2(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| (x - y) * (x - y))
}

pub(super) fn dot_f16(a: &[f16], b: &[f32]) -> f32 {
    fold(a, b, |x, y| x.to_f32() * y)
}

pub(super) fn l2_f16(a: &[f16], b: &[f32]) -> f32 {
    fold(a, b, |x, y| (x.to_f32() - y) * (x.to_f32() - y))
}
