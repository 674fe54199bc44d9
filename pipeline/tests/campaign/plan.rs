//! What is killed when: drawn from the seed before anything runs.

use sluice_core::failpoint::NAMES;

use crate::support::random::Random;

/// Longest pause between the wanted progress and the kill: a few seals, merges and collections.
const PAUSE_MS: u64 = 250;
/// Longest pause between two kills of which the second waits for no progress: somewhere in the start.
const START_MS: u64 = 1200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    Indexer,
    Query,
    Both,
}

/// One SIGKILL, or two at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    pub(crate) victims: Victims,
    /// Which of the indexers, as a number to be divided by how many there are.
    pub(crate) which: usize,
    pub(crate) when: When,
}

/// The moment of a kill.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// When this part of what was just written is visible, and after a pause.
    Progress { percent: u64, pause_ms: u64 },
    /// So soon after the kill before it: while processes start, claim and recover.
    Start { pause_ms: u64 },
}

/// One abort at a failpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abort {
    pub(crate) name: &'static str,
    pub(crate) hit: u64,
}

/// Who passes a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passer {
    Indexer,
    /// The query service, when indexes are created and retired over HTTP.
    Creation,
    /// `sluice gc`, when it closes the partitions of a retired index.
    Retirement,
}

impl Abort {
    pub(crate) fn passer(&self) -> Passer {
        match self.name.split_once('.') {
            Some(("spec", _)) => Passer::Creation,
            Some(("gc", step)) if step.starts_with("close") => Passer::Retirement,
            _ => Passer::Indexer,
        }
    }
}

/// Every failpoint at its first `hits` passes, shuffled.
pub(crate) fn aborts(random: &mut Random, hits: u64) -> Vec<Abort> {
    let all = NAMES.iter().flat_map(|name| (1..=hits).map(move |hit| Abort { name, hit }));
    let mut all: Vec<Abort> = all.collect();
    for last in (1..all.len()).rev() {
        all.swap(last, usize::try_from(random.below(last as u64 + 1)).unwrap());
    }
    all
}

/// The next kill.
pub(crate) fn kill(random: &mut Random) -> Kill {
    let victims = match random.below(5) {
        0..2 => Victims::Indexer,
        2..4 => Victims::Query,
        _ => Victims::Both,
    };
    let which = usize::try_from(random.below(1 << 16)).unwrap();
    let when = match random.below(4) {
        0 => When::Start { pause_ms: random.below(START_MS) },
        _ => When::Progress { percent: random.below(100), pause_ms: random.below(PAUSE_MS) },
    };
    Kill { victims, which, when }
}
