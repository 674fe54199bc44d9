//! LIV-3: faults of the store and of Kafka in the middle of an ingest. Searches go on from what is loaded, everything
//! recovers by itself, and nothing is lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::broker::Broker;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::proxy::S3Proxy;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_servers};
use crate::support::world::World;

const DIMENSION: usize = 16;
const QUICK: &str = "seal = { max_age = '100ms', max_records = 100 }\nmerge = { max_similar = 2 }\n";
/// What was read is published a while later, and so are its offsets committed.
const SLOW: &str = "seal = { max_age = '3s' }\n";
/// How long a fault of the store lasts; a stall of ten seconds outlasts the time-out of a small request.
const LASTS: Duration = Duration::from_secs(5);
const STALL_S: u32 = 10;
/// How long the broker is paused: longer than the session.
const PAUSED: Duration = Duration::from_secs(15);
/// Longer than a client may take to return to its group: another one takes its place.
const PAUSED_LONG: Duration = Duration::from_secs(45);

on_servers!(
    liv_3_store_refuses_connections,
    liv_3_store_says_slow_down,
    liv_3_store_stalls,
    liv_3_store_cuts_bodies,
    liv_3_broker_paused,
    liv_3_broker_paused_until_the_member_is_replaced,
    liv_3_broker_killed_and_restarted,
);

/// A world that works, with searches to compare.
struct Bed {
    indexer: Process,
    query: Process,
    random: Random,
    /// Dropped last: the logs of the processes are in its directory.
    world: World,
}

impl Bed {
    async fn new(set_up: &SetUp, name: &str, more: &str) -> Self {
        let world = World::new(set_up, name, DIMENSION, more);
        let (indexer, query) = (world.indexer().await, world.query().await);
        let mut bed = Self { indexer, query, random: Random::new(1), world };
        bed.publish("first").await;
        bed.api().shows(&bed.world.log.ends(&bed.world.index)).await;
        bed
    }

    fn api(&self) -> Api {
        self.world.api(&self.query)
    }

    /// Overwrites, new keys and a delete.
    async fn publish(&mut self, prefix: &str) {
        let api = self.api();
        api.publish(&records(&mut self.random, "hot", 300, DIMENSION)).await;
        api.publish(&records(&mut self.random, prefix, 300, DIMENSION)).await;
        api.remove(&format!("hot{}", self.random.below(300))).await;
    }

    /// Searches until `until` answers from every partition, and quickly.
    async fn search_until(&mut self, until: Instant) -> u32 {
        let api = self.api();
        let mut searches = 0;
        while Instant::now() < until {
            let asked = Instant::now();
            let request = json!({ "vector": self.random.vector(DIMENSION), "k": 10 });
            assert_eq!(api.search(&request).await.len(), 10);
            assert!(asked.elapsed() < Duration::from_secs(5), "a search took {:?}", asked.elapsed());
            searches += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        searches
    }

    /// After the fault: everything arrives, no partition has stopped, the scan is the fold.
    async fn assert_recovers(&mut self) {
        let begun = Instant::now();
        let api = self.api();
        api.shows(&self.world.log.ends(&self.world.index)).await;
        println!("recovered {:?} after the fault", begun.elapsed());
        self.publish("after").await;
        api.shows(&self.world.log.ends(&self.world.index)).await;
        assert_same(&api.scan().await, &fold(&self.world.log.read(&self.world.index), DIMENSION));
        let report = self.world.api(&self.indexer).get_root("/status").await.expect(200);
        let running = |p: &&Value| p["state"] == "running";
        assert_eq!(report["partitions"].as_array().unwrap().iter().filter(running).count(), 4, "{report}");
    }
}

/// A fault: its kind, the method of the requests that suffer it, and its chance.
type Fault<'a> = (&'a str, &'a str, &'a str);

/// Faults of the store, while records are published and searches run.
async fn store(set_up: SetUp, name: &str, faults: &[Fault<'_>]) {
    let proxy = S3Proxy::start(STALL_S);
    let mut bed = Bed::new(&set_up, name, &format!("{QUICK}{}", proxy.options())).await;
    for (kind, method, chance) in faults {
        proxy.fault(kind, method, "*", chance);
    }
    let until = Instant::now() + LASTS;
    bed.publish("during").await;
    let searches = bed.search_until(until).await;
    proxy.clear();
    for (kind, method, _) in faults {
        let struck = proxy.struck(kind);
        println!("{kind} of {method}: struck {struck} times, {searches} searches meanwhile");
        assert!(struck > 0 && searches > 10);
    }
    bed.assert_recovers().await;
}

async fn liv_3_store_refuses_connections(set_up: SetUp) {
    store(set_up, "refuse", &[("refuse", "*", "1")]).await;
}

async fn liv_3_store_says_slow_down(set_up: SetUp) {
    store(set_up, "slow-down", &[("slow-down", "*", "0.8")]).await;
}

async fn liv_3_store_stalls(set_up: SetUp) {
    store(set_up, "stall", &[("stall", "*", "0.5")]).await;
}

/// Segments, manifests and specs, on their way up and down.
async fn liv_3_store_cuts_bodies(set_up: SetUp) {
    store(set_up, "cuts", &[("cut-reply", "GET", "0.6"), ("cut-request", "PUT", "0.6")]).await;
}

/// The same store, and a broker of this test's own.
async fn on_own_broker(set_up: SetUp, name: &str, more: &str) -> (Broker, Bed) {
    let SetUp::Servers { store, .. } = set_up else { panic!("this test is for servers") };
    let broker = Broker::start();
    let bed = Bed::new(&SetUp::Servers { kafka: broker.bootstrap(), store }, name, more).await;
    (broker, bed)
}

async fn liv_3_broker_paused(set_up: SetUp) {
    let (broker, mut bed) = on_own_broker(set_up, "broker-paused", QUICK).await;
    bed.publish("during").await;
    paused(&broker, &mut bed, PAUSED).await;
    bed.assert_recovers().await;
}

/// Offsets are committed to a broker that does not answer, and the session ends; the client may wait for itself then.
async fn liv_3_broker_paused_until_the_member_is_replaced(set_up: SetUp) {
    let (broker, mut bed) = on_own_broker(set_up, "broker-paused-long", SLOW).await;
    bed.publish("during").await;
    // all is read by then, and nothing is published
    tokio::time::sleep(Duration::from_secs(1)).await;
    paused(&broker, &mut bed, PAUSED_LONG).await;
    bed.assert_recovers().await;
    let replaced = |line: &Value| line["error"].as_str().is_some_and(|e| e.contains("has not returned"));
    assert!(bed.indexer.lines().iter().any(replaced), "the member was not replaced");
}

async fn paused(broker: &Broker, bed: &mut Bed, lasts: Duration) {
    broker.call("pause");
    let searches = bed.search_until(Instant::now() + lasts).await;
    broker.call("resume");
    println!("broker paused for {lasts:?}, {searches} searches meanwhile");
}

async fn liv_3_broker_killed_and_restarted(set_up: SetUp) {
    let (broker, mut bed) = on_own_broker(set_up, "broker-killed", QUICK).await;
    bed.publish("during").await;
    broker.call("kill");
    let searches = bed.search_until(Instant::now() + LASTS).await;
    broker.call("start");
    println!("broker killed for {LASTS:?}, {searches} searches meanwhile");
    bed.assert_recovers().await;
}
