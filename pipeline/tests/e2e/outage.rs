//! LIV-3, FRESH-1: with the store and the log both away for a while the lag returns to zero by itself.

use std::time::Duration;

use serde_json::json;

use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::metrics::Metrics;
use crate::support::random::Random;
use crate::support::servers::{Servers, Verb};
use crate::support::set_up::{SetUp, is_long, on_servers};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 16;

on_servers!(liv_3_lag_returns_to_zero_after_the_store_and_the_log_were_away);

async fn liv_3_lag_returns_to_zero_after_the_store_and_the_log_were_away(_: SetUp) {
    let Some(servers) = Servers::start() else { return };
    let world = World::new(&servers.set_up(), "away", DIMENSION, "seal = { max_age = '500ms' }");
    let world = servers.serve(world);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let (api, seen) = (world.api(&query), world.api(&indexer));
    let pids = [indexer.pid(), query.pid()];
    let mut random = Random::new(1);
    api.publish(&records(&mut random, "a", 200, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    let request = json!({ "vector": random.vector(DIMENSION), "k": 10 });
    let before = api.search(&request).await;

    // the store stalled: records are in the log and read, and cannot be published
    let away = Duration::from_secs(if is_long() { 60 } else { 11 });
    servers.s3(Verb::Pause);
    api.publish(&records(&mut random, "b", 200, DIMENSION)).await;
    tokio::time::sleep(away).await;
    let stale = Metrics::scrape(&seen).await.max("sluice_freshness_seconds", &[]);
    println!("freshness after an outage of {away:?}: {stale} s");
    assert!(stale >= away.as_secs_f64() - 1.0, "FRESH-1: {stale} s after {away:?}");
    assert_eq!(api.search(&request).await, before, "searches go on from what is loaded");

    // and the log too, for longer than a lease lasts: what is not ours any more is not measured either
    servers.kafka(Verb::Pause);
    eventually("the lease ends", || async {
        let report = seen.get_root("/status").await;
        if report.body["partitions"] == json!([]) { Ok(()) } else { Err(report.text) }
    })
    .await;
    assert_eq!(Metrics::scrape(&seen).await.max("sluice_freshness_seconds", &[]), 0.0);
    assert_eq!(api.search(&request).await, before);

    // and gone: killed, refused connections, started anew
    servers.kafka(Verb::Kill);
    servers.s3(Verb::Kill);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.search(&request).await, before);
    servers.s3(Verb::Start);
    servers.kafka(Verb::Start);
    eventually("publishing works again", || async {
        let body = json!({ "records": records(&mut Random::new(2), "c", 200, DIMENSION) });
        let answer = api.try_post("/records", &body).await.map_err(|e| e.to_string())?;
        let failed =
            answer.body["results"].as_array().is_none_or(|all| all.iter().any(|r| !r["error"].is_null()));
        if answer.status == 200 && !failed { Ok(()) } else { Err(answer.text) }
    })
    .await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
    assert_eq!(pids, [indexer.pid(), query.pid()], "no process was started anew");
    eventually("freshness and lag are zero again", || async {
        let metrics = Metrics::scrape(&seen).await;
        let (stale, lag) =
            (metrics.max("sluice_freshness_seconds", &[]), metrics.sum("sluice_indexer_lag_records", &[]));
        if (stale, lag) == (0.0, 0.0) { Ok(()) } else { Err(format!("{stale} s, {lag} records")) }
    })
    .await;
    // the servers are stopped first, so that nobody waits for them in vain
    assert!(indexer.stop().await.success() && query.stop().await.success());
}
