//! What is written to the log: upserts, overwrites, deletes and a few bad messages, the same for the same seed.

use serde_json::json;

use crate::support::data::GROUPS;
use crate::support::fold::State;
use crate::support::log::{Log, Message, Written};
use crate::support::random::Random;
use crate::support::world::PARTITIONS;

pub(crate) const DIMENSION: usize = 16;

/// Keys that are overwritten and deleted again and again.
const HOT: u64 = 300;
/// Keys that are seldom touched, so that segments hold what is old and alive.
const COLD: u64 = 1500;

/// A value that is no record: a dead letter, which changes nothing.
const BAD: &[u8] = b"{\"vector\": [1, 2";

/// The stream of changes.
pub(crate) struct Changes {
    random: Random,
}

struct Change {
    key: String,
    value: Option<Vec<u8>>,
}

impl Changes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    fn next(&mut self) -> Change {
        let kind = self.random.below(100);
        let hot = !(60..80).contains(&kind);
        let key = match hot {
            true => format!("hot{}", self.random.below(HOT)),
            false => format!("cold{}", self.random.below(COLD)),
        };
        let value = match kind {
            0..80 => Some(self.upsert()),
            80..98 => None,
            _ => Some(BAD.to_vec()),
        };
        Change { key, value }
    }

    fn upsert(&mut self) -> Vec<u8> {
        let group = GROUPS[usize::try_from(self.random.below(3)).unwrap()];
        let metadata = json!({ "group": group, "size": self.random.below(1000) });
        json!({ "vector": self.random.vector(DIMENSION), "metadata": metadata }).to_string().into_bytes()
    }

    /// Writes the next `count` changes to the log, past the product.
    pub(crate) fn write(&mut self, log: &Log, topic: &str, count: usize) {
        let changes: Vec<Change> = (0..count).map(|_| self.next()).collect();
        let written: Vec<_> = changes
            .iter()
            .map(|c| Written {
                partition: home(&c.key),
                key: Some(c.key.as_bytes()),
                value: c.value.as_deref(),
            })
            .collect();
        log.write_all(topic, &written);
    }
}

/// The partition of a key: any rule will do that keeps it in one.
fn home(key: &str) -> u32 {
    let hash =
        key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % PARTITIONS
}

/// How many changes of each kind a log holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) inserts: u64,
    pub(crate) overwrites: u64,
    pub(crate) deletes: u64,
    pub(crate) bad: u64,
}

impl Kinds {
    /// Counts the messages of a log by hand.
    pub(crate) fn of(messages: &[Message]) -> Self {
        let mut kinds = Self::default();
        let mut live = std::collections::BTreeSet::new();
        for message in messages {
            let key = message.key.clone().unwrap_or_default();
            match message.value.as_deref() {
                None => {
                    live.remove(&key);
                    kinds.deletes += 1;
                }
                Some(BAD) => kinds.bad += 1,
                Some(_) if live.insert(key) => kinds.inserts += 1,
                Some(_) => kinds.overwrites += 1,
            }
        }
        kinds
    }
}

/// Fails unless each bad message of `messages` is a dead letter, once at least.
pub(crate) fn assert_dead_letters(log: &Log, topic: &str, messages: &[Message]) {
    let bad: Vec<&Message> = messages.iter().filter(|m| m.value.as_deref() == Some(BAD)).collect();
    if bad.is_empty() {
        return;
    }
    let letters = log.read(&format!("{topic}.dead-letter"));
    for message in bad {
        let (partition, offset) = (message.partition.to_string(), message.offset.to_string());
        let told = |l: &&Message| {
            l.header("sluice.partition") == partition
                && l.header("sluice.offset") == offset
                && l.value == message.value
        };
        assert!(letters.iter().any(|l| told(&l)), "no dead letter for {partition}@{offset}");
    }
}

/// The state must have something to lose.
pub(crate) fn assert_worth_comparing(state: &State) {
    assert!(state.len() > 100, "only {} records are live", state.len());
}
