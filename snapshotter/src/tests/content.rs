//! FOLD-2, GC-1: chains of random claims and publications, some of which break a rule.

use proptest::prelude::*;
use proptest::sample::Index;
use sluice_core::{Epoch, SegmentId};
use ulid::Ulid;

use super::*;
use crate::Reason;
use crate::protocol::{self, ClaimDecision, ClaimFacts, Stamp, follows, publish};

/// How a publication goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    OffsetGoesBack,
    /// A segment is listed twice.
    Twice,
    /// A new segment has an id of the epoch before.
    OtherEpoch,
    /// A new segment has an id that is not above the watermark: it may have been collected.
    BelowWatermark,
    /// A segment comes back that an older manifest held.
    Resurrected,
    /// A deleted row is live again.
    Undeleted,
    /// A segment is not the file that it was.
    OtherFile,
    NoRows,
    /// A row is deleted that the segment does not have.
    RowBeyond,
}

const MISTAKES: [Mistake; 10] = [
    Mistake::None,
    Mistake::OffsetGoesBack,
    Mistake::Twice,
    Mistake::OtherEpoch,
    Mistake::BelowWatermark,
    Mistake::Resurrected,
    Mistake::Undeleted,
    Mistake::OtherFile,
    Mistake::NoRows,
    Mistake::RowBeyond,
];

#[derive(Debug, Clone)]
enum Step {
    Claim,
    Publish {
        offsets: u64,
        /// Which of the segments stay.
        keep: u8,
        new: usize,
        deletes: Vec<(Index, u32)>,
        mistake: Mistake,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let mistake = prop_oneof![2 => Just(Mistake::None), 1 => prop::sample::select(MISTAKES.to_vec())];
    let deletes = prop::collection::vec((any::<Index>(), 0u32..10), 0..4);
    let publish = (0u64..20, any::<u8>(), 0usize..3, deletes, mistake).prop_map(
        |(offsets, keep, new, deletes, mistake)| Step::Publish { offsets, keep, new, deletes, mistake },
    );
    prop_oneof![1 => Just(Step::Claim), 5 => publish]
}

/// A chain, and what was used up for it.
struct Chained {
    manifests: Vec<Manifest>,
    used: u128,
}

impl Chained {
    fn last(&self) -> &Manifest {
        self.manifests.last().unwrap()
    }

    fn stamp(&mut self) -> Stamp {
        self.used += 1;
        Stamp { put_id: Ulid::from(self.used), created_at: Timestamp(0) }
    }

    fn claim(&mut self) {
        let (newest, stamp) = (self.manifests.last().cloned(), self.stamp());
        let facts = ClaimFacts {
            partition: &partition(),
            newest: newest.as_ref(),
            log_start: Offset(3),
            partitions: 4,
            stamp,
        };
        let ClaimDecision::Create(next) = protocol::claim(&facts) else { panic!("the claim is refused") };
        self.manifests.push(next);
    }

    fn entry(&mut self, epoch: Epoch) -> SegmentEntry {
        self.used += 1;
        let id = SegmentId { epoch, ulid: Ulid::from(self.used) };
        let digest = blake3::hash(&self.used.to_le_bytes());
        SegmentEntry { id, bytes: 100, digest, records: 10, deleted: RoaringBitmap::new() }
    }

    /// The next content, right but for `mistake`; whether the mistake could be made in this state.
    fn draft(
        &mut self,
        keep: u8,
        new: usize,
        deletes: &[(Index, u32)],
        mistake: Mistake,
    ) -> (Vec<SegmentEntry>, bool) {
        let last = self.last().clone();
        let kept = last.segments.iter().enumerate().filter(|(i, _)| keep >> (i % 8) & 1 == 1);
        let mut segments: Vec<SegmentEntry> = kept.map(|(_, s)| s.clone()).collect();
        let old = segments.len();
        for (at, row) in deletes.iter().filter(|_| old > 0) {
            segments[at.index(old)].deleted.insert(*row);
        }
        for _ in 0..new {
            let entry = self.entry(last.epoch);
            segments.push(entry);
        }
        let gone = |id: SegmentId| last.segments.iter().all(|s| s.id != id);
        let made = match mistake {
            Mistake::None | Mistake::OffsetGoesBack => true,
            Mistake::Twice => segments.first().cloned().map(|s| segments.push(s)).is_some(),
            Mistake::OtherEpoch => {
                let entry = self.entry(Epoch(last.epoch.0 - 1));
                segments.push(entry);
                true
            }
            Mistake::BelowWatermark => {
                let mut entry = self.entry(last.epoch);
                entry.id = last.watermark;
                let free = gone(entry.id);
                segments.extend(free.then_some(entry));
                free
            }
            Mistake::Resurrected => {
                let mut all = self.manifests.iter().flat_map(|m| &m.segments);
                let back = all.rfind(|s| gone(s.id)).cloned();
                back.map(|s| segments.push(s)).is_some()
            }
            Mistake::Undeleted => {
                let before = segments.iter_mut().zip(0..old).map(|(s, _)| s);
                let mut was =
                    before.filter(|s| last.segments.iter().any(|l| l.id == s.id && !l.deleted.is_empty()));
                was.next().map(|s| s.deleted.clear()).is_some()
            }
            Mistake::OtherFile => {
                segments.iter_mut().take(old).next().map(|s| s.digest = blake3::hash(b"another")).is_some()
            }
            Mistake::NoRows => segments.get_mut(old).map(|s| s.records = 0).is_some(),
            Mistake::RowBeyond => segments.first_mut().map(|s| s.deleted.insert(s.records)).is_some(),
        };
        (segments, made)
    }
}

proptest! {
    #![proptest_config(cases(5000))]

    #[test]
    fn fold_2_a_chain_goes_forward_only_and_names_no_segment_again(steps in prop::collection::vec(step(), 0..24)) {
        let mut chain = Chained { manifests: Vec::new(), used: 0 };
        chain.claim();
        for step in steps {
            let before = chain.last().clone();
            match step {
                Step::Claim => chain.claim(),
                Step::Publish { offsets, keep, new, deletes, mistake } => {
                    let (segments, made) = chain.draft(keep, new, &deletes, mistake);
                    let back = mistake == Mistake::OffsetGoesBack;
                    let to = if back { before.next_offset.0 - 1 } else { before.next_offset.0 + offsets };
                    let stamp = chain.stamp();
                    let published = publish(&before, Offset(to), segments.clone(), stamp);
                    prop_assert_eq!(published.is_err(), made && mistake != Mistake::None, "{:?}", mistake);
                    let Ok(next) = published else { continue };
                    prop_assert_eq!((&next.segments, next.epoch, next.reason), (&segments, before.epoch, Reason::Publish));
                    prop_assert_eq!(next.next_offset, Offset(to));
                    chain.manifests.push(next);
                }
            }
            let now = chain.last().clone();
            prop_assert_eq!((now.seq, now.start), (before.seq.next(), before.next_offset));
            prop_assert!(now.next_offset >= now.start && now.epoch >= before.epoch && now.watermark >= before.watermark);
            prop_assert!(now.segments.iter().all(|s| s.id <= now.watermark));
            prop_assert_eq!(follows(&before, &now), Ok(()));
            prop_assert!(follows(&now, &before).is_err() && follows(&now, &now).is_err());
            // whatever left the chain never comes back
            for (i, older) in chain.manifests.iter().enumerate().rev().skip(1) {
                let next = &chain.manifests[i + 1].segments;
                let left = older.segments.iter().filter(|s| next.iter().all(|n| n.id != s.id));
                for s in left {
                    prop_assert!(now.segments.iter().all(|n| n.id != s.id), "{} is back", s.id);
                }
            }
        }
    }
}
