//! Segments: the growing set, the immutable file that it is sealed into, search over both, and merging.
//!
//! Pure and synchronous: no runtime, no network, no clock. The way of a record: [`GrowingSet::apply`], [`seal()`],
//! [`Segment::open`] (which verifies everything before the segment can answer), [`Segment::search`], [`merge()`].
//!
//! The file format is written down as numbers and pseudo-structs in the module `format`. Searches over a growing set,
//! over a segment without a graph and with `exact` are scans and give the true nearest rows; a graph search is
//! approximate, but filters and deletes apply inside it and `k` live matches come back whenever `k` exist.

#![deny(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("segments are mapped as they stand on disk, which is little-endian");

mod build;
mod codes;
mod column_index;
mod columns;
mod components;
mod distances;
mod error;
mod filter;
mod format;
mod graph;
mod growing;
mod kernels;
mod mapping;
mod merge;
mod near;
mod progress;
mod query;
mod random;
mod row;
mod score;
mod seal;
mod segment;

pub use build::{BuildOptions, Built, build_memory};
pub use components::Components;
pub use error::{BuildError, SegmentError};
pub use filter::{Filter, FilterError};
pub use format::VERSION as FORMAT_VERSION;
pub use growing::{Applied, GrowingSet, Newest};
pub use kernels::instruction_set;
pub use merge::merge;
pub use progress::Progress;
pub use query::{Cancelled, Hit, Query};
pub use row::RowRef;
pub use seal::seal;
pub use segment::{GraphInfo, SectionInfo, Segment, SegmentInfo};
