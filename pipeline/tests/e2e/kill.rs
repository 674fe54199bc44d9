//! FOLD-1: after SIGKILL at any moment of an ingest, what is served is the fold of the log.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::{lines, records};
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 16;
const ROUNDS: u64 = 4;

on_both_set_ups!(fold_1_indexer_killed, fold_1_query_service_killed, fold_1_both_killed);

async fn fold_1_indexer_killed(set_up: SetUp) {
    ingest_with_kills(&set_up, "kill-indexer", true, false).await;
}

async fn fold_1_query_service_killed(set_up: SetUp) {
    ingest_with_kills(&set_up, "kill-query", false, true).await;
}

async fn fold_1_both_killed(set_up: SetUp) {
    ingest_with_kills(&set_up, "kill-both", true, true).await;
}

/// Offsets that are visible, over all partitions.
async fn visible(api: &Api) -> u64 {
    api.visible().await.map_or(0, |offsets| offsets.values().sum())
}

/// One round's changes: upserts of new and old keys, and deletes.
fn changes(random: &mut Random, round: u64) -> Vec<Value> {
    let mut changes = Vec::new();
    for part in 0..10 {
        changes.extend(records(random, "hot", 150, DIMENSION));
        changes.extend(records(random, &format!("round{round}-{part}-"), 150, DIMENSION));
        let deleted = (0..20).map(|_| json!({ "id": format!("hot{}", random.below(150)), "deleted": true }));
        changes.extend(deleted.collect::<Vec<_>>());
    }
    changes
}

async fn ingest_with_kills(set_up: &SetUp, name: &str, kill_indexer: bool, kill_query: bool) {
    let more = "seal = { max_age = '50ms', max_records = 60 }\nmerge = { max_similar = 2 }";
    let world = World::new(set_up, name, DIMENSION, more);
    let (mut indexer, mut query) = (world.indexer().await, world.query().await);
    let mut random = Random::new(11);
    for round in 0..ROUNDS {
        let file = world.dir().join(format!("round{round}.jsonl"));
        let changes = changes(&mut random, round);
        std::fs::write(&file, lines(&changes)).unwrap();
        let api = world.api(&query);
        let before = visible(&api).await;
        let mut load = world.command(&["load", &file.display().to_string(), "--index", &world.index]);
        let mut load = load.spawn().unwrap();
        // somewhere in the middle: some of this round is published, and most is not
        let wanted = before + 1 + random.below(changes.len() as u64 / 2);
        let seen = eventually("some of the round is visible", || async {
            let now = visible(&api).await;
            if now >= wanted { Ok(now - before) } else { Err(format!("{now} of {wanted}")) }
        })
        .await;
        println!("round {round}: killed when {seen} of {} were visible", changes.len());
        if kill_indexer {
            indexer = killed_and_started(indexer, &world, "index", "indexer").await;
        }
        if kill_query {
            query = killed_and_started(query, &world, "serve", "query").await;
        }
        assert!(load.wait().unwrap().success());
    }
    let api = world.api(&query);
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    drop(indexer);
}

async fn killed_and_started(process: Process, world: &World, role: &str, name: &str) -> Process {
    process.kill();
    world.start(role, name).await
}
