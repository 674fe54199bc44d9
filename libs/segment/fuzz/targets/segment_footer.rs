//! Any table and trailer behind the sections of a good segment, as they come and with every checksum made right.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sluice_segment::Segment;
use sluice_segment_fuzz::common::forge::{seal, sections};
use sluice_segment_fuzz::{open, read_all};

const KEPT: &[u8] = include_bytes!("../../tests/compat_data/v1_indexes/cosine.seg");

/// Everything before the table.
static BODY: LazyLock<&[u8]> = LazyLock::new(|| {
    let end = sections(KEPT).iter().map(|(_, at)| at.end).max().unwrap_or(0);
    &KEPT[..end.next_multiple_of(64)]
});

fuzz_target!(|footer: &[u8]| {
    let mut file = [*BODY, footer].concat();
    try_all(&file);
    seal(&mut file);
    try_all(&file);
});

fn try_all(file: &[u8]) {
    let Ok(segment) = open(file) else { return };
    read_all(&segment);
    let good = Segment::from_bytes(KEPT).expect("the kept file is good");
    // the sections are covered by one another's places: what opens holds the same rows
    assert_eq!(segment.len(), good.len());
    for row in 0..segment.len() {
        assert_eq!(segment.row(row), good.row(row));
    }
}
