//! The first section: what the other sections mean, as JSON that a person can read too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_core::{Dimension, FieldName, FieldType, GraphBuilder, Metric, Quantization, Schema, VectorType};

/// Longest meta section that is read.
pub(crate) const MAX_META: usize = 1 << 20;

/// What the other sections mean. Unknown keys are skipped, so that later writers may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) rows: u32,
    pub(crate) dimension: Dimension,
    pub(crate) metric: Metric,
    /// How the vectors are coded.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub(crate) vector_type: VectorType,
    pub(crate) fields: BTreeMap<FieldName, FieldType>,
    /// Absent where the segment is scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) graph: Option<GraphMeta>,
    /// Whether there are codes of all components.
    #[serde(default = "no_codes")]
    pub(crate) quantization: Quantization,
    /// Axes along which there are short codes; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) axes: Option<u32>,
    /// The program and version that wrote the file.
    pub(crate) writer: String,
}

/// A file that says nothing of them has these.
fn is_f32(kind: &VectorType) -> bool {
    *kind == VectorType::F32
}

/// A file that says nothing of codes has none.
fn no_codes() -> Quantization {
    Quantization::None
}

/// The shape of the graph and how it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GraphMeta {
    pub(crate) builder: GraphBuilder,
    pub(crate) m: u32,
    pub(crate) ef_construction: u32,
    pub(crate) seed: u64,
    /// Candidates to keep unless a query says otherwise.
    pub(crate) ef: u32,
    /// Neighbours per row of level 0.
    pub(crate) stride0: u32,
    /// Neighbours per node of an upper level.
    pub(crate) stride: u32,
    /// Place of the entry point in the highest level; its row, where there is no upper level.
    pub(crate) entry: u32,
    /// Rows from which a walk over level 0 starts, beside the one that the upper levels lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) seeds: Vec<u32>,
    /// Nodes that a walk keeps on each upper level, all of which lead it on; of one it is greedy.
    #[serde(default = "greedy", skip_serializing_if = "is_greedy")]
    pub(crate) width: u32,
    /// Nodes of level 1, 2, ..
    pub(crate) levels: Vec<u32>,
}

fn greedy() -> u32 {
    1
}

fn is_greedy(width: &u32) -> bool {
    *width == 1
}

impl Meta {
    pub(crate) fn schema(&self) -> Schema {
        Schema {
            dimension: self.dimension,
            metric: self.metric,
            vector_type: self.vector_type,
            fields: self.fields.clone(),
        }
    }
}
