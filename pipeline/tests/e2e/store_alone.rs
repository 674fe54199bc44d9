//! A query service needs the store and nothing else: with the log gone, one that starts later answers the same.

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::world::World;

const DIMENSION: usize = 16;

on_both_set_ups!(a_later_query_service_serves_from_the_store_alone);

async fn a_later_query_service_serves_from_the_store_alone(set_up: SetUp) {
    let (set_up, broker) = match set_up {
        SetUp::Local => (SetUp::Local, None),
        SetUp::Servers { store, .. } => {
            let broker = Broker::start();
            (SetUp::Servers { kafka: broker.bootstrap(), store }, Some(broker))
        }
    };
    let world = World::new(&set_up, "alone", DIMENSION, "seal = { max_age = '100ms' }");
    let (indexer, query) = (world.indexer().await, world.query().await);
    let first = world.api(&query);
    let mut random = Random::new(1);
    first.publish(&records(&mut random, "r", 400, DIMENSION)).await;
    first.remove("r3").await;
    first.shows(&world.log.ends(&world.index)).await;
    let expected = fold(&world.log.read(&world.index), DIMENSION);
    indexer.kill();
    match &broker {
        Some(broker) => broker.call("stop"),
        None => world.remove_log(),
    }

    let later = world.start("serve", "later").await;
    let second = world.api(&later);
    let ends = expected.values().map(|v| (v.partition, v.offset + 1)).collect();
    second.shows(&ends).await;
    assert_same(&second.scan().await, &expected);
    for _ in 0..20 {
        let request = json!({ "vector": random.vector(DIMENSION), "k": 10, "filter": { "group": "red" } });
        assert_eq!(second.search(&request).await, first.search(&request).await);
    }
    // what needs the log says so, and does not hang
    let answer =
        second.post("/records", &json!({ "records": records(&mut random, "r", 1, DIMENSION) })).await;
    let acknowledged = answer.status == 200 && answer.body["results"][0]["error"].is_null();
    assert!(!acknowledged, "{}", answer.text);
}
