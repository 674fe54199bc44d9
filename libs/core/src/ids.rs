//! Ids and counters as newtypes, validated when they are made, so that an epoch is never compared with an offset.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use ulid::Ulid;

/// Longest record key, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// Why a name, key or id was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("index name {0:?} is not [a-z0-9][a-z0-9_-]{{0,62}}")]
    IndexName(String),
    #[error("topic name {0:?} is not 1 to 249 characters of [a-zA-Z0-9._-], or is \".\" or \"..\"")]
    TopicName(String),
    #[error("the key is empty")]
    KeyEmpty,
    #[error("the key has {0} bytes, at most {MAX_KEY_BYTES} are allowed")]
    KeyTooLong(usize),
    #[error("the key is not UTF-8")]
    KeyNotUtf8,
    #[error("segment id {0:?} is not <epoch:010>-<ulid>")]
    SegmentId(String),
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $valid:expr, $error:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates `text`.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err($error(shorten(text))) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A hostile name may be long; an error message quotes only its beginning.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_index_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let head = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let tail = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_' || *b == b'-';
    head && bytes.len() <= 63 && bytes.iter().all(tail)
}

fn is_topic_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= 249 && text.bytes().all(allowed) && text != "." && text != ".."
}

text_id! {
    /// The name of an index: `[a-z0-9][a-z0-9_-]{0,62}`, safe as a path segment.
    IndexName, is_index_name, IdError::IndexName
}

text_id! {
    /// The name of a Kafka topic, by Kafka's own rule.
    TopicName, is_topic_name, IdError::TopicName
}

/// A record's key: the Kafka message key, 1 to 512 bytes of UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<str>);

impl Key {
    /// Validates a key that is already text.
    ///
    /// # Errors
    /// When it is empty or longer than [`MAX_KEY_BYTES`].
    pub fn new(text: &str) -> Result<Self, IdError> {
        match text.len() {
            0 => Err(IdError::KeyEmpty),
            len if len > MAX_KEY_BYTES => Err(IdError::KeyTooLong(len)),
            _ => Ok(Self(text.into())),
        }
    }

    /// Validates the bytes of a message key.
    ///
    /// # Errors
    /// As [`Key::new`], and when the bytes are not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        if bytes.len() > MAX_KEY_BYTES {
            return Err(IdError::KeyTooLong(bytes.len()));
        }
        Self::new(std::str::from_utf8(bytes).map_err(|_| IdError::KeyNotUtf8)?)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The one that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }

            pub fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter! {
    /// A partition of a topic: the unit of order, ownership, publication and fan-out.
    PartitionId(u32)
}
counter! {
    /// A position in a partition's log; a record's version is the offset that wrote it.
    Offset(u64)
}
counter! {
    /// The number that fences an older owner of a partition; every claim raises it.
    Epoch(u64)
}
counter! {
    /// The place of a manifest in its partition's chain; the first is 1.
    ManifestSeq(u64)
}
counter! {
    /// One build of an index; a rebuild, or a new index under a retired name, makes a new one. The first is 1.
    Generation(u32)
}

impl ManifestSeq {
    /// Before the first manifest.
    pub const NONE: Self = Self(0);
}

/// A topic and one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One partition of one generation of an index: what a manifest chain belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionRef {
    pub index: IndexName,
    pub generation: Generation,
    pub partition: PartitionId,
}

impl fmt::Display for PartitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/g{}/p{}", self.index, self.generation, self.partition)
    }
}

/// The name of a segment: the epoch of the owner that wrote it and a ULID that grows within the epoch, so that
/// two owners never write the same object and ids order by (epoch, time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId {
    pub epoch: Epoch,
    pub ulid: Ulid,
}

impl SegmentId {
    /// The smallest id of `epoch`: every segment of an older epoch is below it.
    pub fn first_of(epoch: Epoch) -> Self {
        Self { epoch, ulid: Ulid::nil() }
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{}", self.epoch.0, self.ulid)
    }
}

impl FromStr for SegmentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::SegmentId(shorten(text));
        let (epoch, ulid) = text.split_once('-').ok_or_else(refuse)?;
        if epoch.len() < 10 || !epoch.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        let id = Self {
            epoch: Epoch(epoch.parse().map_err(|_| refuse())?),
            ulid: Ulid::from_string(ulid).map_err(|_| refuse())?,
        };
        // one id, one spelling: parse is the inverse of format
        if id.to_string() == text { Ok(id) } else { Err(refuse()) }
    }
}

impl Serialize for SegmentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_index_names_are_refused() {
        let long = "a".repeat(64);
        for bad in ["", "..", "a/b", "A", "-a", "_a", "a.b", "a%2e", "a\0", "é", "a b", long.as_str()] {
            assert!(IndexName::new(bad).is_err(), "{bad:?}");
        }
        assert!(IndexName::new(&"a".repeat(63)).is_ok());
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_name() {
        let error = IndexName::new(&"X".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn keys_hold_1_to_512_bytes_of_utf8() {
        assert_eq!(Key::new(""), Err(IdError::KeyEmpty));
        assert!(Key::new(&"k".repeat(512)).is_ok());
        assert_eq!(Key::new(&"k".repeat(513)), Err(IdError::KeyTooLong(513)));
        assert_eq!(Key::from_bytes(&[0xff, 0xfe]), Err(IdError::KeyNotUtf8));
    }

    proptest! {
        #[test]
        fn a_segment_id_parses_back(epoch in any::<u64>(), ulid in any::<u128>()) {
            let id = SegmentId { epoch: Epoch(epoch), ulid: Ulid::from(ulid) };
            prop_assert_eq!(id.to_string().parse::<SegmentId>(), Ok(id));
        }

        #[test]
        fn any_text_is_a_segment_id_in_one_spelling_or_none(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<SegmentId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
