//! Searches over several partitions and segments against brute force over the fold of all changes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Change, Hand, Numbers, World, delete, flat, rounds, upsert};
use serde_json::{Value, json};
use sluice_connectors::partitioner::partition_of;
use sluice_query_svc::Limits;

const DIMENSION: usize = 8;

/// What the changes amount to: the oracle.
#[derive(Default)]
struct Fold(BTreeMap<String, (Vec<f32>, Value)>);

impl Fold {
    fn apply(&mut self, change: &Change) {
        match &change.value {
            Some(value) => drop(self.0.insert(change.key.clone(), value.clone())),
            None => drop(self.0.remove(&change.key)),
        }
    }

    /// Keys by their cosine with `query`, best first.
    fn nearest(&self, query: &[f32], k: usize, keep: impl Fn(&Value) -> bool) -> Vec<(String, f64)> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        let score = |v: &[f32]| dot(v, query) / (dot(v, v) * dot(query, query)).sqrt();
        let live = self.0.iter().filter(|(_, (_, metadata))| keep(metadata));
        let mut all: Vec<_> = live.map(|(key, (vector, _))| (key.clone(), score(vector))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(k);
        all
    }
}

/// The same scores in the same order; equal keys too, save where scores are equal.
fn assert_same(hits: &Value, expected: &[(String, f64)]) {
    let hits = hits["hits"].as_array().unwrap();
    assert_eq!(hits.len(), expected.len(), "{hits:?}");
    for (hit, (key, score)) in hits.iter().zip(expected) {
        let found = hit["score"].as_f64().unwrap();
        assert!((found - score).abs() < 1e-5, "{hit} {key} {score}");
        let tied = expected.iter().filter(|(_, s)| (s - score).abs() < 1e-5).count() > 1;
        assert!(tied || hit["id"] == key.as_str(), "{hit} {key}");
    }
}

fn random_change(numbers: &mut Numbers, keys: u64) -> Change {
    let key = format!("key-{}", numbers.integer(keys));
    if numbers.integer(8) == 0 {
        return delete(key);
    }
    let color = ["red", "green", "blue"][numbers.integer(3) as usize];
    let metadata = json!({"color": color, "size": numbers.integer(100)});
    upsert(key, &numbers.vector(DIMENSION), metadata)
}

/// An index of 4 partitions, each of several snapshots with overwrites and deletes, and what they fold to.
async fn populated(world: &World) -> (Vec<Hand>, Fold) {
    let spec = world
        .index(json!({
            "name": "packages", "dimension": DIMENSION, "partitions": 4,
            "fields": {"color": "keyword", "size": "integer"},
        }))
        .await;
    let mut hands = Vec::new();
    for partition in 0..4 {
        hands.push(world.claim(&spec, partition).await);
    }
    let (mut fold, mut numbers) = (Fold::default(), Numbers(42));
    for _ in 0..6 {
        let mut changes: Vec<Vec<Change>> = (0..4).map(|_| Vec::new()).collect();
        for _ in 0..200 {
            let change = random_change(&mut numbers, 300);
            fold.apply(&change);
            changes[partition_of(change.key.as_bytes(), 4).get() as usize].push(change);
        }
        for (hand, changes) in hands.iter_mut().zip(changes) {
            hand.publish(changes).await;
        }
    }
    (hands, fold)
}

#[tokio::test(flavor = "multi_thread")]
async fn qry_3_exact_search_over_4_partitions_equals_brute_force_over_the_fold() {
    let world = World::new();
    let (_hands, fold) = populated(&world).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("packages", &[7, 7, 7, 7]).await;
    let mut numbers = Numbers(7);
    for k in [1, 10, 100, 1000] {
        for _ in 0..10 {
            let query = numbers.vector(DIMENSION);
            let body = json!({"vector": query, "k": k, "exact": true});
            assert_same(&service.search("packages", body).await.ok(), &fold.nearest(&query, k, |_| true));

            let filter = json!({"color": "red", "size": {"$lt": 30}});
            let keep = |m: &Value| m["color"] == "red" && m["size"].as_i64().unwrap() < 30;
            let body = json!({"vector": query, "k": k, "filter": filter});
            assert_same(&service.search("packages", body).await.ok(), &fold.nearest(&query, k, keep));
        }
    }
    let all = fold.0.len() as u64;
    assert_eq!(service.count("packages", json!({})).await, all);
    let red = fold.0.values().filter(|(_, m)| m["color"] == "red").count() as u64;
    assert_eq!(service.count("packages", json!({"filter": {"color": "red"}})).await, red);
    service.stop().await.unwrap();
}

/// Two partitions of eight segments with graphs, in which every key was written over and over, and their fold.
async fn overwritten(world: &World, seed: u64) -> (Vec<Hand>, Fold) {
    let spec = world
        .index(json!({
            "name": "packages", "dimension": DIMENSION, "partitions": 2, "graph": {"min_records": 20},
            "fields": {"color": "keyword", "size": "integer"},
        }))
        .await;
    let mut hands = vec![world.claim(&spec, 0).await, world.claim(&spec, 1).await];
    let (mut fold, mut numbers) = (Fold::default(), Numbers(seed * 2 + 1));
    for _ in 0..8 {
        let mut changes: Vec<Vec<Change>> = vec![Vec::new(), Vec::new()];
        for _ in 0..300 {
            // some keys are written far more often than others
            let keys = 1 + numbers.integer(160);
            let change = random_change(&mut numbers, keys);
            fold.apply(&change);
            changes[partition_of(change.key.as_bytes(), 2).get() as usize].push(change);
        }
        for (hand, changes) in hands.iter_mut().zip(changes) {
            hand.publish(changes).await;
        }
    }
    (hands, fold)
}

/// What a filter means, said of metadata.
type Meaning = Box<dyn Fn(&Value) -> bool>;

/// A filter and what it means.
fn random_filter(numbers: &mut Numbers) -> (Value, Meaning) {
    let color = ["red", "green", "blue", "none"][numbers.integer(4) as usize];
    let size = numbers.integer(100) as i64;
    let below = move |m: &Value| m["size"].as_i64().unwrap() < size;
    match numbers.integer(5) {
        0 => (json!({}), Box::new(|_| true)),
        1 => (json!({"color": color}), Box::new(move |m| m["color"] == color)),
        2 => (json!({"size": {"$lt": size}}), Box::new(below)),
        3 => (json!({"size": size}), Box::new(move |m| m["size"] == size)),
        _ => (
            json!({"color": {"$ne": color}, "size": {"$lt": size}}),
            Box::new(move |m| m["color"] != color && below(m)),
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qry_3_under_heavy_overwrite_all_hits_are_live_matches_and_k_when_k_exist() {
    let (mut searches, mut full) = (0, 0);
    for seed in 0..rounds(4) {
        let world = World::new();
        let (_hands, fold) = overwritten(&world, seed).await;
        let service = world.serve(Limits::default(), None).await;
        service.serves("packages", &[9, 9]).await;
        let mut numbers = Numbers(seed * 2 + 2);
        for _ in 0..60 {
            let query = numbers.vector(DIMENSION);
            let k = [1, 2, 5, 20, 100, 1000][numbers.integer(6) as usize];
            let (filter, keep) = random_filter(&mut numbers);
            let matching = fold.nearest(&query, usize::MAX, keep);
            let expected = &matching[..k.min(matching.len())];
            let body = json!({"vector": query, "k": k, "filter": filter, "exact": true});
            assert_same(&service.search("packages", body).await.ok(), expected);
            let scores: BTreeMap<_, _> = matching.iter().map(|(key, score)| (key.as_str(), *score)).collect();
            let body = json!({"vector": query, "k": k, "filter": filter});
            let found = service.search("packages", body).await.ok();
            let hits = found["hits"].as_array().unwrap();
            assert_eq!(hits.len(), expected.len(), "{filter}");
            let mut last = f64::INFINITY;
            for hit in hits {
                let (id, score) = (hit["id"].as_str().unwrap(), hit["score"].as_f64().unwrap());
                assert!(
                    scores.get(id).is_some_and(|live| (live - score).abs() < 1e-5),
                    "{hit} is no live match"
                );
                assert_eq!(hit["metadata"], fold.0[id].1, "{id} is superseded");
                assert!(score <= last, "{found}");
                last = score;
            }
            let distinct: BTreeSet<_> = hits.iter().map(|h| h["id"].as_str()).collect();
            assert_eq!(distinct.len(), hits.len());
            searches += 2;
            full += u32::from(hits.len() == k);
        }
        service.stop().await.unwrap();
    }
    println!("{searches} searches, {full} of them with more matches than k");
    assert!(full > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fold_1_a_listing_holds_every_live_record_once() {
    let world = World::new();
    let (_hands, fold) = populated(&world).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("packages", &[7, 7, 7, 7]).await;
    for limit in [1, 7, 1000] {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let path = format!("/v1/indexes/packages/records?limit={limit}&include=vector{next}");
            let page = service.get(&path).await.ok();
            let records = page["records"].as_array().unwrap();
            assert!(records.len() <= limit);
            for record in records {
                let key = record["id"].as_str().unwrap().to_owned();
                assert_eq!(record["partition"], partition_of(key.as_bytes(), 4).get());
                let vector: Vec<f32> = serde_json::from_value(record["vector"].clone()).unwrap();
                assert!(found.insert(key, (vector, record["metadata"].clone())).is_none());
            }
            match page["cursor"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(found, fold.0, "{limit}");
    }
    for (key, (vector, metadata)) in fold.0.iter().take(20) {
        let record = service.get(&format!("/v1/indexes/packages/records/{key}")).await.ok();
        assert_eq!(record["metadata"], *metadata);
        assert_eq!(serde_json::from_value::<Vec<f32>>(record["vector"].clone()).unwrap(), *vector);
    }
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qry_3_a_key_that_is_live_in_two_partitions_is_returned_once_and_replaced_up_to_k() {
    let world = World::new();
    let spec = world.index(flat("mixed", 2)).await;
    let (mut first, mut second) = (world.claim(&spec, 0).await, world.claim(&spec, 1).await);
    // all keys stand in partition 0; ten of them, the nearest ones, in partition 1 as well, newer and far away
    let near =
        (0..30).map(|i| upsert(format!("key-{i:02}"), &[i as f32, 0.0], json!({"color": "old"})).at(10));
    first.publish(near.collect()).await;
    let far = (0..10)
        .map(|i| upsert(format!("key-{i:02}"), &[1000.0 + i as f32, 0.0], json!({"color": "new"})).at(20));
    second.publish(far.collect()).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("mixed", &[2, 2]).await;

    let found = service.search("mixed", json!({"vector": [0.0, 0.0], "k": 5})).await;
    assert_eq!(found.ids(), ["key-10", "key-11", "key-12", "key-13", "key-14"]);
    let found = service.search("mixed", json!({"vector": [0.0, 0.0], "k": 30})).await;
    assert_eq!(found.ids().len(), 30);
    assert_eq!(found.ids()[20], "key-00");
    // a filter that only the older versions match brings none of them back
    let found =
        service.search("mixed", json!({"vector": [0.0, 0.0], "k": 30, "filter": {"color": "old"}})).await;
    assert_eq!(found.ids().len(), 20);
    assert_eq!(service.count("mixed", json!({})).await, 30);
    assert_eq!(service.count("mixed", json!({"filter": {"color": "old"}})).await, 20);
    let record = service.get("/v1/indexes/mixed/records/key-03").await.ok();
    assert_eq!((record["partition"].as_u64(), &record["metadata"]["color"]), (Some(1), &json!("new")));
    let listed = service.get("/v1/indexes/mixed/records").await.ok();
    assert_eq!(listed["records"].as_array().unwrap().len(), 30);
    let conflicts = service.get("/metrics").await.text;
    assert!(conflicts.contains("sluice_key_conflicts_total{index=\"mixed\"}"), "{conflicts}");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_id_leaves_the_record_itself_out() {
    let world = World::new();
    let spec = world.index(flat("pairs", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    let rows = (0..4).map(|i| upsert(format!("r{i}"), &[i as f32, 0.0], json!({})));
    hand.publish(rows.collect()).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("pairs", &[2]).await;
    let found = service.search("pairs", json!({"id": "r1", "k": 10})).await;
    assert_eq!(found.ids(), ["r0", "r2", "r3"]);
    assert_eq!(service.search("pairs", json!({"id": "r0", "k": 1})).await.ids(), ["r1"]);
    service.search("pairs", json!({"id": "gone"})).await.problem(404, "record_not_found");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_and_includes_are_kept() {
    let world = World::new();
    let spec = world.index(flat("near", 2)).await;
    let mut hand = world.claim(&spec, 0).await;
    let rows = (0..4).map(|i| upsert(format!("r{i}"), &[i as f32, 0.0], json!({"n": i})));
    hand.publish(rows.collect()).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("near", &[2, 0]).await;
    let body = json!({"vector": [0, 0], "max_distance": 1.5, "include": ["vector"]});
    let found = service.search("near", body).await.ok();
    assert_eq!(
        found["hits"],
        json!([
            {"id": "r0", "score": 0.0, "vector": [0.0, 0.0]},
            {"id": "r1", "score": 1.0, "vector": [1.0, 0.0]},
        ])
    );
    let found = service.search("near", json!({"vector": [0, 0], "k": 1})).await.ok();
    assert_eq!(found["hits"], json!([{"id": "r0", "score": 0.0, "metadata": {"n": 0}}]));
    assert_eq!(
        found["partitions"],
        json!([
            {"partition": 0, "status": "ok", "generation": 1, "manifest": 2, "next_offset": 4, "visible_offset": 4},
            {"partition": 1, "status": "ok", "generation": 1, "manifest": 0, "next_offset": 0, "visible_offset": 0},
        ])
    );
    assert!(found["took_ms"].as_f64().unwrap() > 0.0);
    let found = service.search("near", json!({"vector": [0, 0], "k": 1, "include": []})).await.ok();
    assert_eq!(found["hits"], json!([{"id": "r0", "score": 0.0}]));
    service.stop().await.unwrap();
}
