//! The world that is explored: what the store holds, what each actor is doing, and what each may do next.
//!
//! It begins just before the end of a chunk: A owns the partition at manifest 62 and may be slow; B claims. The oracle
//! is dumb: the first object ever created under a number is the truth of that number.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;
use sluice_core::{Epoch, ManifestSeq, Offset, SegmentId, Timestamp};
use ulid::Ulid;

use super::{Budget, Bug};
use crate::protocol::{
    self, BoundaryReport, Chunk, ClaimDecision, ClaimFacts, Commit, CommitStep, GcFacts, GcPlan, Newest,
    NewestSearch, Probe, PutReport, ReadBack, SearchStep, Stamp, Summary, Verdict,
};
use crate::tests::partition;
use crate::{Manifest, Reason, SegmentEntry};

const FIRST: u64 = 62;

/// A manifest, as much of it as matters here.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Small {
    seq: u64,
    epoch: u64,
    put: u128,
    start: u64,
    next: u64,
    segments: Vec<SegmentId>,
    watermark: SegmentId,
}

impl Small {
    fn of(m: &Manifest) -> Self {
        let segments = m.segments.iter().map(|s| s.id).collect();
        let (start, next) = (m.start.0, m.next_offset.0);
        Self {
            seq: m.seq.0,
            epoch: m.epoch.0,
            put: m.put_id.into(),
            start,
            next,
            segments,
            watermark: m.watermark,
        }
    }

    fn full(&self) -> Manifest {
        Manifest {
            partition: partition(),
            seq: ManifestSeq(self.seq),
            epoch: Epoch(self.epoch),
            partitions: 4,
            start: Offset(self.start),
            next_offset: Offset(self.next),
            segments: self.segments.iter().map(|id| entry(*id)).collect(),
            watermark: self.watermark,
            created_at: Timestamp(0),
            put_id: Ulid::from(self.put),
            reason: Reason::Publish,
        }
    }
}

fn entry(id: SegmentId) -> SegmentEntry {
    SegmentEntry { id, bytes: 1, digest: blake3::hash(b""), records: 1, deleted: RoaringBitmap::new() }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    Searching(NewestSearch, Option<Small>),
    Committing(Commit, Small),
    Owning(Small),
    Stopped,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Writer {
    doing: Doing,
    claims: u8,
    publications: u8,
    /// Put ids and ULIDs that were used.
    used: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Collecting {
    Idle,
    Searching(NewestSearch, Option<Small>),
    Read(Small),
    Executing { boundaries: Vec<u64>, manifests: Vec<u64>, segments: Vec<SegmentId> },
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Reading {
    Idle,
    /// Looks for the newest manifest, which is not below this number.
    Searching(NewestSearch, Option<Small>, u64),
    /// Has accepted this manifest and fetches its segments.
    Fetching(Small),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    manifests: BTreeMap<u64, Small>,
    boundaries: BTreeSet<u64>,
    segments: BTreeSet<SegmentId>,
    /// Creates that hang somewhere and may arrive at any time.
    late: Vec<Small>,
    /// Uploads that hang likewise.
    late_segments: Vec<SegmentId>,
    truth: BTreeMap<u64, Small>,
    writers: [Writer; 2],
    collecting: Collecting,
    collections: u8,
    reading: Reading,
    known: Option<Small>,
    polls: u8,
    faults: u8,
    crashes: u8,
}

pub(super) type Outcome = Result<Vec<World>, String>;

impl World {
    pub(super) fn new(budget: &Budget) -> Self {
        let id = SegmentId { epoch: Epoch(1), ulid: Ulid::from(1u128) };
        let first =
            Small { seq: FIRST, epoch: 1, put: 1, start: 0, next: 1, segments: vec![id], watermark: id };
        let a = Writer {
            doing: Doing::Owning(first.clone()),
            claims: budget.a.0,
            publications: budget.a.1,
            used: 1,
        };
        let b = Writer { doing: Doing::Nothing, claims: budget.b.0, publications: budget.b.1, used: 1 };
        Self {
            manifests: [(FIRST, first.clone())].into(),
            boundaries: BTreeSet::new(),
            segments: [id].into(),
            late: Vec::new(),
            late_segments: Vec::new(),
            truth: [(FIRST, first)].into(),
            writers: [a, b],
            collecting: Collecting::Idle,
            collections: budget.collections,
            reading: Reading::Idle,
            known: None,
            polls: budget.polls,
            faults: budget.faults,
            crashes: budget.crashes,
        }
    }

    fn create(&mut self, manifest: &Small) -> Result<bool, String> {
        if self.manifests.contains_key(&manifest.seq) {
            return Ok(false);
        }
        self.manifests.insert(manifest.seq, manifest.clone());
        if !self.truth.contains_key(&manifest.seq) {
            let last = self.truth.values().next_back().ok_or("no truth")?;
            protocol::follows(&last.full(), &manifest.full()).map_err(|e| format!("FENCE-1, FOLD-2: {e}"))?;
            self.truth.insert(manifest.seq, manifest.clone());
            self.check_segments()?;
        }
        Ok(true)
    }

    fn check_segments(&self) -> Result<(), String> {
        let newest = self.newest()?;
        match newest.segments.iter().find(|s| !self.segments.contains(s)) {
            Some(id) => Err(format!("GC-1: {id} of manifest {} is gone", newest.seq)),
            None => Ok(()),
        }
    }

    /// One look of a search: what is there, and the body that goes with it.
    fn look(&self, search: &mut NewestSearch, body: &mut Option<Small>, bug: Bug) -> SearchStep {
        if let SearchStep::Look(probe) = search.next() {
            match probe {
                Probe::Manifest(seq) => {
                    // numbers before the first of this world stand and fall with it
                    let found = self.manifests.get(&seq.0.max(FIRST));
                    search.observe(found.is_some());
                    *body = found.cloned().or(body.take());
                }
                Probe::Boundary(chunk) => {
                    search.observe(bug != Bug::NoConfirm && self.boundaries.contains(&chunk.0));
                }
            }
        }
        search.next()
    }

    fn writer_steps(&self, who: usize, bug: Bug) -> Outcome {
        let writer = &self.writers[who];
        let mut world = self.clone();
        match writer.doing.clone() {
            Doing::Nothing | Doing::Stopped if writer.claims > 0 => {
                world.writers[who].claims -= 1;
                let search = NewestSearch::from_hint(Some(ManifestSeq(FIRST)));
                world.writers[who].doing = Doing::Searching(search, None);
                Ok(vec![world])
            }
            Doing::Searching(mut search, mut body) => {
                world.writers[who].doing = match (self.look(&mut search, &mut body, bug), body) {
                    (SearchStep::Look(_), body) => Doing::Searching(search, body),
                    (SearchStep::Found(Newest::At(_)), Some(newest)) => world.claim(who, &newest)?,
                    (SearchStep::Found(_), _) => return Err("a live chain looks empty or swept".into()),
                    (SearchStep::GaveUp, _) => Doing::Stopped,
                };
                Ok(vec![world])
            }
            Doing::Owning(last) if writer.publications > 0 => {
                world.writers[who].publications -= 1;
                let stamp = world.stamp(who);
                let id = SegmentId { epoch: Epoch(last.epoch), ulid: stamp.put_id };
                world.segments.insert(id);
                let next = protocol::publish(&last.full(), Offset(last.next + 1), vec![entry(id)], stamp)
                    .map_err(|e| e.to_string())?;
                let commit = Commit::of_manifest(next.seq, 3);
                world.writers[who].doing = Doing::Committing(commit, Small::of(&next));
                Ok(vec![world])
            }
            Doing::Committing(commit, next) => self.commit_steps(who, commit, next, bug),
            Doing::Nothing | Doing::Stopped | Doing::Owning(_) => Ok(Vec::new()),
        }
    }

    fn stamp(&mut self, who: usize) -> Stamp {
        self.writers[who].used += 1;
        let put_id = Ulid::from(u128::from(self.writers[who].used) * 10 + who as u128 + 1);
        Stamp { put_id, created_at: Timestamp(0) }
    }

    fn claim(&mut self, who: usize, newest: &Small) -> Result<Doing, String> {
        let stamp = self.stamp(who);
        let facts = ClaimFacts {
            partition: &partition(),
            newest: Some(&newest.full()),
            log_start: Offset(0),
            partitions: 4,
            stamp,
        };
        match protocol::claim(&facts) {
            ClaimDecision::Create(next) => {
                Ok(Doing::Committing(Commit::of_manifest(next.seq, 3), Small::of(&next)))
            }
            other => Err(format!("claim: {other:?}")),
        }
    }

    fn commit_steps(&self, who: usize, commit: Commit, next: Small, bug: Bug) -> Outcome {
        let with = |report: &dyn Fn(&mut Commit), change: &dyn Fn(&mut World) -> Result<(), String>| {
            let (mut world, mut commit) = (self.clone(), commit.clone());
            change(&mut world)?;
            report(&mut commit);
            world.writers[who].doing = Doing::Committing(commit, next.clone());
            Ok::<World, String>(world)
        };
        let nothing = |_: &mut World| Ok(());
        let apply = |w: &mut World| w.create(&next).map(|_| ());
        let fault = |w: &mut World| w.faults -= 1;
        match commit.next() {
            CommitStep::Put => {
                let free = !self.manifests.contains_key(&next.seq);
                let exists = match bug {
                    Bug::ExistsIsMine => PutReport::Created,
                    _ => PutReport::Exists,
                };
                let report = if free { PutReport::Created } else { exists };
                let mut worlds = if bug == Bug::ExistsIsLost && !free {
                    vec![with(
                        &|c| {
                            c.put_reported(PutReport::Exists);
                            c.read_back(ReadBack::Other)
                        },
                        &nothing,
                    )?]
                } else {
                    vec![with(&|c| c.put_reported(report), &apply)?]
                };
                if self.faults > 0 {
                    let unclear = |c: &mut Commit| c.put_reported(PutReport::Unclear);
                    worlds.push(with(&unclear, &|w| {
                        fault(w);
                        Ok(())
                    })?);
                    worlds.push(with(&unclear, &|w| {
                        fault(w);
                        apply(w)
                    })?);
                    worlds.push(with(&unclear, &|w| {
                        fault(w);
                        w.late.push(next.clone());
                        Ok(())
                    })?);
                    // the client repeated a request that had succeeded
                    let lost = |c: &mut Commit| {
                        c.put_reported(exists);
                        if bug == Bug::ExistsIsLost {
                            c.read_back(ReadBack::Other)
                        }
                    };
                    worlds.push(with(&lost, &|w| {
                        fault(w);
                        apply(w)
                    })?);
                }
                Ok(worlds)
            }
            CommitStep::ReadBack => {
                let found = match self.manifests.get(&next.seq) {
                    None => ReadBack::Absent,
                    Some(m) if m.put == next.put => ReadBack::Mine,
                    Some(_) => ReadBack::Other,
                };
                Ok(vec![with(&|c| c.read_back(found), &nothing)?])
            }
            CommitStep::LookAtBoundary(chunk) => {
                let there = self.boundaries.contains(&chunk.0) && bug != Bug::NoBoundaryLook;
                let report = if there { BoundaryReport::Present } else { BoundaryReport::Absent };
                Ok(vec![with(&|c| c.boundary_reported(report), &nothing)?])
            }
            CommitStep::Finished(verdict) => {
                let mut world = self.clone();
                let mine = self.truth.get(&next.seq).is_some_and(|m| m.put == next.put);
                world.writers[who].doing = match verdict {
                    Verdict::Won if mine => Doing::Owning(next),
                    Verdict::Won => return Err(format!("FENCE-4: {} won, but is another's", next.seq)),
                    Verdict::Lost if mine => return Err(format!("FENCE-4: {} lost, but is mine", next.seq)),
                    Verdict::Collected if self.newest()?.seq <= next.seq => {
                        return Err(format!("FENCE-4: {} collected, but is the newest", next.seq));
                    }
                    Verdict::Lost | Verdict::Collected | Verdict::Unresolved => Doing::Stopped,
                    Verdict::Denied => return Err("nothing was denied".into()),
                };
                Ok(vec![world])
            }
        }
    }

    fn collector_steps(&self, bug: Bug) -> Outcome {
        let mut world = self.clone();
        world.collecting = match self.collecting.clone() {
            Collecting::Idle if self.collections == 0 => return Ok(Vec::new()),
            Collecting::Idle => {
                world.collections -= 1;
                Collecting::Searching(NewestSearch::from_hint(Some(ManifestSeq(FIRST))), None)
            }
            Collecting::Searching(mut search, mut body) => {
                match (self.look(&mut search, &mut body, bug), body) {
                    (SearchStep::Look(_), body) => Collecting::Searching(search, body),
                    (SearchStep::Found(Newest::At(_)), Some(newest)) => Collecting::Read(newest),
                    _ => return Err("the collector finds no chain".into()),
                }
            }
            Collecting::Read(newest) => self.plan(&newest, bug),
            Collecting::Executing { mut boundaries, mut manifests, mut segments } => {
                if bug != Bug::DeleteFirst && !boundaries.is_empty() {
                    world.boundaries.insert(boundaries.remove(0));
                } else if !manifests.is_empty() {
                    world.manifests.remove(&manifests.remove(0));
                } else if !segments.is_empty() {
                    world.segments.remove(&segments.remove(0));
                    world.check_segments()?;
                } else if !boundaries.is_empty() {
                    world.boundaries.insert(boundaries.remove(0));
                }
                match boundaries.is_empty() && manifests.is_empty() && segments.is_empty() {
                    true => Collecting::Idle,
                    false => Collecting::Executing { boundaries, manifests, segments },
                }
            }
        };
        Ok(vec![world])
    }

    fn plan(&self, newest: &Small, bug: Bug) -> Collecting {
        let mut summary = Summary::from(&newest.full());
        if bug == Bug::NoWatermark {
            summary.watermark = SegmentId { epoch: Epoch(u64::MAX), ulid: Ulid::max() };
        }
        let manifests: Vec<_> = self.manifests.keys().map(|s| ManifestSeq(*s)).collect();
        let segments: Vec<_> = self.segments.iter().copied().collect();
        let first_open = Chunk((0..).find(|c| !self.boundaries.contains(c)).unwrap_or(0));
        let retained = [summary];
        let facts = GcFacts { retained: &retained, first_open, manifests: &manifests, segments: &segments };
        let GcPlan { boundaries, manifests, segments } = protocol::plan_gc(&facts);
        let boundaries = boundaries.iter().map(|c| c.0).collect();
        Collecting::Executing { boundaries, manifests: manifests.iter().map(|s| s.0).collect(), segments }
    }

    fn reader_steps(&self, bug: Bug) -> Outcome {
        let mut world = self.clone();
        let newest = self.newest()?.seq;
        let look = || match &self.known {
            Some(known) => NewestSearch::after(ManifestSeq(known.seq)),
            None => NewestSearch::from_hint(Some(ManifestSeq(FIRST))),
        };
        world.reading = match self.reading.clone() {
            Reading::Idle if self.polls == 0 => return Ok(Vec::new()),
            Reading::Idle => {
                world.polls -= 1;
                Reading::Searching(look(), self.known.clone(), newest)
            }
            Reading::Searching(mut search, mut body, floor) => {
                match (self.look(&mut search, &mut body, bug), body) {
                    (SearchStep::Look(_), body) => Reading::Searching(search, body, floor),
                    (SearchStep::Found(Newest::At(seq)), Some(found)) => {
                        if found.seq != seq.0 || self.truth.get(&seq.0) != Some(&found) {
                            return Err(format!("FENCE-1: a reader accepts a ghost of {seq}"));
                        }
                        if seq.0 < floor {
                            return Err(format!("QRY-2: a reader accepts {seq}, {floor} was there before"));
                        }
                        Reading::Fetching(found)
                    }
                    _ => return Err("the reader finds no chain".into()),
                }
            }
            Reading::Fetching(found) if found.segments.iter().all(|id| self.segments.contains(id)) => {
                world.known = Some(found);
                Reading::Idle
            }
            // collected under it: then there is something newer, and it looks again
            Reading::Fetching(found) if found.seq < newest => {
                Reading::Searching(look(), self.known.clone(), newest)
            }
            Reading::Fetching(found) => {
                return Err(format!("GC-1: a reader cannot fetch manifest {}, the newest", found.seq));
            }
        };
        Ok(vec![world])
    }

    /// The process of a writer dies, with the request that it was making on its way, or not sent.
    fn crashes(&self, who: usize) -> Vec<Self> {
        if self.crashes == 0 || matches!(self.writers[who].doing, Doing::Nothing | Doing::Stopped) {
            return Vec::new();
        }
        let mut world = self.clone();
        world.crashes -= 1;
        world.writers[who].doing = Doing::Stopped;
        let mut worlds = Vec::new();
        match &self.writers[who].doing {
            Doing::Committing(commit, next) if commit.next() == CommitStep::Put => {
                let mut late = world.clone();
                late.late.push(next.clone());
                worlds.push(late);
            }
            Doing::Owning(last) if self.writers[who].publications > 0 => {
                let mut late = world.clone();
                let ulid = late.stamp(who).put_id;
                late.late_segments.push(SegmentId { epoch: Epoch(last.epoch), ulid });
                worlds.push(late);
            }
            _ => {}
        }
        worlds.push(world);
        worlds
    }

    /// Nobody moves any more: after one more claim a collection leaves what the newest manifest needs, and no more.
    fn check_rest(&self) -> Result<(), String> {
        let newest = self.newest()?;
        let mut search = NewestSearch::from_hint(Some(ManifestSeq(FIRST)));
        let mut body = None;
        while let SearchStep::Look(_) = self.look(&mut search, &mut body, Bug::None) {}
        if body.as_ref() != Some(newest) {
            return Err(format!("FENCE-1: in the end a search does not find manifest {}", newest.seq));
        }
        let mut last = self.clone();
        let Doing::Committing(_, claim) = last.claim(0, newest)? else { return Err("no claim".into()) };
        let Collecting::Executing { manifests, segments, .. } = self.plan(&claim, Bug::None) else {
            return Err("no plan".into());
        };
        let left = self.segments.iter().filter(|id| !segments.contains(id));
        if !left.eq(claim.segments.iter()) {
            return Err("GC-2: segments that nobody names are left for ever".into());
        }
        let chunk = Chunk::of(ManifestSeq(claim.seq));
        match self.manifests.keys().find(|s| !manifests.contains(s) && Chunk::of(ManifestSeq(**s)) < chunk) {
            Some(seq) => Err(format!("GC-2: manifest {seq} is left for ever")),
            None => Ok(()),
        }
    }

    fn newest(&self) -> Result<&Small, String> {
        self.truth.values().next_back().ok_or_else(|| "no truth".into())
    }

    /// Every world that one step leads to, or the violation that a step shows.
    pub(super) fn steps(&self, bug: Bug) -> Outcome {
        let mut worlds = self.collector_steps(bug)?;
        worlds.extend(self.reader_steps(bug)?);
        for who in 0..2 {
            worlds.extend(self.writer_steps(who, bug)?);
            worlds.extend(self.crashes(who));
        }
        for at in 0..self.late.len() {
            let mut world = self.clone();
            let late = world.late.remove(at);
            world.create(&late)?;
            worlds.push(world);
        }
        for at in 0..self.late_segments.len() {
            let mut world = self.clone();
            let late = world.late_segments.remove(at);
            world.segments.insert(late);
            worlds.push(world);
        }
        if worlds.is_empty() {
            self.check_rest()?;
        }
        Ok(worlds)
    }
}
