//! Segments: the growing set, the immutable file that it is sealed into, search over both, and merging.
//!
//! Pure and synchronous: no runtime, no network. The file format is written down in `format`.

#![warn(missing_docs)]
#![deny(unsafe_code)]
#![allow(missing_docs, unused_variables, clippy::unimplemented)]

#[cfg(not(target_endian = "little"))]
compile_error!("segments are mapped as they stand on disk, which is little-endian");

mod error;
mod query;
mod row;
mod signatures;

pub use error::{BuildError, SegmentError};
pub use query::{Cancelled, Hit, Query};
pub use row::RowRef;
pub use signatures::*;
