//! Strict JSON: `{"id"?: text, "vector": [numbers], "metadata"?: object}`, numbers read straight into the vector.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::reject::{Reject, RejectCode};
use super::{Parts, wrong_dimension};

/// Reads one JSON text.
pub(super) fn parse(value: &[u8], dimension: usize) -> Result<Parts<'_>, Reject> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Err(Reject::new(RejectCode::NotUtf8, "the value is not UTF-8"));
    };
    if text.starts_with('\u{feff}') {
        return Err(Reject::new(RejectCode::NotJson, "the value begins with a byte order mark"));
    }
    let why = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let parsed = Envelope { dimension, why: &why }.deserialize(&mut reader);
    match parsed.and_then(|parts| reader.end().map(|()| parts)) {
        Ok(parts) => Ok(parts),
        Err(error) => Err(why.take().unwrap_or_else(|| classify(&error))),
    }
}

/// What a serde error says about the text as a whole.
fn classify(error: &serde_json::Error) -> Reject {
    let text = error.to_string();
    let code = match error.classify() {
        serde_json::error::Category::Data => RejectCode::FieldType,
        // such a number is well-formed JSON, but no number of ours
        _ if text.starts_with("number out of range") => RejectCode::NotFinite,
        _ => RejectCode::NotJson,
    };
    Reject::new(code, text)
}

/// A visitor can fail only with text; the reason proper is left in `why`.
type Why<'w> = &'w Cell<Option<Reject>>;

fn refuse<E: serde::de::Error>(why: Why<'_>, reject: Reject) -> E {
    let error = E::custom(&reject.detail);
    why.set(Some(reject));
    error
}

struct Envelope<'w> {
    dimension: usize,
    why: Why<'w>,
}

impl<'de> DeserializeSeed<'de> for Envelope<'_> {
    type Value = Parts<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parts<'de>, D::Error> {
        let why = self.why;
        // until the object has begun, whatever else the text holds is not the JSON that we read
        let mut begun = Cell::new(false);
        let parts = deserializer.deserialize_map(EnvelopeVisitor { seed: self, begun: &begun });
        parts.map_err(|error| {
            if *begun.get_mut() {
                return error;
            }
            let detail = format!("the value is not a JSON object: {error}");
            refuse(why, Reject::new(RejectCode::NotJson, detail))
        })
    }
}

struct EnvelopeVisitor<'w, 'b> {
    seed: Envelope<'w>,
    begun: &'b Cell<bool>,
}

impl<'de> Visitor<'de> for EnvelopeVisitor<'_, '_> {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with id, vector and metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Parts<'de>, A::Error> {
        self.begun.set(true);
        let Envelope { dimension, why } = self.seed;
        let mut parts = Parts::default();
        let mut seen = [false; 3];
        while let Some(name) = fields.next_key_seed(Text)? {
            let place = match name.as_ref() {
                "id" => 0,
                "vector" => 1,
                "metadata" => 2,
                other => {
                    let other: String = other.chars().take(80).collect();
                    let detail = format!("unknown field {other:?}; allowed: id, vector, metadata");
                    return Err(refuse(why, Reject::new(RejectCode::UnknownField, detail)));
                }
            };
            if std::mem::replace(&mut seen[place], true) {
                let detail = format!("the field {name} stands twice");
                return Err(refuse(why, Reject::new(RejectCode::DuplicateField, detail)));
            }
            match place {
                0 => parts.id = fields.next_value_seed(OptionalText)?,
                1 => parts.vector = Some(fields.next_value_seed(Components { dimension, why })?),
                _ => {
                    let text = fields.next_value::<&RawValue>()?.get();
                    parts.metadata = (text != "null").then_some(text);
                }
            }
        }
        Ok(parts)
    }
}

/// Text, borrowed where it holds no escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Text or null.
struct OptionalText;

impl<'de> DeserializeSeed<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Text.deserialize(deserializer).map(Some)
    }
}

/// The components of a vector. At most `dimension` are kept; further ones are counted, so that the refusal can
/// name both numbers.
struct Components<'w> {
    dimension: usize,
    why: Why<'w>,
}

impl<'de> DeserializeSeed<'de> for Components<'_> {
    type Value = Vec<f32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<f32>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Components<'_> {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<f32>, A::Error> {
        let mut vector = Vec::with_capacity(self.dimension);
        while vector.len() < self.dimension {
            let position = vector.len();
            match items.next_element_seed(Component { position, why: self.why })? {
                Some(component) => vector.push(component),
                None => break,
            }
        }
        let mut got = vector.len();
        while got >= self.dimension && items.next_element::<IgnoredAny>()?.is_some() {
            got += 1;
        }
        if got != self.dimension {
            return Err(refuse(self.why, wrong_dimension(self.dimension, got)));
        }
        Ok(vector)
    }
}

struct Component<'w> {
    position: usize,
    why: Why<'w>,
}

impl<'de> DeserializeSeed<'de> for Component<'_> {
    type Value = f32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f32, D::Error> {
        deserializer.deserialize_f32(self)
    }
}

impl Visitor<'_> for Component<'_> {
    type Value = f32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<f32, E> {
        let component = value as f32;
        if component.is_finite() {
            return Ok(component);
        }
        let detail = format!("component {} of the vector is no finite 32-bit number", self.position);
        Err(refuse(self.why, Reject::new(RejectCode::NotFinite, detail)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<f32, E> {
        Ok(value as f32)
    }

    fn visit_u64<E>(self, value: u64) -> Result<f32, E> {
        Ok(value as f32)
    }
}
