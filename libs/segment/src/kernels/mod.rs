//! Distance kernels over `f32` slices, chosen once at run time: AVX-512, AVX2 with FMA, NEON, plain.
//!
//! Each kernel reads `min(a.len(), b.len())` components. Kernels differ from one another in rounding only. Inputs
//! that passed `Vector::try_new` cannot overflow: their squared lengths stay below a quarter of the largest `f32`.

#![allow(unsafe_code, reason = "vector instructions; each block says why it is sound")]

pub(crate) mod codes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Components;

type Kernel = fn(&[f32], &[f32]) -> f32;
type KernelF16 = fn(&[f16], &[f32]) -> f32;
type Kernel4 = fn([&[f32]; 4], &[f32]) -> [f32; 4];

/// The kernels of one instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    /// The name of the instruction set, for logs and `inspect`.
    pub(crate) name: &'static str,
    /// Dot product.
    pub(crate) dot: Kernel,
    /// Squared Euclidean distance.
    pub(crate) l2: Kernel,
    /// Dot product of 16-bit floats, as they are, with a vector.
    dot_f16: KernelF16,
    /// Squared Euclidean distance of 16-bit floats, as they are, to a vector.
    l2_f16: KernelF16,
    /// The dot products of four rows with one vector; to the last bit what `dot` gives for each.
    pub(crate) dot4: Kernel4,
    /// The squared distances of four rows to one vector; to the last bit what `l2` gives for each.
    pub(crate) l2_4: Kernel4,
}

/// What two vectors are compared by, however the first is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compare {
    f32: Kernel,
    f16: KernelF16,
}

impl Compare {
    #[inline]
    pub(crate) fn of(self, a: Components<'_>, b: &[f32]) -> f32 {
        match a {
            Components::F32(a) => (self.f32)(a, b),
            Components::F16(a) => (self.f16)(a, b),
        }
    }
}

impl Kernels {
    pub(crate) fn by_dot(&self) -> Compare {
        Compare { f32: self.dot, f16: self.dot_f16 }
    }

    pub(crate) fn by_l2(&self) -> Compare {
        Compare { f32: self.l2, f16: self.l2_f16 }
    }
}

/// The sum of what `kernel` gives for the parts of `a`, which are turned into `f32` one by one.
fn in_parts(kernel: Kernel, a: &[f16], b: &[f32]) -> f32 {
    const PART: usize = 128;
    let mut room = [0f32; PART];
    let parts = a.chunks(PART).zip(b.chunks(PART)).map(|(a, b)| {
        let part = &mut room[..a.len()];
        a.convert_to_f32_slice(part);
        kernel(part, b)
    });
    parts.sum()
}

/// The kernels of an instruction set that has none for 16-bit floats and compares four rows one by one.
macro_rules! one_by_one {
    ($name:literal, $dot:path, $l2:path) => {
        Kernels {
            name: $name,
            dot: $dot,
            l2: $l2,
            dot_f16: |a, b| in_parts($dot, a, b),
            l2_f16: |a, b| in_parts($l2, a, b),
            dot4: |rows, b| rows.map(|row| $dot(row, b)),
            l2_4: |rows, b| rows.map(|row| $l2(row, b)),
        }
    };
}

const PLAIN: Kernels =
    Kernels { dot_f16: plain::dot_f16, l2_f16: plain::l2_f16, ..one_by_one!("plain", plain::dot, plain::l2) };

/// The kernels that this machine can run, fastest first; the last is always the plain one.
fn available() -> Vec<Kernels> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            found.push(Kernels {
                name: "avx512",
                dot: x86::dot_avx512,
                l2: x86::l2_avx512,
                dot_f16: x86::dot_f16_avx512,
                l2_f16: x86::l2_f16_avx512,
                dot4: x86::dot4_avx512,
                l2_4: x86::l2_4_avx512,
            });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(one_by_one!("avx2", x86::dot_avx2, x86::l2_avx2));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        found.push(one_by_one!("neon", neon::dot, neon::l2));
    }
    found.push(PLAIN);
    found
}

/// The fastest kernels of this machine.
pub(crate) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().first().copied().unwrap_or(PLAIN))
}

/// The name of the instruction set that distances are computed with here.
pub fn instruction_set() -> &'static str {
    kernels().name
}

/// Asks the processor to fetch the first lines of `data`; only a hint.
#[inline]
pub(crate) fn prefetch<T>(data: &[T]) {
    prefetch_lines::<T, 24>(data);
}

/// Asks the processor to fetch at most `LINES` lines of `data`; only a hint.
#[inline]
pub(crate) fn prefetch_lines<T, const LINES: usize>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let start = data.as_ptr().cast::<i8>();
        let bytes = size_of_val(data).min(LINE * LINES);
        for at in (0..bytes).step_by(LINE) {
            // SAFETY: `at` is below the length of `data` in bytes, and a prefetch reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sums in f64: the oracle, dumber than any kernel.
    fn oracle(a: &[f32], b: &[f32]) -> (f64, f64, f64) {
        let pairs = || a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
        let dot = pairs().map(|(x, y)| x * y).sum();
        let size = pairs().map(|(x, y)| (x * y).abs()).sum();
        (dot, pairs().map(|(x, y)| (x - y) * (x - y)).sum(), size)
    }

    fn check(a: &[f32], b: &[f32]) {
        let (dot, l2, size) = oracle(a, b);
        for kernel in available() {
            let (got_dot, got_l2) = (f64::from((kernel.dot)(a, b)), f64::from((kernel.l2)(a, b)));
            let n = a.len();
            assert!((got_dot - dot).abs() <= 1e-5 * size + 1e-37, "{} dot {n}: {got_dot} {dot}", kernel.name);
            assert!((got_l2 - l2).abs() <= 1e-5 * l2 + 1e-37, "{} l2 {n}: {got_l2} {l2}", kernel.name);
            let halves: Vec<f16> = a.iter().map(|c| f16::from_f32(*c)).collect();
            if halves.iter().all(|c| c.is_finite()) {
                let kept = Components::F16(&halves).to_vec();
                let (dot, l2, size) = oracle(&kept, b);
                let got = (f64::from((kernel.dot_f16)(&halves, b)), f64::from((kernel.l2_f16)(&halves, b)));
                assert!((got.0 - dot).abs() <= 1e-5 * size + 1e-37, "{} f16 dot {n}", kernel.name);
                assert!((got.1 - l2).abs() <= 1e-5 * l2 + 1e-37, "{} f16 l2 {n}", kernel.name);
            }
            let reversed: Vec<f32> = a.iter().rev().copied().collect();
            let rows = [a, &reversed, b, a];
            for (four, one) in [(kernel.dot4, kernel.dot), (kernel.l2_4, kernel.l2)] {
                let bits = |values: [f32; 4]| values.map(f32::to_bits);
                assert_eq!(bits(four(rows, b)), bits(rows.map(|row| one(row, b))), "{} {n}", kernel.name);
            }
        }
    }

    #[test]
    fn every_kernel_agrees_with_the_oracle_at_every_tail_length() {
        for n in 0..=130usize {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
            let b: Vec<f32> = (0..n).map(|i| ((i * 53 + 29) % 97) as f32 / 48.0 - 1.0).collect();
            check(&a, &b);
            // a slice that starts anywhere: kernels must not count on alignment
            if n > 1 {
                check(&a[1..], &b[1..]);
            }
        }
    }

    #[test]
    fn every_kernel_bears_extreme_values() {
        let extremes = [0.0, -0.0, 1e-40, -1e-40, 1e18, -1e18, f32::MIN_POSITIVE, 1.0, -1.0, 9e17];
        for n in [1, 2, 7, 15, 16, 17, 31, 33, 64, 127] {
            let a: Vec<f32> = (0..n).map(|i| extremes[i % extremes.len()]).collect();
            let b: Vec<f32> = (0..n).map(|i| extremes[(i * 7 + 3) % extremes.len()]).collect();
            check(&a, &b);
        }
    }

    #[test]
    fn slices_of_different_length_are_compared_over_the_shorter_one() {
        for kernel in available() {
            assert_eq!((kernel.dot)(&[1.0; 40], &[1.0; 33]), 33.0, "{}", kernel.name);
            assert_eq!((kernel.l2)(&[1.0; 3], &[2.0; 50]), 3.0, "{}", kernel.name);
            let one = f16::ONE;
            assert_eq!((kernel.dot_f16)(&[one; 200], &[1.0; 133]), 133.0, "{}", kernel.name);
            assert_eq!((kernel.l2_f16)(&[one; 3], &[2.0; 150]), 3.0, "{}", kernel.name);
            let rows: [&[f32]; 4] = [&[1.0; 70], &[1.0; 64], &[1.0; 2], &[1.0; 66]];
            assert_eq!((kernel.dot4)(rows, &[1.0; 66]), [66.0, 64.0, 2.0, 66.0], "{}", kernel.name);
        }
    }

    #[test]
    fn no_kernel_leaves_a_value_that_is_not_a_number_unseen() {
        for kernel in available() {
            for at in 0..67 {
                let mut a = vec![0.5; 67];
                a[at] = f32::NAN;
                assert!((kernel.dot)(&a, &a).is_nan(), "{} {at}", kernel.name);
                a[at] = f32::INFINITY;
                assert!(!(kernel.dot)(&a, &a).is_finite(), "{} {at}", kernel.name);
            }
        }
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_the_oracle_on_any_vectors(
            pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 0..300)
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            check(&a, &b);
        }
    }
}
