//! The only place where a key is formatted or parsed; parsing is the inverse of formatting.
//!
//! ```text
//! {index}/spec/{version:020}.json
//! .topic/{topic}/{number:020}.json
//! {index}/g{generation:06}/p{partition:06}/manifest/{seq:020}
//! {index}/g{generation:06}/p{partition:06}/segment/{epoch:010}-{ulid}.seg
//! {index}/g{generation:06}/p{partition:06}/retired/{chunk:017}
//! {index}/g{generation:06}/p{partition:06}/hint
//! ```
//! Keys are relative to the store's root. Every part is validated when it is made, so no key leaves its place; no index is named like `.topic` or `.probe`.

use std::fmt;

use sluice_core::{Generation, IndexName, ManifestSeq, PartitionId, PartitionRef, SegmentId, TopicName};
use ulid::Ulid;

use crate::protocol::Chunk;

/// Longest key that is parsed; the longest that is formatted is a binding's, with 282 bytes.
const MAX_KEY_BYTES: usize = 288;

/// An object of the store, by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    Spec(IndexName, u64),
    /// The index that a topic feeds.
    Binding(TopicName, u64),
    Manifest(PartitionRef, ManifestSeq),
    Segment(PartitionRef, SegmentId),
    Boundary(PartitionRef, Chunk),
    Hint(PartitionRef),
    /// What the start probe writes and removes.
    Probe(Ulid),
}

/// A place that holds objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Folder {
    Root,
    Index(IndexName),
    Generation(IndexName, Generation),
    Partition(PartitionRef),
    Manifests(PartitionRef),
    Segments(PartitionRef),
    /// The bindings of all topics.
    Topics,
    Probes,
}

impl Object {
    /// Reads a key; `None` when it is not in the one spelling of an object.
    pub fn parse(key: &str) -> Option<Self> {
        if key.len() > MAX_KEY_BYTES {
            return None;
        }
        let parts: Vec<&str> = key.split('/').collect();
        let object = match parts.as_slice() {
            [".probe", ulid] => Self::Probe(Ulid::from_string(ulid).ok()?),
            [".topic", topic, file] => {
                Self::Binding(TopicName::new(topic).ok()?, number(file.strip_suffix(".json")?)?)
            }
            [index, "spec", file] => {
                Self::Spec(IndexName::new(index).ok()?, number(file.strip_suffix(".json")?)?)
            }
            [index, generation, partition, rest @ ..] => {
                let partition = PartitionRef {
                    index: IndexName::new(index).ok()?,
                    generation: Folder::generation(generation)?,
                    partition: Folder::partition(partition)?,
                };
                match rest {
                    ["manifest", seq] => Self::Manifest(partition, ManifestSeq(number(seq)?)),
                    ["segment", file] => Self::Segment(partition, file.strip_suffix(".seg")?.parse().ok()?),
                    ["retired", chunk] => Self::Boundary(partition, Chunk(number(chunk)?)),
                    ["hint"] => Self::Hint(partition),
                    _ => return None,
                }
            }
            _ => return None,
        };
        // one object, one spelling: no missing zeros, no second way to write a number
        (object.to_string() == key).then_some(object)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(index, version) => write!(f, "{index}/spec/{version:020}.json"),
            Self::Binding(topic, number) => write!(f, "{}/{topic}/{number:020}.json", Folder::Topics),
            Self::Manifest(p, seq) => write!(f, "{}/{:020}", Folder::Manifests(p.clone()), seq.0),
            Self::Segment(p, id) => write!(f, "{}/{id}.seg", Folder::Segments(p.clone())),
            Self::Boundary(p, chunk) => write!(f, "{}/retired/{:017}", Folder::Partition(p.clone()), chunk.0),
            Self::Hint(p) => write!(f, "{}/hint", Folder::Partition(p.clone())),
            Self::Probe(id) => write!(f, "{}/{id}", Folder::Probes),
        }
    }
}

impl Folder {
    /// Reads the name of a generation's folder.
    pub fn generation(name: &str) -> Option<Generation> {
        let number = u32::try_from(number(name.strip_prefix('g')?)?).ok()?;
        (format!("g{number:06}") == name).then_some(Generation(number))
    }

    /// Reads the name of a partition's folder.
    pub fn partition(name: &str) -> Option<PartitionId> {
        let number = u32::try_from(number(name.strip_prefix('p')?)?).ok()?;
        (format!("p{number:06}") == name).then_some(PartitionId(number))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(index) => write!(f, "{index}"),
            Self::Generation(index, generation) => write!(f, "{index}/g{:06}", generation.0),
            Self::Partition(p) => write!(f, "{}/g{:06}/p{:06}", p.index, p.generation.0, p.partition.0),
            Self::Manifests(p) => write!(f, "{}/manifest", Self::Partition(p.clone())),
            Self::Segments(p) => write!(f, "{}/segment", Self::Partition(p.clone())),
            Self::Topics => f.write_str(".topic"),
            Self::Probes => f.write_str(".probe"),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_core::Epoch;

    use super::*;

    fn any_object() -> impl Strategy<Value = Object> {
        let index = "[a-z0-9][a-z0-9_-]{0,62}".prop_map(|n| IndexName::new(&n).unwrap());
        let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u128>());
        let topic = "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,248}".prop_map(|n| TopicName::new(&n).unwrap());
        (index, topic, numbers, 0..7).prop_map(
            |(index, topic, (generation, partition, number, ulid), kind)| {
                let p = PartitionRef {
                    index,
                    generation: Generation(generation),
                    partition: PartitionId(partition),
                };
                match kind {
                    0 => Object::Spec(p.index, number),
                    1 => Object::Manifest(p, ManifestSeq(number)),
                    2 => Object::Segment(p, SegmentId { epoch: Epoch(number), ulid: Ulid::from(ulid) }),
                    3 => Object::Boundary(p, Chunk(number)),
                    4 => Object::Hint(p),
                    5 => Object::Binding(topic, number),
                    _ => Object::Probe(Ulid::from(ulid)),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_format(object in any_object()) {
            let key = object.to_string();
            prop_assert!(key.len() <= MAX_KEY_BYTES);
            prop_assert_eq!(Object::parse(&key), Some(object));
        }

        #[test]
        fn any_key_has_one_spelling_or_none(
            key in "([a-z0-9._%-]{0,4}/){0,6}(manifest|segment|spec|hint|[0-9]{0,21})(/[0-9a-zA-Z.-]{0,40})?",
        ) {
            if let Some(object) = Object::parse(&key) {
                prop_assert_eq!(object.to_string(), key);
            }
        }
    }

    #[test]
    fn hostile_keys_are_refused() {
        let long = "a/".repeat(40_000);
        let bad = [
            "",
            "/",
            "..",
            "a",
            "a/b",
            "../a/spec/00000000000000000001.json",
            "a/../b/spec/00000000000000000001.json",
            "A/spec/00000000000000000001.json",
            "a%2e/spec/00000000000000000001.json",
            "a/spec/1.json",
            "a/spec/+0000000000000000001.json",
            "a/g000001/p000000/manifest/1",
            "a/g1/p000000/manifest/00000000000000000001",
            "a/g000001/p000000/manifest/00000000000000000001/",
            "a/g000001/p000000//manifest/00000000000000000001",
            "a/g000001/p000000/manifest/99999999999999999999",
            "a/g000001/p000000/hint/x",
            "a/g000001/p000000/segment/0000000001-01ARZ3NDEKTSV4RRFFQ69G5FAV",
            ".topic/../00000000000000000001.json",
            ".topic/a/1.json",
            ".topic/a b/00000000000000000001.json",
            ".topic/a/b/00000000000000000001.json",
            "a\0/spec/00000000000000000001.json",
            "a/g000001/p000000/manifest/0000000000000000000١",
            "/a/g000001/p000000/hint",
            long.as_str(),
        ];
        for key in bad {
            assert_eq!(Object::parse(key), None, "{key:.80}");
        }
    }
}
