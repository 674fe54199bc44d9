//! The subcommands from outside: exit codes, JSON, and garbage collection beside a running index.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::data::records;
use crate::support::fold::{assert_same, fold};
use crate::support::process::{Process, sluice};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups};
use crate::support::wait::eventually;
use crate::support::world::World;

const DIMENSION: usize = 16;

on_both_set_ups!(
    every_command_speaks_json,
    gc_1_and_gc_2_garbage_goes_and_nothing_else,
    bad_configuration_is_refused_by_name
);

/// What a command printed, after it succeeded.
fn printed(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

fn run(world: &World, arguments: &[&str]) -> Value {
    printed(&world.run(&[arguments, &["--json"]].concat()))
}

async fn every_command_speaks_json(set_up: SetUp) {
    let more = "seal = { max_age = '100ms' }\ngraph = { min_records = 32 }";
    let world = World::new(&set_up, "commands", DIMENSION, more);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let published = records(&mut Random::new(1), "r", 400, DIMENSION);
    api.publish(&published).await;
    api.shows(&world.log.ends(&world.index)).await;
    let index = world.index.as_str();

    let vector = published[5]["vector"].to_string();
    let search = ["search", index, "--url", &query.url, "--exact"];
    assert_eq!(run(&world, &[&search[..], &["--vector", &vector]].concat())["hits"][0]["id"], "r5");
    let hits =
        run(&world, &[&search[..], &["--id", "r5", "-k", "3", "--filter", "{\"group\":\"red\"}"]].concat());
    assert_eq!(hits["hits"].as_array().unwrap().len(), 3);
    let status = run(&world, &["status", "--url", &query.url]);
    assert!(status.to_string().contains(index), "{status}");
    assert_eq!(run(&world, &["status", "--url", &indexer.url])["partitions"].as_array().unwrap().len(), 4);
    inspect(&world, &published);
    assert_eq!(run(&world, &["scrub"])["findings"], json!([]));
    for check in run(&world, &["doctor"])["checks"].as_array().unwrap() {
        assert_ne!(check["verdict"], "failed", "{check}");
    }
    let config = run(&world, &["check-config"]).to_string();
    assert!(config.contains("256") && !config.contains("testsecret"), "{config}");
    let script = sluice().args(["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8_lossy(&script.stdout).contains("check-config"));

    // the service does not answer: 1, and said why
    drop(query);
    let output = world.run(&["search", index, "--id", "r5", "--url", "http://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty());
}

/// The store holds every record, in segments with graphs.
fn inspect(world: &World, published: &[Value]) {
    assert!(run(world, &["inspect"]).to_string().contains(&world.index));
    let mut rows = 0;
    for partition in ["0", "1", "2", "3"] {
        let manifest = run(world, &["inspect", &world.index, "--partition", partition, "--segments"]);
        for segment in manifest["segments"].as_array().unwrap() {
            rows += segment["records"].as_u64().unwrap();
            assert!(segment["info"]["graph"].is_object(), "{segment}");
        }
    }
    assert_eq!(rows, published.len() as u64);
}

/// The manifest's number of each partition.
async fn manifests(world: &World, query: &Process) -> Vec<u64> {
    let status = world.api(query).get("").await.body;
    let partitions = status["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().map(|p| p["manifest"].as_u64().unwrap_or(0)).collect()
}

async fn gc_1_and_gc_2_garbage_goes_and_nothing_else(set_up: SetUp) {
    let more = "seal = { max_age = '10ms' }\nmerge = { max_similar = 2 }";
    let world = World::new(&set_up, "gc", DIMENSION, more);
    let (indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let mut random = Random::new(1);
    // names are collected by whole chunks of 64
    while manifests(&world, &query).await.iter().any(|seq| *seq < 130) {
        let place = api.publish(&records(&mut random, "r", 12, DIMENSION)).await[0];
        api.shows_place(place).await;
    }
    let report = run(&world, &["gc", "--retain", "1", "--grace", "0s"]);
    assert!(report["manifests"].as_u64().unwrap() >= 64 * 4, "{report}");
    assert!(
        report["segments"].as_u64().unwrap() > 0 && report["boundaries"].as_u64().unwrap() >= 4,
        "{report}"
    );
    eventually("nothing is missing, and nothing is left over", || async {
        let report = run(&world, &["scrub"]);
        if report["findings"] == json!([]) { Ok(()) } else { Err(report.to_string()) }
    })
    .await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));

    // the owner goes on, and so do processes that start from what is left
    let place = api.publish(&records(&mut random, "s", 50, DIMENSION)).await[49];
    api.shows_place(place).await;
    indexer.kill();
    query.kill();
    let (_indexer, query) = (world.indexer().await, world.start("serve", "fresh").await);
    let api = world.api(&query);
    api.publish(&records(&mut random, "t", 50, DIMENSION)).await;
    api.shows(&world.log.ends(&world.index)).await;
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn bad_configuration_is_refused_by_name(set_up: SetUp) {
    let world = World::new(&set_up, "refused", DIMENSION, "");
    let cases = [
        ("SLUICE__LIMITS__MEMORY", "1KiB", "limits.memory"),
        ("SLUICE__LIMITS__MEMORI", "1GiB", "memori"),
        ("SLUICE__HTTP__LISTEN", "0.0.0.0:7700", "allow_unauthenticated"),
        ("SLUICE__LOG__KIND", "pulsar", "local"),
        ("SLUICE__STORE__URL", "ftp://host/dir", "s3://"),
    ];
    for (variable, value, named) in cases {
        for command in ["check-config", "index", "serve"] {
            let mut refused = world.command(&[command]);
            let output = refused.env(variable, value).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command} with {variable}={value}: {text}");
            assert!(text.contains(named), "{command} with {variable}={value}: {text}");
        }
    }
}
