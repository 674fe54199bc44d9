//! Indexes by HTTP, status, health, metrics, min_offsets, clean stops and restarts.

use serde_json::json;

use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 8;

on_both_set_ups!(
    an_index_is_created_used_and_retired_by_http,
    min_offsets_wait_or_refuse,
    up_stops_and_goes_on
);

async fn an_index_is_created_used_and_retired_by_http(set_up: SetUp) {
    let world = World::without_index(&set_up, "created");
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let spec = json!({
        "dimension": DIMENSION, "metric": "l2", "partitions": 2, "fields": { "group": "keyword", "size": "integer" },
        "seal": { "max_age": "100ms" },
    });
    api.create(&spec).await.expect(201);
    api.create(&spec).await.expect(200);
    let mut other = spec.clone();
    other["dimension"] = json!(9);
    let answer = api.create(&other).await;
    assert_eq!(answer.problem(409), "index_differs");
    assert_eq!(answer.body["differences"][0]["key"], "dimension");

    let published = records(&mut Random::new(1), "r", 100, DIMENSION);
    api.publish(&published).await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    let hit = &api.search(&json!({ "vector": published[3]["vector"], "k": 1, "max_distance": 0.5 })).await[0];
    assert_eq!((&hit["id"], hit["score"].as_f64()), (&json!("r3"), Some(0.0)));

    status(&world, &api).await;
    api.delete("").await.expect(200);
    eventually("the index is gone", || async {
        let answer = api.get("").await;
        if answer.status == 404 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert!(indexer.stop().await.success());
    assert!(query.stop().await.success());
}

async fn status(world: &World, api: &crate::support::api::Api) {
    let list = api.get_root("/v1/indexes").await.expect(200);
    assert!(list["indexes"].as_array().unwrap().iter().any(|i| i["name"] == world.index.as_str()), "{list}");
    eventually("the status shows no lag", || async {
        let status = api.get("").await.body;
        let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
        let settled =
            |p: &serde_json::Value| p["status"] == "ok" && p["lag_records"] == 0 && p["bytes"].is_u64();
        if partitions.len() == 2 && partitions.iter().all(settled) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    for path in ["/health/live", "/health/ready"] {
        api.get_root(path).await.expect(200);
    }
    let metrics = api.get_root("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("sluice_"), "{}", metrics.text);
    let openapi = api.get_root("/openapi.json").await.expect(200);
    assert!(openapi["paths"]["/v1/indexes/{index}/search"]["post"].is_object());
}

async fn min_offsets_wait_or_refuse(set_up: SetUp) {
    let world = World::new(&set_up, "min-offsets", DIMENSION, "seal = { max_age = '100ms' }");
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    for record in records(&mut Random::new(1), "r", 5, DIMENSION) {
        let place = api.publish(std::slice::from_ref(&record)).await[0];
        let mut request = json!({ "vector": record["vector"], "k": 1 });
        request["consistency"] =
            json!({ "min_offsets": { place.partition.to_string(): place.offset }, "timeout_ms": 30_000 });
        assert_eq!(api.ids(&request).await, [record["id"].as_str().unwrap()], "read your own write");
    }
    let never = json!({ "id": "r1", "consistency": { "min_offsets": { "0": 1_000_000 }, "timeout_ms": 50 } });
    let answer = api.post("/search", &never).await;
    assert_eq!(answer.problem(412), "offsets_not_visible");
    assert!(answer.body["offsets"]["0"].is_u64(), "{}", answer.text);
}

/// Everything in one process: stopped cleanly, and started again it serves what it had and goes on.
async fn up_stops_and_goes_on(set_up: SetUp) {
    let world = World::new(&set_up, "up", DIMENSION, "seal = { max_age = '100ms' }");
    let mut random = Random::new(1);
    for round in ["a", "b"] {
        let up = world.start("up", "up").await;
        let api = world.api(&up);
        if round == "b" {
            api.shows(&world.log.ends(&world.index)).await;
            assert_eq!(api.scan().await.len(), 50);
        }
        api.publish(&records(&mut random, round, 50, DIMENSION)).await;
        api.shows(&world.log.ends(&world.index)).await;
        assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
        assert!(up.stop().await.success());
    }
}
