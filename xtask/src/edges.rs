//! Which crate may depend on which: the table of the architecture, compared with `cargo metadata`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, output};

/// Each crate of the workspace and the crates of the workspace that it may name. Data flows one way; only the
/// composition root and the benchmark see everything.
const INSIDE: &[(&str, &[&str])] = &[
    ("sluice-core", &[]),
    ("sluice-segment", &["sluice-core"]),
    ("sluice-connectors", &["sluice-core"]),
    ("sluice-indexer", &["sluice-core", "sluice-segment"]),
    ("sluice-snapshotter", &["sluice-core", "sluice-segment"]),
    ("sluice-query-svc", &["sluice-core", "sluice-segment", "sluice-snapshotter", "sluice-connectors"]),
    (
        "sluice",
        &[
            "sluice-core",
            "sluice-segment",
            "sluice-connectors",
            "sluice-indexer",
            "sluice-snapshotter",
            "sluice-query-svc",
        ],
    ),
    (
        "sluice-bench",
        &[
            "sluice-core",
            "sluice-segment",
            "sluice-connectors",
            "sluice-indexer",
            "sluice-snapshotter",
            "sluice-query-svc",
            "sluice",
        ],
    ),
    ("xtask", &[]),
];

/// Crates from outside that stand behind one of ours: who may name them. The first list is of ordinary
/// dependencies; the second of those that only tests have (an oracle reads the log by itself).
const OUTSIDE: &[(&str, &[&str], &[&str])] = &[
    ("rdkafka", &["sluice-connectors"], &["sluice"]),
    ("rusqlite", &["sluice-connectors"], &["sluice"]),
    ("object_store", &["sluice-snapshotter"], &[]),
    ("axum", &["sluice-query-svc", "sluice"], &[]),
    ("hnsw_rs", &["sluice-segment", "sluice-bench"], &[]),
];

/// The segment crate is pure and synchronous: neither a runtime nor the network is in its reach.
const PURE: (&str, &[&str]) = ("sluice-segment", &["tokio", "tokio-util", "futures", "hyper", "reqwest"]);

/// One crate of the workspace: its name and what it names, with the kind (`None` ordinary, `dev`, `build`).
struct Crate {
    name: String,
    dependencies: Vec<(String, Option<String>)>,
}

fn workspace() -> Result<Vec<Crate>> {
    let text = output(cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let string = |v: &Value| v.as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let crates = packages.iter().map(|package| {
        let listed = package["dependencies"].as_array().into_iter().flatten();
        let dependencies = listed.filter_map(|d| Some((string(&d["name"])?, string(&d["kind"])))).collect();
        Some(Crate { name: string(&package["name"])?, dependencies })
    });
    crates.collect::<Option<_>>().context("a package has no name")
}

/// Every edge of `crates` that the tables do not allow.
fn violations(crates: &[Crate]) -> Vec<String> {
    let inside: BTreeMap<_, _> = INSIDE.iter().copied().collect();
    let mut found = Vec::new();
    for Crate { name, dependencies } in crates {
        let Some(allowed) = inside.get(name.as_str()) else {
            found.push(format!("{name} is not in the table of crates"));
            continue;
        };
        for (dependency, kind) in dependencies {
            let dependency = dependency.as_str();
            let is_inside = inside.contains_key(dependency);
            if is_inside && dependency != name && !allowed.contains(&dependency) {
                found.push(format!("{name} -> {dependency}"));
            }
            if let Some((_, ordinary, tests)) = OUTSIDE.iter().find(|(outside, ..)| *outside == dependency) {
                let in_tests = kind.as_deref() == Some("dev") && tests.contains(&name.as_str());
                if !ordinary.contains(&name.as_str()) && !in_tests {
                    found.push(format!("{name} -> {dependency} (only {} may)", ordinary.join(", ")));
                }
            }
            if name == PURE.0 && kind.is_none() && PURE.1.contains(&dependency) {
                found.push(format!("{name} -> {dependency} (that crate is pure and synchronous)"));
            }
        }
    }
    found
}

pub(crate) fn check() -> Result<()> {
    let found = violations(&workspace()?);
    if found.is_empty() { Ok(()) } else { bail!("edges that are not allowed:\n    {}", found.join("\n    ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, dependency: &str, kind: Option<&str>) -> Vec<String> {
        let dependencies = vec![(dependency.to_owned(), kind.map(str::to_owned))];
        violations(&[Crate { name: name.to_owned(), dependencies }])
    }

    #[test]
    fn an_arrow_against_the_flow_is_found() {
        assert_eq!(one("sluice-indexer", "sluice-connectors", None), ["sluice-indexer -> sluice-connectors"]);
        assert_eq!(one("sluice-indexer", "sluice-segment", None), [""; 0]);
    }

    #[test]
    fn kafka_stays_behind_its_crate_except_in_the_oracle_of_the_tests() {
        assert_eq!(one("sluice-query-svc", "rdkafka", None).len(), 1);
        assert_eq!(one("sluice", "rdkafka", None).len(), 1);
        assert_eq!(one("sluice", "rdkafka", Some("dev")).len(), 0);
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_found() {
        assert_eq!(one("sluice-other", "serde", None), ["sluice-other is not in the table of crates"]);
    }

    #[test]
    fn the_segment_crate_stays_synchronous() {
        assert_eq!(one("sluice-segment", "tokio", None).len(), 1);
    }
}
