//! The protocol's decisions: pure state machines and functions, no I/O, no clock, no random numbers.
//!
//! Each machine says what to do next and is told what came of it; the edge (`chain`, `owner`, `gc`) only carries
//! steps out. They are small values that can be cloned, compared and hashed, so that an explorer can drive two
//! writers, a collector and a reader through every interleaving. `PROTOCOL.md` holds the reasons.

mod commit;
mod content;
mod gc;
mod run_end;
mod search;
mod topic;

pub use commit::{BoundaryReport, Commit, CommitStep, PutReport, ReadBack, Verdict};
pub use content::{
    ClaimDecision, ClaimFacts, PublishRefusal, Stamp, claim, close, follows, publish, same_content,
};
pub use gc::{GcFacts, GcPlan, RetainRule, Summary, SweepFacts, plan_gc, plan_sweep};
pub use run_end::RunEnd;
pub use search::{Newest, NewestSearch, Probe, SearchStep};
pub use topic::{BindingFacts, TopicDecision, TopicUse, topic};

use sluice_core::ManifestSeq;

/// Manifests per chunk. Manifests are collected by whole chunks, so that one small object per chunk, kept for
/// ever, tells for every name whether it was ever collected.
pub const CHUNK: u64 = 64;

/// Largest manifest number: keeps chunk numbers within the 17 digits of their keys.
pub const MAX_SEQ: ManifestSeq = ManifestSeq(1_000_000_000_000_000_000);

/// 64 consecutive manifest numbers: what one boundary retires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chunk(pub u64);

impl Chunk {
    /// The chunk that `seq` belongs to.
    pub fn of(seq: ManifestSeq) -> Self {
        Self(seq.0 / CHUNK)
    }

    /// The manifest number before the first one of this chunk; zero for the first chunk.
    pub fn predecessor_seq(self) -> ManifestSeq {
        ManifestSeq((self.0 * CHUNK).saturating_sub(1))
    }

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
