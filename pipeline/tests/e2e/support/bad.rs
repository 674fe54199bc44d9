//! Sixty messages that no index takes, by the kinds of mistakes that producers make, each with its reason.

use super::flood::Outgoing;

/// The dimension that the messages are bad for.
pub(crate) const DIMENSION: usize = 8;

/// Largest value and metadata of the indexer that reads them.
const MAX_VALUE: usize = 1_000_000;
const MAX_METADATA: usize = 64 << 10;

/// A message and the code that its dead letter must name.
pub(crate) struct Bad {
    pub(crate) message: Outgoing,
    pub(crate) reason: &'static str,
}

fn bad(reason: &'static str, value: impl Into<Vec<u8>>) -> Bad {
    let message = Outgoing { key: Some(b"key-1".to_vec()), value: Some(value.into()), ..Outgoing::default() };
    Bad { message, reason }
}

impl Bad {
    fn key(mut self, key: Option<&[u8]>) -> Self {
        self.message.key = key.map(<[u8]>::to_vec);
        self
    }

    fn content(mut self, content: &str) -> Self {
        self.message.headers.push(("content-type".into(), content.into()));
        self
    }

    fn no_value(mut self) -> Self {
        self.message.value = None;
        self
    }
}

const VECTOR: &str = "[1,2,3,4,5,6,7,8]";

fn good_json() -> String {
    format!("{{\"vector\":{VECTOR}}}")
}

/// A field of wire type 2.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn floats(components: &[f32]) -> Vec<u8> {
    components.iter().flat_map(|c| c.to_le_bytes()).collect()
}

/// A record of these components, and `more` bytes behind them.
fn protobuf(components: &[f32], more: &[u8]) -> Vec<u8> {
    [vec![0x08, 0x01], field(3, &floats(components)), more.to_vec()].concat()
}

/// A good vector but for its last component.
fn ending_with(last: f32) -> Vec<u8> {
    protobuf(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, last], &[])
}

fn keys() -> Vec<Bad> {
    let good = good_json;
    vec![
        bad("key_missing", good()).key(None),
        bad("key_missing", "").key(None).no_value(),
        bad("key_empty", good()).key(Some(b"")),
        bad("key_empty", "").key(Some(b"")).no_value(),
        bad("key_not_utf8", good()).key(Some(&[0xff, 0xfe])),
        bad("key_too_long", good()).key(Some(&[b'k'; 513])),
        bad("id_mismatch", format!("{{\"id\":\"other\",\"vector\":{VECTOR}}}")),
        bad("id_mismatch", [vec![0x08, 0x01], field(2, b"other"), field(3, &floats(&[1.0; 8]))].concat()),
    ]
}

fn truncated() -> Vec<Bad> {
    let whole = [
        vec![0x08, 0x01],
        field(2, b"key-1"),
        field(3, &floats(&[1.0; 8])),
        field(6, b"{\"group\":\"red\"}"),
    ]
    .concat();
    // after the tag, after the length, and in the middle of each field
    let cuts = [3, 4, 7, 10, 11, 30, whole.len() - 16, whole.len() - 1];
    let mut bad_ones = vec![bad("not_protobuf", [0x08]), bad("vector_missing", [0x08, 0x01])];
    bad_ones.extend(cuts.iter().map(|cut| bad("not_protobuf", &whole[..*cut])));
    let json = good_json();
    bad_ones.extend([1, 5, 12, json.len() - 1].map(|cut| bad("not_json", &json.as_bytes()[..cut])));
    bad_ones
}

fn wrong_types() -> Vec<Bad> {
    let one_version = [vec![0x09], vec![0; 8]].concat();
    vec![
        bad("field_type", one_version).content("application/x-protobuf"),
        bad("field_type", protobuf(&[1.0; 8], &[0x10, 0x05])),
        bad("field_type", [0x08, 0x01, 0x18, 0x05]),
        bad("field_type", protobuf(&[1.0; 8], &[0x35, 0, 0, 0, 0])),
        bad("not_protobuf", protobuf(&[1.0; 8], &[0x3b])),
        bad("unknown_field", protobuf(&[1.0; 8], &[0x38, 0x01])),
        bad("field_type", "{\"vector\":\"AACAPwAAAEA=\"}"),
        bad("field_type", "{\"vector\":[1,2,3,4,5,6,7,\"8\"]}"),
        bad("metadata", format!("{{\"vector\":{VECTOR},\"metadata\":[]}}")),
        bad("metadata_field", format!("{{\"vector\":{VECTOR},\"metadata\":{{\"size\":\"large\"}}}}")),
    ]
}

fn dimensions() -> Vec<Bad> {
    let json = |count: usize| format!("{{\"vector\":[{}]}}", vec!["1"; count].join(","));
    let mut bad_ones = Vec::new();
    for count in [DIMENSION - 1, DIMENSION + 1, 65_536] {
        bad_ones.push(bad("dimension", json(count)));
        bad_ones.push(bad("dimension", protobuf(&vec![1.0; count], &[])));
    }
    bad_ones.push(bad("dimension", json(0)));
    bad_ones
}

fn numbers() -> Vec<Bad> {
    vec![
        bad("not_finite", ending_with(f32::NAN)),
        bad("not_finite", ending_with(-f32::NAN)),
        bad("not_finite", ending_with(f32::INFINITY)),
        bad("not_finite", ending_with(f32::NEG_INFINITY)),
        bad("vector_too_large", protobuf(&[1e38; 8], &[])),
        bad("zero_length", protobuf(&[0.0; 8], &[])),
        bad("not_finite", "{\"vector\":[1,2,3,4,5,6,7,1e39]}"),
        bad("not_finite", "{\"vector\":[1,2,3,4,5,6,7,1e400]}"),
        bad("not_json", "{\"vector\":[1,2,3,4,5,6,7,NaN]}"),
    ]
}

fn texts() -> Vec<Bad> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let with = |metadata: &str| format!("{{\"vector\":{VECTOR},\"metadata\":{metadata}}}");
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(MAX_METADATA));
    vec![
        bad("metadata", with(&format!("{{\"deep\":{deep}}}"))),
        bad("duplicate_field", format!("{{\"vector\":{VECTOR},\"vector\":{VECTOR}}}")),
        bad("metadata", with("{\"a\":1,\"a\":2}")),
        bad("not_utf8", [b"{\"vector\":\"\xff\"}".as_slice(), b""].concat()),
        bad("not_json", format!("\u{feff}{}", good_json())),
        bad("metadata_too_large", with(&large)),
        bad("too_large", format!("{}{}", good_json(), " ".repeat(MAX_VALUE + 1 - good_json().len()))),
    ]
}

fn foreign() -> Vec<Bad> {
    vec![
        bad("schema_version", [0x08, 0x63]),
        bad("schema_version", field(3, &floats(&[1.0; 8]))).content("application/x-protobuf"),
        bad("format", [0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0]),
        bad("unknown_field", "{\"before\":null,\"after\":{\"id\":1},\"op\":\"c\"}"),
        bad("content_type", good_json()).content("application/vnd.confluent.avro"),
    ]
}

/// All of them. Their keys are those of good records where the key is not what is wrong: one that was taken would show.
pub(crate) fn sixty() -> Vec<Bad> {
    let all: Vec<_> = [keys(), truncated(), wrong_types(), dimensions(), numbers(), texts(), foreign()]
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(all.len(), 60);
    all
}
