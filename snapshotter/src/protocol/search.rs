//! Finding the newest manifest: from a hint or from nothing, without a listing, past collected chunks.

use sluice_core::ManifestSeq;

use super::{Chunk, MAX_SEQ, RunEnd};

/// How often a search starts again because chunks were retired under it.
const MAX_RESTARTS: u8 = 16;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Probe {
    Manifest(ManifestSeq),
    Boundary(Chunk),
}

/// What a search does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SearchStep {
    Look(Probe),
    Found(Newest),
    /// The chain moved on at every turn, or the store says that everything exists.
    GaveUp,
}

/// What a search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Newest {
    /// The partition was never claimed.
    Empty,
    /// This one was the newest at some moment of the search, and the last look that found it present read it.
    At(ManifestSeq),
    /// The generation was retired and its manifests are collected.
    Swept,
}

/// A search for the newest manifest.
///
/// It ends only on the pair "`n + 1` is absent", then "the chunk of `n + 1` has no boundary": no boundary means that
/// no name of that chunk was ever deleted, so `n + 1` had never been created when it was looked at; therefore nothing
/// after it existed, the chunk of `n` was not retired either, and the `n` read before is the one and only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NewestSearch {
    state: State,
    restarts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    /// A number that somebody named; it may be stale or wrong.
    Named(ManifestSeq),
    /// Looks for the last retired chunk; numbers are chunk + 1, so that zero means none.
    Chunks(RunEnd),
    /// Looks for the last manifest; `seen` when the run's last number was itself looked at.
    Seqs {
        run: RunEnd,
        seen: bool,
    },
    Confirm {
        last: ManifestSeq,
        seen: bool,
    },
    Done(Newest),
    GaveUp,
}

impl NewestSearch {
    /// Starts from what the hint says, or from nothing.
    pub fn from_hint(hint: Option<ManifestSeq>) -> Self {
        let state = match hint {
            Some(seq) if seq > ManifestSeq::NONE && seq < MAX_SEQ => State::Named(seq),
            _ => State::Chunks(RunEnd::from(0)),
        };
        Self { state, restarts: 0 }
    }

    /// Starts from a manifest that the caller has read and accepted.
    pub fn after(known: ManifestSeq) -> Self {
        Self { state: State::Seqs { run: RunEnd::from(known.0), seen: true }, restarts: 0 }
    }

    /// What to do now.
    pub fn next(&self) -> SearchStep {
        match &self.state {
            State::Named(seq) => SearchStep::Look(Probe::Manifest(*seq)),
            State::Chunks(run) => match run.next() {
                Some(number) => SearchStep::Look(Probe::Boundary(Chunk(number - 1))),
                None => SearchStep::GaveUp,
            },
            State::Seqs { run, .. } => match run.next() {
                Some(number) if number < MAX_SEQ.0 => SearchStep::Look(Probe::Manifest(ManifestSeq(number))),
                _ => SearchStep::GaveUp,
            },
            State::Confirm { last, .. } => SearchStep::Look(Probe::Boundary(Chunk::of(last.next()))),
            State::Done(newest) => SearchStep::Found(*newest),
            State::GaveUp => SearchStep::GaveUp,
        }
    }

    /// Says whether what [`NewestSearch::next`] named is there.
    pub fn observe(&mut self, present: bool) {
        match &mut self.state {
            State::Named(seq) if present => {
                self.state = State::Seqs { run: RunEnd::from(seq.0), seen: true };
            }
            State::Named(_) => self.state = State::Chunks(RunEnd::from(0)),
            State::Chunks(run) => {
                run.observe(present);
                if run.next().is_none() {
                    // every number of the retired chunks was created once
                    let before = Chunk(run.last()).predecessor_seq();
                    self.state = State::Seqs { run: RunEnd::from(before.0), seen: false };
                }
            }
            State::Seqs { run, seen } => {
                run.observe(present);
                *seen |= present;
                if run.next().is_none() {
                    self.state = State::Confirm { last: ManifestSeq(run.last()), seen: *seen };
                }
            }
            State::Confirm { last, .. } if present => {
                let retired = Chunk::of(last.next());
                self.restarts += 1;
                let again = self.restarts <= MAX_RESTARTS;
                self.state = if again { State::Chunks(RunEnd::from(retired.0 + 1)) } else { State::GaveUp };
            }
            State::Confirm { last, seen } => {
                self.state = State::Done(match (*seen, *last) {
                    (true, last) => Newest::At(last),
                    (false, ManifestSeq::NONE) => Newest::Empty,
                    // chunks were retired, so manifests followed them once
                    (false, _) => Newest::Swept,
                });
            }
            State::Done(_) | State::GaveUp => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::CHUNK;

    /// What stands in a store: manifests, and the chunks below `retired` have a boundary.
    struct Stored {
        manifests: BTreeSet<u64>,
        retired: u64,
    }

    fn run(stored: &Stored, mut search: NewestSearch) -> (SearchStep, usize) {
        for looks in 0.. {
            match search.next() {
                SearchStep::Look(Probe::Manifest(seq)) => search.observe(stored.manifests.contains(&seq.0)),
                SearchStep::Look(Probe::Boundary(chunk)) => search.observe(chunk.0 < stored.retired),
                end => return (end, looks),
            }
        }
        unreachable!()
    }

    proptest! {
        /// Any hint, right or wrong, and any ghosts in retired chunks: the same answer.
        #[test]
        fn fence_1_the_newest_is_found_from_any_hint_past_ghosts(
            newest in 0u64..2000,
            retired_share in 0u64..=100,
            ghosts in proptest::collection::vec(0u64..2000, 0..20),
            hint in proptest::option::of(0u64..4000),
        ) {
            let retired = (newest / CHUNK) * retired_share / 100;
            let mut manifests: BTreeSet<u64> = ((retired * CHUNK).max(1)..=newest).collect();
            manifests.extend(ghosts.into_iter().filter(|g| *g > 0 && g / CHUNK < retired));
            let stored = Stored { manifests, retired };
            let (found, looks) = run(&stored, NewestSearch::from_hint(hint.map(ManifestSeq)));
            let expected = if newest == 0 { Newest::Empty } else { Newest::At(ManifestSeq(newest)) };
            prop_assert_eq!(found, SearchStep::Found(expected));
            prop_assert!(looks < 80, "{} looks", looks);
        }

        /// A swept chain shows no manifest, whatever zombies leave behind.
        #[test]
        fn fence_1_a_swept_chain_stays_swept(
            closing in 1u64..500,
            ghosts in proptest::collection::vec(1u64..500, 0..20),
            hint in proptest::option::of(0u64..600),
        ) {
            let retired = (closing + 1) / CHUNK + 1;
            let manifests = ghosts.into_iter().filter(|g| *g <= closing).collect();
            let (found, _) = run(&Stored { manifests, retired }, NewestSearch::from_hint(hint.map(ManifestSeq)));
            prop_assert_eq!(found, SearchStep::Found(Newest::Swept));
        }
    }

    #[test]
    fn a_good_hint_costs_three_looks_and_a_poll_two() {
        let stored = Stored { manifests: (1..=100).collect(), retired: 0 };
        assert_eq!(run(&stored, NewestSearch::from_hint(Some(ManifestSeq(100)))).1, 3);
        assert_eq!(run(&stored, NewestSearch::after(ManifestSeq(100))).1, 2);
    }

    #[test]
    fn a_store_that_has_everything_ends_the_search() {
        let mut search = NewestSearch::from_hint(Some(ManifestSeq(1)));
        for _ in 0..200 {
            search.observe(true);
        }
        assert_eq!(search.next(), SearchStep::GaveUp);
    }
}
