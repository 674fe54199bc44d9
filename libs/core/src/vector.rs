//! `Vector`: the only way into the system for numbers. One that exists is finite and has the index's dimension.

use std::fmt;

use half::f16;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Largest dimension of an index.
pub const MAX_DIMENSION: u32 = 4096;

/// Number of components of every vector of an index: 2 to 4,096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Dimension(u32);

impl Dimension {
    /// # Errors
    /// When `n` is outside 2 to [`MAX_DIMENSION`].
    pub fn new(n: u32) -> Result<Self, VectorError> {
        if (2..=MAX_DIMENSION).contains(&n) { Ok(Self(n)) } else { Err(VectorError::DimensionRange(n)) }
    }

    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Dimension {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Cosine similarity; larger is better, in [-1, 1].
    #[default]
    Cosine,
    /// Dot product; larger is better.
    Dot,
    /// Euclidean distance; smaller is better.
    L2,
}

impl Metric {
    pub fn larger_is_better(self) -> bool {
        !matches!(self, Self::L2)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::L2 => "l2",
        })
    }
}

/// How the components of stored vectors are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorType {
    /// As they were sent.
    #[default]
    F32,
    /// Rounded to the nearest 16-bit float of IEEE 754: half the bytes, eleven significant bits, up to 65,504.
    F16,
}

impl VectorType {
    /// Rounds `components` to what is kept of them; those that `f16` cannot hold become infinite.
    pub fn round(self, components: &mut [f32]) {
        if self == Self::F16 {
            components.iter_mut().for_each(|c| *c = f16::from_f32(*c).to_f32());
        }
    }
}

impl fmt::Display for VectorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// Why numbers were refused as a vector.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum VectorError {
    #[error("dimension {0} is outside 2 to {MAX_DIMENSION}")]
    DimensionRange(u32),
    #[error("the vector has {got} components, the index has dimension {expected}")]
    Dimension { expected: usize, got: usize },
    #[error("component {position} of the vector is not a finite number")]
    NotFinite { position: usize },
    #[error(
        "component {position} of the vector is beyond the range of f16, which the index keeps vectors as"
    )]
    BeyondF16 { position: usize },
    #[error("the vector is too large: its squared length is not a finite number")]
    TooLarge,
    #[error("the vector has length zero, which cosine cannot compare")]
    ZeroLength,
}

/// A validated vector: `dimension` finite components whose squared length is finite, and not zero under cosine.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(Box<[f32]>);

impl Vector {
    /// Takes `components` as they are; nothing is normalised.
    ///
    /// # Errors
    /// The first rule that `components` break.
    pub fn try_new(components: Vec<f32>, dimension: Dimension, metric: Metric) -> Result<Self, VectorError> {
        check(&components, dimension, metric)?;
        Ok(Self(components.into_boxed_slice()))
    }

    /// Whether the vector still is one when it is kept as `kind`.
    ///
    /// # Errors
    /// The first rule that it would break.
    pub(crate) fn check_kept_as(&self, kind: VectorType, metric: Metric) -> Result<(), VectorError> {
        if kind == VectorType::F32 {
            return Ok(());
        }
        let mut kept = self.0.clone();
        kind.round(&mut kept);
        if let Some(position) = kept.iter().position(|c| !c.is_finite()) {
            return Err(VectorError::BeyondF16 { position });
        }
        check_length(&kept, metric)
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    pub fn into_inner(self) -> Box<[f32]> {
        self.0
    }
}

fn check(components: &[f32], dimension: Dimension, metric: Metric) -> Result<(), VectorError> {
    if components.len() != dimension.get() {
        return Err(VectorError::Dimension { expected: dimension.get(), got: components.len() });
    }
    if let Some(position) = components.iter().position(|c| !c.is_finite()) {
        return Err(VectorError::NotFinite { position });
    }
    check_length(components, metric)
}

fn check_length(components: &[f32], metric: Metric) -> Result<(), VectorError> {
    // f32 on purpose: a length that overflows here would overflow in the kernels too
    let squared: f32 = components.iter().map(|c| c * c).sum();
    if !squared.is_finite() || squared > f32::MAX / 4.0 {
        return Err(VectorError::TooLarge);
    }
    // a denormal squared length has no usable inverse
    if metric == Metric::Cosine && squared < f32::MIN_POSITIVE {
        return Err(VectorError::ZeroLength);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dimension(n: u32) -> Dimension {
        Dimension::new(n).unwrap()
    }

    #[test]
    fn a_dimension_mismatch_names_both() {
        let error = Vector::try_new(vec![1.0; 3], dimension(4), Metric::L2).unwrap_err();
        assert_eq!(error.to_string(), "the vector has 3 components, the index has dimension 4");
    }

    #[test]
    fn liv_1_nan_and_infinity_are_refused_by_their_position() {
        let nans = [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
        for bad in nans.into_iter().chain([f32::INFINITY, f32::NEG_INFINITY]) {
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                for position in 0..4 {
                    let mut components = vec![1.0; 4];
                    components[position] = bad;
                    let refused = Vector::try_new(components, dimension(4), metric);
                    assert_eq!(refused, Err(VectorError::NotFinite { position }), "{bad} under {metric}");
                }
            }
        }
    }

    #[test]
    fn zero_length_is_refused_only_under_cosine() {
        assert_eq!(Vector::try_new(vec![0.0; 2], dimension(2), Metric::Cosine), Err(VectorError::ZeroLength));
        assert!(Vector::try_new(vec![0.0; 2], dimension(2), Metric::L2).is_ok());
    }

    #[test]
    fn a_squared_length_that_overflows_is_refused() {
        assert_eq!(Vector::try_new(vec![1e30, 1.0], dimension(2), Metric::Dot), Err(VectorError::TooLarge));
    }

    proptest! {
        #[test]
        fn a_vector_that_exists_is_finite(bits in any::<u32>(), position in 0usize..4) {
            let mut components = vec![1.0; 4];
            components[position] = f32::from_bits(bits);
            if let Ok(vector) = Vector::try_new(components, dimension(4), Metric::Cosine) {
                prop_assert!(vector.as_slice().iter().all(|c| c.is_finite()));
                let squared: f32 = vector.as_slice().iter().map(|c| c * c).sum();
                prop_assert!(squared.is_finite() && squared > 0.0);
            } else {
                let c = f32::from_bits(bits);
                prop_assert!(!c.is_finite() || c.abs() > 1e18);
            }
        }
    }
}
