//! Which segments become one: a pure function of their sizes, their dead rows and the bounds of a build.
//!
//! Segments stand in tiers by live rows, each tier [`TIER_FACTOR`] times the one below. A tier that holds
//! `max_similar` segments is merged into one, together with all smaller ones, so that a partition has few small
//! segments and one large. A segment is rewritten alone when too many of its rows are dead, or when it was written
//! in haste, without the graph that its size asks for. Wholly dead segments need no merge: a publication drops them.

use sluice_core::{GraphSpec, MergeSpec};

/// Ratio of sizes from one tier to the next; it bounds how often a row is rewritten on its way up.
const TIER_FACTOR: u64 = 4;
/// Segments of fewer live rows are all of one size: rewriting them costs next to nothing.
const SMALLEST_TIER: u64 = 256;

/// What the policy looks at, per segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    pub records: u64,
    pub dead: u64,
    pub bytes: u64,
    pub has_graph: bool,
}

impl SegmentFacts {
    fn live(self) -> u64 {
        self.records.saturating_sub(self.dead)
    }

    /// What the segment adds to a merged one.
    fn live_bytes(self) -> u64 {
        match self.records {
            0 => 0,
            records => u64::try_from(u128::from(self.bytes) * u128::from(self.live()) / u128::from(records))
                .unwrap_or(u64::MAX),
        }
    }

    fn tier(self) -> u32 {
        (self.live() / SMALLEST_TIER).checked_ilog(TIER_FACTOR).map_or(0, |t| t + 1)
    }
}

/// The bounds of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeLimits {
    pub max_similar: usize,
    pub max_dead_percent: u64,
    pub max_bytes: u64,
    /// Rows whose build fits into the memory set aside for merges.
    pub max_rows: u64,
    /// A segment of so many rows has a graph.
    pub graph_rows: u64,
}

impl MergeLimits {
    /// The bounds that the specs set, and `max_rows`.
    pub fn new(merge: &MergeSpec, graph: &GraphSpec, max_rows: u64) -> Self {
        Self {
            max_similar: merge.max_similar as usize,
            max_dead_percent: merge.max_dead_percent.into(),
            max_bytes: merge.max_bytes.as_u64(),
            max_rows,
            graph_rows: graph.min_records.into(),
        }
    }
}

/// Why segments are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many of similar size.
    Similar,
    /// Too many dead rows.
    Dead,
    /// No graph where one is due.
    Graph,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Similar => "similar",
            Self::Dead => "dead",
            Self::Graph => "graph",
        }
    }
}

/// Segments to merge, as places in the list that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub inputs: Vec<usize>,
    pub reason: Reason,
}

/// Chooses what to merge next, if anything.
pub fn choose(segments: &[SegmentFacts], limits: &MergeLimits) -> Option<Choice> {
    similar(segments, limits).or_else(|| alone(segments, limits))
}

/// The highest tier that is full, with all below it.
fn similar(segments: &[SegmentFacts], limits: &MergeLimits) -> Option<Choice> {
    let mut by_size: Vec<usize> = (0..segments.len()).filter(|&i| segments[i].live() > 0).collect();
    by_size.sort_by_key(|&i| (segments[i].live(), i));
    let tiers = by_size.chunk_by(|&a, &b| segments[a].tier() == segments[b].tier());
    let full = tiers.filter(|tier| tier.len() >= limits.max_similar).map(|tier| segments[tier[0]].tier());
    let mut full: Vec<u32> = full.collect();
    full.reverse();
    full.into_iter().find_map(|tier| {
        let candidates = by_size.iter().copied().filter(|&i| segments[i].tier() <= tier);
        let inputs = smallest_that_fit(candidates, segments, limits);
        worthwhile(&inputs, segments).then_some(Choice { inputs, reason: Reason::Similar })
    })
}

/// As many of `candidates`, which come smallest first, as one merge may hold.
fn smallest_that_fit(
    candidates: impl Iterator<Item = usize>,
    segments: &[SegmentFacts],
    limits: &MergeLimits,
) -> Vec<usize> {
    let (mut rows, mut bytes) = (0u64, 0u64);
    candidates
        .take_while(|&i| {
            rows = rows.saturating_add(segments[i].live());
            bytes = bytes.saturating_add(segments[i].live_bytes());
            rows <= limits.max_rows && bytes <= limits.max_bytes
        })
        .collect()
}

/// A merge must not rewrite one large segment for the sake of a few rows.
fn worthwhile(inputs: &[usize], segments: &[SegmentFacts]) -> bool {
    let rows: u64 = inputs.iter().map(|&i| segments[i].live()).sum();
    let largest = inputs.iter().map(|&i| segments[i].live()).max().unwrap_or(0);
    let small = inputs.iter().all(|&i| segments[i].tier() == 0);
    inputs.len() >= 2 && (small || rows - largest >= largest / 2)
}

/// The segment with the largest dead share over the limit, else one without its graph.
fn alone(segments: &[SegmentFacts], limits: &MergeLimits) -> Option<Choice> {
    let fits = |s: &SegmentFacts| s.live() > 0 && s.live() <= limits.max_rows;
    let share = |s: &SegmentFacts| u128::from(s.dead) * 100 / u128::from(s.records.max(1));
    let candidates = || segments.iter().enumerate().filter(|(_, s)| fits(s));
    let dead = candidates()
        .filter(|(_, s)| s.dead > 0 && share(s) >= u128::from(limits.max_dead_percent))
        .max_by_key(|(i, s)| (share(s), usize::MAX - i));
    if let Some((i, _)) = dead {
        return Some(Choice { inputs: vec![i], reason: Reason::Dead });
    }
    let (i, _) = candidates().find(|(_, s)| !s.has_graph && s.live() >= limits.graph_rows)?;
    Some(Choice { inputs: vec![i], reason: Reason::Graph })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> MergeLimits {
        MergeLimits {
            max_similar: 4,
            max_dead_percent: 30,
            max_bytes: 1 << 40,
            max_rows: 1 << 40,
            graph_rows: 8192,
        }
    }

    fn segment(records: u64, dead: u64) -> SegmentFacts {
        SegmentFacts { records, dead, bytes: records * 1000, has_graph: records >= 8192 }
    }

    fn chosen(segments: &[SegmentFacts], limits: &MergeLimits) -> Option<(Vec<usize>, Reason)> {
        choose(segments, limits).map(|c| (c.inputs, c.reason))
    }

    #[test]
    fn a_full_tier_is_merged_with_all_smaller_ones_and_the_large_one_stays() {
        let segments = [1_000_000, 20_000, 30_000, 10, 25_000, 22_000].map(|n| segment(n, 0));
        assert_eq!(chosen(&segments, &limits()), Some((vec![3, 1, 5, 4, 2], Reason::Similar)));
        assert_eq!(chosen(&segments[..5], &limits()), None);
    }

    #[test]
    fn a_merge_that_does_not_fit_is_not_chosen() {
        let segments = [20_000; 4].map(|n| segment(n, 0));
        let two = MergeLimits { max_rows: 50_000, ..limits() };
        assert_eq!(chosen(&segments, &two), Some((vec![0, 1], Reason::Similar)));
        let none = MergeLimits { max_bytes: 30_000_000, ..limits() };
        assert_eq!(chosen(&segments, &none), None);
    }

    #[test]
    fn many_dead_rows_are_dropped_by_a_rewrite_but_a_dead_segment_needs_none() {
        let segments = [segment(100_000, 10_000), segment(9000, 3000), segment(9000, 4000), segment(50, 50)];
        assert_eq!(chosen(&segments, &limits()), Some((vec![2], Reason::Dead)));
        assert_eq!(chosen(&segments[3..], &limits()), None);
    }

    #[test]
    fn a_large_segment_without_a_graph_is_rewritten() {
        let hasty = SegmentFacts { has_graph: false, ..segment(10_000, 0) };
        assert_eq!(chosen(&[segment(10_000, 0), hasty], &limits()), Some((vec![1], Reason::Graph)));
        assert_eq!(chosen(&[segment(8000, 0)], &limits()), None);
    }

    fn any_segments() -> impl Strategy<Value = Vec<SegmentFacts>> {
        let one = (1u64..2_000_000, 0u64..=100, any::<bool>());
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let facts = |(records, percent, graph): (u64, u64, bool)| SegmentFacts {
                records,
                dead: records * percent / 100,
                bytes: records * 1700,
                has_graph: graph,
            };
            all.into_iter().map(facts).collect()
        })
    }

    fn merged(segments: &[SegmentFacts], choice: &Choice, limits: &MergeLimits) -> Vec<SegmentFacts> {
        let rest = (0..segments.len()).filter(|i| !choice.inputs.contains(i)).map(|i| segments[i]);
        let live: u64 = choice.inputs.iter().map(|&i| segments[i].live()).sum();
        let made =
            SegmentFacts { records: live, dead: 0, bytes: live * 1700, has_graph: live >= limits.graph_rows };
        rest.chain([made]).collect()
    }

    proptest! {
        #[test]
        fn mem_1_a_choice_stays_within_the_limits(segments in any_segments(), max_rows in 1u64..3_000_000) {
            let limits = MergeLimits { max_rows, max_bytes: max_rows * 1000, ..limits() };
            if let Some(choice) = choose(&segments, &limits) {
                let live: u64 = choice.inputs.iter().map(|&i| segments[i].live()).sum();
                prop_assert!(live > 0 && live <= max_rows);
                let mut places = choice.inputs.clone();
                places.sort_unstable();
                places.dedup();
                prop_assert_eq!(places.len(), choice.inputs.len());
                prop_assert!(places.iter().all(|&i| i < segments.len() && segments[i].live() > 0));
            }
        }

        #[test]
        fn merging_comes_to_an_end_with_few_segments(segments in any_segments()) {
            let limits = limits();
            let mut segments = segments;
            // every step removes a segment, or dead rows, or a missing graph
            let most = 3 * segments.len() + 1;
            let mut steps = 0;
            while let Some(choice) = choose(&segments, &limits) {
                segments = merged(&segments, &choice, &limits);
                steps += 1;
                prop_assert!(steps <= most);
            }
            let mut tiers: Vec<u32> = segments.iter().filter(|s| s.live() > 0).map(|s| s.tier()).collect();
            tiers.sort_unstable();
            prop_assert!(tiers.chunk_by(|a, b| a == b).all(|t| t.len() < limits.max_similar));
        }

        #[test]
        fn a_row_is_rewritten_a_logarithmic_number_of_times(seals in 10u64..600, records in 1u64..5000) {
            let limits = limits();
            let (mut segments, mut written) = (Vec::new(), 0u64);
            for _ in 0..seals {
                segments.push(segment(records, 0));
                while let Some(choice) = choose(&segments, &limits) {
                    written += choice.inputs.iter().map(|&i| segments[i].live()).sum::<u64>();
                    segments = merged(&segments, &choice, &limits);
                }
            }
            let rows = seals * records;
            let tiers = u64::from(segment(rows, 0).tier()) + 1;
            // within the smallest tier rows are rewritten more often, and are few
            let small = 2 * SMALLEST_TIER * rows.min(seals * SMALLEST_TIER);
            prop_assert!(written <= rows * (tiers + 1) + small, "{written} of {rows}");
            prop_assert!(segments.len() as u64 <= 3 * tiers);
        }
    }
}
