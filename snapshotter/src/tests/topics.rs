//! TOPIC-1: creators of several indexes on one topic, interleaved store request by store request, paused and crashed.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use proptest::prelude::*;
use sluice_core::{ErrorKind, IndexSpec};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::error::RegistryError;
use crate::paths::Object;
use crate::registry::{Created, Registry};
use crate::store::Carrier;

/// A store whose every request waits for its turn.
#[derive(Debug)]
struct Gated {
    inner: Arc<InMemory>,
    turns: Arc<Semaphore>,
}

impl Gated {
    async fn turn(&self) {
        self.turns.acquire().await.unwrap().forget();
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.turn().await;
        self.inner.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.turn().await;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, at: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.turn().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What an actor found.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Same,
    /// The topic feeds this index.
    Taken(String),
    Retired(bool),
    Restless,
}

struct Actor {
    turns: Arc<Semaphore>,
    task: JoinHandle<Outcome>,
}

impl Actor {
    /// Lets one request through; `false` when there was none left to make.
    async fn step(&self) -> bool {
        self.turns.add_permits(1);
        while self.turns.available_permits() > 0 && !self.task.is_finished() {
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        !self.task.is_finished()
    }

    async fn finish(self) -> Outcome {
        self.turns.add_permits(100_000);
        self.task.await.unwrap()
    }
}

/// One topic, `t`, and those who want it.
struct World {
    inner: Arc<InMemory>,
    registry: Registry,
}

fn spec_of(index: &str) -> IndexSpec {
    spec(&format!(r#"{{"name":"{index}","topic":"t","dimension":4}}"#))
}

fn spec(text: &str) -> IndexSpec {
    serde_json::from_str(text).unwrap()
}

async fn create(registry: &Registry, index: &str) -> Outcome {
    match registry.create(&spec_of(index)).await {
        Ok(Created::Created(_)) => Outcome::Created,
        Ok(Created::Same(_)) => Outcome::Same,
        Err(RegistryError::TopicTaken { other, .. }) => Outcome::Taken(other.to_string()),
        Err(RegistryError::Restless(_)) => Outcome::Restless,
        other => panic!("{other:?}"),
    }
}

impl World {
    fn new() -> Self {
        let inner = Arc::new(InMemory::new());
        let registry = Registry::new(over(&inner), Arc::new(TestClock::default())).without_pauses();
        Self { inner, registry }
    }

    fn gated(&self) -> (Registry, Arc<Semaphore>) {
        let turns = Arc::new(Semaphore::new(0));
        let gated = Gated { inner: Arc::clone(&self.inner), turns: Arc::clone(&turns) };
        let store = Store::over(Arc::new(gated));
        (Registry::new(store, Arc::new(TestClock::default())).without_pauses(), turns)
    }

    fn creator(&self, index: &'static str) -> Actor {
        let (registry, turns) = self.gated();
        Actor { turns, task: tokio::spawn(async move { create(&registry, index).await }) }
    }

    fn retirer(&self, index: &'static str) -> Actor {
        let (registry, turns) = self.gated();
        let name = IndexName::new(index).unwrap();
        let task = tokio::spawn(async move {
            Outcome::Retired(registry.retire(&name).await.unwrap().is_some_and(|stored| stored.retired))
        });
        Actor { turns, task }
    }

    /// Names of the indexes that read the topic: at most one, at any time.
    async fn readers(&self) -> Vec<String> {
        let live = self.registry.list().await.unwrap();
        let readers: Vec<_> = live.into_iter().map(|stored| stored.spec.name.to_string()).collect();
        assert!(readers.len() <= 1, "TOPIC-1: {readers:?}");
        readers
    }
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn topic_1_a_creator_that_stops_at_any_step_does_not_keep_the_topic_from_others() {
    block_on(async {
        for steps in 0.. {
            let world = World::new();
            let a = world.creator("a");
            let mut running = true;
            for _ in 0..steps {
                running = a.step().await;
            }
            a.task.abort();
            let stored = !world.readers().await.is_empty();
            let expected = if stored { Outcome::Taken("a".into()) } else { Outcome::Created };
            assert_eq!(create(&world.registry, "b").await, expected, "after {steps} steps");
            let again = if stored { Outcome::Same } else { Outcome::Taken("b".into()) };
            assert_eq!(create(&world.registry, "a").await, again, "after {steps} steps");
            world.readers().await;
            if !running {
                assert!(steps >= 5, "two looks, a listing, two creates: {steps} steps");
                break;
            }
        }
    });
}

#[test]
fn topic_1_a_crashed_creation_is_finished_by_the_next_creation_of_the_same_index() {
    block_on(async {
        for steps in 0..20 {
            let world = World::new();
            let a = world.creator("a");
            for _ in 0..steps {
                a.step().await;
            }
            a.task.abort();
            let stored = !world.readers().await.is_empty();
            let expected = if stored { Outcome::Same } else { Outcome::Created };
            assert_eq!(create(&world.registry, "a").await, expected, "after {steps} steps");
            let newest = world.registry.newest(&IndexName::new("a").unwrap()).await.unwrap().unwrap();
            assert_eq!((newest.version, newest.generation.0), (1, 1), "nothing was given up");
        }
    });
}

#[test]
fn topic_1_a_creator_that_sleeps_at_any_step_while_another_takes_the_topic_is_refused() {
    block_on(async {
        for steps in 0..20 {
            let world = World::new();
            let a = world.creator("a");
            for _ in 0..steps {
                a.step().await;
            }
            let b = create(&world.registry, "b").await;
            let readers = world.readers().await;
            let a = a.finish().await;
            assert_eq!(world.readers().await, readers, "after {steps} steps");
            match readers[0].as_str() {
                "b" => assert_eq!((a, b), (Outcome::Taken("b".into()), Outcome::Created), "{steps}"),
                _ => assert_eq!((a, b), (Outcome::Created, Outcome::Taken("a".into())), "{steps}"),
            }
        }
    });
}

#[test]
fn topic_1_a_retirement_frees_the_topic_once_whoever_sleeps_at_whichever_step() {
    block_on(async {
        for steps in 0..20 {
            let world = World::new();
            assert_eq!(create(&world.registry, "old").await, Outcome::Created);
            let again = world.creator("old");
            let retirer = world.retirer("old");
            for _ in 0..steps {
                again.step().await;
            }
            assert_eq!(retirer.finish().await, Outcome::Retired(true));
            assert!(world.readers().await.is_empty());
            let sleeper = world.creator("a");
            for _ in 0..steps {
                sleeper.step().await;
                world.readers().await;
            }
            create(&world.registry, "b").await;
            let readers = world.readers().await;
            assert_eq!(readers.len(), 1);
            sleeper.finish().await;
            again.finish().await;
            assert_eq!(world.readers().await, readers, "after {steps} steps");
        }
    });
}

/// One turn of a schedule.
#[derive(Debug, Clone)]
enum Turn {
    Step(usize),
    Crash(usize),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![40 => (0usize..5).prop_map(Turn::Step), 1 => (0usize..5).prop_map(Turn::Crash)]
}

async fn run(turns: Vec<Turn>) {
    let world = World::new();
    let mut actors: Vec<Option<Actor>> = vec![
        Some(world.creator("a")),
        Some(world.creator("b")),
        Some(world.creator("a")),
        Some(world.retirer("a")),
        Some(world.retirer("b")),
    ];
    for turn in turns {
        match turn {
            Turn::Step(at) => {
                if let Some(actor) = &actors[at] {
                    actor.step().await;
                }
            }
            Turn::Crash(at) => {
                if let Some(actor) = actors[at].take() {
                    actor.task.abort();
                }
            }
        }
        world.readers().await;
    }
    for actor in actors.into_iter().flatten() {
        actor.finish().await;
        world.readers().await;
    }
    let last = create(&world.registry, "c").await;
    match world.readers().await[0].as_str() {
        "c" => assert_eq!(last, Outcome::Created),
        other => assert_eq!(last, Outcome::Taken(other.to_owned())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn topic_1_holds_for_any_schedule_of_creators_retirements_and_crashes(
        turns in proptest::collection::vec(any_turn(), 1..80),
    ) {
        block_on(run(turns));
    }
}

#[tokio::test]
async fn topic_1_an_index_that_was_created_without_a_binding_keeps_its_topic_and_gets_one() {
    for (name, store, _dir) in stores() {
        let registry = Registry::new(store.clone(), Arc::new(TestClock::default()));
        registry.create(&spec_of("old")).await.unwrap();
        let binding = Object::Binding(spec_of("old").topic(), 1);
        // as a program before this rule left it
        store.delete(vec![binding.to_string()]).await.unwrap();
        assert_eq!(create(&registry, "new").await, Outcome::Taken("old".into()), "{name}");
        assert!(store.size(&binding).await.unwrap().is_none(), "{name}: nothing was bound");
        assert_eq!(create(&registry, "old").await, Outcome::Same, "{name}");
        let body = store.get(&binding, 9999, Carrier::Small).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&body).contains("\"old\""), "{name}");
        assert_eq!(create(&registry, "new").await, Outcome::Taken("old".into()), "{name}");
        registry.retire(&spec_of("old").name).await.unwrap().unwrap();
        assert_eq!(create(&registry, "new").await, Outcome::Created, "{name}");
        assert_eq!(create(&registry, "old").await, Outcome::Taken("new".into()), "{name}");
    }
}

#[tokio::test]
async fn topic_1_of_sixteen_indexes_that_are_created_on_a_topic_at_once_one_gets_it() {
    for (name, store, _dir) in stores() {
        let registry = Registry::new(store.clone(), Arc::new(TestClock::default()));
        let indexes: Vec<String> = (0..16).map(|i| format!("i{i}")).collect();
        let outcomes = futures::future::join_all(indexes.iter().map(|index| create(&registry, index))).await;
        let created: Vec<_> = outcomes.iter().filter(|o| **o == Outcome::Created).collect();
        assert_eq!(created.len(), 1, "{name}: {outcomes:?}");
        assert!(outcomes.iter().all(|o| *o != Outcome::Restless), "{name}: {outcomes:?}");
        assert_eq!(registry.list().await.unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_or_foreign_binding_is_refused_by_its_key() {
    let store = memory();
    let registry = Registry::new(store.clone(), Arc::new(TestClock::default()));
    registry.create(&spec_of("a")).await.unwrap();
    let mut other = spec_of("b");
    other.topic = None;
    registry.create(&other).await.unwrap();
    let [t, b] = [spec_of("a").topic(), other.topic()].map(|topic| Object::Binding(topic, 1));
    let foreign = store.get(&b, 9999, Carrier::Small).await.unwrap().unwrap();
    for body in [foreign.as_ref(), b"{", b"{}"] {
        store.put(&t, bytes::Bytes::copy_from_slice(body)).await.unwrap();
        let error = registry.create(&spec_of("c")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with(".topic/t/00000000000000000001.json"), "{error}");
        assert!(matches!(registry.create(&spec_of("a")).await.unwrap(), Created::Same(_)), "it is served on");
    }
}
