//! Walks every object and reports what is missing, damaged, nobody's or foreign (GC-3). Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use sluice_core::{IndexName, ManifestSeq, PartitionRef, SegmentId, TopicName};

use crate::chain::{Chain, ChainEnd};
use crate::error::{ProtocolError, RegistryError, StoreError};
use crate::gc::is_dead;
use crate::manifest::{self, MAX_MANIFEST_BYTES, Manifest, SegmentEntry};
use crate::paths::{Folder, Object};
use crate::protocol::Chunk;
use crate::registry::bindings::{self, MAX_BINDING_BYTES};
use crate::registry::{self, StoredSpec};
use crate::store::{Carrier, Listed, Store};

/// What scrub looks at.
#[derive(Debug, Clone, Default)]
pub struct ScrubOptions {
    /// One index only.
    pub index: Option<IndexName>,
    /// Compare names and sizes only, do not read segments.
    pub shallow: bool,
}

/// How far a scrub is; the totals grow as indexes are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    pub objects_done: u64,
    pub objects_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The newest manifest, or the chain, needs it and it is not there.
    Missing,
    /// It is not what was written.
    Damaged,
    /// Nobody needs it; the next gc takes it.
    Orphan,
    /// Its key is not one of ours; nothing touches it.
    Foreign,
}

impl Problem {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Orphan => "orphan",
            Self::Foreign => "foreign",
        }
    }
}

/// One object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub problem: Problem,
    pub key: String,
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8} {} ({})", self.problem.as_str(), self.key, self.detail)
    }
}

/// What a scrub saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScrubReport {
    pub indexes: u64,
    pub partitions: u64,
    pub manifests: u64,
    pub segments: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Segments that were uploaded and are not published yet.
    pub unpublished: u64,
    pub findings: Vec<Finding>,
}

impl ScrubReport {
    /// Whether data is lost or damaged; orphans and foreign objects only take room.
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|f| matches!(f.problem, Problem::Missing | Problem::Damaged))
    }
}

impl fmt::Display for ScrubReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(
            f,
            "{} indexes, {} partitions, {} manifests, {} segments, {} bytes: {} findings",
            self.indexes,
            self.partitions,
            self.manifests,
            self.segments,
            self.bytes,
            self.findings.len()
        )
    }
}

/// Walks the store.
///
/// # Errors
/// When the store does not answer, or has nothing of the one index asked for; damage is a finding, not an error.
pub async fn run(
    store: &Store,
    options: &ScrubOptions,
    progress: impl FnMut(ScrubProgress) + Send,
) -> Result<ScrubReport, RegistryError> {
    let mut names = store.folders(&Folder::Root).await?;
    if let Some(index) = &options.index {
        names.retain(|name| name == index.as_str());
        if names.is_empty() {
            return Err(RegistryError::Unknown(index.clone()));
        }
    }
    let mut walk = Walk {
        store,
        shallow: options.shallow,
        report: ScrubReport::default(),
        seen: ScrubProgress::default(),
        tell: Box::new(progress),
    };
    for name in names {
        match IndexName::new(&name) {
            Ok(index) => walk.index(&index).await?,
            Err(_) if name == Folder::Probes.to_string() => {}
            Err(_) if name == Folder::Topics.to_string() => walk.topics().await?,
            Err(error) => walk.find(Problem::Foreign, &name, &error),
        }
    }
    walk.report.findings.sort();
    Ok(walk.report)
}

struct Walk<'a> {
    store: &'a Store,
    shallow: bool,
    report: ScrubReport,
    seen: ScrubProgress,
    tell: Box<dyn FnMut(ScrubProgress) + Send + 'a>,
}

/// The objects of one partition, by number and id, with their sizes.
#[derive(Default)]
struct Objects {
    manifests: BTreeMap<ManifestSeq, u64>,
    segments: BTreeMap<SegmentId, u64>,
    boundaries: BTreeSet<Chunk>,
    hint: bool,
}

impl Walk<'_> {
    fn find(&mut self, problem: Problem, key: &dyn fmt::Display, detail: &dyn fmt::Display) {
        let (key, detail) = (key.to_string(), detail.to_string());
        self.report.findings.push(Finding { problem, key, detail });
    }

    fn done(&mut self, bytes: u64) {
        self.seen.objects_done += 1;
        self.seen.bytes_done += bytes;
        (self.tell)(self.seen);
    }

    fn foreign(&mut self, object: &Listed) {
        self.find(Problem::Foreign, &object.key, &"no object of this program has such a key");
        self.done(object.bytes);
    }

    /// Lists a folder and adds it to the totals.
    async fn listed(&mut self, folder: &Folder) -> Result<Vec<Listed>, StoreError> {
        let listed = self.store.list(folder).await?;
        let bytes = listed.iter().map(|l| l.bytes).sum::<u64>();
        self.seen.objects_total += listed.len() as u64;
        self.seen.bytes_total += bytes;
        self.report.bytes += bytes;
        Ok(listed)
    }

    async fn index(&mut self, index: &IndexName) -> Result<(), StoreError> {
        self.report.indexes += 1;
        let listed = self.listed(&Folder::Index(index.clone())).await?;
        let mut versions = BTreeMap::new();
        let mut partitions: BTreeMap<PartitionRef, Objects> = BTreeMap::new();
        for object in listed {
            let bytes = object.bytes;
            match Object::parse(&object.key) {
                Some(Object::Spec(_, version)) => {
                    versions.insert(version, bytes);
                }
                Some(Object::Manifest(p, seq)) => {
                    partitions.entry(p).or_default().manifests.insert(seq, bytes);
                }
                Some(Object::Segment(p, id)) => {
                    partitions.entry(p).or_default().segments.insert(id, bytes);
                }
                Some(Object::Boundary(p, chunk)) => {
                    partitions.entry(p).or_default().boundaries.insert(chunk);
                    self.done(bytes);
                }
                Some(Object::Hint(p)) => {
                    partitions.entry(p).or_default().hint = true;
                    self.done(bytes);
                }
                Some(Object::Probe(_) | Object::Binding(..)) | None => {
                    self.foreign(&object);
                }
            }
        }
        let spec = self.specs(index, &versions).await?;
        for (partition, objects) in partitions {
            self.report.partitions += 1;
            match &spec {
                Some(stored) if is_dead(stored, partition.generation) => self.dead(&partition, &objects),
                _ => self.partition(&partition, &objects).await?,
            }
        }
        Ok(())
    }

    async fn topics(&mut self) -> Result<(), StoreError> {
        let listed = self.listed(&Folder::Topics).await?;
        let mut topics: BTreeMap<TopicName, BTreeMap<u64, u64>> = BTreeMap::new();
        for object in listed {
            match Object::parse(&object.key) {
                Some(Object::Binding(topic, number)) => {
                    topics.entry(topic).or_default().insert(number, object.bytes);
                }
                _ => self.foreign(&object),
            }
        }
        for (topic, numbers) in topics {
            self.bindings(&topic, &numbers).await?;
        }
        Ok(())
    }

    async fn bindings(&mut self, topic: &TopicName, numbers: &BTreeMap<u64, u64>) -> Result<(), StoreError> {
        let last = numbers.keys().next_back().copied().unwrap_or(0);
        for number in 1..=last {
            let object = Object::Binding(topic.clone(), number);
            let Some(bytes) = numbers.get(&number) else {
                self.find(Problem::Missing, &object, &"later bindings are there");
                continue;
            };
            let body = self.read(&object, MAX_BINDING_BYTES).await?;
            match body.map(|body| bindings::read(topic, number, &body)) {
                Some(Err(RegistryError::Damaged { message, .. })) => {
                    self.find(Problem::Damaged, &object, &message);
                }
                Some(Err(error)) => self.find(Problem::Damaged, &object, &error),
                Some(Ok(_)) | None => {}
            }
            self.done(*bytes);
        }
        Ok(())
    }

    async fn specs(
        &mut self,
        index: &IndexName,
        versions: &BTreeMap<u64, u64>,
    ) -> Result<Option<StoredSpec>, StoreError> {
        let mut newest = None;
        let last = versions.keys().next_back().copied().unwrap_or(0);
        if last == 0 {
            self.find(Problem::Missing, &Object::Spec(index.clone(), 1), &"the index has no spec");
        }
        for version in 1..=last {
            let object = Object::Spec(index.clone(), version);
            let Some(bytes) = versions.get(&version) else {
                self.find(Problem::Missing, &object, &"later versions are there");
                continue;
            };
            let body = self.read(&object, 1 << 20).await?;
            match body.map(|body| registry::read(index, version, &body)) {
                Some(Ok(stored)) => newest = Some(stored),
                Some(Err(RegistryError::Damaged { message, .. })) => {
                    self.find(Problem::Damaged, &object, &message);
                }
                Some(Err(error)) => self.find(Problem::Damaged, &object, &error),
                None => {}
            }
            self.done(*bytes);
        }
        Ok(newest)
    }

    /// Reads a small object; one that vanished since the listing, or is too large, is `None` (the latter a finding).
    async fn read(&mut self, object: &Object, limit: u64) -> Result<Option<bytes::Bytes>, StoreError> {
        match self.store.get(object, limit, Carrier::Small).await {
            Err(error @ StoreError::TooLarge { .. }) => {
                self.find(Problem::Damaged, object, &error);
                Ok(None)
            }
            body => body,
        }
    }

    fn dead(&mut self, partition: &PartitionRef, objects: &Objects) {
        let manifests = objects.manifests.iter().map(|(s, b)| (Object::Manifest(partition.clone(), *s), b));
        let segments = objects.segments.iter().map(|(s, b)| (Object::Segment(partition.clone(), *s), b));
        for (object, bytes) in manifests.chain(segments) {
            self.find(Problem::Orphan, &object, &"of a retired index");
            self.done(*bytes);
        }
    }

    async fn partition(&mut self, partition: &PartitionRef, objects: &Objects) -> Result<(), StoreError> {
        let chain = self.manifests(partition, objects).await?;
        let end = match Chain::new(self.store.clone(), partition.clone()).end().await {
            Ok(ChainEnd::At(newest)) => Some(*newest),
            Ok(ChainEnd::Empty) => None,
            Ok(ChainEnd::Swept) => {
                let key = Folder::Manifests(partition.clone());
                self.find(Problem::Missing, &key, &"chunks were collected, and no manifest follows them");
                None
            }
            Err(ProtocolError::Store(error)) if !matches!(error, StoreError::TooLarge { .. }) => {
                return Err(error);
            }
            // a damaged newest manifest is a finding already; the one before it is the best there is
            Err(_) => chain.values().next_back().cloned(),
        };
        self.segments(partition, objects, &chain, end.as_ref()).await
    }

    /// Reads every manifest and says which chain they form.
    async fn manifests(
        &mut self,
        partition: &PartitionRef,
        objects: &Objects,
    ) -> Result<BTreeMap<ManifestSeq, Manifest>, StoreError> {
        let mut chain: BTreeMap<ManifestSeq, Manifest> = BTreeMap::new();
        let first_open =
            objects.boundaries.last().map_or(ManifestSeq(1), |c| c.next().predecessor_seq().next());
        for chunk in 0..first_open.0 / crate::protocol::CHUNK {
            if !objects.boundaries.contains(&Chunk(chunk)) {
                let object = Object::Boundary(partition.clone(), Chunk(chunk));
                self.find(Problem::Missing, &object, &"later boundaries are there");
            }
        }
        let last = objects.manifests.keys().next_back().copied().unwrap_or_default();
        for seq in first_open.0..=last.0 {
            if !objects.manifests.contains_key(&ManifestSeq(seq)) {
                let object = Object::Manifest(partition.clone(), ManifestSeq(seq));
                self.find(Problem::Missing, &object, &"later manifests are there");
            }
        }
        for (seq, bytes) in &objects.manifests {
            let object = Object::Manifest(partition.clone(), *seq);
            if *seq < first_open {
                self.find(Problem::Orphan, &object, &"in a chunk that was collected");
            } else if let Some(body) = self.read(&object, MAX_MANIFEST_BYTES).await? {
                self.report.manifests += 1;
                match manifest::decode(&body, partition, *seq) {
                    Ok(manifest) => {
                        let before = chain.values().next_back();
                        if let Some(Err(rule)) = before.map(|b| crate::protocol::follows(b, &manifest)) {
                            self.find(Problem::Damaged, &object, &rule);
                        }
                        chain.insert(*seq, manifest);
                    }
                    Err(error) => self.find(Problem::Damaged, &object, &error),
                }
            }
            self.done(*bytes);
        }
        Ok(chain)
    }

    async fn segments(
        &mut self,
        partition: &PartitionRef,
        objects: &Objects,
        chain: &BTreeMap<ManifestSeq, Manifest>,
        newest: Option<&Manifest>,
    ) -> Result<(), StoreError> {
        let object = |id: &SegmentId| Object::Segment(partition.clone(), *id);
        // the newest manifest decides what must be there; what older ones name may have been collected
        let current = newest.map_or(&[][..], |m| &m.segments);
        for entry in current.iter().filter(|e| !objects.segments.contains_key(&e.id)) {
            // it may have been published after the listing was taken
            if self.store.size(&object(&entry.id)).await?.is_none() {
                self.find(Problem::Missing, &object(&entry.id), &"the newest manifest names it");
            }
        }
        let named: BTreeMap<SegmentId, &SegmentEntry> =
            chain.values().flat_map(|m| &m.segments).chain(current).map(|e| (e.id, e)).collect();
        let watermark = newest.map(|m| m.watermark);
        for (id, bytes) in &objects.segments {
            self.report.segments += 1;
            match named.get(id) {
                Some(entry) => self.segment(&object(id), entry, *bytes).await?,
                None if watermark.is_some_and(|w| *id <= w) => {
                    self.find(Problem::Orphan, &object(id), &"no manifest names it");
                }
                None => self.report.unpublished += 1,
            }
            self.done(*bytes);
        }
        Ok(())
    }

    async fn segment(&mut self, object: &Object, entry: &SegmentEntry, bytes: u64) -> Result<(), StoreError> {
        if bytes != entry.bytes {
            self.find(Problem::Damaged, object, &format!("{bytes} bytes instead of {}", entry.bytes));
            return Ok(());
        }
        if self.shallow {
            return Ok(());
        }
        match self.store.verify(object, entry.bytes, entry.digest).await {
            Ok(()) => Ok(()),
            Err(StoreError::Damaged { message, .. }) => {
                self.find(Problem::Damaged, object, &message);
                Ok(())
            }
            // collected since the listing was taken
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
