//! What becomes of a partition whose worker has ended: pure decisions, and the advice that goes with them.
//!
//! | ended by | decision |
//! |---|---|
//! | a stop | finished |
//! | outage, panic, stuck | again, after a pause that doubles with jitter; parked after too many panics in a row |
//! | fenced | not again while this assignment lasts; the process joins its group anew after a while |
//! | log truncated, conflict, damage, refusal | parked by name, until the operator or the set-up changes |

use std::time::Duration;

use sluice_core::{Backoff, ErrorKind};
use sluice_indexer::Exit;

/// Bugs in a row after which a partition is parked.
const MAX_BUGS: u32 = 10;

/// How a run of a partition ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Exit(Exit),
    Failed {
        kind: ErrorKind,
        message: String,
    },
    Panicked(String),
    /// It did not come round its loop.
    Stuck {
        seconds: u64,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Told to stop: nothing more to do.
    Finished,
    /// Run again after the pause.
    Restart { after: Duration, problem: String },
    /// Another owner has it: wait for a new assignment.
    Fenced,
    /// The index ends: wait for the revocation.
    Closed,
    /// Wait until an operator has acted.
    Park { problem: String, advice: &'static str },
}

/// When a partition is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    pub backoff: Backoff,
    /// A run of this length makes earlier failures forgotten.
    pub healthy_after: Duration,
}

/// Failures of a partition since it was last healthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    failures: u32,
    bugs: u32,
}

impl History {
    /// Decides after a run of length `ran`; `random` spreads the restarts of many partitions.
    pub fn decide(&mut self, ended: Ended, ran: Duration, policy: &RestartPolicy, random: u64) -> Decision {
        if ran >= policy.healthy_after {
            *self = Self::default();
        }
        let (problem, bug) = match ended {
            Ended::Exit(Exit::Stopped { .. }) => return Decision::Finished,
            Ended::Exit(Exit::Fenced) | Ended::Failed { kind: ErrorKind::Fenced, .. } => {
                return Decision::Fenced;
            }
            Ended::Failed { kind: ErrorKind::Closed, .. } => return Decision::Closed,
            Ended::Exit(Exit::InputEnded { .. }) => ("the log ended without a reason".to_owned(), true),
            Ended::Panicked(message) => (format!("a bug: {message}"), true),
            Ended::Stuck { seconds } => (format!("no progress for {seconds} s"), true),
            Ended::Failed { kind, message } => match advice(kind) {
                Some(advice) => return Decision::Park { problem: message, advice },
                None => (message, kind == ErrorKind::Internal),
            },
        };
        self.failures += 1;
        self.bugs = if bug { self.bugs + 1 } else { 0 };
        if self.bugs >= MAX_BUGS {
            return Decision::Park {
                problem,
                advice: "it failed again and again: report it, with the log; a restart tries anew",
            };
        }
        Decision::Restart { after: policy.backoff.after(self.failures, random), problem }
    }
}

/// What an operator does about an error that no restart cures; `None` when a restart may.
pub fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::LogTruncated => Some(
            "retention removed records before they were indexed: fill the index again from its source, under a new \
             name or after retiring it, and give the topic a longer retention",
        ),
        ErrorKind::Conflict => Some(
            "the topic no longer fits the index: restore its number of partitions and its records, or retire the \
             index and create it anew (a rebuild from the log)",
        ),
        ErrorKind::Corrupt => {
            Some("stored bytes are damaged: run `sluice scrub` and see docs for restoring objects")
        }
        ErrorKind::Invalid => {
            Some("the log or the store refuses this set-up: run `sluice doctor`, correct it, restart")
        }
        ErrorKind::NotFound
        | ErrorKind::Unavailable
        | ErrorKind::Fenced
        | ErrorKind::Closed
        | ErrorKind::Internal => None,
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::Offset;

    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
        healthy_after: Duration::from_secs(60),
    };
    const SHORT: Duration = Duration::from_secs(1);

    fn failed(kind: ErrorKind) -> Ended {
        Ended::Failed { kind, message: "x".into() }
    }

    fn after(decision: Decision) -> Duration {
        match decision {
            Decision::Restart { after, .. } => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn liv_3_pauses_double_to_their_limit_and_begin_anew_after_health() {
        let mut history = History::default();
        let mut next = |ran| after(history.decide(failed(ErrorKind::Unavailable), ran, &POLICY, 0));
        let pauses: Vec<_> = (0..9).map(|_| next(SHORT).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(next(POLICY.healthy_after).as_millis(), 100);
    }

    #[test]
    fn fence_2_a_fenced_partition_is_not_restarted() {
        let decide = |ended| History::default().decide(ended, SHORT, &POLICY, 0);
        assert_eq!(decide(Ended::Exit(Exit::Fenced)), Decision::Fenced);
        assert_eq!(decide(failed(ErrorKind::Fenced)), Decision::Fenced);
    }

    #[test]
    fn what_no_restart_cures_is_parked_with_advice() {
        for kind in [ErrorKind::LogTruncated, ErrorKind::Conflict, ErrorKind::Corrupt, ErrorKind::Invalid] {
            let decision = History::default().decide(failed(kind), SHORT, &POLICY, 0);
            assert!(matches!(decision, Decision::Park { advice, .. } if !advice.is_empty()), "{kind}");
        }
    }

    #[test]
    fn liv_2_panics_back_off_and_park_in_the_end_but_outages_never_do() {
        let mut history = History::default();
        for _ in 1..MAX_BUGS {
            after(history.decide(Ended::Panicked("x".into()), SHORT, &POLICY, 0));
        }
        let last = history.decide(Ended::Panicked("x".into()), SHORT, &POLICY, 0);
        assert!(matches!(last, Decision::Park { .. }));
        let mut history = History::default();
        for _ in 0..1000 {
            after(history.decide(failed(ErrorKind::Unavailable), SHORT, &POLICY, 0));
        }
    }

    #[test]
    fn a_stopped_worker_is_finished_and_a_retired_index_is_no_error() {
        let stopped = Exit::Stopped { next_offset: Offset(1), drained: true };
        let mut history = History::default();
        assert_eq!(history.decide(Ended::Exit(stopped), SHORT, &POLICY, 0), Decision::Finished);
        assert_eq!(history.decide(failed(ErrorKind::Closed), SHORT, &POLICY, 0), Decision::Closed);
    }
}
