//! The steps under way: at most one seal, one merge and one publication. Each is a value that the loop holds and asks.

use std::future::pending;
use std::time::Instant;

use futures::future::BoxFuture;
use sluice_core::Timestamp;
use sluice_segment::Progress;

use crate::IndexerError;
use crate::build::Made;
use crate::growing::Frozen;
use crate::publication::Press;
use crate::snapshot::{Live, Snapshot};

type SealJob = BoxFuture<'static, Result<Option<Made>, IndexerError>>;
type MergeJob = BoxFuture<'static, Result<Made, IndexerError>>;
pub(crate) type PressJob = BoxFuture<'static, (Press, Result<Snapshot, IndexerError>)>;

/// A build under way.
pub(crate) struct Building {
    pub(crate) since: Timestamp,
    pub(crate) progress: Progress,
}

/// The seal under way; the next one begins when this one is published.
pub(crate) enum SealStage {
    Idle,
    Building { frozen: Frozen, reason: &'static str, building: Building, job: SealJob },
    Built { frozen: Frozen, reason: &'static str, made: Option<Made> },
    Publishing { frozen: Frozen, reason: &'static str },
}

/// The merge under way.
pub(crate) enum MergeStage {
    Idle,
    Building { inputs: Vec<Live>, reason: &'static str, building: Building, job: MergeJob },
    Built { inputs: Vec<Live>, reason: &'static str, made: Made },
    Publishing { reason: &'static str, rows: u64 },
}

/// What is being published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Seal,
    Merge,
}

/// The publication under way.
pub(crate) struct Publishing {
    pub(crate) what: What,
    pub(crate) since: Instant,
    pub(crate) job: PressJob,
}

impl SealStage {
    pub(crate) fn frozen(&self) -> Option<&Frozen> {
        match self {
            Self::Idle => None,
            Self::Building { frozen, .. } | Self::Built { frozen, .. } | Self::Publishing { frozen, .. } => {
                Some(frozen)
            }
        }
    }

    /// The build under way.
    pub(crate) fn building(&self) -> Option<&Building> {
        if let Self::Building { building, .. } = self { Some(building) } else { None }
    }

    pub(crate) async fn built(&mut self) -> Result<Option<Made>, IndexerError> {
        match self {
            Self::Building { job, .. } => job.await,
            _ => pending().await,
        }
    }
}

impl MergeStage {
    /// The build under way.
    pub(crate) fn building(&self) -> Option<&Building> {
        if let Self::Building { building, .. } = self { Some(building) } else { None }
    }

    pub(crate) async fn built(&mut self) -> Result<Made, IndexerError> {
        match self {
            Self::Building { job, .. } => job.await,
            _ => pending().await,
        }
    }
}

pub(crate) async fn done(publishing: &mut Option<Publishing>) -> (Press, Result<Snapshot, IndexerError>) {
    match publishing {
        Some(publishing) => (&mut publishing.job).await,
        None => pending().await,
    }
}

/// A stage that can be taken out and leaves [`Stage::IDLE`] behind.
pub(crate) trait Stage {
    const IDLE: Self;
}

impl Stage for SealStage {
    const IDLE: Self = Self::Idle;
}

impl Stage for MergeStage {
    const IDLE: Self = Self::Idle;
}

pub(crate) fn take<S: Stage>(stage: &mut S) -> S {
    std::mem::replace(stage, S::IDLE)
}
