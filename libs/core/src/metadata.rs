//! A record's JSON attributes, kept as the text that the producer wrote once it is known to be a sane object.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use thiserror::Error;

/// Deepest nesting of arrays and objects in metadata.
pub const MAX_DEPTH: usize = 32;

/// Why text was refused as metadata.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    #[error("metadata has {got} bytes, at most {max} are allowed")]
    TooLarge { got: usize, max: usize },
    #[error("metadata is not a JSON object: {0}")]
    Malformed(String),
}

/// A JSON object as text: well-formed, no key twice in one object, at most [`MAX_DEPTH`] deep.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// No attributes: `{}`.
    pub fn empty() -> Self {
        Self("{}".into())
    }

    /// Checks `text` and keeps it byte for byte, without the white space around it.
    ///
    /// # Errors
    /// When it has more than `max_bytes` or is no object of the kind described above.
    pub fn parse(text: &str, max_bytes: usize) -> Result<Self, MetadataError> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.len() > max_bytes {
            return Err(MetadataError::TooLarge { got: text.len(), max: max_bytes });
        }
        let malformed = |e: serde_json::Error| MetadataError::Malformed(e.to_string());
        if !text.starts_with('{') {
            return Err(MetadataError::Malformed("it does not start with {".into()));
        }
        DEPTH.set(0);
        serde_json::from_str::<Strict>(text).map_err(malformed)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

thread_local! {
    /// How deep the strict reader stands; a visitor has no other place to keep it.
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Reads any JSON value and keeps nothing, refusing repeated keys, numbers beyond f64 and deep nesting.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

fn enter<E: serde::de::Error>() -> Result<(), E> {
    let depth = DEPTH.get() + 1;
    DEPTH.set(depth);
    if depth > MAX_DEPTH { Err(E::custom(format!("nested deeper than {MAX_DEPTH}"))) } else { Ok(()) }
}

fn leave() {
    DEPTH.set(DEPTH.get() - 1);
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        enter()?;
        while items.next_element::<Strict>()?.is_some() {}
        leave();
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        enter()?;
        let mut seen = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if seen.contains(&name) {
                let name: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format!("key {name:?} stands twice")));
            }
            seen.insert(name);
            entries.next_value::<Strict>()?;
        }
        leave();
        Ok(Strict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept_byte_for_byte() {
        let text = r#"{"b": 1.50, "a": ["x", {"y": null}]}"#;
        assert_eq!(Metadata::parse(&format!(" {text}\n"), 100).unwrap().as_str(), text);
    }

    #[test]
    fn what_is_no_sane_object_is_refused() {
        for bad in [
            "",
            "[]",
            "1",
            "null",
            "{",
            "{}x",
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":1e999}"#,
        ] {
            assert!(matches!(Metadata::parse(bad, 100), Err(MetadataError::Malformed(_))), "{bad}");
        }
        assert_eq!(Metadata::parse("{  }", 3), Err(MetadataError::TooLarge { got: 4, max: 3 }));
    }

    #[test]
    fn deep_nesting_is_refused_and_the_next_text_is_read_afresh() {
        let deep = |n: usize| format!("{}{}{}", r#"{"a":"#.repeat(n), "1", "}".repeat(n));
        assert!(Metadata::parse(&deep(MAX_DEPTH), 1 << 20).is_ok());
        assert!(Metadata::parse(&deep(MAX_DEPTH + 1), 1 << 20).is_err());
        assert!(Metadata::parse(&deep(10_000), 1 << 20).is_err());
        assert!(Metadata::parse(&deep(MAX_DEPTH), 1 << 20).is_ok());
    }
}
