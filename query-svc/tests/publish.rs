//! Writing through the local log: indexes, records, tombstones, lag.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Answer, Service, World};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};
use sluice_connectors::proto::{EmbeddingBatch, EmbeddingRecord};
use sluice_connectors::{Log, LogConfig};
use sluice_query_svc::Limits;

async fn service(world: &World, limits: Limits) -> Service {
    let dir = world.dir.path().join("log");
    let log = Log::open(&LogConfig::Local { dir }).await.unwrap();
    world.serve(limits, Some(log)).await
}

async fn put(service: &Service, index: &str, spec: Value) -> Answer {
    service.call(Method::PUT, &format!("/v1/indexes/{index}"), Some(spec)).await
}

fn spec() -> Value {
    json!({"dimension": 2, "partitions": 2, "fields": {"section": "keyword"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_created_once_changed_in_place_and_retired() {
    let world = World::new();
    let service = service(&world, Limits::default()).await;
    let created = put(&service, "packages", spec()).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!((&created.json()["generation"], &created.json()["spec"]["dimension"]), (&json!(1), &json!(2)));
    assert_eq!(put(&service, "packages", spec()).await.status, 200);
    // it is served at once
    assert_eq!(service.get("/v1/indexes/packages").await.status, 200);

    let mut other = spec();
    other["dimension"] = json!(3);
    let differs = put(&service, "packages", other).await.problem(409, "index_differs");
    let at = json!({"key": "dimension", "stored": 2, "given": 3, "in_place": false});
    assert_eq!(differs["differences"], json!([at]));
    let mut other = spec();
    other["seal"] = json!({"max_age": "3s"});
    assert_eq!(put(&service, "packages", other).await.status, 200);
    assert_eq!(service.status("packages").await.spec.seal.max_age, Duration::from_secs(3));

    for (index, body) in [
        ("packages", json!({"dimension": 2, "dimensions": 2})),
        ("packages", json!({"dimension": 1})),
        ("packages", json!({"dimension": 2, "name": "other"})),
        ("packages", json!({"dimension": 2, "quantization": "pq"})),
        ("packages", json!({"dimension": 2, "partitions": 0})),
    ] {
        put(&service, index, body).await.problem(400, "invalid_spec");
    }
    put(&service, "Packages", spec()).await.problem(400, "invalid_name");

    let retired = service.call(Method::DELETE, "/v1/indexes/packages", None).await.ok();
    assert_eq!(retired, json!({"name": "packages", "retired": true}));
    service.get("/v1/indexes/packages").await.problem(404, "index_not_found");
    service.call(Method::DELETE, "/v1/indexes/packages", None).await.problem(404, "index_not_found");
    let again = put(&service, "packages", spec()).await;
    assert_eq!((again.status.as_u16(), &again.json()["generation"]), (201, &json!(2)));
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_gets_its_place_or_its_reason() {
    let world = World::new();
    let service = service(&world, Limits { max_publish: 6, ..Limits::default() }).await;
    assert_eq!(put(&service, "packages", spec()).await.status, 201);
    let path = "/v1/indexes/packages/records";
    let body = json!({"records": [
        {"id": "nginx", "vector": [1, 0], "metadata": {"section": "web"}},
        {"id": "short", "vector": [1]},
        {"id": "zero", "vector": [0, 0]},
        {"id": "typed", "vector": [1, 0], "metadata": {"section": 5}},
        {"vector": [1, 0]},
        {"id": "apache2", "vector": [0, 1]},
    ]});
    let results = service.post(path, body).await.ok();
    let results = results["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert!(results[0]["offset"].is_u64() && results[0]["partition"].is_u64(), "{results:?}");
    assert_eq!(results[0].as_object().unwrap().len(), 3);
    for (at, code) in [(1, "dimension"), (2, "zero_length"), (3, "metadata_field"), (4, "id_missing")] {
        assert_eq!(results[at]["error"]["code"], code, "{results:?}");
        assert!(results[at]["error"]["detail"].is_string() && results[at]["offset"].is_null());
    }
    assert_eq!(results[1]["id"], "short");
    assert!(results[5]["offset"].is_u64());

    let record = |i: usize| json!({"id": format!("r{i}"), "vector": [1, 0]});
    let many = |n: usize| json!({"records": (0..n).map(record).collect::<Vec<_>>()});
    service.post(path, many(7)).await.problem(400, "invalid_request");
    service.post(path, many(0)).await.problem(400, "invalid_request");
    service.post(path, json!({"records": [], "more": 1})).await.problem(400, "malformed_body");
    service.post(path, json!({"rows": []})).await.problem(400, "malformed_body");
    service.post(path, json!([[record(0)]])).await.problem(400, "malformed_body");

    let deleted = service.call(Method::DELETE, &format!("{path}/nginx"), None).await.ok();
    assert_eq!((&deleted["id"], &deleted["partition"]), (&json!("nginx"), &results[0]["partition"]));
    assert!(deleted["offset"].as_u64() > results[0]["offset"].as_u64());
    let slash = service.call(Method::DELETE, &format!("{path}/a%2Fb%20%C3%A9"), None).await.ok();
    assert_eq!(slash["id"], "a/b é");
    service
        .call(Method::DELETE, &format!("{path}/{}", "x".repeat(513)), None)
        .await
        .problem(400, "invalid_name");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protobuf_batch_is_taken_as_well() {
    let world = World::new();
    let service = service(&world, Limits { max_publish: 3, ..Limits::default() }).await;
    assert_eq!(put(&service, "packages", spec()).await.status, 201);
    let record = |id: &str, vector: &[f32]| EmbeddingRecord {
        schema_version: 1,
        id: Some(id.into()),
        vector: vector.to_vec(),
        ..EmbeddingRecord::default()
    };
    let send = |records: Vec<EmbeddingRecord>| {
        let body = EmbeddingBatch { schema_version: 1, records }.encode_to_vec();
        let request = service.client.post(format!("{}/v1/indexes/packages/records", service.base));
        request.header("content-type", "application/x-protobuf").body(body).send()
    };
    let sent = send(vec![record("a", &[1.0, 0.0]), record("bad", &[f32::NAN, 0.0])]).await.unwrap();
    let results = Answer::read(sent).await.ok();
    assert!(results["results"][0]["offset"].is_u64(), "{results}");
    assert_eq!(
        (&results["results"][1]["id"], &results["results"][1]["error"]["code"]),
        (&json!("bad"), &json!("not_finite"))
    );
    let sent = send(vec![record("a", &[1.0, 0.0]); 4]).await.unwrap();
    assert_eq!(Answer::read(sent).await.status, 400);
    let request = service.client.post(format!("{}/v1/indexes/packages/records", service.base));
    let garbage =
        request.header("content-type", "application/x-protobuf").body("\u{ff}garbage").send().await.unwrap();
    Answer::read(garbage).await.problem(400, "malformed_body");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_counted_from_the_end_of_the_log() {
    let world = World::new();
    let service = service(&world, Limits::default()).await;
    let mut spec = spec();
    spec["partitions"] = json!(1);
    assert_eq!(put(&service, "packages", spec).await.status, 201);
    service.serves("packages", &[0]).await;
    let body = json!({"records": [{"id": "a", "vector": [1, 0]}, {"id": "b", "vector": [0, 1]}]});
    service.post("/v1/indexes/packages/records", body).await.ok();
    let stored = world.registry.list().await.unwrap().remove(0).spec;
    // bounds are remembered for a second
    let mut status = service.status("packages").await;
    for _ in 0..100 {
        if status.partitions[0].lag_records == Some(2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = service.status("packages").await;
    }
    assert_eq!((status.partitions[0].lag_records, status.partitions[0].log_end), (Some(2), Some(2)));
    let mut hand = world.claim(&stored, 0).await;
    let rows = ["a", "b"].map(|key| common::upsert(key, &[1.0, 0.0], json!({})));
    hand.publish(rows.into()).await;
    service.serves("packages", &[2]).await;
    let status = service.status("packages").await;
    assert_eq!((status.partitions[0].lag_records, status.partitions[0].lag_seconds), (Some(0), Some(0.0)));
    service.stop().await.unwrap();
}
