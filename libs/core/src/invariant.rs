//! The catalogue of invariants: ids used in code, test names, metrics and docs.

use std::fmt;

macro_rules! catalogue {
    ($($id:ident $name:literal: $text:literal,)*) => {
        /// An invariant that tests prove and production code asserts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum InvariantId { $(#[doc = $text] $id,)* }

        impl InvariantId {
            /// Every invariant, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$id => $name,)* }
            }

            /// What must hold.
            pub fn statement(self) -> &'static str {
                match self { $(Self::$id => $text,)* }
            }
        }
    };
}

catalogue! {
    Fold1 "FOLD-1": "after any kills, what is served at next offset O is the fold of the log before O",
    Fold2 "FOLD-2": "a manifest starts where its predecessor ended; the next offset never decreases",
    Fold3 "FOLD-3": "redelivery changes nothing; a smaller offset never overwrites a larger one of its partition",
    Fold4 "FOLD-4": "merging changes no (key, version) and brings no deleted key back",
    Key1 "KEY-1": "a topic whose partition count differs from the manifest's stops its index by name",
    Log1 "LOG-1": "records lost to retention stop the partition; they are never skipped in silence",
    Fence1 "FENCE-1": "after epoch e+1 has claimed, no manifest of an epoch up to e becomes visible",
    Fence2 "FENCE-2": "a fenced owner stops within one publish and is not restarted",
    Fence3 "FENCE-3": "two owners never write the same object key",
    Fence4 "FENCE-4": "an unclear create is resolved by its put id: mine, another's, absent",
    Fence5 "FENCE-5": "a store that ignores create-if-absent is refused at start",
    Topic1 "TOPIC-1": "at any time at most one index that is not retired reads a topic",
    Seg1 "SEG-1": "a damaged, truncated, swapped or foreign segment never serves",
    Seg2 "SEG-2": "a damaged new snapshot leaves the one before it serving",
    Seg3 "SEG-3": "every released format opens for ever",
    Seg4 "SEG-4": "exact search equals brute force; graph search has recall@10 of at least 0.95",
    Seg5 "SEG-5": "the same records and seed give the same segment bytes",
    Qry1 "QRY-1": "a query sees one snapshot of each partition and names it",
    Qry2 "QRY-2": "a served partition never goes back in manifest order",
    Qry3 "QRY-3": "no superseded or deleted version is returned, and k live matches are when k exist",
    Qry4 "QRY-4": "a partial answer says so",
    Qry5 "QRY-5": "a snapshot in use is not removed under a query, and old snapshots are bounded",
    Gc1 "GC-1": "garbage collection deletes nothing that a retained manifest reaches, and nothing before its boundary",
    Gc2 "GC-2": "everything unreachable is deleted at last",
    Gc3 "GC-3": "scrub reports each missing, damaged and orphan object",
    Mem1 "MEM-1": "bytes in flight stay within the budget at any producer rate",
    Mem2 "MEM-2": "one partition cannot take the whole budget",
    Liv1 "LIV-1": "a bad message becomes a dead letter and its partition goes on",
    Liv2 "LIV-2": "a panic in one partition restarts that partition only",
    Liv3 "LIV-3": "after a finite outage the lag returns to zero without a restart",
    Liv4 "LIV-4": "a worker that is stuck is noticed and restarted",
    Liv5 "LIV-5": "on SIGTERM a process drains and leaves within its deadline, or names who hung",
    Fresh1 "FRESH-1": "freshness is measured per partition",
}

impl fmt::Display for InvariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Stops the task with the invariant's name when `condition` does not hold. The supervisor treats the panic as a
/// bug in that partition only.
#[macro_export]
macro_rules! invariant {
    ($id:ident, $condition:expr, $($detail:tt)+) => {
        if !$condition {
            let id = $crate::invariant::InvariantId::$id;
            panic!("invariant {id} broken ({}): {}", id.statement(), format_args!($($detail)+));
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_invariant_has_its_own_name() {
        let names: HashSet<_> = InvariantId::ALL.iter().map(|id| id.name()).collect();
        assert_eq!(names.len(), InvariantId::ALL.len());
    }

    #[test]
    #[should_panic(expected = "FOLD-2")]
    fn a_broken_invariant_is_named() {
        invariant!(Fold2, 1 > 2, "start {} after {}", 1, 2);
    }
}
