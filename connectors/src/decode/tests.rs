//! The bad messages of the reliability plan as a table, and properties over arbitrary bytes.

use proptest::prelude::*;
use prost::Message;
use sluice_core::{Dimension, FieldName, FieldType, Metric};

use super::*;
use crate::encode;
use crate::proto::{EmbeddingBatch, EmbeddingRecord};

fn decoder(format: Format) -> Decoder {
    let fields = [(FieldName::new("size").unwrap(), FieldType::Integer)].into();
    let schema = Schema::new(Dimension::new(3).unwrap(), Metric::Cosine, fields);
    let limits = DecodeLimits { max_message_bytes: 1000, max_metadata_bytes: 100 };
    Decoder { format, schema: Arc::new(schema), limits }
}

fn message<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>, headers: &'a [Header<'a>]) -> RawMessage<'a> {
    RawMessage { key, value, headers, offset: Offset(7), timestamp: Timestamp(9) }
}

/// The code of the refusal, or `ok`.
fn code(decoder: &Decoder, message: RawMessage<'_>) -> &'static str {
    match decoder.decode(message) {
        Ok(_) => "ok",
        Err(reject) => {
            assert!(reject.detail.len() <= 300 && !reject.detail.is_empty(), "{reject}");
            reject.code.as_str()
        }
    }
}

fn record() -> EmbeddingRecord {
    EmbeddingRecord { schema_version: 1, vector: vec![1.0, 2.0, 3.0], ..EmbeddingRecord::default() }
}

fn changed(change: impl FnOnce(&mut EmbeddingRecord)) -> Vec<u8> {
    let mut record = record();
    change(&mut record);
    record.encode_to_vec()
}

#[test]
fn liv_1_bad_keys_are_refused_by_code() {
    let long = vec![b'k'; 513];
    let good = br#"{"vector":[1,2,3]}"#.as_slice();
    type Case<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, &'a str);
    let table: [Case<'_>; 9] = [
        (None, Some(good), "key_missing"),
        (None, None, "key_missing"),
        (Some(b""), Some(good), "key_empty"),
        (Some(b""), None, "key_empty"),
        (Some(&long), Some(good), "key_too_long"),
        (Some(&long), None, "key_too_long"),
        (Some(&[0xff, 0x00]), Some(good), "key_not_utf8"),
        (Some(&long[..512]), Some(good), "ok"),
        (Some(b"k"), None, "ok"),
    ];
    for (key, value, expected) in table {
        assert_eq!(code(&decoder(Format::Auto), message(key, value, &[])), expected, "{key:?} {value:?}");
    }
}

#[test]
fn liv_1_bad_json_is_refused_by_code() {
    let deep =
        |n: usize| format!(r#"{{"vector":[1,2,3],"metadata":{{"a":{}1{}}}}}"#, "[".repeat(n), "]".repeat(n));
    let meta = |n: usize| format!(r#"{{"vector":[1,2,3],"metadata":{{"a":"{}"}}}}"#, "x".repeat(n));
    let padded = |n: usize| format!("{}{}", r#"{"vector":[1,2,3]}"#, " ".repeat(n - 18));
    let table: Vec<(String, &str)> = [
        ("", "empty_value"),
        ("null", "null_text"),
        (" null\n", "null_text"),
        ("{", "not_json"),
        ("{}", "vector_missing"),
        (r#"{"id":"k"}"#, "vector_missing"),
        (r#"{"vector":null}"#, "field_type"),
        (r#"{"vector":"AAAA"}"#, "field_type"),
        (r#"{"vector":{}}"#, "field_type"),
        (r#"{"vector":[1,"2",3]}"#, "field_type"),
        (r#"{"vector":[1,null,3]}"#, "field_type"),
        (r#"{"vector":[1,true,3]}"#, "field_type"),
        (r#"{"vector":[[1,2,3]]}"#, "field_type"),
        (r#"{"vector":[]}"#, "dimension"),
        (r#"{"vector":[1,2]}"#, "dimension"),
        (r#"{"vector":[1,2,3,4]}"#, "dimension"),
        (r#"{"vector":[1,2,3,4,"x"]}"#, "dimension"),
        (r#"{"vector":[1,2,NaN]}"#, "not_json"),
        (r#"{"vector":[1,2,Infinity]}"#, "not_json"),
        (r#"{"vector":[1,2,1e999]}"#, "not_finite"),
        (r#"{"vector":[1,2,1e39]}"#, "not_finite"),
        (r#"{"vector":[1,2,-1e39]}"#, "not_finite"),
        (r#"{"vector":[1,2,1e38]}"#, "vector_too_large"),
        (r#"{"vector":[0,0,0]}"#, "zero_length"),
        (r#"{"vector":[0,-0.0,1e-45]}"#, "zero_length"),
        (r#"{"vector":[1,2,3,]}"#, "not_json"),
        (r#"{"vector":[1,2,3]"#, "not_json"),
        (r#"{"vector":[1,2,3]}x"#, "not_json"),
        (r#"{"vector":[1,2,3]}{}"#, "not_json"),
        (r#"{"vector":[1,2,3],"vector":[1,2,3]}"#, "duplicate_field"),
        (r#"{"vector":[1,2,3],"\u0076ector":[1,2,3]}"#, "duplicate_field"),
        (r#"{"metadata":null,"metadata":{},"vector":[1,2,3]}"#, "duplicate_field"),
        (r#"{"vectors":[1,2,3]}"#, "unknown_field"),
        (r#"{"before":null,"after":{"id":1},"op":"c"}"#, "unknown_field"),
        (r#"{"id":"other","vector":[1,2,3]}"#, "id_mismatch"),
        (r#"{"id":1,"vector":[1,2,3]}"#, "field_type"),
        (r#"{"vector":[1,2,3],"metadata":[]}"#, "metadata"),
        (r#"{"vector":[1,2,3],"metadata":"x"}"#, "metadata"),
        (r#"{"vector":[1,2,3],"metadata":{"a":1,"a":2}}"#, "metadata"),
        (r#"{"vector":[1,2,3],"metadata":{"size":"big"}}"#, "metadata_field"),
        (r#"{"vector":[1,2,3],"metadata":{"size":1.5}}"#, "metadata_field"),
        ("[1,2,3]", "not_json"),
        ("\"text\"", "not_json"),
        ("17", "not_json"),
        ("\u{feff}{\"vector\":[1,2,3]}", "not_json"),
        (r#"{"vector":[1,2,3]}"#, "ok"),
        (" \t\r\n{ \"metadata\" : { \"size\" : 5 } , \"vector\" : [ 1 , 2.5 , -3e-2 ] , \"id\" : \"k\" } \n", "ok"),
        (r#"{"id":null,"vector":[1,2,3],"metadata":null}"#, "ok"),
    ]
    .map(|(text, expected)| (text.to_owned(), expected))
    .into_iter()
    .chain([
        (deep(31), "ok"),
        (deep(32), "metadata"),
        (meta(92), "ok"),
        (meta(93), "metadata_too_large"),
        (padded(1000), "ok"),
        (padded(1001), "too_large"),
    ])
    .collect();
    for (text, expected) in &table {
        let message = message(Some(b"k"), Some(text.as_bytes()), &[]);
        assert_eq!(code(&decoder(Format::Json), message), *expected, "{text}");
    }
}

#[test]
fn liv_1_depth_10_000_and_invalid_utf_8_are_refused() {
    let mut decoder = decoder(Format::Auto);
    decoder.limits = DecodeLimits::default();
    let deep = "[".repeat(10_000);
    for (text, expected) in [
        (format!(r#"{{"vector":{deep}"#), "field_type"),
        (format!(r#"{{"vector":[1,2,3],"metadata":{{"a":{deep}{}}}}}"#, "]".repeat(10_000)), "metadata"),
        (format!(r#"{{"x":{deep}"#), "unknown_field"),
        (format!(" {deep}"), "not_json"),
    ] {
        assert_eq!(code(&decoder, message(Some(b"k"), Some(text.as_bytes()), &[])), expected);
    }
    let not_utf8 = b"{\"vector\":[1,2,3],\"metadata\":{\"a\":\"\xff\"}}";
    assert_eq!(code(&decoder, message(Some(b"k"), Some(not_utf8), &[])), "not_utf8");
}

#[test]
fn liv_1_bad_protobuf_is_refused_by_code() {
    let good = record().encode_to_vec();
    let with = |extra: &[u8]| [good.as_slice(), extra].concat();
    let vector = |v: &[f32]| changed(|r| r.vector = v.to_vec());
    let table: Vec<(Vec<u8>, &str)> = vec![
        (good.clone(), "ok"),
        (changed(|r| r.schema_version = 0), "schema_version"),
        (changed(|r| r.schema_version = 2), "schema_version"),
        (vector(&[]), "vector_missing"),
        (vector(&[1.0; 2]), "dimension"),
        (vector(&[1.0; 4]), "dimension"),
        (vector(&[1.0; 200]), "dimension"),
        (vector(&[1.0, f32::NAN, 0.0]), "not_finite"),
        (vector(&[1.0, -f32::NAN, 0.0]), "not_finite"),
        (vector(&[1.0, f32::INFINITY, 0.0]), "not_finite"),
        (vector(&[1.0, f32::NEG_INFINITY, 0.0]), "not_finite"),
        (vector(&[1.0, 1e38, 0.0]), "vector_too_large"),
        (vector(&[0.0; 3]), "zero_length"),
        (vector(&[f32::from_bits(1); 3]), "zero_length"),
        (changed(|r| r.id = Some("other".into())), "id_mismatch"),
        (changed(|r| r.id = Some("k".into())), "ok"),
        (changed(|r| r.metadata = Some(b"{\"size\":1}".to_vec())), "ok"),
        (changed(|r| r.metadata = Some(b"{\"size\":\"1\"}".to_vec())), "metadata_field"),
        (changed(|r| r.metadata = Some(b"".to_vec())), "metadata"),
        (changed(|r| r.metadata = Some(b"null".to_vec())), "metadata"),
        (changed(|r| r.metadata = Some(b"\xff".to_vec())), "not_utf8"),
        (
            changed(|r| r.metadata = Some([b"{\"a\":\"", [b'x'; 200].as_slice(), b"\"}"].concat())),
            "metadata_too_large",
        ),
        (changed(|r| r.vector_f32 = Some(vec![0; 12])), "duplicate_field"),
        (changed(|r| r.vector = vec![]), "vector_missing"),
        (changed(|r| (r.vector, r.vector_f32) = (vec![], Some(vec![]))), "dimension"),
        (changed(|r| (r.vector, r.vector_f32) = (vec![], Some(vec![0; 11]))), "not_protobuf"),
        (changed(|r| (r.vector, r.vector_f32) = (vec![], Some(vec![0x3f; 12]))), "ok"),
        (changed(|r| (r.vector, r.vector_f32) = (vec![], Some(vec![0xff; 12]))), "not_finite"),
        (changed(|r| (r.vector, r.vector_f16) = (vec![], Some(vec![0x3c; 6]))), "ok"),
        (changed(|r| (r.vector, r.vector_f16) = (vec![], Some(vec![0x3c; 5]))), "not_protobuf"),
        (changed(|r| (r.vector, r.vector_f16) = (vec![], Some(vec![0x3c; 12]))), "dimension"),
        (changed(|r| (r.vector, r.vector_f16) = (vec![], Some(vec![0, 0x7c, 0, 0, 0, 0]))), "not_finite"),
        (with(&[0x08, 0x01]), "duplicate_field"),
        (with(&[0x12, 1, b'k', 0x12, 1, b'k']), "duplicate_field"),
        (with(&[0x12, 1, 0xff]), "not_utf8"),
        (with(&[0x0a, 0]), "field_type"),
        (with(&[0x10, 1]), "field_type"),
        (with(&[0x18, 1]), "field_type"),
        (with(&[0x38, 1]), "unknown_field"),
        (with(&[0x0b]), "not_protobuf"),
        (with(&[0x00]), "not_protobuf"),
        (with(&[0xff; 11]), "not_protobuf"),
        (with(&[0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), "not_protobuf"),
        (with(&[0x32, 0x80, 0x80, 0x80, 0x80, 0x08]), "not_protobuf"),
        // packed in two pieces, and one by one
        (b"\x08\x01\x1a\x04\0\0\x80\x3f\x1a\x08\0\0\x80\x3f\0\0\x80\x3f".to_vec(), "ok"),
        (b"\x08\x01\x1d\0\0\x80\x3f\x1d\0\0\x80\x3f\x1d\0\0\x80\x3f".to_vec(), "ok"),
        (b"\x08\x01".to_vec(), "vector_missing"),
        (vec![0x08; 500], "duplicate_field"),
    ];
    for (value, expected) in &table {
        let message = message(Some(b"k"), Some(value), &[]);
        assert_eq!(code(&decoder(Format::Protobuf), message), *expected, "{value:02x?}");
    }
}

#[test]
fn liv_1_a_protobuf_record_cut_at_any_byte_is_refused() {
    let whole = changed(|r| (r.id, r.metadata) = (Some("k".into()), Some(b"{}".to_vec())));
    let decoder = decoder(Format::Protobuf);
    for end in 0..whole.len() {
        let code = code(&decoder, message(Some(b"k"), Some(&whole[..end]), &[]));
        // without its metadata the record is whole as well
        let whole_fields = end == whole.len() - 4;
        assert_eq!(code == "ok", whole_fields, "cut at {end}: {code}");
    }
}

#[test]
fn the_content_type_decides_then_the_index_then_the_first_byte() {
    let (json, proto) = (br#"{"vector":[1,2,3]}"#.as_slice(), record().encode_to_vec());
    let typed = |name: &'static str, value: &'static str| [(name, Some(value.as_bytes()))];
    let case = |format, headers: &[Header<'_>], value: &[u8]| {
        code(&decoder(format), message(Some(b"k"), Some(value), headers))
    };
    assert_eq!(case(Format::Auto, &[], json), "ok");
    assert_eq!(case(Format::Auto, &[], &proto), "ok");
    assert_eq!(case(Format::Json, &[], &proto), "not_utf8");
    assert_eq!(case(Format::Protobuf, &[], json), "not_protobuf");
    assert_eq!(case(Format::Protobuf, &typed("Content-Type", "Application/JSON; charset=utf-8"), json), "ok");
    assert_eq!(case(Format::Json, &typed("content-type", "application/x-protobuf"), &proto), "ok");
    assert_eq!(case(Format::Auto, &typed("content-type", "application/json"), &proto), "not_utf8");
    assert_eq!(case(Format::Auto, &typed("content-type", "application/octet-stream"), &proto), "ok");
    assert_eq!(case(Format::Auto, &typed("content-type", "text/csv"), json), "content_type");
    assert_eq!(case(Format::Auto, &[("content-type", None)], json), "ok");
    assert_eq!(case(Format::Debezium, &[], json), "format");
    for other in
        [b"\x1f\x8b\x08\0".as_slice(), b"\x28\xb5\x2f\xfd\0", b"\0\0\0\0\x07", b"nginx", b"\x0a\x01x"]
    {
        let got = case(Format::Auto, &[], other);
        assert!(["format", "not_json"].contains(&got), "{other:?}: {got}");
    }
    // headers only: a delete, whatever they say
    let headers = typed("content-type", "text/csv");
    assert_eq!(code(&decoder(Format::Auto), message(Some(b"k"), None, &headers)), "ok");
}

#[test]
fn every_code_is_stable_text_and_stands_once() {
    let codes: std::collections::BTreeSet<_> = RejectCode::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(codes.len(), RejectCode::ALL.len());
    assert!(
        codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
    );
}

#[test]
fn a_batch_splits_into_records_that_decode_under_their_ids() {
    let records: Vec<_> =
        ["a", "b"].map(|id| EmbeddingRecord { id: Some(id.into()), ..record() }).into_iter().collect();
    let body = EmbeddingBatch { schema_version: 1, records: records.clone() }.encode_to_vec();
    let split = split_batch(&body, 2).unwrap();
    assert_eq!(split, records.iter().map(Message::encode_to_vec).collect::<Vec<_>>());
    let decoder = decoder(Format::Auto);
    for (value, id) in split.iter().zip(["a", "b"]) {
        assert_eq!(decoder.decode_identified(ContentType::Protobuf, value).unwrap().key.as_str(), id);
    }
    let refused = |body: &[u8], max| split_batch(body, max).unwrap_err().code;
    assert_eq!(refused(&body, 1), RejectCode::TooManyRecords);
    assert_eq!(refused(&body[..body.len() - 1], 2), RejectCode::NotProtobuf);
    assert_eq!(refused(&body[2..], 2), RejectCode::SchemaVersion);
    assert_eq!(refused(b"{\"records\":[]}", 2), RejectCode::NotProtobuf);
    let no_id = decoder.decode_identified(ContentType::Json, br#"{"vector":[1,2,3]}"#);
    assert_eq!(no_id.unwrap_err().code, RejectCode::IdMissing);
}

#[test]
fn the_shortest_text_of_a_component_reads_back_as_the_same_component() {
    let decoder = decoder(Format::Json);
    for bits in (0..u32::MAX).step_by(9_973) {
        let component = f32::from_bits(bits);
        if !component.is_finite() || component.abs() > 1e15 {
            continue;
        }
        let value = encode::json(&[1.0, component, 0.5], &Metadata::empty());
        let record = decoder.decode(message(Some(b"k"), Some(&value), &[])).unwrap();
        let Op::Upsert(document) = record.op else { panic!("an upsert") };
        assert_eq!(document.vector.as_slice()[1].to_bits(), component.to_bits(), "{component}");
    }
}

fn component() -> impl Strategy<Value = f32> {
    prop_oneof![(-1e6f32..1e6), any::<f32>().prop_filter("finite", |f| f.abs() < 1e15), Just(0.0)]
}

proptest! {
    #[test]
    fn liv_1_arbitrary_bytes_never_panic(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8)),
        value in proptest::collection::vec(any::<u8>(), 0..200),
        header in proptest::option::of("\\PC{0,20}"),
    ) {
        let headers: Vec<Header<'_>> = header.iter().map(|h| ("content-type", Some(h.as_bytes()))).collect();
        for format in [Format::Auto, Format::Json, Format::Protobuf] {
            decoder(format).decode(message(key.as_deref(), Some(&value), &headers)).ok();
        }
        split_batch(&value, 4).ok();
    }

    #[test]
    fn liv_1_a_damaged_record_never_panics(place in 0usize..60, byte in any::<u8>(), json in any::<bool>()) {
        let metadata = Metadata::parse(r#"{"size":3,"a":"b"}"#, 100).unwrap();
        let mut value = match json {
            true => encode::json(&[1.0, 2.0, 3.0], &metadata),
            false => encode::protobuf(&[1.0, 2.0, 3.0], &metadata),
        };
        let place = place % value.len();
        value[place] = byte;
        let decoded = decoder(Format::Auto).decode(message(Some(b"k"), Some(&value), &[]));
        if let Ok(Record { op: Op::Upsert(document), .. }) = decoded {
            prop_assert!(document.vector.as_slice().iter().all(|c| c.is_finite()));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(
        key in "\\PC{1,40}",
        vector in proptest::collection::vec(component(), 3),
        size in proptest::option::of(any::<i64>()),
        note in "\\PC{0,10}",
    ) {
        prop_assume!(vector.iter().any(|c| c.abs() > 1e-10));
        let mut object = serde_json::json!({ "note": note });
        if let Some(size) = size { object["size"] = size.into(); }
        let metadata = Metadata::parse(&object.to_string(), 1000).unwrap();
        let key = Key::new(&key).unwrap();
        let mut decoder = decoder(Format::Auto);
        decoder.limits = DecodeLimits::default();
        for outgoing in [encode::upsert(&key, &vector, &metadata), encode::upsert_json(&key, &vector, &metadata)] {
            let headers: Vec<Header<'_>> =
                outgoing.headers.iter().map(|(n, v)| (n.as_str(), Some(v.as_slice()))).collect();
            for headers in [headers.as_slice(), &[]] {
                let message = message(outgoing.key.as_deref(), outgoing.value.as_deref(), headers);
                let record = decoder.decode(message).unwrap();
                prop_assert_eq!(&record.key, &key);
                let Op::Upsert(document) = record.op else { panic!("an upsert") };
                prop_assert_eq!(document.vector.as_slice(), vector.as_slice());
                prop_assert_eq!(&document.metadata, &metadata);
            }
        }
        let delete = encode::delete(&key);
        let record = decoder.decode(message(delete.key.as_deref(), None, &[])).unwrap();
        prop_assert_eq!(record.op, Op::Delete);
    }
}
