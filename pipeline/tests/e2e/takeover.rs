//! Several indexers of one group share the partitions; those of a killed one are taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::api::Api;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_servers};
use crate::support::wait::{eventually, within};
use crate::support::world::{PARTITIONS, SESSION_TIMEOUT_MS, World};

const DIMENSION: usize = 16;
/// What may pass on top of the session timeout: a rebalance, a claim and a publish on two busy cores.
const MARGIN: Duration = Duration::from_secs(30);

mod group {
    use super::{a_killed_indexer_is_taken_over_and_returns, on_servers};
    on_servers!(a_killed_indexer_is_taken_over_and_returns);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_an_indexer_that_stands_by_takes_over() {
    an_indexer_that_stands_by_takes_over(SetUp::Local).await;
}

/// The partitions that an indexer works on.
pub(crate) async fn owned(process: &Process, world: &World) -> BTreeSet<u64> {
    let report = world.api(process).get_root("/status").await.body;
    let partitions = report["partitions"].as_array().cloned().unwrap_or_default();
    let running = |p: &&Value| p["state"] == "running" && p["topic"] == world.index.as_str();
    partitions.iter().filter(running).filter_map(|p| p["partition"].as_u64()).collect()
}

/// Waits until both work on some partitions and, together, on all, none of them twice.
pub(crate) async fn they_share(one: &Process, other: &Process, world: &World) {
    eventually("two indexers share the partitions", || async {
        let (one, other) = (owned(one, world).await, owned(other, world).await);
        let all = one.len() + other.len() == PARTITIONS as usize && one.is_disjoint(&other);
        if all && !one.is_empty() && !other.is_empty() {
            Ok(())
        } else {
            Err(format!("{one:?} and {other:?}"))
        }
    })
    .await;
}

/// Starts the second indexer. What stays with the first goes on as it was: only what moves is claimed anew.
async fn joined(world: &World, first: &Process, api: &Api) -> Process {
    let before = epochs(api).await;
    let second = world.start("index", "second").await;
    they_share(first, &second, world).await;
    let (after, kept) = (epochs(api).await, owned(first, world).await);
    for partition in kept {
        assert_eq!(
            after[&partition], before[&partition],
            "partition {partition} was stopped for the other's sake"
        );
    }
    second
}

/// The owner's epoch of each partition.
async fn epochs(api: &Api) -> BTreeMap<u64, u64> {
    let status = api.get("").await.expect(200);
    let partitions = status["partitions"].as_array().unwrap();
    partitions.iter().map(|p| (p["partition"].as_u64().unwrap(), p["epoch"].as_u64().unwrap())).collect()
}

/// Publishes to every partition, and waits until all of it is visible.
async fn ingest(world: &World, api: &Api, random: &mut Random, round: &str, limit: Duration) {
    let places = api.publish(&records(random, round, 100, DIMENSION)).await;
    let partitions: BTreeSet<_> = places.iter().map(|p| p.partition).collect();
    assert_eq!(partitions.len() as u32, PARTITIONS);
    let ends = world.log.ends(&world.index);
    within(limit, "all partitions go on", || async {
        let visible = api.visible().await?;
        let behind = ends.iter().any(|(p, end)| visible.get(p).is_none_or(|v| v < end));
        if behind { Err(format!("{visible:?} of {ends:?}")) } else { Ok(()) }
    })
    .await;
}

/// Kafka: the partitions are shared, and those of a killed indexer move to the other one.
async fn a_killed_indexer_is_taken_over_and_returns(set_up: SetUp) {
    let world = World::new(&set_up, "takeover", DIMENSION, "seal = { max_age = '100ms' }");
    let session = Duration::from_millis(SESSION_TIMEOUT_MS.into());
    let (first, query) = (world.start("index", "first").await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    ingest(&world, &api, &mut random, "a", MARGIN).await;
    let second = joined(&world, &first, &api).await;
    ingest(&world, &api, &mut random, "b", MARGIN).await;

    second.kill();
    let killed = Instant::now();
    ingest(&world, &api, &mut random, "c", session + MARGIN).await;
    println!("all partitions went on {:?} after the kill", killed.elapsed());
    assert_eq!(owned(&first, &world).await.len(), PARTITIONS as usize);

    let _second = joined(&world, &first, &api).await;
    ingest(&world, &api, &mut random, "d", MARGIN).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

/// The local log: one indexer works, the others stand by.
async fn an_indexer_that_stands_by_takes_over(set_up: SetUp) {
    let world = World::new(&set_up, "standby", DIMENSION, "seal = { max_age = '100ms' }");
    let (first, query) = (world.start("index", "first").await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    ingest(&world, &api, &mut random, "a", MARGIN).await;
    let second = world.start("index", "second").await;
    assert_eq!(owned(&second, &world).await.len(), 0);
    first.kill();
    ingest(&world, &api, &mut random, "b", MARGIN).await;
    assert_eq!(owned(&second, &world).await.len(), PARTITIONS as usize);
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}
