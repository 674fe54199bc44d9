//! Overwrites and deletes: one version of a key is served, the newest, and a deleted one is gone everywhere.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::{record, records};
use crate::support::fold::{assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::world::World;

const DIMENSION: usize = 16;
/// Every publish is sealed by itself, so that older versions stand in other segments.
const QUICK: &str = "seal = { max_age = '50ms' }";

on_both_set_ups!(overwrite, delete_and_null, many_versions_of_few_keys);

async fn overwrite(set_up: SetUp) {
    let world = World::new(&set_up, "overwrite", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    let mut old = records(&mut random, "r", 100, DIMENSION);
    old[7]["metadata"] = json!({ "group": "old", "size": 1 });
    api.publish(&old).await;
    api.shows(&world.log.ends(&world.index)).await;
    let mut new = record(&mut random, "r7", DIMENSION);
    new["metadata"] = json!({ "group": "new", "size": 2 });
    let place = api.publish(std::slice::from_ref(&new)).await[0];
    api.shows_place(place).await;

    let hits = api.search(&json!({ "vector": new["vector"], "k": 1 })).await;
    assert_eq!((&hits[0]["id"], &hits[0]["metadata"]), (&json!("r7"), &new["metadata"]));
    let hits = api.search(&json!({ "vector": old[7]["vector"], "k": 1, "include": ["vector"] })).await;
    assert!(hits[0]["score"].as_f64().unwrap() < 0.999, "the old vector is still found: {}", hits[0]);
    assert_eq!(count(&api, &json!({ "group": "old" })).await, 0);
    assert_eq!(count(&api, &json!({ "group": "new" })).await, 1);
    assert_eq!(count(&api, &json!({})).await, 100);
    let got = api.get("/records/r7").await.expect(200);
    let floats = |v: &Value| serde_json::from_value::<Vec<f32>>(v.clone()).unwrap();
    assert_eq!(floats(&got["vector"]), floats(&new["vector"]));
    assert_eq!(got["offset"], place.offset);
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn count(api: &Api, filter: &Value) -> u64 {
    let request = if filter == &json!({}) { json!({}) } else { json!({ "filter": filter }) };
    api.post("/count", &request).await.expect(200)["count"].as_u64().unwrap()
}

async fn delete_and_null(set_up: SetUp) {
    let world = World::new(&set_up, "delete", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let published = records(&mut Random::new(2), "r", 100, DIMENSION);
    let places = api.publish(&published).await;
    api.shows(&world.log.ends(&world.index)).await;

    api.remove("r1").await;
    world.log.write(&world.index, places[2].partition, Some(b"r2"), None);
    api.shows(&world.log.ends(&world.index)).await;
    for gone in [1, 2] {
        let answer = api.get(&format!("/records/r{gone}")).await;
        assert_eq!(answer.problem(404), "record_not_found");
        let ids = api.ids(&json!({ "vector": published[gone]["vector"], "k": 100 })).await;
        assert_eq!(ids.len(), 98, "k live records are returned when k exist");
        assert!(!ids.contains(&format!("r{gone}")));
    }
    assert_eq!(count(&api, &json!({})).await, 98);

    // a key that returns is a new record
    let place = api.publish(&published[1..2]).await[0];
    api.shows_place(place).await;
    assert_eq!(api.get("/records/r1").await.expect(200)["offset"], place.offset);
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

/// Enough small segments that merges run meanwhile.
async fn many_versions_of_few_keys(set_up: SetUp) {
    let more = "seal = { max_age = '50ms' }\nmerge = { max_similar = 2 }\ngraph = { min_records = 32 }";
    let world = World::new(&set_up, "versions", DIMENSION, more);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(3);
    for round in 0..15 {
        let mut batch = records(&mut random, "r", 80, DIMENSION);
        batch.extend(records(&mut random, &format!("round{round}-"), 20, DIMENSION));
        let place = *api.publish(&batch).await.last().unwrap();
        api.remove(&format!("r{round}")).await;
        api.shows_place(place).await;
    }
    api.shows(&world.log.ends(&world.index)).await;
    let state = fold(&world.log.read(&world.index), DIMENSION);
    assert_same(&api.scan().await, &state);
    let ids = api.ids(&json!({ "vector": random.vector(DIMENSION), "k": 1000 })).await;
    assert_eq!(ids.len(), state.len(), "k live records are returned when k exist");
}
