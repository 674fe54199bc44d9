//! FOLD-3 and FOLD-4: whatever is redelivered, in whatever order, and however it is sealed and merged, what is read is the
//! fold of the log.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use common::log::{LiveRow, Operation, counted, fold, live, operations, record, rows_of};
use common::{cases, merged, options, sealed, upsert};
use proptest::prelude::*;
use proptest::sample::Index;
use roaring::RoaringBitmap;
use sluice_core::Schema;
use sluice_segment::{Applied, Components, GrowingSet, Newest, Segment};

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn fold_3_a_growing_set_is_the_fold_whatever_is_redelivered(
        log in operations(60), again in prop::collection::vec((any::<Index>(), 1usize..20), 0..6)
    ) {
        let schema = counted();
        let mut set = GrowingSet::new(schema.clone());
        for (offset, operation) in log.iter().enumerate() {
            set.apply(record(&schema, offset, operation));
            for (at, length) in &again {
                // some prefix of what was applied comes once more
                let from = at.index(offset + 1);
                for (o, operation) in log.iter().enumerate().take(offset + 1).skip(from).take(*length) {
                    prop_assert_eq!(set.apply(record(&schema, o, operation)), Applied::Stale);
                }
            }
        }
        let fold = fold(&log);
        prop_assert_eq!(set.live_len(), live(&fold).len());
        prop_assert_eq!(set.is_empty(), fold.is_empty());
        prop_assert_eq!(set.newest().count(), fold.len());
        for (key, (offset, vector)) in &fold {
            match (set.get(key), vector) {
                (Some(Newest::Live(row, live)), Some(v)) => {
                    prop_assert_eq!((live.offset.0, live.vector), (*offset, Components::F32(v)));
                    prop_assert_eq!(set.row(row), live);
                }
                (Some(Newest::Deleted(at)), None) => prop_assert_eq!(at.0, *offset),
                (got, _) => prop_assert!(false, "{:?}", got),
            }
        }
        prop_assert_eq!(set.live_rows().count(), set.live_len());
    }

    #[test]
    fn fold_3_the_larger_offset_wins_in_any_order_of_arrival(
        (log, order) in operations(40).prop_flat_map(|log| {
            let order: Vec<usize> = (0..log.len()).chain(0..log.len() / 2).collect();
            (Just(log), Just(order).prop_shuffle())
        })
    ) {
        let schema = counted();
        let mut set = GrowingSet::new(schema.clone());
        for offset in order {
            set.apply(record(&schema, offset, &log[offset]));
        }
        prop_assert_eq!(live_of(&set), live(&fold(&log)));
        for (key, (offset, _)) in fold(&log) {
            prop_assert_eq!(set.get(&key).map(|n| n.offset().0), Some(offset));
        }
    }
}

/// The live records of a growing set, in offset order.
fn live_of(set: &GrowingSet) -> Vec<LiveRow> {
    let rows = set.live_rows().map(|r| (r.key.to_owned(), r.offset.0, r.vector.to_vec().try_into().unwrap()));
    let mut rows: Vec<LiveRow> = rows.collect();
    rows.sort_by_key(|(_, offset, _)| *offset);
    rows
}

/// What an owner of a partition does next.
#[derive(Debug, Clone)]
enum Step {
    /// Applies some more of the log.
    Apply(usize),
    /// Some of what it holds comes again.
    Again(Index, usize),
    Seal,
    Merge(Index, usize),
    /// The growing set is lost, and what it held read again.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..15).prop_map(Step::Apply),
        2 => (any::<Index>(), 1usize..20).prop_map(|(at, n)| Step::Again(at, n)),
        3 => Just(Step::Seal),
        3 => (any::<Index>(), 1usize..5).prop_map(|(at, n)| Step::Merge(at, n)),
        1 => Just(Step::Restart),
    ]
}

/// A partition as an owner holds it: segments with their deleted rows, and the growing set over them.
struct Partition {
    schema: Arc<Schema>,
    graph_from: u32,
    segments: Vec<(Segment, RoaringBitmap)>,
    set: GrowingSet,
    sealed: usize,
    next: usize,
}

impl Partition {
    fn new(graph: bool) -> Self {
        let schema = counted();
        let set = GrowingSet::new(schema.clone());
        Self {
            schema,
            graph_from: if graph { 1 } else { 1000 },
            segments: Vec::new(),
            set,
            sealed: 0,
            next: 0,
        }
    }

    fn take(&mut self, log: &[Operation], step: &Step) {
        match *step {
            Step::Apply(n) => {
                for (offset, operation) in log.iter().enumerate().skip(self.next).take(n) {
                    self.set.apply(record(&self.schema, offset, operation));
                    self.next = offset + 1;
                }
            }
            Step::Again(at, n) if self.next > self.sealed => {
                let from = self.sealed + at.index(self.next - self.sealed);
                for (offset, operation) in log.iter().enumerate().take(self.next).skip(from).take(n) {
                    assert_eq!(self.set.apply(record(&self.schema, offset, operation)), Applied::Stale);
                }
            }
            Step::Seal => self.seal(),
            Step::Merge(at, n) if !self.segments.is_empty() => self.merge(at.index(self.segments.len()), n),
            Step::Restart => {
                self.set = GrowingSet::new(self.schema.clone());
                self.next = self.sealed;
            }
            Step::Again(..) | Step::Merge(..) => {}
        }
    }

    fn seal(&mut self) {
        for (segment, deleted) in &mut self.segments {
            deleted.extend(self.set.newest().filter_map(|(key, _)| segment.find(key)));
        }
        if self.set.live_len() > 0 {
            self.segments.push((sealed(&self.set, &options(self.graph_from)), RoaringBitmap::new()));
        }
        self.set = GrowingSet::new(self.schema.clone());
        self.sealed = self.next;
    }

    fn merge(&mut self, from: usize, n: usize) {
        let group: Vec<_> = self.segments.drain(from..self.segments.len().min(from + n)).collect();
        let inputs: Vec<_> = group.iter().map(|(s, d)| (s, d)).collect();
        if group.iter().any(|(s, d)| u64::from(s.len()) > d.len()) {
            let one = merged(&inputs, &self.schema, &options(self.graph_from));
            self.segments.insert(from, (one, RoaringBitmap::new()));
        }
    }

    /// Rows of segments that nothing newer hides, and those of the growing set.
    fn scan(&self) -> Vec<LiveRow> {
        let mut rows = live_of(&self.set);
        for (segment, deleted) in &self.segments {
            let all = rows_of(segment).into_iter().zip(0u32..);
            let alive = all.filter(|(row, at)| !deleted.contains(*at) && self.set.get(&row.0).is_none());
            rows.extend(alive.map(|(row, _)| row));
        }
        rows.sort_by_key(|(_, offset, _)| *offset);
        rows
    }
}

proptest! {
    #![proptest_config(cases(250))]

    #[test]
    fn fold_4_any_schedule_of_seals_merges_and_restarts_is_the_fold_at_every_step(
        log in operations(150), steps in prop::collection::vec(step(), 0..40), graph in any::<bool>()
    ) {
        let mut partition = Partition::new(graph);
        for step in &steps {
            partition.take(&log, step);
            prop_assert_eq!(partition.scan(), live(&fold(&log[..partition.next])), "{:?}", step);
        }
    }

    #[test]
    fn fold_4_merging_changes_no_version(
        log in operations(120),
        cuts in prop::collection::vec(any::<Index>(), 0..7),
        tree in prop::collection::vec((any::<Index>(), 2usize..5), 0..4),
        graph in any::<bool>(),
    ) {
        let schema = counted();
        let options = options(if graph { 1 } else { 1000 });
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(log.len() + 1)).chain([0, log.len()]).collect();
        cuts.sort_unstable();
        // each stretch of the log is sealed; a newer stretch marks the rows that it supersedes as deleted
        let mut segments: Vec<(Segment, RoaringBitmap)> = Vec::new();
        for pair in cuts.windows(2) {
            let mut set = GrowingSet::new(schema.clone());
            for (offset, operation) in log.iter().enumerate().take(pair[1]).skip(pair[0]) {
                set.apply(record(&schema, offset, operation));
            }
            for (segment, deleted) in &mut segments {
                deleted.extend(set.newest().filter_map(|(key, _)| segment.find(key)));
            }
            if set.live_len() > 0 {
                segments.push((sealed(&set, &options), RoaringBitmap::new()));
            }
        }
        for (at, count) in tree {
            if segments.is_empty() { break; }
            let from = at.index(segments.len());
            let group: Vec<_> = segments.drain(from..segments.len().min(from + count)).collect();
            let inputs: Vec<_> = group.iter().map(|(s, d)| (s, d)).collect();
            if group.iter().any(|(s, d)| u64::from(s.len()) > d.len()) {
                segments.push((merged(&inputs, &schema, &options), RoaringBitmap::new()));
            }
        }
        let mut got: Vec<_> = segments
            .iter()
            .flat_map(|(segment, deleted)| {
                let rows = rows_of(segment).into_iter().zip(0u32..);
                rows.filter(|(_, row)| !deleted.contains(*row)).map(|(row, _)| row)
            })
            .collect();
        got.sort_by_key(|(_, offset, _)| *offset);
        prop_assert_eq!(got, live(&fold(&log)));
    }
}

#[test]
fn fold_4_a_version_that_another_input_supersedes_is_gone_even_if_the_newer_one_is_deleted() {
    let schema = counted();
    let segment_of = |records: &[(&str, u64)]| {
        let mut set = GrowingSet::new(schema.clone());
        for (key, offset) in records {
            set.apply(upsert(&schema, key, *offset, &[1.0, 2.0, 3.0], &format!(r#"{{"n":{offset}}}"#)));
        }
        sealed(&set, &options(1000))
    };
    let (old, new) = (segment_of(&[("a", 1), ("b", 2)]), segment_of(&[("a", 5), ("b", 6), ("c", 7)]));
    let none = RoaringBitmap::new();
    let dead: RoaringBitmap = [new.find("a").unwrap()].into_iter().collect();
    let got = merged(&[(&old, &none), (&new, &dead)], &schema, &options(1000));
    let versions: Vec<_> = rows_of(&got).into_iter().map(|(key, offset, _)| (key, offset)).collect();
    assert_eq!(versions, [("b".to_owned(), 6), ("c".to_owned(), 7)]);
    // the same segment twice counts once
    let twice = merged(&[(&new, &none), (&new, &none)], &schema, &options(1000));
    assert_eq!(rows_of(&twice), rows_of(&new));
}
