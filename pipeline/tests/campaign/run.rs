//! Carries a campaign out: processes are started, fed, killed and compared.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::Value;

use crate::Options;
use crate::changes::{Changes, DIMENSION, Kinds, assert_dead_letters, assert_worth_comparing};
use crate::plan::{self, Abort, Kill, Passer, Victims, When};
use crate::support::api::Api;
use crate::support::fold::{assert_same, fold};
use crate::support::process::Process;
use crate::support::random::Random;
use crate::support::set_up::SetUp;
use crate::support::wait::eventually;
use crate::support::world::World;
use crate::tally::Tally;

/// Small seals, eager merges, collection without grace: as many manifests, deletes and races as can be had.
const SPEC: &str = "seal = { max_age = '50ms', max_records = 25 }\nmerge = { max_similar = 2 }\n\
                    graph = { min_records = 64 }\n[gc]\ninterval = '1s'\nretain = 2\ngrace = '0s'\n";
/// Changes that are written before a kill, and again and again while a failpoint is waited for.
const BATCH: usize = 150;
/// How long a failpoint is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pause between two looks while a failpoint is waited for.
const FEED: Duration = Duration::from_millis(200);
/// Messages that may wait to be published while one is: a slow store is fed slowly.
const AHEAD: u64 = 3 * BATCH as u64;
/// SIGABRT.
const ABORTED: i32 = 6;

/// The processes of a campaign, and what it did to them.
pub(crate) struct Campaign {
    pub(crate) world: World,
    /// Those that are down are started before they are needed.
    indexers: Vec<Option<Process>>,
    query: Option<Process>,
    changes: Changes,
    written: u64,
    pub(crate) tally: Tally,
    pub(crate) started: u32,
}

/// Runs the aborts, then the kills; a failed comparison ends it.
pub(crate) fn campaign(name: &str, set_up: &SetUp, options: &Options) -> Tally {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    let mut world = World::new(set_up, "campaign", DIMENSION, SPEC);
    if matches!(set_up, SetUp::Servers { .. }) {
        // a killed indexer is waited for by its group: no longer than need be
        let setting = |key: &str, value: &str| (format!("SLUICE__LOG__KAFKA__{key}"), value.to_owned());
        world.environment =
            vec![setting("SESSION__TIMEOUT__MS", "2000"), setting("HEARTBEAT__INTERVAL__MS", "400")];
    }
    let mut campaign = Campaign {
        world,
        indexers: vec![None],
        query: None,
        changes: Changes::new(options.seed),
        written: 0,
        tally: Tally::new(name, options.seed),
        started: 0,
    };
    let ran = runtime.block_on(AssertUnwindSafe(campaign.run(set_up, options)).catch_unwind());
    let mut tally = std::mem::take(&mut campaign.tally);
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        tally.failures.push(text.unwrap_or_else(|| "a panic without a message".into()));
    }
    if !tally.failures.is_empty() {
        tally
            .failures
            .push(format!("configuration and logs are kept in {}", campaign.world.keep().display()));
    }
    tally.took = begun.elapsed();
    tally
}

impl Campaign {
    async fn run(&mut self, set_up: &SetUp, options: &Options) {
        let mut random = Random::new(options.seed);
        self.up().await;
        self.write();
        self.check().await;
        let aborts = plan::aborts(&mut random, options.hits);
        let all = aborts.len();
        for (n, abort) in aborts.into_iter().enumerate() {
            let ended = match abort.passer() {
                Passer::Indexer => self.abort_indexer(abort).await,
                Passer::Creation => self.abort_creation(abort).await,
                Passer::Retirement => self.abort_retirement(abort).await,
            };
            self.tally.aborted(abort, ended);
            if (n as u32 + 1).is_multiple_of(options.check_every) {
                self.check().await;
                println!("  {} of {all} aborts, {} scans equal", n + 1, self.tally.scans);
            }
        }
        // with a group there are two indexers, so that kills move partitions; a lone log has one at a time
        if matches!(set_up, SetUp::Servers { .. }) {
            self.indexers.push(None);
        }
        self.check().await;
        for n in 0..options.kills {
            let kill = plan::kill(&mut random);
            self.kill(kill).await;
            if (n + 1).is_multiple_of(options.check_every) {
                self.check().await;
                println!("  {} of {} kills, {} scans equal", n + 1, options.kills, self.tally.scans);
            }
        }
        self.finish().await;
    }

    /// Writes the next batch.
    fn write(&mut self) {
        self.changes.write(&self.world.log, &self.world.index, BATCH);
        self.written += BATCH as u64;
    }

    /// Starts what is down; the indexers need not listen yet.
    pub(crate) async fn up(&mut self) {
        for (n, indexer) in self.indexers.iter_mut().enumerate() {
            if indexer.is_none() {
                *indexer = Some(self.world.spawn("index", &format!("indexer{n}"), &[]));
            }
        }
        self.api().await.shows(&BTreeMap::new()).await;
    }

    /// The query service, started when it is down.
    pub(crate) async fn api(&mut self) -> Api {
        let query = self.query.get_or_insert_with(|| self.world.spawn("serve", "query", &[]));
        query.listens().await;
        self.world.api(query)
    }

    /// Starts the query service with a failpoint, or without one.
    pub(crate) fn start_query(&mut self, failpoint: Option<Abort>) {
        if let Some(query) = self.query.take() {
            query.kill();
        }
        self.query = Some(self.world.spawn("serve", "query", &armed(failpoint)));
    }

    /// Waits for the end of a query service that has just cut off a request: whether it aborted.
    pub(crate) async fn query_aborted(&mut self) -> bool {
        let Some(mut query) = self.query.take() else { return false };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = query.ended() {
                return is_abort(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Feeds an indexer until it aborts at its failpoint.
    async fn abort_indexer(&mut self, abort: Abort) -> Result<(), String> {
        if let Some(indexer) = self.indexers[0].take() {
            indexer.kill();
        }
        let mut indexer = self.world.spawn("index", "indexer0", &armed(Some(abort)));
        let begun = Instant::now();
        let api = self.api().await;
        loop {
            if self.written < visible(&api).await + AHEAD {
                self.write();
            }
            tokio::time::sleep(FEED).await;
            match indexer.ended() {
                Some(status) if is_abort(status) => return Ok(()),
                Some(status) => return Err(format!("ended by {status}")),
                None if begun.elapsed() > PATIENCE => return Err("not reached".into()),
                None => {}
            }
        }
    }

    async fn kill(&mut self, kill: Kill) {
        match kill.when {
            When::Progress { percent, pause_ms } => {
                self.up().await;
                let api = self.api().await;
                let before = visible(&api).await;
                self.write();
                let wanted = before + 1 + BATCH as u64 * percent / 100;
                eventually("some of what was written is visible", || async {
                    let now = visible(&api).await;
                    if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
                })
                .await;
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            When::Start { pause_ms } => {
                self.write();
                for (n, indexer) in self.indexers.iter_mut().enumerate() {
                    indexer.get_or_insert_with(|| self.world.spawn("index", &format!("indexer{n}"), &[]));
                }
                self.query.get_or_insert_with(|| self.world.spawn("serve", "query", &[]));
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
        let which = kill.which % self.indexers.len();
        for (n, indexer) in self.indexers.iter_mut().enumerate() {
            let meant = match kill.victims {
                Victims::Indexer => n == which,
                Victims::Query => false,
                Victims::Both => true,
            };
            if meant && let Some(indexer) = indexer.take() {
                killed(indexer);
            }
        }
        if kill.victims != Victims::Indexer
            && let Some(query) = self.query.take()
        {
            killed(query);
        }
        self.tally.killed(kill.victims, kill.when);
    }

    /// Everything is up, everything is visible, and it is the fold of the log; no partition has stopped.
    pub(crate) async fn check(&mut self) {
        self.up().await;
        let api = self.api().await;
        let messages = self.world.log.read(&self.world.index);
        let ends = messages.iter().map(|m| (m.partition, m.offset + 1)).collect();
        api.shows(&ends).await;
        let state = fold(&messages, DIMENSION);
        assert_same(&api.scan().await, &state);
        self.tally.scans += 1;
        self.tally.compared += state.len() as u64;
        self.tally.kinds = Kinds::of(&messages);
        for indexer in self.indexers.iter_mut().flatten() {
            indexer.listens().await;
            let report = Api::new(&indexer.url, &self.world.index).get_root("/status").await.expect(200);
            let partitions = report["partitions"].as_array().cloned().unwrap_or_default();
            let parked: Vec<&Value> = partitions.iter().filter(|p| p["state"] == "parked").collect();
            assert!(parked.is_empty(), "{parked:?}");
        }
    }

    /// The last comparison, the dead letters, a clean stop, and a store in which nothing is missing or left over.
    async fn finish(&mut self) {
        self.check().await;
        let messages = self.world.log.read(&self.world.index);
        assert_worth_comparing(&fold(&messages, DIMENSION));
        assert_dead_letters(&self.world.log, &self.world.index, &messages);
        for process in self.indexers.iter_mut().filter_map(Option::take).chain(self.query.take()) {
            assert!(process.stop().await.success());
        }
        let collected =
            self.world.run(&["gc", &self.world.index, "--retain", "1", "--grace", "0s", "--json"]);
        assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
        let scrubbed = self.world.run(&["scrub", &self.world.index, "--json"]);
        let report: Value = serde_json::from_slice(&scrubbed.stdout).unwrap();
        assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");
        // a query service that has nothing but the store
        let mut fresh = self.world.spawn("serve", "fresh", &[]);
        fresh.listens().await;
        let api = self.world.api(&fresh);
        api.shows(&messages.iter().map(|m| (m.partition, m.offset + 1)).collect()).await;
        let state = fold(&messages, DIMENSION);
        assert_same(&api.scan().await, &state);
        self.tally.scans += 1;
        self.tally.compared += state.len() as u64;
    }
}

/// The variable that arms a failpoint.
pub(crate) fn armed(abort: Option<Abort>) -> Vec<(String, String)> {
    let variable = |a: Abort| ("SLUICE_FAILPOINT".to_owned(), format!("{}:{}", a.name, a.hit));
    abort.map(variable).into_iter().collect()
}

pub(crate) fn is_abort(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(ABORTED)
}

/// Kills a process that must not have ended by itself.
fn killed(mut process: Process) {
    let ended = process.ended();
    assert!(ended.is_none(), "a process had ended before it was killed: {ended:?}");
    process.kill();
}

/// Offsets that are visible, over all partitions.
async fn visible(api: &Api) -> u64 {
    api.visible().await.map_or(0, |offsets| offsets.values().sum())
}
