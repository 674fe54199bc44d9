//! FENCE-4: the reply to a create is lost after the server applied it. FENCE-5: a server without create-if-absent.

use crate::support::api::Api;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::proxy::S3Proxy;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_servers};
use crate::support::wait::eventually;
use crate::support::world::{PARTITIONS, World};

const DIMENSION: usize = 16;
const QUICK: &str = "seal = { max_age = '50ms', max_records = 40 }\nmerge = { max_similar = 2 }\n";

on_servers!(
    fence_4_the_first_reply_to_every_create_is_lost,
    fence_4_requests_and_replies_are_lost_at_random,
    fence_5_a_store_that_ignores_create_if_absent_is_refused_at_start,
);

/// Publishes rounds of overwrites and new keys and deletes some; each round is waited for.
async fn ingest(world: &World, api: &Api, random: &mut Random, rounds: u32) {
    for round in 0..rounds {
        api.publish(&records(random, "hot", 60, DIMENSION)).await;
        api.publish(&records(random, &format!("r{round}-"), 60, DIMENSION)).await;
        api.remove(&format!("hot{}", random.below(60))).await;
        api.shows(&world.log.ends(&world.index)).await;
    }
}

async fn assert_fold(world: &World, api: &Api) {
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

/// Log lines with this message.
fn told(process: &Process, message: &str) -> usize {
    process.lines().iter().filter(|line| line["message"] == message).count()
}

/// Nobody was fenced, nothing failed and nothing is stopped.
async fn assert_undisturbed(world: &World, indexer: &Process) {
    let report = world.api(indexer).get_root("/status").await.expect(200);
    let partitions = report["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), PARTITIONS as usize, "{report}");
    for partition in partitions {
        assert_eq!((&partition["state"], &partition["restarts"]), (&"running".into(), &0.into()), "{report}");
    }
    assert_eq!(told(indexer, "fenced"), 0);
}

/// Spec, claims, publications: the server applies each, and the first answer never arrives.
async fn fence_4_the_first_reply_to_every_create_is_lost(set_up: SetUp) {
    let proxy = S3Proxy::start(10);
    proxy.fault("lose-reply", "CREATE", "*", "first");
    let world = World::new(&set_up, "unclear", DIMENSION, &format!("{QUICK}{}", proxy.options()));
    let (mut indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    ingest(&world, &api, &mut random, 6).await;
    assert_undisturbed(&world, &indexer).await;
    indexer.kill();
    indexer = world.indexer().await;
    ingest(&world, &api, &mut random, 6).await;
    assert_undisturbed(&world, &indexer).await;
    assert!(told(&indexer, "claimed") >= PARTITIONS as usize, "{}", indexer.text());
    assert_fold(&world, &api).await;
    let lost = proxy.struck("lose-reply");
    println!("replies lost: {lost}");
    assert!(lost > 60, "only {lost} replies were lost");
}

/// Any request, with any luck, for as long as the ingest lasts.
async fn fence_4_requests_and_replies_are_lost_at_random(set_up: SetUp) {
    let proxy = S3Proxy::start(10);
    let world = World::new(&set_up, "unclear-random", DIMENSION, &format!("{QUICK}{}", proxy.options()));
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(2);
    ingest(&world, &api, &mut random, 1).await;
    proxy.fault("lose-reply", "CREATE", "*", "0.4");
    proxy.fault("lose-request", "CREATE", "*", "0.2");
    proxy.fault("lose-reply", "PUT", "*", "0.1");
    proxy.fault("lose-request", "*", "*", "0.05");
    ingest(&world, &api, &mut random, 10).await;
    proxy.clear();
    ingest(&world, &api, &mut random, 1).await;
    assert_undisturbed(&world, &indexer).await;
    assert_fold(&world, &api).await;
    let (replies, requests) = (proxy.struck("lose-reply"), proxy.struck("lose-request"));
    println!("lost: {replies} replies, {requests} requests");
    assert!(replies > 10 && requests > 10);
}

/// The server is real and never sees the condition, as one that does not know it.
async fn fence_5_a_store_that_ignores_create_if_absent_is_refused_at_start(set_up: SetUp) {
    let proxy = S3Proxy::start(10);
    proxy.fault("unconditional", "CREATE", "*", "1");
    let world = World::new(&set_up, "ignores", DIMENSION, &proxy.options());
    let mut indexer = world.spawn("index", "indexer", &[]);
    let status = eventually("the indexer refuses to start", || {
        let ended = indexer.ended();
        async move { ended.ok_or_else(|| "it runs".to_owned()) }
    })
    .await;
    assert!(!status.success());
    let said = indexer.text();
    assert!(said.contains("ignores create-if-absent (If-None-Match: *)"), "{said}");
    assert!(proxy.struck("unconditional") >= 2);
    // the same server with its conditions is taken
    proxy.clear();
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    ingest(&world, &api, &mut Random::new(3), 1).await;
    assert_fold(&world, &api).await;
}
