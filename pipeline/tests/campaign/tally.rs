//! What a campaign did and saw, counted and printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::changes::Kinds;
use crate::plan::{Abort, Victims, When};

/// The counts of one campaign.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    name: String,
    seed: u64,
    indexers_killed: u64,
    queries_killed: u64,
    both_killed: u64,
    /// Kills that waited for no progress.
    early: u64,
    reached: BTreeMap<&'static str, Vec<u64>>,
    pub(crate) kinds: Kinds,
    pub(crate) scans: u64,
    pub(crate) compared: u64,
    pub(crate) took: Duration,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        Self { name: name.to_owned(), seed, ..Self::default() }
    }

    pub(crate) fn killed(&mut self, victims: Victims, when: When) {
        match victims {
            Victims::Indexer => self.indexers_killed += 1,
            Victims::Query => self.queries_killed += 1,
            Victims::Both => self.both_killed += 1,
        }
        self.early += u64::from(matches!(when, When::Start { .. }));
    }

    /// Notes how an abort went.
    pub(crate) fn aborted(&mut self, abort: Abort, ended: Result<(), String>) {
        match ended {
            Ok(()) => self.reached.entry(abort.name).or_default().push(abort.hit),
            Err(how) => self.failures.push(format!("failpoint {}:{}: {how}", abort.name, abort.hit)),
        }
    }

    pub(crate) fn kills(&self) -> u64 {
        self.indexers_killed + self.queries_killed + self.both_killed
    }

    fn aborts(&self) -> u64 {
        self.reached.values().map(|hits| hits.len() as u64).sum()
    }

    /// Kills and aborts that were survived, and scans that were equal.
    pub(crate) fn passed(&self) -> u64 {
        self.kills() + self.aborts() + self.scans
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kills, aborts) = (self.kills(), self.aborts());
        writeln!(f, "{}, seed {}, {:.0} s", self.name, self.seed, self.took.as_secs_f64())?;
        writeln!(
            f,
            "  kills:   {kills} (indexer {}, query service {}, both {}; {} of them while processes started)",
            self.indexers_killed, self.queries_killed, self.both_killed, self.early
        )?;
        writeln!(f, "  aborts:  {aborts} at {} failpoints", self.reached.len())?;
        for (name, hits) in &self.reached {
            let mut hits = hits.clone();
            hits.sort_unstable();
            writeln!(f, "             {name} at pass {hits:?}")?;
        }
        let Kinds { inserts, overwrites, deletes, bad } = self.kinds;
        writeln!(
            f,
            "  log:     {} messages ({inserts} new keys, {overwrites} overwrites, {deletes} deletes, {bad} bad)",
            inserts + overwrites + deletes + bad
        )?;
        write!(f, "  scans:   {} equal to the fold, {} records compared", self.scans, self.compared)?;
        for failure in &self.failures {
            write!(f, "\n  FAILED:  {failure}")?;
        }
        Ok(())
    }
}
