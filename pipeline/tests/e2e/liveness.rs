//! LIV-1, LIV-2, LIV-4, LIV-5: bad messages, panics, hangs and SIGTERM stop nothing but what they must.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::bad::{Bad, DIMENSION, sixty};
use crate::support::broker::Broker;
use crate::support::data::{lines, records};
use crate::support::flood::Outgoing;
use crate::support::fold::{State, assert_same, fold};
use crate::support::log::{Log, Message};
use crate::support::metrics::Metrics;
use crate::support::random::Random;
use crate::support::servers::{Servers, Verb};
use crate::support::set_up::{SetUp, is_long, on_both_set_ups, on_servers};
use crate::support::topics::Refusal;
use crate::support::wait::eventually;
use crate::support::world::World;

const QUICK: &str = "seal = { max_age = '100ms' }";

on_both_set_ups!(
    liv_1_sixty_bad_messages_among_good_ones_become_dead_letters,
    liv_1_a_partition_waits_while_dead_letters_cannot_be_stored,
    liv_2_a_panic_once_restarts_that_partition_only,
    liv_2_a_partition_that_panics_always_is_parked_and_the_others_go_on,
    liv_4_a_worker_that_hangs_is_noticed_and_restarted,
    liv_5_sigterm_at_any_moment_ends_in_time_and_loses_nothing,
    liv_5_who_hangs_at_the_deadline_is_named,
);

mod stalled {
    use super::{liv_5_sigterm_with_a_stalled_store_ends_in_time, on_servers};
    on_servers!(liv_5_sigterm_with_a_stalled_store_ends_in_time);
}

/// The partition that has all the trouble.
const TROUBLED: u32 = 1;

/// A good record for `partition`; keys differ between partitions and come again and again.
fn good(random: &mut Random, partition: u32) -> Outgoing {
    let key = match partition {
        TROUBLED => format!("key-{}", random.below(40)),
        other => format!("p{other}-{}", random.below(40)),
    };
    let value = json!({ "vector": random.vector(DIMENSION), "metadata": { "size": random.below(9) } });
    let value = Some(value.to_string().into_bytes());
    Outgoing { partition, key: Some(key.into_bytes()), value, ..Outgoing::default() }
}

/// Good records that stand right at the limits.
fn at_the_limits(random: &mut Random) -> Vec<Outgoing> {
    let mut key = good(random, TROUBLED);
    key.key = Some(vec![b'k'; 512]);
    let mut value = good(random, TROUBLED);
    value.value.as_mut().unwrap().resize(1_000_000, b' ');
    let mut metadata = good(random, TROUBLED);
    let text = "x".repeat((64 << 10) - "{\"text\":\"\"}".len());
    let vector = random.vector(DIMENSION);
    metadata.value = Some(json!({ "vector": vector, "metadata": { "text": text } }).to_string().into_bytes());
    let mut tiny = good(random, TROUBLED);
    tiny.value = Some(b"{\"vector\":[1,1,1,1,1,1,1,1e-40]}".to_vec());
    let deleted = Outgoing { value: None, ..good(random, TROUBLED) };
    let headers = vec![("trace".to_owned(), vec![0, 0xff]), ("content-type".to_owned(), b"x/y".to_vec())];
    let only_headers = Outgoing { value: None, headers, ..good(random, TROUBLED) };
    vec![key, value, metadata, tiny, deleted, only_headers]
}

/// Each bad message among ten good ones.
fn mixed(random: &mut Random, all: &[Bad]) -> Vec<Outgoing> {
    let mut messages = at_the_limits(random);
    for bad in all {
        messages.extend((0..10).map(|i| good(random, i % 4)));
        messages.push(Outgoing { partition: TROUBLED, ..bad.message.clone() });
    }
    messages
}

/// The fold of a log that holds `all` among good messages: who is bad is known by what was written, not by a decoder.
fn fold_of_the_good(written: &[Outgoing], all: &[Bad], read: &[Message]) -> (State, Vec<Message>) {
    let is_bad = |m: &Outgoing| all.iter().any(|b| b.message.key == m.key && b.message.value == m.value);
    let mut expected: BTreeMap<u32, Vec<&Outgoing>> = BTreeMap::new();
    for message in written {
        expected.entry(message.partition).or_default().push(message);
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for message in read {
        let of = expected[&message.partition][usize::try_from(message.offset).unwrap()];
        assert_eq!((&of.key, &of.value), (&message.key, &message.value), "the log holds what was written");
        let list = if is_bad(of) { &mut bad } else { &mut good };
        list.push(message.clone());
    }
    (fold(&good, DIMENSION), bad)
}

/// Every bad message has one dead letter, with its place, its reason and its bytes.
fn assert_letters(topic: &str, letters: &[Message], bad: &[Message], all: &[Bad]) {
    assert_eq!(letters.len(), bad.len());
    for message in bad {
        let offset = message.offset.to_string();
        let of = all.iter().find(|b| b.message.key == message.key && b.message.value == message.value);
        let of = of.unwrap();
        let letter = letters.iter().find(|l| l.header("sluice.offset") == offset).unwrap_or_else(|| {
            panic!("no dead letter for offset {offset}, which is bad by {}", of.reason);
        });
        assert_eq!(letter.header("sluice.topic"), topic);
        assert_eq!(letter.header("sluice.partition"), TROUBLED.to_string());
        assert_eq!(letter.header("sluice.reason"), of.reason, "{}", letter.header("sluice.detail"));
        assert!(!letter.header("sluice.detail").is_empty());
        assert_eq!((&letter.key, &letter.value), (&message.key, &message.value));
        for (name, value) in &of.message.headers {
            assert_eq!(letter.headers.get(name), Some(value), "{name}");
        }
    }
}

async fn liv_1_sixty_bad_messages_among_good_ones_become_dead_letters(set_up: SetUp) {
    let world = World::new(&set_up, "sixty", DIMENSION, QUICK);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let all = sixty();
    let written = mixed(&mut Random::new(1), &all);
    all_run(&world.api(&indexer), 4).await;
    world.log.flood(&world.index, written.iter().cloned());
    let api = world.api(&query);
    api.shows(&world.log.ends(&world.index)).await;

    let (state, bad) = fold_of_the_good(&written, &all, &world.log.read(&world.index));
    assert_eq!(bad.len(), 60);
    assert_same(&api.scan().await, &state);
    assert_letters(&world.index, &world.log.read(&format!("{}.dead-letter", world.index)), &bad, &all);
    let metrics = Metrics::scrape(&world.api(&indexer)).await;
    for reason in all.iter().map(|b| b.reason).collect::<BTreeSet<_>>() {
        let count = all.iter().filter(|b| b.reason == reason).count();
        let label = format!("reason=\"{reason}\"");
        assert_eq!(metrics.sum("sluice_dead_letters_total", &[&label]), count as f64, "{reason}");
    }
    assert_eq!(metrics.sum("sluice_partition_restarts_total", &[]), 0.0);
}

async fn liv_1_a_partition_waits_while_dead_letters_cannot_be_stored(set_up: SetUp) {
    let (own, set_up) = match set_up {
        SetUp::Local => (None, set_up),
        SetUp::Servers { store, .. } => {
            let broker = Broker::of_three();
            let set_up = SetUp::Servers { kafka: broker.bootstrap(), store };
            (Some(broker), set_up)
        }
    };
    let world = World::new(&set_up, "waits", DIMENSION, QUICK);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let (api, seen) = (world.api(&query), world.api(&indexer));
    all_run(&seen, 4).await;
    let all = sixty();
    let mut random = Random::new(2);
    let mut written = mixed(&mut random, &all);
    let letters = format!("{}.dead-letter", world.index);
    let refusal = match (&own, &world.log) {
        (None, Log::Local { dir }) => Refusal::Local(dir),
        (Some(broker), Log::Kafka { .. }) => Refusal::Node(broker, 3),
        _ => unreachable!("the broker of three is for Kafka"),
    };
    refusal.begin(&letters).await;
    world.log.flood(&world.index, written.iter().cloned());
    let ends = world.log.ends(&world.index);
    let others: BTreeMap<_, _> =
        ends.iter().filter(|(p, _)| **p != TROUBLED).map(|(p, e)| (*p, *e)).collect();
    api.shows(&others).await;
    eventually("the partition waits for its dead letters", || async {
        let waiting = Metrics::scrape(&seen).await.sum("sluice_dead_letters_waiting_partitions", &[]);
        if waiting == 1.0 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    // what is written meanwhile stands behind the bad message, and is told all the same
    let more: Vec<_> = (0..20).map(|_| good(&mut random, TROUBLED)).collect();
    written.extend(more.iter().cloned());
    world.log.flood(&world.index, more.into_iter());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ends = world.log.ends(&world.index);
    let first_bad = written
        .iter()
        .filter(|m| m.partition == TROUBLED)
        .position(|m| all.iter().any(|b| b.message.key == m.key && b.message.value == m.value));
    let visible = api.visible().await.unwrap()[&TROUBLED];
    assert!(
        visible <= first_bad.unwrap() as u64,
        "offset {visible} is published, a dead letter before it is not"
    );
    fresh_1_lag_and_freshness_are_told(&seen, ends[&TROUBLED] - visible).await;
    refusal.end();

    api.shows(&ends).await;
    let (state, bad) = fold_of_the_good(&written, &all, &world.log.read(&world.index));
    assert_same(&api.scan().await, &state);
    let mut letters = world.log.read(&letters);
    // one whose acknowledgement was lost in the outage is written again
    letters.sort_by_key(|l| l.header("sluice.offset"));
    letters.dedup_by_key(|l| l.header("sluice.offset"));
    assert_letters(&world.index, &letters, &bad, &all);
    assert_eq!(Metrics::scrape(&seen).await.sum("sluice_dead_letters_waiting_partitions", &[]), 0.0);
    eventually("nothing lags any more", || async {
        let metrics = Metrics::scrape(&seen).await;
        let lag = metrics.sum("sluice_indexer_lag_records", &[]);
        let waited = metrics.max("sluice_freshness_seconds", &[]);
        if (lag, waited) == (0.0, 0.0) { Ok(()) } else { Err(format!("lag {lag}, freshness {waited} s")) }
    })
    .await;
}

/// The troubled partition lags by `behind` records, the oldest of which has waited for at least five seconds.
async fn fresh_1_lag_and_freshness_are_told(seen: &Api, behind: u64) {
    let label = format!("partition=\"{TROUBLED}\"");
    eventually("lag and freshness of the partition that waits are true", || async {
        let metrics = Metrics::scrape(seen).await;
        let lag = metrics.sum("sluice_indexer_lag_records", &[&label]);
        let waited = metrics.sum("sluice_freshness_seconds", &[&label]);
        let told = lag == behind as f64 && waited >= 5.0;
        if told { Ok(()) } else { Err(format!("lag {lag} of {behind}, freshness {waited} s")) }
    })
    .await;
}

/// Waits until each of the partitions runs.
async fn all_run(api: &Api, partitions: usize) {
    eventually("all partitions run", || async {
        let running = in_state(api, "running").await.len();
        if running == partitions { Ok(()) } else { Err(format!("{running} of {partitions} run")) }
    })
    .await;
}

/// The partitions in this state, as the indexer's status tells them.
async fn in_state(api: &Api, state: &str) -> Vec<Value> {
    let report = api.get_root("/status").await.body;
    let all = report["partitions"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|p| p["state"] == state).collect()
}

/// A world of eight partitions whose failed ones start again soon.
fn eight(set_up: &SetUp, name: &str) -> World {
    World::with_partitions(set_up, name, DIMENSION, 8, QUICK)
        .variable("SLUICE__INGEST__RESTART_BACKOFF_MIN", "20ms")
        .variable("SLUICE__INGEST__RESTART_BACKOFF_MAX", "200ms")
        .variable("SLUICE__INGEST__STUCK_AFTER", "10s")
}

/// Restarts by one cause: of the troubled partition, and of all others. Other causes, such as a log that does not answer in
/// time on a busy machine, say nothing of it.
async fn restarts(api: &Api, cause: &str) -> (f64, f64) {
    let metrics = Metrics::scrape(api).await;
    let (troubled, cause) = (format!("partition=\"{TROUBLED}\""), format!("cause=\"{cause}\""));
    let name = "sluice_partition_restarts_total";
    let mine = metrics.sum(name, &[&troubled, &cause]);
    (mine, metrics.sum(name, &[&cause]) - mine)
}

/// Writes some good records to each partition.
fn write_good(world: &World, random: &mut Random) {
    let messages: Vec<_> = (0..400).map(|i| good(random, i % 8)).collect();
    world.log.flood(&world.index, messages.into_iter());
}

async fn liv_2_a_panic_once_restarts_that_partition_only(set_up: SetUp) {
    let world = eight(&set_up, "panic-once");
    let mishap = format!("worker.input@{TROUBLED}:panic*1");
    let indexer = world.start_with("index", "indexer", &[("SLUICE_MISHAP", &mishap)]).await;
    let (query, seen) = (world.query().await, world.api(&indexer));
    all_run(&seen, 8).await;
    write_good(&world, &mut Random::new(3));
    let api = world.api(&query);
    api.shows(&world.log.ends(&world.index)).await;
    assert_eq!(restarts(&seen, "panic").await, (1.0, 0.0));
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn liv_2_a_partition_that_panics_always_is_parked_and_the_others_go_on(set_up: SetUp) {
    let world = eight(&set_up, "panic-always");
    let mishap = format!("worker.input@{TROUBLED}:panic");
    let indexer = world.start_with("index", "indexer", &[("SLUICE_MISHAP", &mishap)]).await;
    let (query, seen) = (world.query().await, world.api(&indexer));
    all_run(&seen, 8).await;
    let mut random = Random::new(4);
    write_good(&world, &mut random);
    let parked = eventually("the partition is parked", || async {
        in_state(&seen, "parked").await.pop().ok_or_else(|| "none is".to_owned())
    })
    .await;
    assert_eq!(parked["partition"], TROUBLED);
    assert!(parked["problem"].as_str().unwrap().contains("mishap"), "{parked}");
    assert!(parked["advice"].as_str().unwrap().contains("restart"), "{parked}");
    let (mine, others) = restarts(&seen, "panic").await;
    assert_eq!((mine, others), (9.0, 0.0), "ten failures, a restart after each but the last");
    let metrics = Metrics::scrape(&seen).await;
    assert_eq!(metrics.sum("sluice_partition_parked_state", &[]), 1.0);
    assert_eq!(metrics.sum("sluice_assigned_partitions_count", &["state=\"parked\""]), 1.0);
    let ready = seen.get_root("/health/ready").await;
    assert_eq!(
        (ready.status, &ready.body["parked"][0]["partition"]),
        (200, &json!(TROUBLED)),
        "{}",
        ready.text
    );

    // the others go on
    write_good(&world, &mut random);
    let api = world.api(&query);
    let mut ends = world.log.ends(&world.index);
    ends.remove(&TROUBLED);
    api.shows(&ends).await;
    assert_eq!(api.visible().await.unwrap()[&TROUBLED], 0);
    assert_eq!(in_state(&seen, "running").await.len(), 7);

    // what the advice says: a restart tries anew
    indexer.kill();
    let _indexer = world.indexer().await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn liv_4_a_worker_that_hangs_is_noticed_and_restarted(set_up: SetUp) {
    let world = eight(&set_up, "hang");
    let mishap = format!("worker.input@{TROUBLED}:hang*1");
    let indexer = world.start_with("index", "indexer", &[("SLUICE_MISHAP", &mishap)]).await;
    let (query, seen) = (world.query().await, world.api(&indexer));
    all_run(&seen, 8).await;
    let mut random = Random::new(5);
    write_good(&world, &mut random);
    let api = world.api(&query);
    let mut ends = world.log.ends(&world.index);
    ends.remove(&TROUBLED);
    api.shows(&ends).await;
    assert_eq!(api.visible().await.unwrap()[&TROUBLED], 0, "it hangs while the others go on");
    api.shows(&world.log.ends(&world.index)).await;
    assert_eq!(restarts(&seen, "stuck").await, (1.0, 0.0));
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

/// The product's default.
const DEADLINE: Duration = Duration::from_secs(30);

async fn liv_5_sigterm_at_any_moment_ends_in_time_and_loses_nothing(set_up: SetUp) {
    let rounds = if is_long() { 100 } else { 8 };
    let more = "seal = { max_age = '50ms', max_records = 60 }\nmerge = { max_similar = 2 }";
    let world = World::new(&set_up, "sigterm", DIMENSION, more);
    let (mut random, mut longest) = (Random::new(6), Duration::ZERO);
    // the first one makes the topic
    let first = world.indexer().await;
    all_run(&world.api(&first), 4).await;
    let query = world.query().await;
    assert!(first.stop().await.success());
    for round in 0..rounds {
        let mut file = records(&mut random, "hot", 150, DIMENSION);
        file.extend(records(&mut random, &format!("round{round}-"), 150, DIMENSION));
        file.extend((0..20).map(|_| json!({ "id": format!("hot{}", random.below(150)), "deleted": true })));
        let path = world.dir().join("round.jsonl");
        std::fs::write(&path, lines(&file)).unwrap();
        let mut load = world.command(&["load", &path.display().to_string(), "--index", &world.index]);
        let mut load = load.spawn().unwrap();
        let indexer = world.indexer().await;
        tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
        let told = Instant::now();
        let status = indexer.stop().await;
        longest = longest.max(told.elapsed());
        assert!(status.success(), "{status} after SIGTERM");
        assert!(told.elapsed() < DEADLINE);
        assert!(load.wait().unwrap().success());
    }
    println!("{rounds} SIGTERMs, the longest end took {longest:?}");
    let _indexer = world.indexer().await;
    let api = world.api(&query);
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    assert!(query.stop().await.success());
}

async fn liv_5_who_hangs_at_the_deadline_is_named(set_up: SetUp) {
    let world = eight(&set_up, "hung").variable("SLUICE__SHUTDOWN__DEADLINE", "3s");
    let mishap = format!("worker.input@{TROUBLED}:hang");
    let mut indexer = world.start_with("index", "indexer", &[("SLUICE_MISHAP", &mishap)]).await;
    let query = world.query().await;
    all_run(&world.api(&indexer), 8).await;
    write_good(&world, &mut Random::new(7));
    let mut ends = world.log.ends(&world.index);
    ends.remove(&TROUBLED);
    let api = world.api(&query);
    api.shows(&ends).await;
    let told = Instant::now();
    indexer.signal("TERM");
    let status = indexer.until_ended().await;
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
    assert_eq!(status.code(), Some(1));
    let hung: Vec<_> =
        indexer.lines().into_iter().filter_map(|line| line["hung"].as_array().cloned()).flatten().collect();
    let name = format!("partition {}/{TROUBLED}", world.index);
    assert!(hung.contains(&json!(name)), "{hung:?} without {name}");
    assert_eq!(hung.iter().filter(|h| h.as_str().unwrap().starts_with("partition")).count(), 1, "{hung:?}");

    let _indexer = world.indexer().await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn liv_5_sigterm_with_a_stalled_store_ends_in_time(_: SetUp) {
    let Some(servers) = Servers::start() else { return };
    let world = servers.serve(World::new(&servers.set_up(), "sigterm-stalled", DIMENSION, QUICK));
    let (mut indexer, query) = (world.indexer().await, world.query().await);
    all_run(&world.api(&indexer), 4).await;
    servers.s3(Verb::Pause);
    let mut random = Random::new(8);
    let messages: Vec<_> = (0..400).map(|i| good(&mut random, i % 4)).collect();
    world.log.flood(&world.index, messages.into_iter());
    eventually("the indexer has read what it cannot publish", || async {
        let report = world.api(&indexer).get_root("/status").await.body;
        let all = report["partitions"].as_array().cloned().unwrap_or_default();
        let read = all
            .iter()
            .filter(|p| p["worker"]["applied"].as_u64() > p["worker"]["next_offset"].as_u64())
            .count();
        if read == 4 { Ok(()) } else { Err(format!("{read} of 4")) }
    })
    .await;
    let told = Instant::now();
    indexer.signal("TERM");
    let status = indexer.until_ended().await;
    println!("with a stalled store the end took {:?}: {status}", told.elapsed());
    assert!(told.elapsed() < DEADLINE + Duration::from_secs(2));
    assert!(status.success(), "{status}");
    servers.s3(Verb::Resume);
    let _indexer = world.indexer().await;
    let api = world.api(&query);
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}
