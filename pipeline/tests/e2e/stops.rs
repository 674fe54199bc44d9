//! KEY-1, LOG-1: what cannot go on stops by name and says what to do, everything else goes on, the remedy works.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::log::grow;
use crate::support::metrics::Metrics;
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups, on_servers};
use crate::support::topics::truncate;
use crate::support::wait::eventually;
use crate::support::world::{World, index_table};

const DIMENSION: usize = 8;
const QUICK: &str = "seal = { max_age = '100ms' }";

on_both_set_ups!(
    log_1_lost_records_stop_their_partition_and_no_other,
    log_1_retention_of_what_is_indexed_stops_nothing,
    a_dimension_that_changed_stops_by_name,
);

mod topics {
    use super::{key_1_a_topic_that_grew_stops_its_index_and_no_other, on_servers};
    on_servers!(key_1_a_topic_that_grew_stops_its_index_and_no_other);
}

/// The partitions of `topic` that are parked; none of any other is.
async fn parked(api: &Api, topic: &str, count: usize) -> Vec<Value> {
    eventually("partitions are parked", || async {
        let report = api.get_root("/status").await;
        let all = report.body["partitions"].as_array().cloned().unwrap_or_default();
        let parked: Vec<_> = all.into_iter().filter(|p| p["state"] == "parked").collect();
        if parked.len() == count && parked.iter().all(|p| p["topic"] == topic) {
            Ok(parked)
        } else {
            Err(report.text)
        }
    })
    .await
}

/// Status, readiness and metrics agree on which partitions are parked.
async fn assert_told(api: &Api, parked: &[Value]) {
    let ready = api.get_root("/health/ready").await;
    assert_eq!(ready.status, 200, "others go on: {}", ready.text);
    assert_eq!(ready.body["parked"].as_array().unwrap().len(), parked.len(), "{}", ready.text);
    let metrics = Metrics::scrape(api).await;
    assert_eq!(metrics.sum("sluice_partition_parked_state", &[]), parked.len() as f64);
    for partition in parked {
        let labels =
            [format!("topic={}", partition["topic"]), format!("partition=\"{}\"", partition["partition"])];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        assert_eq!(metrics.sum("sluice_partition_parked_state", &labels), 1.0, "{partition}");
    }
}

fn assert_says(text: &Value, words: &[&str]) {
    let text = text.as_str().unwrap_or_default();
    for word in words {
        assert!(text.contains(word), "{text:?} without {word:?}");
    }
}

async fn key_1_a_topic_that_grew_stops_its_index_and_no_other(set_up: SetUp) {
    let world = World::new(&set_up, "grown", DIMENSION, QUICK);
    let other = format!("{}-other", world.index);
    let tables = |first: u32| {
        index_table(&world.index, DIMENSION, first, QUICK) + &index_table(&other, DIMENSION, 4, QUICK)
    };
    world.configure(&tables(4));
    let (indexer, query) = (world.indexer().await, world.query().await);
    let (api, beside, seen) = (world.api(&query), Api::new(&query.url, &other), world.api(&indexer));
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "r", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    let before = api.scan().await;

    // noticed while it runs
    grow(world.bootstrap().unwrap(), &world.index, 6).await;
    let stopped = parked(&seen, &world.index, 6).await;
    for partition in &stopped {
        assert_says(&partition["problem"], &[&world.index, "4", "6"]);
        assert_says(&partition["advice"], &["number of partitions", "create it anew"]);
    }
    assert_told(&seen, &stopped).await;
    let place = *beside.publish(&records(&mut random, "b", 40, DIMENSION)).await.last().unwrap();
    beside.shows_place(place).await;
    assert_same(&api.scan().await, &before);

    // and after a restart
    indexer.kill();
    let indexer = world.indexer().await;
    let seen = world.api(&indexer);
    parked(&seen, &world.index, 6).await;

    // the remedy: retired, and created anew for the topic as it is
    api.delete("").await.expect(200);
    indexer.stop().await;
    let anew = format!("{}-anew", world.index);
    let topic = format!("topic = '{}'\n{QUICK}", world.index);
    world.configure(&(index_table(&anew, DIMENSION, 6, &topic) + &index_table(&other, DIMENSION, 4, QUICK)));
    let _indexer = world.indexer().await;
    let api = Api::new(&query.url, &anew);
    api.shows(&world.log.ends(&world.index)).await;
    assert_eq!(api.scan().await, before);
}

async fn log_1_lost_records_stop_their_partition_and_no_other(set_up: SetUp) {
    let world = World::new(&set_up, "lost", DIMENSION, QUICK);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(2);
    api.publish(&records(&mut random, "r", 200, DIMENSION)).await;
    let ends = world.log.ends(&world.index);
    api.shows(&ends).await;
    indexer.stop().await;
    let before = api.scan().await;
    // while nobody reads: more records, and retention goes past the first of them in partition 2
    api.publish(&records(&mut random, "more", 200, DIMENSION)).await;
    let (next, lost_to) = (ends[&2], ends[&2] + 10);
    truncate(&world.log, &world.index, 2, lost_to).await;

    let indexer = world.indexer().await;
    let seen = world.api(&indexer);
    let stopped = parked(&seen, &world.index, 1).await;
    assert_eq!(stopped[0]["partition"], 2);
    assert_says(&stopped[0]["problem"], &[&next.to_string(), &lost_to.to_string()]);
    assert_says(&stopped[0]["advice"], &["retention", "fill the index again"]);
    assert_told(&seen, &stopped).await;
    let all = world.log.ends(&world.index);
    let others = all.iter().filter(|(p, _)| **p != 2).map(|(p, end)| (*p, *end)).collect();
    api.shows(&others).await;
    // nothing is skipped in silence: what was served of the partition is served as it was
    assert_eq!(api.visible().await.unwrap()[&2], next);
    let of_two = |state: &crate::support::fold::State| {
        state
            .iter()
            .filter(|(_, v)| v.partition == 2)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    let served = api.scan().await;
    assert_eq!(of_two(&served), of_two(&before));

    // the remedy: filled again from its source, after retiring it, under a new name and topic
    api.delete("").await.expect(200);
    indexer.stop().await;
    let anew = format!("{}-anew", world.index);
    world.configure(&index_table(&anew, DIMENSION, 4, QUICK));
    let _indexer = world.indexer().await;
    let api = Api::new(&query.url, &anew);
    api.shows(&Default::default()).await;
    let mut random = Random::new(2);
    let mut source = records(&mut random, "r", 200, DIMENSION);
    source.extend(records(&mut random, "more", 200, DIMENSION));
    api.publish(&source).await;
    api.shows(&world.log.ends(&anew)).await;
    let filled = api.scan().await;
    assert_same(&filled, &fold(&world.log.read(&anew), DIMENSION));
    assert_eq!(filled.len(), 400);
}

/// The start of the log moves up to the next offset: nothing is lost.
async fn log_1_retention_of_what_is_indexed_stops_nothing(set_up: SetUp) {
    let world = World::new(&set_up, "late", DIMENSION, QUICK);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(3);
    api.publish(&records(&mut random, "r", 200, DIMENSION)).await;
    let ends = world.log.ends(&world.index);
    api.shows(&ends).await;
    // retention takes what is indexed already: nothing is lost, nothing stops
    for (partition, end) in &ends {
        truncate(&world.log, &world.index, *partition, end - 1).await;
    }
    indexer.kill();
    let indexer = world.indexer().await;
    api.publish(&records(&mut random, "more", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_eq!(api.scan().await.len(), 240);
    let report = world.api(&indexer).get_root("/status").await;
    assert!(!report.text.contains("parked"), "{}", report.text);
}

async fn a_dimension_that_changed_stops_by_name(set_up: SetUp) {
    let world = World::new(&set_up, "dimension", DIMENSION, QUICK);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(4);
    api.publish(&records(&mut random, "r", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    let before = api.scan().await;
    indexer.stop().await;

    // a file that disagrees with what is stored is refused, and the difference named
    world.configure(&index_table(&world.index, 16, 4, QUICK));
    let output = world.command(&["index", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success());
    for word in [world.index.as_str(), "dimension", "8", "16", "rebuild"] {
        assert!(said.contains(word), "{said:?} without {word:?}");
    }

    // an index that this process may not hold stops alone
    let small = format!("{}-small", world.index);
    world.configure(&index_table(&small, 2, 2, QUICK));
    let indexer = world.start_with("index", "indexer", &[("SLUICE__LIMITS__MAX_DIMENSION", "4")]).await;
    let seen = world.api(&indexer);
    let problem = eventually("the index stops by name", || async {
        let report = seen.get_root("/status").await;
        match report.body["problems"][&world.index].as_str() {
            Some(problem) => Ok(problem.to_owned()),
            None => Err(report.text),
        }
    })
    .await;
    assert_says(&json!(problem), &["dimension 8", "limits.max_dimension", "4"]);
    assert_eq!(Metrics::scrape(&seen).await.sum("sluice_stopped_indexes_count", &[]), 1.0);
    let ready = seen.get_root("/health/ready").await;
    assert_eq!(ready.body["stopped_indexes"][&world.index], problem, "{}", ready.text);
    let beside = Api::new(&query.url, &small);
    beside.shows(&Default::default()).await;
    let place = *beside.publish(&records(&mut random, "s", 10, 2)).await.last().unwrap();
    beside.shows_place(place).await;
    assert_same(&api.scan().await, &before);

    // the remedy: what the message names is set right
    indexer.stop().await;
    let _indexer = world.indexer().await;
    api.publish(&records(&mut random, "more", 40, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}
