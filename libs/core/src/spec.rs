//! The index spec: what a user declares about an index, in a file (TOML) or over HTTP (JSON), the same fields.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::schema::MAX_FIELDS;
use crate::{Dimension, FieldName, FieldType, IndexName, Metric, Schema, TopicName, VectorType};

/// Most partitions of an index.
pub const MAX_PARTITIONS: u32 = 1024;

/// How a message's value is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By `content-type` header, else by the first byte.
    #[default]
    Auto,
    Protobuf,
    Json,
    Debezium,
}

/// How vectors are coded for traversal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// Full 32-bit floats.
    None,
    /// Eight-bit codes beside them, where they tell records apart.
    #[default]
    Sq8,
}

/// Which builder makes a segment's graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphBuilder {
    /// Incremental insertion by the hnsw_rs crate, frozen to flat arrays.
    HnswRs,
    /// All at once, by overlapping partitions.
    #[default]
    Bulk,
}

/// How graphs are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GraphSpec {
    pub builder: GraphBuilder,
    /// Edges per node above level 0; level 0 holds twice as many. 4 to 64.
    pub m: u32,
    /// How much work is done for a good graph: hnsw_rs keeps so many candidates while it links a node, the bulk
    /// builder compares each node with those of about 2 x ef_construction x 7 / 200 neighbourhoods. 16 to 2,000.
    pub ef_construction: u32,
    /// Candidates kept while searching, unless a request says otherwise. 10 to 10,000.
    pub ef: u32,
    /// A segment of fewer records has no graph and is scanned.
    pub min_records: u32,
}

impl Default for GraphSpec {
    fn default() -> Self {
        Self { builder: GraphBuilder::default(), m: 16, ef_construction: 200, ef: 64, min_records: 8192 }
    }
}

/// When the growing set becomes a segment: whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealSpec {
    pub max_records: u32,
    #[serde(with = "crate::size")]
    pub max_bytes: ByteSize,
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for SealSpec {
    fn default() -> Self {
        Self { max_records: 50_000, max_bytes: ByteSize::mib(64), max_age: Duration::from_secs(10) }
    }
}

/// When segments become one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MergeSpec {
    /// Segments of similar size that a partition may hold before they are merged. 2 to 64.
    pub max_similar: u32,
    /// A segment of more bytes is not merged any further.
    #[serde(with = "crate::size")]
    pub max_bytes: ByteSize,
    /// Share of dead records, in percent, at which a segment is rewritten. 1 to 100.
    pub max_dead_percent: u32,
}

impl Default for MergeSpec {
    fn default() -> Self {
        Self { max_similar: 4, max_bytes: ByteSize::gib(4), max_dead_percent: 30 }
    }
}

/// Which columns of a captured row become key, vector and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pub key: Vec<String>,
    pub vector: String,
    #[serde(default)]
    pub metadata: Vec<String>,
}

fn default_partitions() -> u32 {
    4
}

/// What a user declares about an index. [`IndexSpec::validate`] has passed on every spec that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSpec {
    pub name: IndexName,
    /// Topic to read; the index's name unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    /// Partitions of the topic where it has to be created, else what the log says.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    #[serde(default)]
    pub format: Format,
    pub dimension: Dimension,
    #[serde(default)]
    pub metric: Metric,
    /// How stored vectors are kept.
    #[serde(default)]
    pub vector_type: VectorType,
    #[serde(default)]
    pub quantization: Quantization,
    /// Filterable fields of the metadata.
    #[serde(default)]
    pub fields: BTreeMap<FieldName, FieldType>,
    #[serde(default)]
    pub graph: GraphSpec,
    #[serde(default)]
    pub seal: SealSpec,
    #[serde(default)]
    pub merge: MergeSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,
}

/// A value of a spec that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {message}")]
pub struct SpecError {
    /// The key, as a user wrote it.
    pub key: &'static str,
    pub message: String,
}

/// One key in which two specs of the same index differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpecDifference {
    pub key: &'static str,
    pub stored: serde_json::Value,
    pub given: serde_json::Value,
    /// Whether the key may change in place; else the index has to be rebuilt.
    pub in_place: bool,
}

impl fmt::Display for SpecDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: stored {}, given {}", self.key, self.stored, self.given)?;
        if self.in_place { Ok(()) } else { f.write_str(" (needs a rebuild)") }
    }
}

impl IndexSpec {
    /// The topic that this index reads.
    pub fn topic(&self) -> TopicName {
        match &self.topic {
            Some(topic) => topic.clone(),
            // every index name is a topic name
            None => TopicName::new(self.name.as_str()).unwrap_or_else(|e| unreachable!("{e}")),
        }
    }

    pub fn schema(&self) -> Schema {
        Schema {
            dimension: self.dimension,
            metric: self.metric,
            vector_type: self.vector_type,
            fields: self.fields.clone(),
        }
    }

    /// Checks every value that its type alone does not bound.
    ///
    /// # Errors
    /// The first key that is out of range, with the allowed values.
    pub fn validate(&self) -> Result<(), SpecError> {
        let range = |key, value: u64, min: u64, max: u64| {
            let message = format!("{value} is outside {min} to {max}");
            if (min..=max).contains(&value) { Ok(()) } else { Err(SpecError { key, message }) }
        };
        range("partitions", self.partitions.into(), 1, MAX_PARTITIONS.into())?;
        range("fields", self.fields.len() as u64, 0, MAX_FIELDS as u64)?;
        range("graph.m", self.graph.m.into(), 4, 64)?;
        range("graph.ef_construction", self.graph.ef_construction.into(), 16, 2000)?;
        range("graph.ef", self.graph.ef.into(), 10, 10_000)?;
        range("seal.max_records", self.seal.max_records.into(), 1, 10_000_000)?;
        range("seal.max_bytes", self.seal.max_bytes.as_u64(), 64 << 10, 16 << 30)?;
        let age = u64::try_from(self.seal.max_age.as_millis()).unwrap_or(u64::MAX);
        range("seal.max_age (ms)", age, 10, 86_400_000)?;
        range("merge.max_similar", self.merge.max_similar.into(), 2, 64)?;
        range("merge.max_dead_percent", self.merge.max_dead_percent.into(), 1, 100)?;
        let unsupported = |key, message: &str| Err(SpecError { key, message: message.into() });
        if self.format == Format::Debezium || self.mapping.is_some() {
            return unsupported(
                "format",
                "debezium is not supported by this version; allowed: auto, protobuf, json",
            );
        }
        Ok(())
    }

    /// The keys in which `given` differs from `self`, the stored spec. A topic left out means the index's name;
    /// `partitions` is compared only when the log did not already decide it.
    pub fn differences(&self, given: &Self) -> Vec<SpecDifference> {
        let mut found = Vec::new();
        let mut compare = |key, stored: serde_json::Value, given: serde_json::Value, in_place| {
            if stored != given {
                found.push(SpecDifference { key, stored, given, in_place });
            }
        };
        fn json<T: Serialize>(value: &T) -> serde_json::Value {
            serde_json::to_value(value).unwrap_or_default()
        }
        compare("topic", json(&self.topic()), json(&given.topic()), false);
        compare("partitions", json(&self.partitions), json(&given.partitions), false);
        compare("dimension", json(&self.dimension), json(&given.dimension), false);
        compare("metric", json(&self.metric), json(&given.metric), false);
        compare("vector_type", json(&self.vector_type), json(&given.vector_type), false);
        compare("fields", json(&self.fields), json(&given.fields), false);
        compare("mapping", json(&self.mapping), json(&given.mapping), false);
        compare("quantization", json(&self.quantization), json(&given.quantization), true);
        compare("format", json(&self.format), json(&given.format), true);
        compare("graph", json(&self.graph), json(&given.graph), true);
        compare("seal", json(&self.seal), json(&given.seal), true);
        compare("merge", json(&self.merge), json(&given.merge), true);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<IndexSpec, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_short_spec_takes_the_defaults() {
        let spec = spec("name = 'packages'\ndimension = 384").unwrap();
        assert_eq!(spec.topic().as_str(), "packages");
        assert_eq!(spec.partitions, 4);
        assert_eq!(spec.metric, Metric::Cosine);
        assert_eq!(spec.validate(), Ok(()));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        assert!(
            spec("name = 'a'\ndimension = 2\ndimensions = 3").unwrap_err().message().contains("dimensions")
        );
        assert!(spec("name = 'a'\ndimension = 1").unwrap_err().message().contains("outside 2 to 4096"));
        assert!(spec("name = 'a'\ndimension = 2\nmetric = 'cos'").unwrap_err().message().contains("cosine"));
        let mut bad = spec("name = 'a'\ndimension = 2").unwrap();
        bad.graph.m = 1000;
        assert_eq!(bad.validate().unwrap_err().to_string(), "graph.m: 1000 is outside 4 to 64");
    }

    #[test]
    fn differences_say_what_needs_a_rebuild() {
        let stored = spec("name = 'a'\ndimension = 2").unwrap();
        let given = spec("name = 'a'\ndimension = 3\ntopic = 'a'\nseal = { max_age = '1s' }").unwrap();
        let found: Vec<_> = stored.differences(&given).into_iter().map(|d| (d.key, d.in_place)).collect();
        assert_eq!(found, [("dimension", false), ("seal", true)]);
    }

    #[test]
    fn a_spec_survives_json() {
        let spec = spec("name = 'a'\ndimension = 2\nseal = { max_bytes = '1MiB' }").unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<IndexSpec>(&json).unwrap(), spec);
    }
}
