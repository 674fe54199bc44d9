//! FENCE-1, FENCE-2: an owner that another one has overtaken publishes nothing more, says so, and goes on with others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::support::api::Api;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_servers};
use crate::support::wait::{eventually, within};
use crate::support::world::{PARTITIONS, SESSION_TIMEOUT_MS, World};
use crate::takeover::{owned, they_share};

const DIMENSION: usize = 16;
/// Records wait so long to be published that an owner can be stopped while it holds some.
const SLOW: &str = "seal = { max_age = '5s' }\n";
/// What a take-over may last beyond the session: a rebalance, claims and seals on two busy cores.
const MARGIN: Duration = Duration::from_secs(40);

on_servers!(
    fence_1_a_paused_indexer_that_wakes_is_fenced_and_joins_again,
    fence_2_of_two_groups_on_one_topic_the_older_owner_stops_and_says_so,
);

/// What an indexer says of each of its partitions.
async fn report(process: &Process, world: &World) -> BTreeMap<u64, Value> {
    let report = world.api(process).get_root("/status").await.expect(200);
    let partitions = report["partitions"].as_array().cloned().unwrap_or_default();
    partitions.into_iter().map(|p| (p["partition"].as_u64().unwrap(), p)).collect()
}

/// Publishes records and waits until the indexer holds some of every partition that are not published.
async fn held_by(indexer: &Process, world: &World, api: &Api, random: &mut Random, prefix: &str) {
    api.publish(&records(random, prefix, 100, DIMENSION)).await;
    eventually("the indexer holds records of each partition", || async {
        let partitions = report(indexer, world).await;
        let holds = |p: &&Value| p["worker"]["growing_records"].as_u64().is_some_and(|n| n > 0);
        let holding = partitions.values().filter(holds).count();
        if holding == PARTITIONS as usize { Ok(()) } else { Err(format!("{partitions:?}")) }
    })
    .await;
}

async fn shows_all(world: &World, api: &Api, limit: Duration) {
    let ends = world.log.ends(&world.index);
    within(limit, "everything is visible", || async {
        let visible = api.visible().await?;
        let behind = ends.iter().any(|(p, end)| visible.get(p).is_none_or(|v| v < end));
        if behind { Err(format!("{visible:?} of {ends:?}")) } else { Ok(()) }
    })
    .await;
}

/// Every manifest of every partition that is left: epochs never go back, and each begins where the one before ended.
fn assert_chains(world: &World) {
    for partition in 0..PARTITIONS {
        let mut before: Option<Value> = None;
        let mut manifests = 0;
        for number in 1.. {
            let (partition, number) = (partition.to_string(), number.to_string());
            let arguments =
                ["inspect", &world.index, "--partition", &partition, "--manifest", &number, "--json"];
            let output = world.run(&arguments);
            if !output.status.success() {
                break;
            }
            let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
            let field =
                |m: &Value, name: &str| m[name].as_u64().unwrap_or_else(|| panic!("no {name} in {m}"));
            if let Some(before) = &before {
                assert!(field(before, "epoch") <= field(&manifest, "epoch"), "{before} {manifest}");
                assert_eq!(field(before, "next_offset"), field(&manifest, "start"), "{before} {manifest}");
            }
            before = Some(manifest);
            manifests += 1;
        }
        assert!(manifests >= 3, "partition {partition} has {manifests} manifests");
    }
}

/// What the log of a process tells from line `from` on: each partition that was fenced, and whether any published
/// before it was claimed again.
fn fenced_since(process: &Process, from: usize) -> BTreeSet<String> {
    let (mut fenced, mut claimed) = (BTreeSet::new(), BTreeSet::new());
    for line in process.lines().into_iter().skip(from) {
        let partition = line["partition"].as_str().unwrap_or_default().to_owned();
        match line["message"].as_str() {
            Some("claimed") => {
                claimed.insert(partition);
            }
            Some("fenced") => {
                fenced.insert(partition);
            }
            Some("published") => assert!(claimed.contains(&partition), "published by a zombie: {line}"),
            Some("partition stopped") => panic!("stopped for good: {line}"),
            _ => {}
        }
        assert!(!line.to_string().contains("damaged"), "reported as damage: {line}");
    }
    fenced
}

/// SIGSTOP past the session, another one publishes, SIGCONT.
async fn fence_1_a_paused_indexer_that_wakes_is_fenced_and_joins_again(set_up: SetUp) {
    let world = World::new(&set_up, "zombie", DIMENSION, SLOW);
    let session = Duration::from_millis(SESSION_TIMEOUT_MS.into());
    let (zombie, query) = (world.start("index", "zombie").await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "a", 100, DIMENSION)).await;
    shows_all(&world, &api, MARGIN).await;
    held_by(&zombie, &world, &api, &mut random, "b").await;
    zombie.signal("STOP");

    let other = world.start("index", "other").await;
    api.publish(&records(&mut random, "b", 100, DIMENSION)).await;
    api.remove("a7").await;
    shows_all(&world, &api, session + MARGIN).await;
    assert_eq!(owned(&other, &world).await.len(), PARTITIONS as usize);

    let from = zombie.lines().len();
    zombie.signal("CONT");
    // it still holds records of each partition, and tries to publish them at once or when it is told to let go
    eventually("the zombie is fenced in each partition", || async {
        let fenced = fenced_since(&zombie, from);
        if fenced.len() == PARTITIONS as usize { Ok(()) } else { Err(format!("{fenced:?}")) }
    })
    .await;
    they_share(&zombie, &other, &world).await;
    api.publish(&records(&mut random, "c", 100, DIMENSION)).await;
    shows_all(&world, &api, MARGIN).await;
    fenced_since(&zombie, from);
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    assert_chains(&world);
}

/// Two groups know nothing of each other: both own every partition, and only the manifests tell who may publish.
async fn fence_2_of_two_groups_on_one_topic_the_older_owner_stops_and_says_so(set_up: SetUp) {
    let mut world = World::new(&set_up, "two-groups", DIMENSION, SLOW);
    world.environment.push(("SLUICE__INGEST__REJOIN_AFTER".into(), "5s".into()));
    let (older, query) = (world.start("index", "older").await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "a", 100, DIMENSION)).await;
    shows_all(&world, &api, MARGIN).await;

    let group = [("SLUICE__LOG__GROUP".to_owned(), format!("{}-other", world.index))];
    let mut newer = world.spawn("index", "newer", &group);
    newer.listens().await;
    eventually("the newer one has claimed every partition", || async {
        let owned = owned(&newer, &world).await;
        if owned.len() == PARTITIONS as usize { Ok(()) } else { Err(format!("{owned:?}")) }
    })
    .await;
    let from = older.lines().len();
    api.publish(&records(&mut random, "b", 100, DIMENSION)).await;
    eventually("the older one says that it is fenced in each partition", || async {
        let partitions = report(&older, &world).await;
        let fenced = partitions.values().filter(|p| p["state"] == "fenced").count();
        if fenced == PARTITIONS as usize { Ok(()) } else { Err(format!("{partitions:?}")) }
    })
    .await;
    assert_eq!(fenced_since(&older, from).len(), PARTITIONS as usize);
    shows_all(&world, &api, MARGIN).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));

    // with the other one gone it takes the partitions back by itself
    newer.kill();
    api.publish(&records(&mut random, "c", 100, DIMENSION)).await;
    shows_all(&world, &api, MARGIN).await;
    eventually("the older one owns them again", || async {
        let owned = owned(&older, &world).await;
        if owned.len() == PARTITIONS as usize { Ok(()) } else { Err(format!("{owned:?}")) }
    })
    .await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    assert_chains(&world);
}
