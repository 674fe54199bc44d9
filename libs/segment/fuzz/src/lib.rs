//! What the fuzz targets share: the helpers of the segment's tests, and the bound on what opening may allocate.

#![allow(clippy::unwrap_used, reason = "a target that cannot go on has found something")]

#[path = "../../tests/common/mod.rs"]
pub mod common;
#[path = "../../tests/common/counting.rs"]
pub mod counting;

use sluice_segment::{Segment, SegmentError};

/// Opens `bytes`; panics when that takes more memory than twice their length and a MiB.
pub fn open(bytes: &[u8]) -> Result<Segment, SegmentError> {
    let (opened, held) = counting::peak(|| Segment::from_bytes(bytes));
    assert_bound(held, bytes.len(), "opening");
    opened
}

/// Reads and searches all of a segment, within the same bound.
pub fn read_all(segment: &Segment) {
    let ((), held) = counting::peak(|| common::usage::read_all(segment));
    assert_bound(held, segment.bytes() as usize, "reading");
}

fn assert_bound(held: usize, length: usize, what: &str) {
    assert!(held <= 2 * length + (1 << 20), "{what} {length} bytes held {held}");
}
