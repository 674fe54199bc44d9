//! What an index demands of a record: dimension, metric, and the typed, filterable fields of its metadata.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{Dimension, Metadata, Metric, Timestamp, Vector, VectorError, VectorType};

/// Most filterable fields of an index.
pub const MAX_FIELDS: usize = 64;

/// The name of a filterable field: a top-level key of the metadata, 1 to 128 bytes, not starting with `$`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FieldName(Box<str>);

impl FieldName {
    /// # Errors
    /// A text that says the rule.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 128 || text.starts_with('$') {
            let text: String = text.chars().take(80).collect();
            return Err(format!("field name {text:?} is not 1 to 128 bytes without a leading $"));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for FieldName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The type of a filterable field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Text compared as a whole.
    Keyword,
    /// A signed 64-bit integer.
    Integer,
    /// A finite 64-bit float; integers are read too.
    Float,
    Boolean,
    /// RFC 3339 text, or milliseconds since the Unix epoch as an integer.
    Timestamp,
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyword => "keyword",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        })
    }
}

/// One value of a filterable field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    Keyword(Box<str>),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Timestamp(Timestamp),
}

impl FieldType {
    /// Reads one JSON value as this type; `None` when it is of another type.
    pub fn read(self, value: &Value) -> Option<FieldValue> {
        match self {
            Self::Keyword => value.as_str().map(|s| FieldValue::Keyword(s.into())),
            Self::Integer => value.as_i64().map(FieldValue::Integer),
            Self::Float => value.as_f64().filter(|f| f.is_finite()).map(FieldValue::Float),
            Self::Boolean => value.as_bool().map(FieldValue::Boolean),
            Self::Timestamp => match value {
                Value::String(text) => Timestamp::parse_rfc3339(text),
                _ => value.as_i64().map(Timestamp),
            }
            .map(FieldValue::Timestamp),
        }
    }
}

/// The values of the declared fields of one record, in the order of [`Schema::fields`]; a field may have none
/// (absent or null) or several (a JSON array).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldValues(pub Box<[Box<[FieldValue]>]>);

/// Why a record's metadata does not fit the declared fields.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("metadata field {field} is not of type {expected}")]
pub struct FieldError {
    pub field: FieldName,
    pub expected: FieldType,
}

/// What an index demands of its records and queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub dimension: Dimension,
    pub metric: Metric,
    /// How stored vectors are kept.
    #[serde(default)]
    pub vector_type: VectorType,
    /// Declared fields, ordered by name.
    pub fields: BTreeMap<FieldName, FieldType>,
}

impl Schema {
    /// Of vectors that are kept as they are sent.
    pub fn new(dimension: Dimension, metric: Metric, fields: BTreeMap<FieldName, FieldType>) -> Self {
        Self { dimension, metric, vector_type: VectorType::default(), fields }
    }

    /// Checks `components` as the vector of a record; they stay as they are until they are kept.
    ///
    /// # Errors
    /// The first rule that they break, now or when they are kept.
    pub fn vector(&self, components: Vec<f32>) -> Result<Vector, VectorError> {
        let vector = Vector::try_new(components, self.dimension, self.metric)?;
        vector.check_kept_as(self.vector_type, self.metric)?;
        Ok(vector)
    }

    /// Reads the declared fields out of `metadata`.
    ///
    /// # Errors
    /// The first declared field whose value, or an element of its array, is of another type.
    pub fn field_values(&self, metadata: &Metadata) -> Result<FieldValues, FieldError> {
        if self.fields.is_empty() {
            return Ok(FieldValues::default());
        }
        let object: serde_json::Map<String, Value> =
            serde_json::from_str(metadata.as_str()).unwrap_or_default();
        let values = self.fields.iter().map(|(name, kind)| {
            let wrong = || FieldError { field: name.clone(), expected: *kind };
            match object.get(name.as_str()) {
                None | Some(Value::Null) => Ok(Box::default()),
                Some(Value::Array(items)) => items.iter().map(|v| kind.read(v).ok_or_else(wrong)).collect(),
                Some(value) => Ok([kind.read(value).ok_or_else(wrong)?].into()),
            }
        });
        Ok(FieldValues(values.collect::<Result<_, _>>()?))
    }

    /// The place of a declared field in [`FieldValues`], and its type.
    pub fn field(&self, name: &str) -> Option<(usize, FieldType)> {
        self.fields.iter().position(|(n, _)| n.as_str() == name).map(|i| (i, self.fields[name]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let fields =
            [("at", FieldType::Timestamp), ("size", FieldType::Integer), ("tag", FieldType::Keyword)];
        let fields = fields.map(|(n, t)| (FieldName::new(n).unwrap(), t)).into();
        Schema::new(Dimension::new(2).unwrap(), Metric::L2, fields)
    }

    fn values(text: &str) -> Result<FieldValues, FieldError> {
        schema().field_values(&Metadata::parse(text, 1000).unwrap())
    }

    #[test]
    fn fields_come_in_the_order_of_their_names_with_none_one_or_several_values() {
        let got = values(r#"{"tag":["a","b"],"size":null,"at":"1970-01-01T00:00:01Z","other":{}}"#).unwrap();
        let tags = ["a", "b"].map(|t| FieldValue::Keyword(t.into()));
        assert_eq!(got.0[0].as_ref(), &[FieldValue::Timestamp(Timestamp(1000))]);
        assert!(got.0[1].is_empty());
        assert_eq!(got.0[2].as_ref(), &tags);
    }

    #[test]
    fn a_value_of_another_type_names_the_field() {
        let error = values(r#"{"size":"big"}"#).unwrap_err();
        assert_eq!(error.to_string(), "metadata field size is not of type integer");
        assert!(values(r#"{"size":1.5}"#).is_err());
        assert!(values(r#"{"tag":["a",1]}"#).is_err());
    }
}
