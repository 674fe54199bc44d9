//! The oracle: the fold of the log by key, in the dumbest way. No code of the product decides anything in here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::log::Message;

/// The live version of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Version {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// Byte for byte.
    pub(crate) metadata: String,
    pub(crate) vector: Vec<f32>,
}

/// Every live key.
pub(crate) type State = BTreeMap<String, Version>;

/// The state after `messages`, in the order of the log. What is not a good record leaves the state as it is.
pub(crate) fn fold(messages: &[Message], dimension: usize) -> State {
    let mut state = State::new();
    for message in messages {
        let Some(key) = message.key.as_deref().and_then(|k| std::str::from_utf8(k).ok()) else { continue };
        if let Some(older) = state.get(key) {
            assert_eq!(older.partition, message.partition, "key {key} is in two partitions");
        }
        match &message.value {
            None => {
                state.remove(key);
            }
            Some(value) => {
                let decoded = if value.first() == Some(&0x08) { protobuf(value) } else { json(value) };
                let Some((vector, metadata)) = decoded.filter(|(vector, _)| vector.len() == dimension) else {
                    continue;
                };
                let (partition, offset) = (message.partition, message.offset);
                state.insert(key.to_owned(), Version { partition, offset, metadata, vector });
            }
        }
    }
    state
}

/// Fails with the first few differences, not with two whole states.
pub(crate) fn assert_same(seen: &State, expected: &State) {
    let mut differences = Vec::new();
    for key in seen.keys().chain(expected.keys()) {
        let (seen, expected) = (seen.get(key), expected.get(key));
        let line = format!("{key}: served {}, the log says {}", short(seen), short(expected));
        if seen != expected && !differences.contains(&line) {
            differences.push(line);
        }
    }
    let some: Vec<_> = differences.iter().take(10).collect();
    assert!(differences.is_empty(), "{} of {} keys differ: {some:#?}", differences.len(), expected.len());
}

fn short(version: Option<&Version>) -> String {
    version.map_or("nothing".into(), |v| {
        let first: Vec<_> = v.vector.iter().take(2).collect();
        format!("{}@{} {} {first:?}..", v.partition, v.offset, v.metadata)
    })
}

fn json(value: &[u8]) -> Option<(Vec<f32>, String)> {
    #[derive(Deserialize)]
    struct Upsert<'a> {
        vector: Vec<f32>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    let upsert: Upsert<'_> = serde_json::from_slice(value).ok()?;
    let metadata = upsert.metadata.map_or("{}", RawValue::get);
    Some((upsert.vector, metadata.to_owned()))
}

/// Reads an `EmbeddingRecord`: field numbers and wire types by hand.
fn protobuf(mut bytes: &[u8]) -> Option<(Vec<f32>, String)> {
    let (mut vector, mut metadata) = (Vec::new(), "{}".to_owned());
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        if tag & 7 == 0 {
            varint(&mut bytes)?;
            continue;
        }
        let length = usize::try_from(varint(&mut bytes)?).ok()?;
        let (body, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        match tag >> 3 {
            3 | 5 => {
                vector = body.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
            }
            6 => metadata = String::from_utf8(body.to_vec()).ok()?,
            _ => {}
        }
    }
    Some((vector, metadata))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
