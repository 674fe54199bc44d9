//! Every way to publish: what was written is found, and the full scan is the fold of the log.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::data::{lines, records};
use crate::support::fold::{assert_same, fold};
use crate::support::random::Random;
use crate::support::set_up::{SetUp, on_both_set_ups, on_servers, program};
use crate::support::world::World;

const DIMENSION: usize = 16;
const QUICK: &str = "seal = { max_age = '100ms' }";

on_both_set_ups!(http, load_from_a_file, load_from_standard_input);

mod tools {
    use super::{confluent_kafka, kcat, on_servers};
    on_servers!(confluent_kafka, kcat);
}

/// Each record is found by its own vector, and nothing but the fold of the log is served.
async fn assert_found(world: &World, api: &Api, published: &[Value]) {
    api.shows(&world.log.ends(&world.index)).await;
    for record in published.iter().step_by(17) {
        let request = json!({ "vector": record["vector"], "k": 1, "exact": true });
        let hits = api.search(&request).await;
        assert_eq!(hits[0]["id"], record["id"]);
        assert_eq!(hits[0]["metadata"], record["metadata"]);
        assert!(hits[0]["score"].as_f64().unwrap() > 0.999, "{}", hits[0]);
    }
    assert_same(&api.scan().await, &fold(&world.log.read(&world.index), DIMENSION));
}

async fn http(set_up: SetUp) {
    let world = World::new(&set_up, "http", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let api = world.api(&query);
    let published = records(&mut Random::new(1), "r", 300, DIMENSION);
    for chunk in published.chunks(100) {
        let places = api.publish(chunk).await;
        api.shows_place(places[0]).await;
    }
    assert_found(&world, &api, &published).await;
    assert_eq!(api.scan().await.len(), 300);
}

async fn load_from_a_file(set_up: SetUp) {
    let world = World::new(&set_up, "load", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let published = records(&mut Random::new(2), "r", 500, DIMENSION);
    let file = world.dir().join("records.jsonl");
    std::fs::write(&file, lines(&published)).unwrap();
    load(&world, &file);
    let api = world.api(&query);
    assert_found(&world, &api, &published).await;
    assert_eq!(api.scan().await.len(), 500);
}

fn load(world: &World, file: &Path) {
    let output = world.run(&["load", &file.display().to_string(), "--index", &world.index]);
    assert!(output.status.success(), "{output:?}");
}

async fn load_from_standard_input(set_up: SetUp) {
    let world = World::new(&set_up, "stdin", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let published = records(&mut Random::new(3), "r", 50, DIMENSION);
    let mut command = world.command(&["load", "-", "--index", &world.index]);
    assert!(pipe(&mut command, &lines(&published)));
    let api = world.api(&query);
    assert_found(&world, &api, &published).await;
    assert_eq!(api.scan().await.len(), 50);
}

/// Runs `command` with `input`; whether it succeeded.
fn pipe(command: &mut Command, input: &str) -> bool {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait().unwrap().success()
}

/// confluent-kafka by the script that the README shows; deletes are null values.
async fn confluent_kafka(set_up: SetUp) {
    let Some(python) = program("SLUICE_TEST_PYTHON") else { return };
    let world = World::new(&set_up, "python", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let published = records(&mut Random::new(4), "r", 200, DIMENSION);
    let deletes: Vec<_> =
        (0..200).step_by(2).map(|i| json!({ "id": format!("r{i}"), "deleted": true })).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/python/publish.py");
    let mut command = Command::new(python);
    command.args([script, world.bootstrap().unwrap(), &world.index]);
    assert!(pipe(&mut command, &lines(&[published.clone(), deletes].concat())));
    let left: Vec<_> = published.into_iter().skip(1).step_by(2).collect();
    let api = world.api(&query);
    assert_found(&world, &api, &left).await;
    assert_eq!(api.scan().await.len(), 100);
}

/// kcat: key and value on a line, and -Z for null values.
async fn kcat(set_up: SetUp) {
    let Some(kcat) = program("SLUICE_TEST_KCAT") else { return };
    let world = World::new(&set_up, "kcat", DIMENSION, QUICK);
    let (_indexer, query) = (world.indexer().await, world.query().await);
    let published = records(&mut Random::new(5), "r", 200, DIMENSION);
    let run = |more: &[&str], input: &str| {
        let mut command = Command::new(&kcat);
        command.args(["-P", "-b", world.bootstrap().unwrap(), "-t", &world.index, "-K", "\t"]);
        command.args(["-X", "partitioner=murmur2_random"]).args(more);
        assert!(pipe(&mut command, input));
    };
    let keyed = |record: &Value| format!("{}\t{record}\n", record["id"].as_str().unwrap());
    run(&[], &published.iter().map(keyed).collect::<String>());
    run(&["-Z"], &(0..200).step_by(2).map(|i| format!("r{i}\t\n")).collect::<String>());
    let left: Vec<_> = published.into_iter().skip(1).step_by(2).collect();
    let api = world.api(&query);
    assert_found(&world, &api, &left).await;
    assert_eq!(api.scan().await.len(), 100);
}
