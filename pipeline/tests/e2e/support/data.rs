//! Test records as a producer would write them.

use serde_json::{Value, json};

use super::random::Random;

/// The groups that `records` deals out, for filters.
pub(crate) const GROUPS: [&str; 3] = ["red", "green", "blue"];

/// Records `{prefix}0`, `{prefix}1`, .. with repeatable vectors and metadata.
pub(crate) fn records(random: &mut Random, prefix: &str, count: usize, dimension: usize) -> Vec<Value> {
    (0..count).map(|i| record(random, &format!("{prefix}{i}"), dimension)).collect()
}

/// One record of this id.
pub(crate) fn record(random: &mut Random, id: &str, dimension: usize) -> Value {
    let group = GROUPS[usize::try_from(random.below(3)).unwrap()];
    let metadata = json!({ "group": group, "size": random.below(1000) });
    json!({ "id": id, "vector": random.vector(dimension), "metadata": metadata })
}

/// JSON lines.
pub(crate) fn lines(records: &[Value]) -> String {
    records.iter().map(|r| format!("{r}\n")).collect()
}
