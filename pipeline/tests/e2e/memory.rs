//! MEM-1, MEM-2: memory as the kernel counts it, under producers that no indexer can follow.
//!
//! The short forms run with all tests. `SLUICE_TEST_LONG=1 cargo xtask test --filter mem_` runs the long ones: more
//! records, the store stalled for a minute, few partitions as well as many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::api::Api;
use crate::support::data::record;
use crate::support::flood::Outgoing;
use crate::support::fold::{assert_same, fold};
use crate::support::memory::{History, Watch};
use crate::support::metrics::Metrics;
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::servers::{Servers, Verb};
use crate::support::set_up::{SetUp, is_long, on_both_set_ups, on_servers};
use crate::support::wait::{eventually, within};
use crate::support::world::World;

const DIMENSION: usize = 16;
const MIB: u64 = 1 << 20;
/// What an indexer may hold beyond `limits.memory`, whatever that is; docs/operations.md says what it consists of.
const INDEXER_FIXED: u64 = 96 * MIB;
/// As above, of a process that serves.
const SERVE_FIXED: u64 = 160 * MIB;

on_both_set_ups!(mem_1_small_records_faster_than_can_be_indexed);

mod outages {
    use super::{mem_1_the_store_stalled_and_kafka_gone, on_servers};
    on_servers!(mem_1_the_store_stalled_and_kafka_gone);
}

mod hot {
    use super::{mem_2_cold_partitions_publish_beside_a_hot_one, on_both_set_ups};
    on_both_set_ups!(mem_2_cold_partitions_publish_beside_a_hot_one);
}

mod requests {
    use super::{mem_1_a_flood_of_http_publishes, on_both_set_ups};
    on_both_set_ups!(mem_1_a_flood_of_http_publishes);
}

/// An upsert with about `metadata` bytes of metadata.
fn upsert(random: &mut Random, partition: u32, key: &str, metadata: usize) -> Outgoing {
    let text = "x".repeat(metadata);
    let value = json!({ "vector": random.vector(DIMENSION), "metadata": { "group": "red", "text": text } });
    Outgoing {
        partition,
        key: Some(key.into()),
        value: Some(value.to_string().into_bytes()),
        ..Outgoing::default()
    }
}

/// Sizes from 10 bytes to about 900 KiB, small ones more often.
fn mixed_size(random: &mut Random) -> usize {
    let (from, to) = match random.below(100) {
        0..80 => (10, 1 << 10),
        80..95 => (1 << 10, 64 << 10),
        _ => (64 << 10, 900 << 10),
    };
    from + usize::try_from(random.below(to - from as u64)).unwrap()
}

/// Messages of mixed sizes over all partitions, `bytes` in all, of few keys: each is overwritten again and again.
fn mixed(mut random: Random, partitions: u32, bytes: u64) -> impl Iterator<Item = Outgoing> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        let partition = u32::try_from(random.below(partitions.into())).unwrap();
        let key = format!("p{partition}-{}", random.below(12));
        let size = mixed_size(&mut random);
        let message = upsert(&mut random, partition, &key, size);
        left = left.checked_sub(message.bytes() as u64)?;
        Some(message)
    })
}

/// Asserts that the process stayed within its budget and the fixed part, and says how far.
fn assert_bounded(history: &History, memory: u64, fixed: u64) {
    println!("{}; limits.memory {} MiB", history.describe(), memory / MIB);
    let (peak, bound) = (history.peak(), memory + fixed);
    assert!(peak <= bound, "peak {} MiB, at most {} MiB are promised", peak / MIB, bound / MIB);
}

/// Waits until each of the partitions runs.
async fn all_run(api: &Api, partitions: usize) {
    eventually("all partitions run", || async {
        let report = api.get_root("/status").await.body;
        let all = report["partitions"].as_array().cloned().unwrap_or_default();
        let running = all.iter().filter(|p| p["worker"]["phase"] == "running").count();
        if running == partitions { Ok(()) } else { Err(format!("{running} of {partitions} run")) }
    })
    .await;
}

/// Microseconds that stages were blocked: readers by the budget, and by workers that take no more.
async fn blocked(api: &Api) -> [f64; 2] {
    let metrics = Metrics::scrape(api).await;
    [
        metrics.sum("sluice_read_budget_blocked_microseconds_total", &[]),
        metrics.sum("sluice_channel_blocked_microseconds_total", &["stage=\"worker\""]),
    ]
}

/// A whole service ends up at the fold of the log.
async fn assert_catches_up(world: &World, query: &Process, limit: Duration) {
    let (api, ends) = (world.api(query), world.log.ends(&world.index));
    let since = Instant::now();
    within(limit, "the query service shows the log's end", || async {
        let visible = api.visible().await?;
        let behind: BTreeMap<_, _> =
            ends.iter().filter(|(p, end)| visible.get(p).is_none_or(|v| v < end)).collect();
        if behind.is_empty() { Ok(()) } else { Err(format!("visible {visible:?}, wanted {behind:?}")) }
    })
    .await;
    println!("lag 0 after {:?}", since.elapsed());
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

struct Stall {
    partitions: u32,
    memory: u64,
    flood: u64,
    store_away: Duration,
    kafka_away: Duration,
}

/// A producer that writes without a pause, the store stalled, then Kafka stalled, killed and back.
async fn mem_1_the_store_stalled_and_kafka_gone(_: SetUp) {
    let second = Duration::from_secs(1);
    let short =
        Stall { partitions: 64, memory: 128, flood: 384, store_away: 15 * second, kafka_away: 8 * second };
    if !is_long() {
        return stalled(short).await;
    }
    for (partitions, memory, flood) in [(64, 64, 1500), (64, 256, 2500), (4, 64, 1000), (4, 512, 3000)] {
        let (store_away, kafka_away) = (60 * second, 30 * second);
        stalled(Stall { partitions, memory, flood, store_away, kafka_away }).await;
    }
}

async fn stalled(case: Stall) {
    let Some(servers) = Servers::start() else { return };
    let Stall { partitions, memory, flood, store_away, kafka_away } = case;
    println!("---- {partitions} partitions, limits.memory {memory} MiB, {flood} MiB in the log");
    let more = "seal = { max_age = '1s' }\nmerge = { max_similar = 4 }";
    // a reader that stands still for longer than this would be thrown out of a group that depends on its polling
    let world = World::with_partitions(&servers.set_up(), "stalled", DIMENSION, partitions, more);
    let world = servers
        .serve(world)
        .variable("SLUICE__LIMITS__MEMORY", &format!("{memory}MiB"))
        .variable("SLUICE__LIMITS__MAX_METADATA_BYTES", "1MB")
        .variable("SLUICE__LOG__KAFKA__MAX__POLL__INTERVAL__MS", "8000");
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&indexer);
    all_run(&api, partitions as usize).await;
    let watches = [Watch::start("indexer", indexer.pid()), Watch::start("query service", query.pid())];
    let moved = Metrics::scrape(&api).await.sum("sluice_group_partitions_moved_total", &[]);

    servers.s3(Verb::Pause);
    let since = Instant::now();
    world.log.flood(&world.index, mixed(Random::new(1), partitions, flood * MIB));
    println!("{flood} MiB written in {:?}", since.elapsed());
    let (from, before) = (watches[0].now(), blocked(&api).await);
    tokio::time::sleep(store_away).await;
    let (to, after) = (watches[0].now(), blocked(&api).await);
    println!("blocked by the budget, by workers, in us: {before:?} to {after:?}");
    assert!(after.iter().sum::<f64>() > before.iter().sum::<f64>() + store_away.as_micros() as f64);
    let metrics = Metrics::scrape(&api).await;
    assert_eq!(metrics.sum("sluice_group_partitions_moved_total", &[]), moved, "thrown out of the group");
    let stale = metrics.max("sluice_freshness_seconds", &[]);
    assert!(stale >= store_away.as_secs_f64(), "FRESH-1: {stale} s while the store is away");
    servers.s3(Verb::Resume);

    servers.kafka(Verb::Pause);
    tokio::time::sleep(kafka_away).await;
    servers.kafka(Verb::Kill);
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers.kafka(Verb::Start);
    assert_catches_up(&world, &query, Duration::from_secs(90) + 4 * store_away).await;
    let [indexer, query] = watches.map(Watch::finish);
    assert_bounded(&indexer, memory * MIB, INDEXER_FIXED);
    assert_bounded(&query, 0, SERVE_FIXED);
    let third = (to - from) / 3;
    let (middle, last) = (indexer.mean(from + third, to - third), indexer.mean(to - third, to));
    println!("plateau: {:.1} MiB, then {:.1} MiB", middle / MIB as f64, last / MIB as f64);
    assert!(last <= middle * 1.05, "memory grows while nothing can be published");
}

/// Many small records: what each takes beyond its bytes is charged too.
async fn mem_1_small_records_faster_than_can_be_indexed(set_up: SetUp) {
    let (memory, count) = if is_long() { (64, 2_000_000) } else { (64, 300_000) };
    let more = "seal = { max_age = '1s' }\nmerge = { max_similar = 2 }\ngraph = { min_records = 100_000 }";
    let world = World::new(&set_up, "small", DIMENSION, more)
        .variable("SLUICE__LIMITS__MEMORY", &format!("{memory}MiB"));
    let (indexer, query) = (world.indexer().await, world.query().await);
    all_run(&world.api(&indexer), 4).await;
    let watches = [Watch::start("indexer", indexer.pid()), Watch::start("query service", query.pid())];
    let mut random = Random::new(2);
    let since = Instant::now();
    world.log.flood(
        &world.index,
        (0..count).map(|_| {
            let key = random.below(count / 4);
            let partition = u32::try_from(key % 4).unwrap();
            upsert(&mut random, partition, &format!("k{key}"), 10)
        }),
    );
    println!("{count} records written in {:?}", since.elapsed());
    assert_catches_up(&world, &query, Duration::from_secs(300)).await;
    let [indexer, query] = watches.map(Watch::finish);
    assert_bounded(&indexer, memory * MIB, INDEXER_FIXED);
    assert_bounded(&query, 0, SERVE_FIXED);
}

/// One partition is written without a pause and the others seldom: these are published in time.
async fn mem_2_cold_partitions_publish_beside_a_hot_one(set_up: SetUp) {
    const SEAL_AGE: Duration = Duration::from_secs(4);
    let (partitions, flood, rounds) = if is_long() { (64, 2000, 10) } else { (16, 200, 2) };
    let more = "seal = { max_age = '4s' }\ngraph = { min_records = 100_000 }";
    let world = World::with_partitions(&set_up, "hot", DIMENSION, partitions, more)
        .variable("SLUICE__LIMITS__MEMORY", "64MiB");
    let indexer = world.indexer().await;
    let api = world.api(&indexer);
    all_run(&api, partitions as usize).await;
    let watch = Watch::start("indexer", indexer.pid());
    let mut random = Random::new(3);
    let hot = (0..).map(|i| upsert(&mut random, 0, &format!("hot{}", i % 5000), 20_000));
    world.log.flood(&world.index, hot.take(flood * (1 << 20) / 20_000));
    let mut worst = Duration::ZERO;
    for round in 0..rounds {
        let mut random = Random::new(round);
        let cold = (1..partitions).map(|p| upsert(&mut random, p, &format!("cold{p}-{round}"), 100));
        world.log.flood(&world.index, cold.collect::<Vec<_>>().into_iter());
        let written = Instant::now();
        within(2 * SEAL_AGE, "each cold partition is published", || async {
            let report = api.get_root("/status").await.body;
            let all = report["partitions"].as_array().cloned().unwrap_or_default();
            let next = |p: &serde_json::Value| p["worker"]["next_offset"].as_u64().unwrap_or_default();
            let late: Vec<_> = all
                .iter()
                .filter(|p| p["partition"] != 0 && next(p) <= round)
                .map(|p| p["partition"].clone())
                .collect();
            if late.is_empty() { Ok(()) } else { Err(format!("late: {late:?}")) }
        })
        .await;
        worst = worst.max(written.elapsed());
    }
    let report = api.get_root("/status").await.body;
    let lag = report["partitions"][0]["lag_records"].as_u64().unwrap();
    println!("cold partitions were published within {worst:?}, the hot one had {lag} records to go");
    let query = world.query().await;
    assert_catches_up(&world, &query, Duration::from_secs(300)).await;
    assert_bounded(&watch.finish(), 64 * MIB, INDEXER_FIXED);
}

/// Clients that publish as fast as they can, more at once than the process takes, with the log away for a while.
async fn mem_1_a_flood_of_http_publishes(set_up: SetUp) {
    let servers = match &set_up {
        SetUp::Local => None,
        SetUp::Servers { .. } => Some(Servers::start().unwrap()),
    };
    let here = servers.as_ref().map_or(SetUp::Local, Servers::set_up);
    let world = World::new(&here, "flood", DIMENSION, "seal = { max_age = '1s' }");
    let world = servers
        .iter()
        .fold(world, |world, servers| servers.serve(world))
        .variable("SLUICE__LIMITS__MEMORY", "64MiB")
        .variable("SLUICE__LIMITS__PUBLISH_TIMEOUT", "3s");
    let process = world.start("up", "up").await;
    let api = world.api(&process);
    all_run(&api, 4).await;
    let watch = Watch::start("up", process.pid());
    let until = Instant::now() + Duration::from_secs(if is_long() { 60 } else { 10 });
    let clients = (0..128u64).map(|client| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut random = Random::new(client);
            let mut counts = BTreeMap::<u16, u64>::new();
            for turn in 0.. {
                if Instant::now() > until {
                    break;
                }
                // just below a mebibyte
                let records: Vec<_> = (0..15)
                    .map(|i| {
                        let mut one = record(&mut random, &format!("c{client}-{}-{i}", turn % 3), DIMENSION);
                        one["metadata"]["text"] = "x".repeat(60_000).into();
                        one
                    })
                    .collect();
                let answer = api.try_post("/records", &json!({ "records": records })).await;
                *counts.entry(answer.map_or(0, |a| a.status)).or_default() += 1;
            }
            counts
        })
    });
    let clients: Vec<_> = clients.collect();
    if let Some(servers) = &servers {
        tokio::time::sleep(Duration::from_secs(3)).await;
        servers.kafka(Verb::Pause);
        tokio::time::sleep(Duration::from_secs(4)).await;
        servers.kafka(Verb::Resume);
    }
    let mut counts = BTreeMap::<u16, u64>::new();
    for client in clients {
        for (status, count) in client.await.unwrap() {
            *counts.entry(status).or_default() += count;
        }
    }
    println!("answers by status: {counts:?}");
    assert!(counts[&200] > 0 && counts.keys().all(|status| [0, 200, 503].contains(status)), "{counts:?}");
    assert_catches_up(&world, &process, Duration::from_secs(300)).await;
    assert_bounded(&watch.finish(), 64 * MIB, INDEXER_FIXED + SERVE_FIXED);
}
