//! Bad requests: refused by a stable code, and nothing is changed by them.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::{record, records};
use crate::support::fold::{assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::world::World;

const DIMENSION: usize = 8;
const QUICK: &str = "seal = { max_age = '100ms' }";

on_both_set_ups!(bad_requests_are_problems);

async fn bad_requests_are_problems(set_up: SetUp) {
    let world = World::new(&set_up, "requests", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    let place = api.publish(&records(&mut random, "r", 20, DIMENSION)).await[19];
    api.shows_place(place).await;

    searches(&api).await;
    publishes(&api, &mut random).await;
    let other = Api::new(&query.url, "unknown");
    for answer in [other.get("").await, other.post("/search", &json!({ "id": "r1" })).await] {
        assert_eq!(answer.problem(404), "index_not_found");
    }
    assert_eq!(Api::new(&query.url, "Not_A_Name").get("").await.problem(404), "index_not_found");
    assert_eq!(
        Api::new(&query.url, "Not_A_Name").create(&json!({ "dimension": 2 })).await.problem(400),
        "invalid_name"
    );
    assert_eq!(api.get("/nothing").await.problem(404), "route_not_found");
    assert_eq!(api.delete("/search").await.problem(405), "method_not_allowed");
    // nothing of this has changed anything
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn searches(api: &Api) {
    let vector = [1.0; DIMENSION];
    let cases: Vec<(Value, &str)> = vec![
        (json!({}), "invalid_request"),
        (json!({ "vector": vector, "id": "r1" }), "invalid_request"),
        (json!({ "vector": [1.0, 2.0, 3.0] }), "dimension_mismatch"),
        (json!({ "vector": vec![0.0; DIMENSION] }), "invalid_vector"),
        (json!({ "vector": vector, "k": 0 }), "invalid_request"),
        (json!({ "vector": vector, "k": 10_001 }), "invalid_request"),
        (json!({ "vector": vector, "ef": 1_000_000 }), "invalid_request"),
        (json!({ "vector": vector, "max_distance": 1.0 }), "invalid_request"),
        (json!({ "vector": vector, "vektor": 1 }), "malformed_body"),
        (json!({ "vector": vector, "filter": { "colour": "red" } }), "invalid_filter"),
        (json!({ "vector": vector, "filter": { "size": { "$like": 1 } } }), "invalid_filter"),
        (json!({ "vector": vector, "filter": { "size": "large" } }), "invalid_filter"),
    ];
    for (request, code) in cases {
        let answer = api.post("/search", &request).await;
        assert_eq!(answer.problem(400), code, "{request}");
        assert_eq!(api.post("/search/batch", &json!({ "searches": [request] })).await.problem(400), code);
    }
    let detail = |answer: &Value| answer["detail"].as_str().unwrap().to_owned();
    let short = detail(&api.post("/search", &json!({ "vector": [1.0] })).await.body);
    assert!(short.contains('1') && short.contains('8'), "{short}");
    let filter = detail(&api.post("/search", &json!({ "vector": vector, "filter": { "x": 1 } })).await.body);
    assert!(filter.contains("group") && filter.contains("size"), "{filter}");
    assert_eq!(api.post("/search", &json!({ "id": "absent" })).await.problem(404), "record_not_found");
    for text in ["", "{", "[1]", "{\"vector\":[NaN]}", "{\"vector\":[1e39,0,0,0,0,0,0,0]}"] {
        let answer = api.post_text("/search", text.to_owned()).await;
        assert!(
            ["malformed_body", "invalid_vector"].contains(&answer.problem(400)),
            "{text}: {}",
            answer.text
        );
    }
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(api.post_text("/search", large).await.problem(413), "body_too_large");
}

async fn publishes(api: &Api, random: &mut Random) {
    let good = record(random, "r1", DIMENSION);
    let bad = [
        json!({ "id": "", "vector": good["vector"] }),
        json!({ "id": "k".repeat(513), "vector": good["vector"] }),
        json!({ "id": "short", "vector": [1.0] }),
        json!({ "id": "zero", "vector": vec![0.0; DIMENSION] }),
        json!({ "id": "type", "vector": good["vector"], "metadata": { "size": "large" } }),
    ];
    let mut records = bad.to_vec();
    records.push(good);
    let answer = api.post("/records", &json!({ "records": records })).await.expect(200);
    let results = answer["results"].as_array().unwrap();
    for (result, record) in results.iter().zip(&bad) {
        assert!(result["error"]["code"].is_string() && result["offset"].is_null(), "{result} for {record}");
    }
    assert!(results[bad.len()]["offset"].is_u64(), "a good record among bad ones is published");
}
