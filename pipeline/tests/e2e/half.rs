//! Vectors that an index keeps as 16-bit floats: rounded once, the same before and after seals, merges and restarts.

use half::f16;
use serde_json::json;

use crate::support::api::Api;
use crate::support::data::records;
use crate::support::fold::{State, assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 40;
const F16: &str = "vector_type = 'f16'\nseal = { max_age = '100ms' }\nmerge = { max_similar = 2 }\n\
                   graph = { min_records = 60 }";

on_both_set_ups!(fold_1_what_is_served_is_the_fold_rounded_to_f16);

/// What the log says, as an index of 16-bit floats has to serve it.
fn rounded(world: &World) -> State {
    let mut state = fold(&world.log.read(&world.index), DIMENSION);
    for version in state.values_mut() {
        version.vector.iter_mut().for_each(|c| *c = f16::from_f32(*c).to_f32());
    }
    state
}

async fn fold_1_what_is_served_is_the_fold_rounded_to_f16(set_up: SetUp) {
    let world = World::new(&set_up, "half", DIMENSION, F16);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(7);
    for round in 0..4 {
        api.publish(&records(&mut random, "r", 150, DIMENSION)).await;
        api.publish(&records(&mut random, &format!("round{round}-"), 40, DIMENSION)).await;
        api.shows(&world.log.ends(&world.index)).await;
        assert_same(&api.scan().await, &rounded(&world));
    }
    let shown = api.get("").await.expect(200);
    assert_eq!(shown["spec"]["vector_type"], "f16", "{shown}");

    beyond_the_range(&world, &api).await;

    indexer.kill();
    query.kill();
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    api.publish(&records(&mut random, "s", 30, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &rounded(&world));
}

/// A component beyond 65,504 is refused over HTTP, and a dead letter when it stands in the log.
async fn beyond_the_range(world: &World, api: &Api) {
    let mut vector = vec![1.0; DIMENSION];
    vector[3] = 70_000.0;
    let answer = api.post("/records", &json!({ "records": [{ "id": "far", "vector": vector }] })).await;
    let result = &answer.expect(200)["results"][0];
    assert_eq!(result["error"]["code"], "vector_too_large", "{result}");
    let value = json!({ "vector": vector }).to_string();
    world.log.write(&world.index, 0, Some(b"far"), Some(value.as_bytes()));
    eventually("the record is a dead letter", || async {
        let letters = world.log.read(&format!("{}.dead-letter", world.index));
        let reasons: Vec<_> = letters.iter().map(|l| l.header("sluice.reason")).collect();
        if reasons == ["vector_too_large"] { Ok(()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    let letters = world.log.read(&format!("{}.dead-letter", world.index));
    let detail = letters[0].header("sluice.detail");
    assert!(detail.contains("component 3") && detail.contains("f16"), "{detail}");
    world.log.write(&world.index, 0, Some(b"far"), None);
}
