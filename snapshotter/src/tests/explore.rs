//! Every interleaving of two writers, a collector, a reader and late requests, over the product's own decisions.
//!
//! One look at, or change of, one object is one step; any actor may take the next one, and none has to: a process that
//! is paused for ever is dead. A process may also die with a request on its way, which then arrives at any later time,
//! and start anew.

mod world;

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use world::World;

/// A mistake that the exploration must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// The writer does not look at the boundary after its create.
    NoBoundaryLook,
    /// The search takes any last manifest for the newest.
    NoConfirm,
    /// "Exists already" is taken for "mine".
    ExistsIsMine,
    /// "Exists already" is taken for "another's".
    ExistsIsLost,
    /// Deletes come before boundaries.
    DeleteFirst,
    /// Whatever no manifest names is garbage.
    NoWatermark,
}

/// How much each actor may do: (claims, publications) of the writers, and the rest.
struct Budget {
    a: (u8, u8),
    b: (u8, u8),
    collections: u8,
    polls: u8,
    faults: u8,
    crashes: u8,
}

/// Visits every state once and counts them, or stops at the first violation. It goes deep first, so that few states wait
/// to be visited, and remembers eight bytes of each that it saw.
fn explore(budget: &Budget, bug: Bug) -> Result<usize, String> {
    let fingerprint = |world: &World| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    let mut open = vec![World::new(budget)];
    let mut seen: HashSet<u64> = open.iter().map(fingerprint).collect();
    while let Some(world) = open.pop() {
        let next = world.steps(bug)?.into_iter();
        open.extend(next.filter(|world| seen.insert(fingerprint(world))));
    }
    Ok(seen.len())
}

const SHORT: Budget = Budget { a: (0, 1), b: (1, 1), collections: 1, polls: 1, faults: 1, crashes: 0 };
/// An owner that dies, with a request on its way, and comes back as a new process.
const CRASH: Budget = Budget { a: (1, 1), b: (1, 1), collections: 1, polls: 0, faults: 1, crashes: 1 };
/// A reader that follows while chunks are collected.
const FOLLOW: Budget = Budget { a: (0, 2), b: (1, 1), collections: 2, polls: 3, faults: 0, crashes: 0 };
const QUICK: [Budget; 3] = [SHORT, CRASH, FOLLOW];
const LONG: [Budget; 3] =
    [Budget { faults: 2, polls: 2, ..SHORT }, Budget { polls: 1, ..CRASH }, Budget { faults: 1, ..FOLLOW }];

#[test]
fn fence_1_fence_4_gc_1_gc_2_qry_2_hold_in_every_interleaving() {
    let long = std::env::var_os("SLUICE_EXPLORE_LONG").is_some();
    let worlds = [("unclear creates", 500_000), ("crashes", 400_000), ("a following reader", 2_700_000)];
    for (budget, (name, least)) in if long { &LONG } else { &QUICK }.iter().zip(worlds) {
        let began = Instant::now();
        let states = explore(budget, Bug::None).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!("{name}: {states} states, {:.1} s", began.elapsed().as_secs_f64());
        assert!(states > least, "{name}: {states} states");
    }
}

#[test]
fn each_planted_mistake_is_found_by_the_exploration() {
    for (bug, expected) in [
        (Bug::NoBoundaryLook, "FENCE-4"),
        (Bug::NoConfirm, ""),
        (Bug::ExistsIsMine, "FENCE-4"),
        (Bug::ExistsIsLost, "FENCE-4"),
        (Bug::DeleteFirst, ""),
        (Bug::NoWatermark, "GC-1"),
    ] {
        let violation = explore(&SHORT, bug).err().unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {violation}");
        assert!(violation.contains(expected), "{bug:?}: {violation}");
    }
}
