//! The document: what is written is read back, what is damaged or foreign is refused, version 1 stays readable.

use proptest::prelude::*;
use sluice_core::{Generation, IndexName, PartitionId};

use super::*;
use crate::manifest::{decode, encode};

pub(crate) fn partition() -> PartitionRef {
    PartitionRef {
        index: IndexName::new("packages").unwrap(),
        generation: Generation(1),
        partition: PartitionId(2),
    }
}

fn id(epoch: u64, ulid: u128) -> SegmentId {
    SegmentId { epoch: Epoch(epoch), ulid: Ulid::from(ulid) }
}

fn sample() -> Manifest {
    let entry = |id, records, deleted: RoaringBitmap| SegmentEntry {
        id,
        bytes: 4096,
        digest: blake3::hash(b"segment"),
        records,
        deleted,
    };
    Manifest {
        partition: partition(),
        seq: ManifestSeq(42),
        epoch: Epoch(3),
        partitions: 4,
        start: Offset(4000),
        next_offset: Offset(5000),
        segments: vec![
            entry(id(2, 7), 100_000, (0..70_000).step_by(3).collect()),
            entry(id(3, 9), 10, RoaringBitmap::new()),
        ],
        watermark: id(3, 9),
        created_at: Timestamp(1_795_000_000_000),
        put_id: Ulid::from(0x1234_5678_9abc_def0_u128),
        reason: Reason::Publish,
    }
}

fn read_back(manifest: &Manifest) -> Result<Manifest, ManifestError> {
    decode(&encode(manifest).unwrap(), &manifest.partition, manifest.seq)
}

#[test]
fn seg_3_manifest_v1_opens_for_ever() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat_data/manifest-v1.bin");
    if std::env::var_os("SLUICE_WRITE_COMPAT").is_some() {
        std::fs::write(path, encode(&sample()).unwrap()).unwrap();
    }
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(decode(&bytes, &partition(), ManifestSeq(42)).unwrap(), sample());
    assert_eq!(encode(&sample()).unwrap(), bytes, "the same manifest is the same bytes");
}

#[test]
fn seg_1_every_flipped_bit_and_every_cut_of_a_manifest_is_refused() {
    let bytes = encode(&sample()).unwrap();
    let mut damaged = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged, &partition(), ManifestSeq(42)).is_err(), "bit {bit}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length], &partition(), ManifestSeq(42)).is_err(), "length {length}");
    }
    assert!(decode(&[bytes.as_slice(), b"x"].concat(), &partition(), ManifestSeq(42)).is_err());
}

#[test]
fn a_manifest_under_another_key_is_foreign() {
    let bytes = encode(&sample()).unwrap();
    let mut other = partition();
    other.partition = PartitionId(1);
    assert!(matches!(decode(&bytes, &other, ManifestSeq(42)), Err(ManifestError::Foreign { .. })));
    other = partition();
    other.index = IndexName::new("other").unwrap();
    assert!(matches!(decode(&bytes, &other, ManifestSeq(42)), Err(ManifestError::Foreign { .. })));
    other = partition();
    other.generation = Generation(2);
    assert!(matches!(decode(&bytes, &other, ManifestSeq(42)), Err(ManifestError::Foreign { .. })));
    assert!(matches!(decode(&bytes, &partition(), ManifestSeq(43)), Err(ManifestError::Foreign { .. })));
}

#[test]
fn every_rule_of_a_single_manifest_is_checked() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 10] = [
        ("epoch", |m| m.epoch = Epoch(0)),
        ("partitions", |m| m.partitions = 0),
        ("partitions", |m| m.partitions = 2),
        ("start", |m| m.start = Offset(5001)),
        ("watermark", |m| m.watermark = id(2, 9)),
        ("segment id", |m| m.watermark = id(3, 8)),
        ("segment id", |m| m.segments[1].id = m.segments[0].id),
        ("segment", |m| m.segments[1].records = 0),
        ("segment", |m| m.segments[0].bytes = 0),
        ("deleted rows", |m| m.segments[1].deleted = [10].into()),
    ];
    assert_eq!(read_back(&sample()).unwrap(), sample());
    for (expected, change) in changes {
        let mut manifest = sample();
        change(&mut manifest);
        match read_back(&manifest) {
            Err(ManifestError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_bitmap_that_unfolds_to_more_rows_than_there_are_is_refused_first() {
    // 65,536 runs of 65,536 rows: half a gigabyte out of half a megabyte
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(12_347u32 | 0xffff_0000).to_le_bytes());
    bytes.extend_from_slice(&[0xff; 8192]);
    assert_eq!(read_bitmap(&bytes, 1000).unwrap_err(), "65536 containers for 1000 rows");
    let mut bytes = 12_346u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_bitmap(&bytes, u32::MAX).is_err());
}

proptest! {
    #[test]
    fn a_manifest_reads_back(
        seq in 1..1_000_000u64, epoch in 1..100u64, start in any::<u32>(), more in any::<u32>(), at in any::<i64>(),
        put in any::<u128>(), reason in 0..3usize,
        segments in proptest::collection::btree_map(any::<(u8, u64)>(), (1..200_000u32, any::<u64>(), 0..5000u32), 0..20),
    ) {
        let mut manifest = sample();
        manifest.seq = ManifestSeq(seq);
        manifest.epoch = Epoch(epoch);
        manifest.start = Offset(start.into());
        manifest.next_offset = Offset(u64::from(start) + u64::from(more));
        manifest.created_at = Timestamp(at);
        manifest.put_id = Ulid::from(put);
        manifest.reason = [Reason::Claim, Reason::Publish, Reason::Close][reason];
        manifest.watermark = id(epoch, u128::MAX);
        manifest.segments = segments
            .into_iter()
            .map(|((e, ulid), (records, bytes, deleted))| SegmentEntry {
                id: id(u64::from(e) % epoch + 1, ulid.into()),
                bytes: bytes.max(1),
                digest: blake3::hash(&bytes.to_le_bytes()),
                records,
                deleted: (0..deleted.min(records)).collect(),
            })
            .collect();
        let mut seen = BTreeSet::new();
        manifest.segments.retain(|s| seen.insert(s.id));
        prop_assert_eq!(read_back(&manifest).unwrap(), manifest);
    }

    #[test]
    fn any_body_decodes_or_is_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(read(&body, &partition(), ManifestSeq(42)));
        drop(read_bitmap(&body, 70_000));
        drop(decode(&body, &partition(), ManifestSeq(42)));
    }
}
