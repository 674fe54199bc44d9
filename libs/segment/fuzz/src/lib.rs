//! What the fuzz targets share: the helpers of the segment's tests, and the bound on what opening may allocate.

#![allow(clippy::unwrap_used, reason = "a target that cannot go on has found something")]

#[path = "../../tests/common/mod.rs"]
pub mod common;
#[path = "../../tests/common/counting.rs"]
pub mod counting;

use sluice_segment::{Segment, SegmentError};

/// Lets graphs be built on the fuzzer's own thread: an input does the same whenever it runs, the counter sees all of it,
/// and nothing waits for another thread.
pub fn alone() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build_global().expect("nobody has made a pool yet");
}

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
