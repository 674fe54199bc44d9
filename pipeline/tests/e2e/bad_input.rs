//! Bad messages, bad requests, a topic that grew: refused by name, and everything else goes on.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::{record, records};
use crate::support::fold::{assert_same, fold};
use crate::support::log::{Message, grow};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups, on_servers};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 8;
const QUICK: &str = "seal = { max_age = '100ms' }";

on_both_set_ups!(liv_1_bad_messages_become_dead_letters, bad_requests_are_problems);

mod topics {
    use super::{key_1_a_topic_that_grew_stops_its_index_by_name, on_servers};
    on_servers!(key_1_a_topic_that_grew_stops_its_index_by_name);
}

/// Messages that no index takes, with what is wrong.
fn bad_messages() -> Vec<(Option<Vec<u8>>, Vec<u8>)> {
    let key = || Some(b"bad".to_vec());
    let vector = "[1,2,3,4,5,6,7,8]";
    let mut bad = vec![
        (None, format!("{{\"vector\":{vector}}}").into_bytes()),
        (Some(Vec::new()), format!("{{\"vector\":{vector}}}").into_bytes()),
        (Some(vec![0xff, 0xfe]), format!("{{\"vector\":{vector}}}").into_bytes()),
        (Some(vec![b'k'; 513]), format!("{{\"vector\":{vector}}}").into_bytes()),
        // a truncated protobuf record, and one of an unknown schema
        (key(), vec![0x08, 0x01, 0x1a, 0x20, 0x00]),
        (key(), vec![0x08, 0x63]),
    ];
    let texts = [
        String::new(),
        "null".into(),
        "not json".into(),
        "{".into(),
        "[]".into(),
        format!("{{\"vector\":{vector}"),
        "{\"vector\":[1,2,3]}".into(),
        "{\"vector\":[0,0,0,0,0,0,0,0]}".into(),
        "{\"vector\":[1,2,3,4,5,6,7,1e39]}".into(),
        "{\"vector\":[1,2,3,4,5,6,7,NaN]}".into(),
        "{\"vector\":[1,2,3,4,5,6,7,\"8\"]}".into(),
        "{\"metadata\":{}}".into(),
        format!("{{\"id\":\"other\",\"vector\":{vector}}}"),
        format!("{{\"vector\":{vector},\"metadata\":[]}}"),
        format!("{{\"vector\":{vector},\"metadata\":{{\"a\":1,\"a\":2}}}}"),
        format!("{{\"vector\":{vector},\"metadata\":{{\"size\":\"large\"}}}}"),
        format!("{{\"vector\":{vector},\"metadata\":{{\"text\":\"{}\"}}}}", "x".repeat(70_000)),
    ];
    bad.extend(texts.into_iter().map(|text| (key(), text.into_bytes())));
    bad
}

async fn liv_1_bad_messages_become_dead_letters(set_up: SetUp) {
    let world = World::new(&set_up, "dead", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "r", 40, DIMENSION)).await;
    let bad = bad_messages();
    for (key, value) in &bad {
        world.log.write(&world.index, 1, key.as_deref(), Some(value));
    }
    api.publish(&records(&mut random, "after", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;

    let messages = world.log.read(&world.index);
    let state = fold(&messages, DIMENSION);
    let good: Vec<_> = state.keys().filter(|k| k.starts_with('r') || k.starts_with("after")).collect();
    assert_eq!(good.len(), 80);
    let served = api.scan().await;
    assert_eq!(served.keys().collect::<Vec<_>>(), good, "only good messages are served");

    let letters = world.log.read(&format!("{}.dead-letter", world.index));
    for (key, value) in &bad {
        let key = key.clone().unwrap_or_default();
        let same = |l: &&Message| l.key.clone().unwrap_or_default() == key && l.value.as_ref() == Some(value);
        let letter = letters.iter().find(same);
        let letter =
            letter.unwrap_or_else(|| panic!("no dead letter for {:?}", String::from_utf8_lossy(value)));
        assert_eq!(letter.header("sluice.topic"), world.index);
        assert_eq!(letter.header("sluice.partition"), "1");
        assert!(!letter.header("sluice.reason").is_empty() && !letter.header("sluice.detail").is_empty());
        let offset: u64 = letter.header("sluice.offset").parse().unwrap();
        let original = messages.iter().find(|m| m.partition == 1 && m.offset == offset).unwrap();
        assert_eq!(original.value.as_ref(), Some(value));
    }
    assert_eq!(letters.len(), bad.len());
}

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
    assert_eq!(api.post_cut_off("/search", &large).await.problem(413), "body_too_large");
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

/// Kafka only: the local log's topics do not grow.
async fn key_1_a_topic_that_grew_stops_its_index_by_name(set_up: SetUp) {
    let world = World::new(&set_up, "grown", DIMENSION, QUICK);
    let (mut indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "r", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    let before = api.scan().await;
    grow(world.bootstrap().unwrap(), &world.index, 6).await;
    indexer.kill();
    indexer = world.indexer().await;
    eventually("the index stops and says why", || async {
        let report = world.api(&indexer).get_root("/status").await;
        let text = report.text;
        let named = [world.index.as_str(), "4", "6", "rebuild"].iter().all(|word| text.contains(word));
        if named && !text.contains("\"running\"") { Ok(()) } else { Err(text) }
    })
    .await;
    assert_same(&api.scan().await, &before);
}
