//! SEG-4 through the whole path: exact search over four partitions is brute force, graphs come close.

use std::collections::HashSet;

use serde_json::{Value, json};
use sluice::sample::Sample;

use crate::support::api::Api;
use crate::support::data::lines;
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::world::World;

const DIMENSION: usize = 384;
const QUERIES: usize = 60;
const K: usize = 10;

on_both_set_ups!(seg_4_exact_is_brute_force_and_graphs_reach_recall);

struct Row {
    id: String,
    section: String,
    vector: Vec<f32>,
}

/// The sample of the repository: only data, nothing of it is judged here.
fn sample() -> Vec<Row> {
    let sample = Sample::open().unwrap();
    let rows = sample.rows().map(|(p, vector)| Row { id: p.id.clone(), section: p.section.clone(), vector });
    rows.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

/// The best `k` rows that `keep` lets pass, with their scores, by comparing all.
fn brute_force<'a>(
    rows: &'a [Row],
    query: &[f32],
    k: usize,
    keep: impl Fn(&Row) -> bool,
) -> Vec<(&'a str, f64)> {
    let kept = rows.iter().filter(|r| keep(r));
    let mut scored: Vec<_> = kept.map(|r| (r.id.as_str(), cosine(query, &r.vector))).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.truncate(k);
    scored
}

/// The sample, loaded into small segments with graphs.
async fn loaded(set_up: &SetUp) -> (World, Process, Process) {
    let more = "seal = { max_records = 600, max_age = '1s' }\ngraph = { min_records = 200 }";
    let world = World::new(set_up, "sample", DIMENSION, more);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let record = |r: &Row| json!({ "id": r.id, "vector": r.vector, "metadata": { "group": r.section } });
    let file = world.dir().join("sample.jsonl");
    std::fs::write(&file, lines(&sample().iter().map(record).collect::<Vec<_>>())).unwrap();
    let output = world.run(&["load", &file.display().to_string(), "--index", &world.index]);
    assert!(output.status.success(), "{output:?}");
    world.api(&query).shows(&world.log.ends(&world.index)).await;
    (world, indexer, query)
}

async fn seg_4_exact_is_brute_force_and_graphs_reach_recall(set_up: SetUp) {
    let (world, _indexer, query) = loaded(&set_up).await;
    let api = world.api(&query);
    let rows = sample();
    let partitions = api.get("").await.expect(200)["partitions"].as_array().unwrap().len();
    assert_eq!(partitions, 4);
    let mut random = Random::new(1);
    let mut found = 0;
    for _ in 0..QUERIES {
        let picked = &rows[usize::try_from(random.below(rows.len() as u64)).unwrap()];
        // between two packages, so that the query is no stored vector
        let other = &rows[usize::try_from(random.below(rows.len() as u64)).unwrap()];
        let vector: Vec<f32> = picked.vector.iter().zip(&other.vector).map(|(a, b)| a + b / 2.0).collect();
        let expected = brute_force(&rows, &vector, K, |_| true);
        assert_exact(&api, &json!({ "vector": vector, "k": K, "exact": true }), &expected).await;
        let kept = brute_force(&rows, &vector, K, |r| r.section == picked.section);
        let filtered =
            json!({ "vector": vector, "k": K, "exact": true, "filter": { "group": picked.section } });
        assert_exact(&api, &filtered, &kept).await;
        let wanted: HashSet<_> = expected.iter().map(|(id, _)| *id).collect();
        let approximate = api.ids(&json!({ "vector": vector, "k": K })).await;
        found += approximate.iter().filter(|id| wanted.contains(id.as_str())).count();
    }
    let recall = found as f64 / (QUERIES * K) as f64;
    println!("recall@{K} at the default ef: {recall}");
    assert!(recall >= 0.95, "recall@{K} is {recall}");
    more_like_this(&api, &rows).await;
}

/// The same ids with the same scores; rows of (nearly) equal score may change places.
async fn assert_exact(api: &Api, request: &Value, expected: &[(&str, f64)]) {
    let hits = api.search(request).await;
    assert_eq!(hits.len(), expected.len());
    for (hit, (_, score)) in hits.iter().zip(expected) {
        assert!((hit["score"].as_f64().unwrap() - score).abs() < 1e-5, "{hit} where brute force has {score}");
    }
    let last = expected.last().map_or(1.0, |(_, score)| *score);
    for (id, _) in expected.iter().filter(|(_, score)| *score > last + 1e-5) {
        assert!(hits.iter().any(|hit| hit["id"] == *id), "{id} is missing");
    }
}

/// A search by id is a search by that record's vector, without the record.
async fn more_like_this(api: &Api, rows: &[Row]) {
    let nginx = rows.iter().find(|r| r.id == "nginx").unwrap();
    let expected = brute_force(rows, &nginx.vector, K, |r| r.id != "nginx");
    assert_exact(api, &json!({ "id": "nginx", "k": K, "exact": true }), &expected).await;
}
