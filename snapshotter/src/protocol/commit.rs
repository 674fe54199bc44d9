//! One create, driven to a verdict: put, read back when unclear, then the boundary.
//!
//! The boundary decides last, whatever was read back: once a chunk is retired its names are free again, and whoever
//! stands there now, I or another, may be a request that came late.

use sluice_core::ManifestSeq;

use super::Chunk;

/// What came of a create-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutReport {
    Created,
    /// "Exists already" proves nothing: it may be my own earlier attempt, or a conflict in flight.
    Exists,
    /// A time-out, a broken connection, a server error: it may have happened, or may still happen.
    Unclear,
    /// The store refuses these credentials.
    Denied,
}

/// What reading the name back showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadBack {
    /// The body with my put id.
    Mine,
    Other,
    Absent,
    Unclear,
    Denied,
}

/// What a look at the boundary showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BoundaryReport {
    Present,
    Absent,
    Unclear,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitStep {
    /// Create the name with the same bytes as ever.
    Put,
    /// Read the name back.
    ReadBack,
    /// Look whether this chunk was retired; only after the create.
    LookAtBoundary(Chunk),
    Finished(Verdict),
}

/// The outcome of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The object is mine and stands in the chain.
    Won,
    /// Another's object has the name.
    Lost,
    /// The name had been used and collected before I could tell whose it was: there are newer ones, and I am a zombie.
    Collected,
    Denied,
    /// Out of tries. The machine keeps its place; [`Commit::resume`] goes on.
    Unresolved,
}

/// One create on its way to a verdict (FENCE-4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit {
    boundary: Option<Chunk>,
    state: State,
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Put,
    ReadBack,
    /// Unless the chunk is retired, the verdict is this one.
    Boundary(Verdict),
    Done(Verdict),
}

impl Commit {
    /// The create of manifest `seq`.
    pub fn of_manifest(seq: ManifestSeq, tries: u32) -> Self {
        Self { boundary: Some(Chunk::of(seq)), state: State::Put, tries }
    }

    /// The create of an object whose kind is never collected.
    pub fn of_kept(tries: u32) -> Self {
        Self { boundary: None, state: State::Put, tries }
    }

    /// What to do now.
    pub fn next(&self) -> CommitStep {
        match self.state {
            State::Done(verdict) => CommitStep::Finished(verdict),
            _ if self.tries == 0 => CommitStep::Finished(Verdict::Unresolved),
            State::Put => CommitStep::Put,
            State::ReadBack => CommitStep::ReadBack,
            State::Boundary(verdict) => match self.boundary {
                Some(chunk) => CommitStep::LookAtBoundary(chunk),
                None => CommitStep::Finished(verdict),
            },
        }
    }

    /// Goes on after [`Verdict::Unresolved`] or [`Verdict::Denied`] with more tries. What was put may have arrived
    /// meanwhile, so it looks first.
    pub fn resume(&mut self, tries: u32) {
        self.tries = tries;
        if matches!(self.state, State::Put | State::Done(Verdict::Denied)) {
            self.state = State::ReadBack;
        }
    }

    pub fn put_reported(&mut self, report: PutReport) {
        self.state = match report {
            PutReport::Created => State::Boundary(Verdict::Won),
            PutReport::Exists | PutReport::Unclear => State::ReadBack,
            PutReport::Denied => State::Done(Verdict::Denied),
        };
    }

    pub fn read_back(&mut self, report: ReadBack) {
        self.state = match report {
            ReadBack::Mine => State::Boundary(Verdict::Won),
            ReadBack::Other => State::Boundary(Verdict::Lost),
            ReadBack::Absent => State::Put,
            ReadBack::Unclear => State::ReadBack,
            ReadBack::Denied => State::Done(Verdict::Denied),
        };
        if matches!(report, ReadBack::Absent | ReadBack::Unclear) {
            self.tries = self.tries.saturating_sub(1);
        }
    }

    pub fn boundary_reported(&mut self, report: BoundaryReport) {
        match (report, self.state) {
            (BoundaryReport::Present, _) => self.state = State::Done(Verdict::Collected),
            (BoundaryReport::Absent, State::Boundary(verdict)) => self.state = State::Done(verdict),
            (BoundaryReport::Absent, _) => {}
            (BoundaryReport::Unclear, _) => self.tries = self.tries.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A name in a store: whose object it holds.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Name {
        Free,
        Mine,
        Other,
    }

    proptest! {
        /// Every create is tried against {ok, fail before, fail after, conflict, lost reply}; whatever the reports,
        /// the verdict is what the store holds.
        #[test]
        fn fence_4_the_verdict_is_what_the_store_holds(
            taken in any::<bool>(),
            retired in any::<bool>(),
            faults in proptest::collection::vec(0u8..6, 0..12),
        ) {
            let mut name = if taken { Name::Other } else { Name::Free };
            let mut commit = Commit::of_manifest(ManifestSeq(7), 20);
            let mut faults = faults.into_iter();
            let verdict = loop {
                let fault = faults.next().unwrap_or(0);
                match commit.next() {
                    CommitStep::Put => {
                        let applied = fault != 1 && name == Name::Free;
                        if applied { name = Name::Mine; }
                        commit.put_reported(match fault {
                            1 | 2 => PutReport::Unclear,
                            3 => PutReport::Exists,
                            _ if applied => PutReport::Created,
                            _ => PutReport::Exists,
                        });
                    }
                    CommitStep::ReadBack => commit.read_back(match (fault, name) {
                        (4, _) => ReadBack::Unclear,
                        (_, Name::Free) => ReadBack::Absent,
                        (_, Name::Mine) => ReadBack::Mine,
                        (_, Name::Other) => ReadBack::Other,
                    }),
                    CommitStep::LookAtBoundary(chunk) => {
                        prop_assert_eq!(chunk, Chunk(0));
                        commit.boundary_reported(match (fault, retired) {
                            (5, _) => BoundaryReport::Unclear,
                            (_, true) => BoundaryReport::Present,
                            (_, false) => BoundaryReport::Absent,
                        });
                    }
                    CommitStep::Finished(verdict) => break verdict,
                }
            };
            let expected = match (taken, retired) {
                (_, true) => Verdict::Collected,
                (true, false) => Verdict::Lost,
                (false, false) => Verdict::Won,
            };
            prop_assert_eq!(verdict, expected);
        }
    }

    /// Found by the explorer: my create took effect unclearly and was superseded and collected, and a late request of
    /// another took the free name before I read it back.
    #[test]
    fn fence_4_another_in_a_retired_chunk_does_not_prove_that_the_name_was_not_mine() {
        let mut commit = Commit::of_manifest(ManifestSeq(1), 3);
        commit.put_reported(PutReport::Unclear);
        commit.read_back(ReadBack::Other);
        assert_eq!(commit.next(), CommitStep::LookAtBoundary(Chunk(0)));
        let mut lost = commit.clone();
        commit.boundary_reported(BoundaryReport::Present);
        assert_eq!(commit.next(), CommitStep::Finished(Verdict::Collected));
        lost.boundary_reported(BoundaryReport::Absent);
        assert_eq!(lost.next(), CommitStep::Finished(Verdict::Lost));
        let mut kept = Commit::of_kept(3);
        kept.put_reported(PutReport::Exists);
        kept.read_back(ReadBack::Other);
        assert_eq!(kept.next(), CommitStep::Finished(Verdict::Lost));
    }

    #[test]
    fn fence_4_out_of_tries_keeps_its_place_and_looks_first() {
        let mut commit = Commit::of_manifest(ManifestSeq(1), 1);
        commit.put_reported(PutReport::Unclear);
        commit.read_back(ReadBack::Absent);
        assert_eq!(commit.next(), CommitStep::Finished(Verdict::Unresolved));
        commit.resume(3);
        assert_eq!(commit.next(), CommitStep::ReadBack);
        commit.read_back(ReadBack::Mine);
        assert_eq!(commit.next(), CommitStep::LookAtBoundary(Chunk(0)));
    }
}
