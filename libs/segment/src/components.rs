//! The components of one vector, or of many one after another, as they are kept.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::kernels::prefetch;

/// Components as they stand in a growing set or a segment. Two are equal when their values are.
#[derive(Debug, Clone, Copy)]
pub enum Components<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl<'a> Components<'a> {
    pub fn len(self) -> usize {
        match self {
            Self::F32(components) => components.len(),
            Self::F16(components) => components.len(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub fn to_vec(self) -> Vec<f32> {
        match self {
            Self::F32(components) => components.to_vec(),
            Self::F16(components) => components.to_f32_vec(),
        }
    }

    /// The components as `f32`; `room` holds them where they are kept otherwise.
    pub(crate) fn in_f32<'b>(self, room: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(components) => components,
            Self::F16(components) => {
                room.resize(components.len(), 0.0);
                components.convert_to_f32_slice(room);
                room
            }
        }
    }

    /// Vector number `at` of those that stand here, each of `dimension` components.
    #[inline]
    pub(crate) fn vector(self, at: usize, dimension: usize) -> Self {
        match self {
            Self::F32(components) => Self::F32(&components[at * dimension..][..dimension]),
            Self::F16(components) => Self::F16(&components[at * dimension..][..dimension]),
        }
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::F32(components) => bytemuck::cast_slice(components),
            Self::F16(components) => bytemuck::cast_slice(components),
        }
    }

    /// Asks the processor to fetch the first lines; only a hint.
    #[inline]
    pub(crate) fn prefetch(self) {
        match self {
            Self::F32(components) => prefetch(components),
            Self::F16(components) => prefetch(components),
        }
    }
}

impl PartialEq for Components<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a == b,
            (Self::F16(a), Self::F16(b)) => a == b,
            (Self::F32(a), Self::F16(b)) | (Self::F16(b), Self::F32(a)) => {
                a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| *a == b.to_f32())
            }
        }
    }
}
