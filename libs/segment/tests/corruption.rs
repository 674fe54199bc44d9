//! SEG-1: damaged, truncated and forged bytes never become a segment that answers, panics or takes much memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use common::forge::{SHORT_CODES, seal_checksums, sections, with_meta, with_short_codes, without};
use common::usage::use_all;
use common::{FIELDS, METRICS, Random, cases, options, schema, schema_f16, sealed_bytes, upsert};
use counting::peak;
use proptest::prelude::*;
use sluice_core::{ErrorKind, Metric, Schema};
use sluice_segment::{FORMAT_VERSION, GrowingSet, Segment, SegmentError};

fn metadata(i: usize) -> String {
    let tags = ["\"a\"", "[\"b\",\"c\"]", "null", "\"ü\""];
    format!(
        r#"{{"tag":{},"size":{},"flag":{},"weight":{}.5,"at":{}}}"#,
        tags[i % 4],
        i * 10,
        i.is_multiple_of(2),
        i,
        i * 1000
    )
}

fn small(metric: Metric, rows: usize) -> (std::sync::Arc<Schema>, Vec<u8>) {
    (schema(3, metric, &FIELDS), rows_from(metric, 0, rows))
}

/// A segment of the rows `first`, `first + 1`, ..
fn rows_from(metric: Metric, first: usize, rows: usize) -> Vec<u8> {
    rows_under(&schema(3, metric, &FIELDS), first, rows)
}

fn rows_under(schema: &std::sync::Arc<Schema>, first: usize, rows: usize) -> Vec<u8> {
    let mut set = GrowingSet::new(schema.clone());
    let mut random = Random(5 + first as u64);
    for i in first..first + rows {
        let key = format!("schlüssel-{i}");
        set.apply(upsert(schema, &key, i as u64 * 2 + 1, &random.vector(3), &metadata(i)));
    }
    let mut options = options(1);
    options.graph.m = 4;
    sealed_bytes(&set, &options)
}

/// Damage, with the part that is damaged.
fn assert_named(error: &SegmentError) {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(matches!(error, SegmentError::Damaged { section, .. } if !section.is_empty()), "{error}");
}

#[test]
fn seg_1_no_bit_can_flip_unseen() {
    for schema in [schema(3, Metric::Cosine, &FIELDS), schema_f16(3, Metric::Cosine, &FIELDS)] {
        no_bit_can_flip_unseen(rows_under(&schema, 0, 12));
    }
}

fn no_bit_can_flip_unseen(mut bytes: Vec<u8>) {
    use_all(&Segment::from_bytes(&bytes).unwrap());
    assert!(bytes.len() < 16 << 10, "{}", bytes.len());
    let bound = 2 * bytes.len() + (64 << 10);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let (opened, held) = peak(|| Segment::from_bytes(&bytes));
            let Err(error) = opened else { panic!("bit {bit} of byte {at} was not seen") };
            assert_named(&error);
            assert!(held <= bound, "bit {bit} of byte {at}: {held} bytes");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn seg_1_no_truncation_and_no_addition_goes_unseen() {
    for metric in METRICS {
        let (_, bytes) = small(metric, 12);
        for length in 0..bytes.len() {
            assert_named(&Segment::from_bytes(&bytes[..length]).unwrap_err());
        }
        for more in [1, 40, 64, 4096] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + more, 0);
            assert!(Segment::from_bytes(&longer).is_err());
        }
        let twice = [bytes.as_slice(), bytes.as_slice()].concat();
        assert!(Segment::from_bytes(&twice).is_err());
    }
}

#[test]
fn seg_1_two_sections_of_two_segments_do_not_make_one() {
    let (_, a) = small(Metric::L2, 12);
    let (_, b) = small(Metric::Dot, 12);
    for cut in (64..a.len().min(b.len())).step_by(64) {
        let mixed = [&a[..cut], &b[cut..]].concat();
        if mixed != a && mixed != b {
            assert!(Segment::from_bytes(&mixed).is_err(), "{cut}");
        }
    }
}

#[test]
fn seg_1_a_section_of_another_segment_is_refused() {
    for metric in METRICS {
        // the same shape, so that sections fit; other rows, so that they differ
        let (a, b) = (rows_from(metric, 10, 12), rows_from(metric, 40, 12));
        let (of_a, of_b) = (sections(&a), sections(&b));
        let mut swapped = 0;
        for (kind, at) in &of_a {
            let Some((_, other)) = of_b.iter().find(|(k, o)| k == kind && o.len() == at.len()) else {
                continue;
            };
            let mut mixed = a.clone();
            mixed[at.clone()].copy_from_slice(&b[other.clone()]);
            if mixed != a {
                swapped += 1;
                assert_named(&Segment::from_bytes(&mixed).unwrap_err());
            }
        }
        assert!(swapped >= 10, "{swapped} of {} sections", of_a.len());
    }
}

#[test]
fn seg_1_a_newer_version_is_refused_by_number() {
    let (_, mut bytes) = small(Metric::L2, 3);
    let newer = FORMAT_VERSION + 1;
    bytes[8..12].copy_from_slice(&newer.to_le_bytes());
    seal_checksums(&mut bytes);
    let error = Segment::from_bytes(&bytes).unwrap_err();
    let named = matches!(error, SegmentError::Version { found, supported: FORMAT_VERSION } if found == newer);
    assert!(named, "{error}");
}

#[test]
fn seg_1_a_file_that_is_not_there_is_not_found_and_an_empty_one_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    assert_eq!(Segment::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::write(&path, b"").unwrap();
    assert_eq!(Segment::open(&path).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn seg_1_forged_bytes_are_refused_or_harmless() {
    let mut opened = 0;
    for metric in METRICS {
        let (_, bytes) = small(metric, 12);
        let bound = 4 * bytes.len() + (64 << 10);
        let mut random = Random(11);
        for at in 64..bytes.len() {
            for value in [0x00, 0xff, random.bits() as u8] {
                let mut forged = bytes.clone();
                forged[at] = value;
                seal_checksums(&mut forged);
                if forged == bytes {
                    continue;
                }
                let (result, held) = peak(|| Segment::from_bytes(&forged));
                assert!(held <= bound, "byte {at}: {held} bytes");
                if let Ok(segment) = result {
                    opened += 1;
                    // using every one takes long; what matters is which checks let it pass
                    if opened % 7 == 0 {
                        let used = catch_unwind(AssertUnwindSafe(|| use_all(&segment)));
                        assert!(used.is_ok(), "byte {at} = {value}");
                    }
                }
            }
        }
    }
    assert!(opened > 100, "{opened}");
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn seg_1_many_forged_bytes_are_refused_or_harmless(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), metric in 0usize..3
    ) {
        let (_, mut bytes) = small(METRICS[metric], 5);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        seal_checksums(&mut bytes);
        if let Ok(segment) = Segment::from_bytes(&bytes) {
            use_all(&segment);
        }
    }

    #[test]
    fn seg_1_noise_is_no_segment(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Segment::from_bytes(&noise).is_err());
    }
}

/// What a disk, a cache or a network does to a file.
#[derive(Debug, Clone)]
enum Damage {
    Bytes(Vec<(prop::sample::Index, u8)>),
    /// A block of zeros.
    Zeros(prop::sample::Index, usize),
    /// A block that was written to the wrong place.
    Misdirected(prop::sample::Index, prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    use prop::sample::Index;
    prop_oneof![
        prop::collection::vec((any::<Index>(), any::<u8>()), 1..8).prop_map(Damage::Bytes),
        (any::<Index>(), 1usize..8192).prop_map(|(at, n)| Damage::Zeros(at, n)),
        (any::<Index>(), any::<Index>(), 1usize..8192).prop_map(|(a, b, n)| Damage::Misdirected(a, b, n)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bad = bytes.to_vec();
    match damage {
        Damage::Bytes(changes) => changes.iter().for_each(|(at, value)| bad[at.index(bytes.len())] = *value),
        Damage::Zeros(at, n) => {
            let at = at.index(bytes.len());
            bad[at..bytes.len().min(at + n)].fill(0);
        }
        Damage::Misdirected(from, to, n) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let n = (*n).min(bytes.len() - from.max(to));
            bad.copy_within(from..from + n, to);
        }
        Damage::Cut(at) => bad.truncate(at.index(bytes.len())),
    }
    bad
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn seg_1_a_larger_segment_that_is_damaged_anywhere_never_opens(damage in damage(), metric in 0usize..3) {
        static LARGER: [LazyLock<Vec<u8>>; 3] = [
            LazyLock::new(|| rows_from(Metric::Cosine, 0, 1000)),
            LazyLock::new(|| rows_from(Metric::Dot, 0, 1000)),
            LazyLock::new(|| rows_from(Metric::L2, 0, 1000)),
        ];
        let good = &*LARGER[metric];
        let bad = damaged(good, &damage);
        if bad != *good {
            let (opened, held) = peak(|| Segment::from_bytes(&bad));
            assert_named(&opened.unwrap_err());
            prop_assert!(held <= 2 * good.len() + (64 << 10), "{} bytes", held);
        }
    }
}

const COLUMN_INDEX: u16 = 0x8005;

/// Changes words of the column index of each field in turn, and makes checksums right: what it then says is not so.
#[test]
fn seg_1_a_column_index_that_does_not_say_what_its_column_says_is_refused() {
    let (schema, bytes) = small(Metric::L2, 12);
    let mut indexes = 0;
    for (entry, at) in sections(&bytes) {
        let kind = u16::from_le_bytes([entry[0], entry[1]]);
        if kind != COLUMN_INDEX {
            continue;
        }
        indexes += 1;
        let field = entry[4];
        let lie = |change: &dyn Fn(&mut [u8])| {
            let mut forged = bytes.clone();
            change(&mut forged[at.clone()]);
            assert_ne!(forged, bytes);
            seal_checksums(&mut forged);
            let error = Segment::from_bytes(&forged).unwrap_err();
            assert_named(&error);
            assert!(error.to_string().contains(&format!("column index {field}")), "{error}");
        };
        for word in (0..at.len()).step_by(4) {
            for wrong in [0u32, 1, 5, 11, 12, 13, 1 << 20, i32::MAX as u32, u32::MAX] {
                if bytes[at.start + word..][..4] != wrong.to_le_bytes() {
                    lie(&|index| index[word..word + 4].copy_from_slice(&wrong.to_le_bytes()));
                }
            }
            // the rows of two values, or two starts, or halves of a value change places
            if word >= 12 && bytes[at.start + word - 4..][..4] != bytes[at.start + word..][..4] {
                lie(&|index| index[word - 4..word + 4].rotate_left(4));
            }
        }
        for per_value in [1u64, 4, 8, 12] {
            // a number of values whose parts end just before, at or just after the end of what 63 or 64 bits count
            for end in [u64::MAX, u64::MAX / 2] {
                let near = end / per_value;
                for count in near.saturating_sub(2)..=near.saturating_add(2) {
                    lie(&|index| index[..8].copy_from_slice(&count.to_le_bytes()));
                }
            }
        }
        // (2^64 - 4) / 12: 12 bytes for each of so many values and 4 more are none at all
        lie(&|index| index[..8].copy_from_slice(&1_537_228_672_809_129_301u64.to_le_bytes()));
        lie(&|index| index.fill(0));
        lie(&|index| index.fill(0xff));
        lie(&|index| index.reverse());
    }
    assert_eq!(indexes, schema.fields.len());
}

#[test]
fn seg_1_short_codes_are_what_they_say_or_refused() {
    for (metric, axes) in METRICS.into_iter().flat_map(|metric| [(metric, 1), (metric, 3)]) {
        // so many that they are compared by their codes
        let bytes = with_short_codes(&small(metric, 130).1, axes);
        let segment = Segment::from_bytes(&bytes).unwrap();
        assert_eq!(segment.info().axes, Some(axes as u32));
        use_all(&segment);
        no_bit_can_flip_unseen(with_short_codes(&small(metric, 12).1, axes));
        let refused = |forged: Vec<u8>| assert_named(&Segment::from_bytes(forged).unwrap_err());
        for kind in SHORT_CODES {
            refused(without(&bytes, kind));
        }
        for other in [0.into(), 4.into(), u32::MAX.into(), (-1).into(), serde_json::Value::Null] {
            refused(with_meta(&bytes, |meta| meta["axes"] = other));
        }
        refused(with_meta(&bytes, |meta| meta["quantization"] = "sq8".into()));
        // what distances are computed from: scale and norm of a row, scales of axes, means
        let section = |kind: u16| {
            let is = |(what, _): &([u8; 8], _)| u16::from_le_bytes([what[0], what[1]]) == kind;
            sections(&bytes).into_iter().find(is).unwrap().1
        };
        let (row, scales, means) = (section(0x8006), section(0x8008), section(0x8009));
        for at in [row.start + 56, row.start + 60, row.end - 8, row.end - 4, scales.start, means.end - 4] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, -f32::MAX, f32::MAX, 1e-42] {
                let mut forged = bytes.clone();
                forged[at..at + 4].copy_from_slice(&value.to_le_bytes());
                seal_checksums(&mut forged);
                // what is finite is harmless, though only a mean may be less than nothing
                match value.is_finite() && (at >= means.start || value > 0.0) {
                    true => use_all(&Segment::from_bytes(&forged).unwrap()),
                    false => refused(forged),
                }
            }
        }
    }
}

#[test]
fn seg_1_an_impossible_width_of_walks_is_refused() {
    let (_, bytes) = small(Metric::L2, 12);
    let wide = |width: serde_json::Value| {
        Segment::from_bytes(with_meta(&bytes, |meta| meta["graph"]["width"] = width))
    };
    for width in [1, 2, 64, 1024] {
        use_all(&wide(width.into()).unwrap());
    }
    for width in [0.into(), 1025.into(), u64::MAX.into(), (-1).into(), "wide".into(), serde_json::Value::Null]
    {
        assert_named(&wide(width).unwrap_err());
    }
}

#[test]
fn seg_1_a_column_index_of_a_field_that_is_not_declared_is_refused() {
    let (_, mut bytes) = small(Metric::L2, 12);
    let trailer = bytes.len() - 40;
    // the last section is the column index of the last field
    bytes[trailer - 32 + 4] = 63;
    seal_checksums(&mut bytes);
    assert_named(&Segment::from_bytes(&bytes).unwrap_err());
}

#[test]
fn seg_1_a_segment_without_column_indexes_is_a_segment() {
    for metric in METRICS {
        let (_, bytes) = small(metric, 12);
        let old = without(&bytes, COLUMN_INDEX);
        assert!(old.len() < bytes.len());
        use_all(&Segment::from_bytes(&old).unwrap());
    }
}
