//! Any log of upserts, deletes and redeliveries: what is sealed, opened and read back is its fold, and an exact search
//! is brute force.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use roaring::RoaringBitmap;
use sluice_core::{GraphBuilder, Key, Quantization, Record, Schema};
use sluice_segment::{BuildOptions, GrowingSet, Segment, seal};
use sluice_segment_fuzz::common::{
    FIELDS, METRICS, NEVER, assert_scores, best, delete, options, query, schema, schema_f16, upsert, vector,
};
use sluice_segment_fuzz::{alone, open};

/// A key's newest version: its offset, and what it holds unless it was deleted.
type Fold = BTreeMap<String, (u64, Option<(Vec<f32>, String)>)>;

fuzz_target!(init: alone(), |data: &[u8]| {
    // an input that ends early is as good as one that does not
    let _ended = round_trip(&mut Unstructured::new(data));
});

fn round_trip(given: &mut Unstructured<'_>) -> Result<()> {
    let metric = *given.choose(&METRICS)?;
    let dimension = given.int_in_range(2..=20)?;
    let schema = match given.arbitrary()? {
        true => schema_f16(dimension, metric, &FIELDS),
        false => schema(dimension, metric, &FIELDS),
    };
    let options = chosen_options(given)?;
    // small whole numbers, whose scores no rounding moves far; or any numbers that a vector may hold
    let tame = given.arbitrary()?;
    let (mut set, mut fold, mut log) = (GrowingSet::new(schema.clone()), Fold::new(), Vec::<Record>::new());
    let mut offset = 0;
    while !given.is_empty() && offset < 1 << 40 {
        if given.ratio(1u8, 8u8)? && !log.is_empty() {
            set.apply(given.choose(&log)?.clone());
            continue;
        }
        offset += given.int_in_range(1..=3u64)?;
        let Some((record, state)) = drawn(given, &schema, offset, tame)? else { continue };
        fold.insert(record.key.as_str().to_owned(), (offset, state));
        log.push(record.clone());
        set.apply(record);
    }
    if fold.values().any(|(_, state)| state.is_some()) {
        check(&set, &options, &fold, tame);
    }
    Ok(())
}

fn chosen_options(given: &mut Unstructured<'_>) -> Result<BuildOptions> {
    let mut options = options(*given.choose(&[1, 5, 1_000_000])?);
    options.graph.m = *given.choose(&[2, 4, 16])?;
    options.graph.builder = *given.choose(&[GraphBuilder::Bulk, GraphBuilder::HnswRs])?;
    options.quantization = *given.choose(&[Quantization::None, Quantization::Sq8])?;
    Ok(options)
}

/// A record and what it makes of its key; none where key or vector may not be.
#[allow(clippy::type_complexity, reason = "said in the line above")]
fn drawn(
    given: &mut Unstructured<'_>,
    schema: &Schema,
    offset: u64,
    tame: bool,
) -> Result<Option<(Record, Option<(Vec<f32>, String)>)>> {
    let key = match given.int_in_range(0..=20u8)? {
        20 => given.arbitrary::<&str>()?.to_owned(),
        few => format!("kéy{few}"),
    };
    if Key::new(&key).is_err() {
        return Ok(None);
    }
    if given.ratio(1u8, 4u8)? {
        return Ok(Some((delete(&key, offset), None)));
    }
    let component = |_| if tame { Ok(f32::from(given.arbitrary::<i8>()?) / 8.0) } else { given.arbitrary() };
    let components: Vec<f32> = (0..schema.dimension.get()).map(component).collect::<Result<_>>()?;
    if schema.vector(components.clone()).is_err() {
        return Ok(None);
    }
    let mut kept = components.clone();
    schema.vector_type.round(&mut kept);
    let tags = ["\"a\"", "[\"b\",\"ü\"]", "[]", "null", "\"\""];
    let (tag, size, flag): (_, i64, bool) = (given.choose(&tags)?, given.arbitrary()?, given.arbitrary()?);
    let size = size >> 12;
    let metadata = format!(r#"{{"tag":{tag},"size":{size},"flag":{flag},"weight":0.5,"at":{offset}}}"#);
    Ok(Some((upsert(schema, &key, offset, &components, &metadata), Some((kept, metadata)))))
}

fn check(set: &GrowingSet, options: &BuildOptions, fold: &Fold, tame: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("x.seg");
    seal(set, options, &path, &NEVER).expect("what a set holds can be sealed");
    let copied = open(&std::fs::read(&path).expect("it was written")).expect("what was sealed opens");
    let mapped = Segment::open(&path).expect("what was sealed opens");
    for segment in [copied, mapped] {
        check_segment(&segment, fold, tame);
    }
}

fn check_segment(segment: &Segment, fold: &Fold, tame: bool) {
    let mut live: Vec<_> =
        fold.iter().filter_map(|(key, (offset, state))| Some((offset, key, state.as_ref()?))).collect();
    live.sort_by_key(|(offset, ..)| **offset);
    assert_eq!(segment.len() as usize, live.len());
    for (row, (offset, key, (components, metadata))) in live.iter().enumerate() {
        let read = segment.row(row as u32);
        assert_eq!((read.key, read.offset.0, read.metadata), (key.as_str(), **offset, metadata.as_str()));
        let bits = |v: &[f32]| v.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.vector.to_vec()), bits(components));
        assert_eq!(segment.find(key), Some(row as u32));
    }
    for (key, _) in fold.iter().filter(|(_, (_, state))| state.is_none()) {
        assert_eq!(segment.find(key), None);
    }
    let rows: Vec<_> = live.iter().map(|(_, _, (components, _))| components.as_slice()).collect();
    search(segment, &rows, tame);
}

fn search(segment: &Segment, rows: &[&[f32]], tame: bool) {
    let schema = segment.schema();
    let first = vector(schema, rows[0]);
    for (exact, k) in [(true, rows.len()), (false, rows.len()), (true, 1), (false, 1)] {
        let hits = segment.search(&query(&first, k, exact), &RoaringBitmap::new()).expect("nobody cancels");
        let distinct: RoaringBitmap = hits.iter().map(|hit| hit.row).collect();
        assert_eq!((hits.len(), distinct.len() as usize), (k, k));
        if exact && tame {
            assert_scores(&hits, &best(schema.metric, rows[0], rows.iter().copied(), k));
        }
    }
}
