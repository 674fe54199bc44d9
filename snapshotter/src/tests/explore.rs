//! Every interleaving of two writers, a collector, a reader and late requests, over the product's own decisions.
//!
//! The world begins just before the end of a chunk: A owns the partition at manifest 62 and may be slow; B claims. One
//! look at, or change of, one object is one step; any actor may take the next one. The oracle is dumb: the first
//! object ever created under a number is the truth of that number.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use sluice_core::{Epoch, ManifestSeq, SegmentId};
use ulid::Ulid;

use super::*;
use crate::Reason;
use crate::protocol::{
    self, BoundaryReport, Chunk, ClaimDecision, ClaimFacts, Commit, CommitStep, GcFacts, GcPlan, Newest,
    NewestSearch, Probe, PutReport, ReadBack, SearchStep, Stamp, Summary, Verdict,
};

const FIRST: u64 = 62;

/// A mistake that the exploration must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// The writer does not look at the boundary after its create.
    NoBoundaryLook,
    /// The search takes any last manifest for the newest.
    NoConfirm,
    /// "Exists already" is taken for "mine".
    ExistsIsMine,
    /// "Exists already" is taken for "another's".
    ExistsIsLost,
    /// Deletes come before boundaries.
    DeleteFirst,
    /// Whatever no manifest names is garbage.
    NoWatermark,
}

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
struct World {
    manifests: BTreeMap<u64, Small>,
    boundaries: BTreeSet<u64>,
    segments: BTreeSet<SegmentId>,
    /// Creates that hang somewhere and may arrive at any time.
    late: Vec<Small>,
    truth: BTreeMap<u64, Small>,
    writers: [Writer; 2],
    collecting: Collecting,
    collections: u8,
    reading: Option<(NewestSearch, Option<Small>, u64)>,
    known: Option<Small>,
    polls: u8,
    faults: u8,
}

type Outcome = Result<Vec<World>, String>;

impl World {
    fn new(budget: &Budget) -> Self {
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
            truth: [(FIRST, first)].into(),
            writers: [a, b],
            collecting: Collecting::Idle,
            collections: budget.collections,
            reading: None,
            known: None,
            polls: budget.polls,
            faults: budget.faults,
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
        let newest = self.truth.values().next_back().ok_or("no truth")?;
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
        let newest = *self.truth.keys().next_back().ok_or("no truth")?;
        match self.reading.clone() {
            None if self.polls == 0 => return Ok(Vec::new()),
            None => {
                world.polls -= 1;
                let search = match &self.known {
                    Some(known) => NewestSearch::after(ManifestSeq(known.seq)),
                    None => NewestSearch::from_hint(Some(ManifestSeq(FIRST))),
                };
                world.reading = Some((search, self.known.clone(), newest));
            }
            Some((mut search, mut body, floor)) => match (self.look(&mut search, &mut body, bug), body) {
                (SearchStep::Look(_), body) => world.reading = Some((search, body, floor)),
                (SearchStep::Found(Newest::At(seq)), Some(found)) => {
                    if found.seq != seq.0 || self.truth.get(&seq.0) != Some(&found) {
                        return Err(format!("FENCE-1: a reader accepts a ghost of {seq}"));
                    }
                    if seq.0 < floor {
                        return Err(format!("QRY-2: a reader accepts {seq}, {floor} was there before"));
                    }
                    world.known = Some(found);
                    world.reading = None;
                }
                _ => return Err("the reader finds no chain".into()),
            },
        }
        Ok(vec![world])
    }

    fn steps(&self, bug: Bug) -> Outcome {
        let mut worlds = self.collector_steps(bug)?;
        worlds.extend(self.reader_steps(bug)?);
        for who in 0..2 {
            worlds.extend(self.writer_steps(who, bug)?);
        }
        for at in 0..self.late.len() {
            let mut world = self.clone();
            let late = world.late.remove(at);
            world.create(&late)?;
            worlds.push(world);
        }
        Ok(worlds)
    }
}

/// How much each actor may do: (claims, publications) of the writers, and the rest.
struct Budget {
    a: (u8, u8),
    b: (u8, u8),
    collections: u8,
    polls: u8,
    faults: u8,
}

/// Visits every state once; the number of states, or the first violation.
fn explore(budget: &Budget, bug: Bug) -> Result<usize, String> {
    let fingerprint = |world: &World| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    let first = World::new(budget);
    let mut seen: HashSet<u64> = [fingerprint(&first)].into();
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for next in world.steps(bug)? {
            if seen.insert(fingerprint(&next)) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

const SHORT: Budget = Budget { a: (0, 1), b: (1, 1), collections: 1, polls: 1, faults: 1 };
const LONG: Budget = Budget { faults: 2, polls: 2, ..SHORT };

#[test]
fn fence_1_fence_4_gc_1_qry_2_hold_in_every_interleaving() {
    let budget = if std::env::var_os("SLUICE_EXPLORE_LONG").is_some() { LONG } else { SHORT };
    let states = explore(&budget, Bug::None).unwrap();
    println!("{states} states");
    assert!(states > 10_000);
}

#[test]
fn each_planted_mistake_is_found_by_the_exploration() {
    for (bug, expected) in [
        (Bug::NoBoundaryLook, "FENCE-4"),
        (Bug::NoConfirm, ""),
        (Bug::ExistsIsMine, "FENCE-4"),
        (Bug::ExistsIsLost, "FENCE-4"),
        (Bug::DeleteFirst, ""),
        (Bug::NoWatermark, "GC-1"),
    ] {
        let violation = explore(&SHORT, bug).expect_err(&format!("{bug:?} is not found"));
        println!("{bug:?}: {violation}");
        assert!(violation.contains(expected), "{bug:?}: {violation}");
    }
}
