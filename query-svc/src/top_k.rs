//! The best k of many lists: merge by score, drop what is superseded, only then cut to k.
//!
//! Each list holds the best `want` candidates of its part, best first. The first `want` of the merged order are
//! then the best `want` of all. When fewer than k of them survive and some list was full, there may be more:
//! the answer says so and the caller searches again with a larger `want` (QRY-3).

use std::cmp::Ordering;

use sluice_core::Offset;

use crate::view::RowId;

/// A match of one segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) score: f32,
    pub(crate) at: RowId,
    pub(crate) offset: Offset,
}

/// What is to be done with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// A newer version of its key is live in another partition.
    Superseded,
    /// The request left it out.
    Skip,
}

/// The outcome of one round.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settled {
    /// Best first, at most k.
    pub(crate) hits: Vec<Candidate>,
    pub(crate) superseded: u64,
    /// Fewer than k were kept although further candidates may exist.
    pub(crate) short: bool,
}

/// Best first; equal scores in the order of partition and offset, so that answers are repeatable.
fn order(a: &Candidate, b: &Candidate, larger_is_better: bool) -> Ordering {
    let by_score = if larger_is_better { b.score.total_cmp(&a.score) } else { a.score.total_cmp(&b.score) };
    by_score.then_with(|| (a.at.partition, a.offset, a.at).cmp(&(b.at.partition, b.offset, b.at)))
}

/// Merges `lists`, each of at most `want` candidates, into the best `want` of all.
pub(crate) fn merge(lists: Vec<Vec<Candidate>>, larger_is_better: bool, want: usize) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = lists.into_iter().flatten().collect();
    let compare = |a: &Candidate, b: &Candidate| order(a, b, larger_is_better);
    if all.len() > want && want > 0 {
        all.select_nth_unstable_by(want - 1, compare);
        all.truncate(want);
    }
    all.sort_unstable_by(compare);
    all
}

/// Keeps the best k of `merged` (as [`merge`] returned it for the same `want`) by `judge`'s verdicts.
pub(crate) fn settle(
    merged: &[Candidate],
    k: usize,
    want: usize,
    mut judge: impl FnMut(&Candidate) -> Verdict,
) -> Settled {
    let mut hits = Vec::with_capacity(k.min(merged.len()));
    let mut superseded = 0;
    for candidate in merged {
        if hits.len() == k {
            break;
        }
        match judge(candidate) {
            Verdict::Keep => hits.push(*candidate),
            Verdict::Superseded => superseded += 1,
            Verdict::Skip => {}
        }
    }
    let short = hits.len() < k && merged.len() >= want;
    Settled { hits, superseded, short }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// One version: partition, key, timestamp, score.
    type Version = (u32, u8, i64, u8);

    fn candidates(versions: &[Version], partition: u32) -> Vec<(Candidate, u8, i64)> {
        let of = |(i, v): (usize, &Version)| {
            let at = RowId { partition, segment: i as u32 % 3, row: i as u32 };
            (Candidate { score: f32::from(v.3), at, offset: Offset(i as u64) }, v.1, v.2)
        };
        versions.iter().enumerate().filter(|(_, v)| v.0 == partition).map(of).collect()
    }

    /// The best `want` of each (partition, segment), as segments return them.
    fn lists(all: &[(Candidate, u8, i64)], larger: bool, want: usize) -> Vec<Vec<Candidate>> {
        let mut by_segment: BTreeMap<(u32, u32), Vec<Candidate>> = BTreeMap::new();
        for (candidate, ..) in all {
            by_segment.entry((candidate.at.partition, candidate.at.segment)).or_default().push(*candidate);
        }
        let cut = |mut list: Vec<Candidate>| {
            list.sort_by(|a, b| order(a, b, larger));
            list.truncate(want);
            list
        };
        by_segment.into_values().map(cut).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The oracle folds by key over all partitions, then sorts, then cuts.
        #[test]
        fn qry_3_supersession_comes_before_truncation(
            raw in prop::collection::btree_map((0u32..4, 0u8..12), (0i64..4, 0u8..20), 0..40),
            k in 1usize..12,
            larger in any::<bool>(),
        ) {
            let versions: Vec<Version> = raw.iter().map(|((p, key), (t, s))| (*p, *key, *t, *s)).collect();
            let all: Vec<_> = (0..4).flat_map(|p| candidates(&versions, p)).collect();
            let mut newest: BTreeMap<u8, (i64, u32)> = BTreeMap::new();
            for (candidate, key, time) in &all {
                let best = newest.entry(*key).or_insert((*time, candidate.at.partition));
                *best = (*best).max((*time, candidate.at.partition));
            }
            let key_of: BTreeMap<RowId, (u8, i64)> = all.iter().map(|(c, k, t)| (c.at, (*k, *t))).collect();
            let live = |c: &Candidate| {
                let (key, time) = key_of[&c.at];
                newest[&key] == (time, c.at.partition)
            };
            let mut expected: Vec<Candidate> = all.iter().map(|(c, ..)| *c).filter(|c| live(c)).collect();
            expected.sort_by(|a, b| order(a, b, larger));
            expected.truncate(k);

            let mut want = k;
            let settled = loop {
                let merged = merge(lists(&all, larger, want), larger, want);
                let judge = |c: &Candidate| if live(c) { Verdict::Keep } else { Verdict::Superseded };
                let settled = settle(&merged, k, want, judge);
                if !settled.short { break settled; }
                want *= 2;
            };
            let keys: BTreeSet<u8> = settled.hits.iter().map(|c| key_of[&c.at].0).collect();
            prop_assert_eq!(keys.len(), settled.hits.len());
            prop_assert_eq!(settled.hits, expected);
        }
    }

    #[test]
    fn a_full_list_of_dropped_candidates_asks_for_more() {
        let at = RowId { partition: 0, segment: 0, row: 0 };
        let merged = [Candidate { score: 1.0, at, offset: Offset(0) }];
        assert!(settle(&merged, 1, 1, |_| Verdict::Superseded).short);
        assert!(!settle(&merged, 1, 2, |_| Verdict::Superseded).short);
        assert!(!settle(&merged, 1, 1, |_| Verdict::Keep).short);
    }
}
