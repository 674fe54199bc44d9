//! Garbage collection: plan (pure), durable boundary, delete. Safe at any time, beside any number of others.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use sluice_core::{Clock, Generation, IndexName, ManifestSeq, PartitionRef, SegmentId, failpoint};

use crate::chain::{Chain, ChainEnd};
use crate::create::{BACKOFF, TRIES, drive};
use crate::error::{ProtocolError, RegistryError, StoreError};
use crate::manifest::{Manifest, Reason};
use crate::metrics;
use crate::owner::{commit, stamp};
use crate::paths::{Folder, Object};
use crate::protocol::{
    self, Chunk, Commit, GcFacts, GcPlan, RetainRule, RunEnd, Summary, SweepFacts, Verdict,
};
use crate::registry::{Registry, StoredSpec};
use crate::store::{Listed, Store};

/// Closings that may be lost to an owner that publishes at the same time.
const CLOSE_ROUNDS: u32 = 16;

/// What is kept.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Newest manifests that are kept in any case, at least 1.
    pub retain: u32,
    /// A manifest superseded less than this ago is kept too, for readers that still fetch its segments.
    pub grace: Duration,
    /// Plan and report only.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { retain: 4, grace: Duration::from_secs(15 * 60), dry_run: false }
    }
}

/// What was collected, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    pub dry_run: bool,
    pub partitions: u64,
    /// Partitions of retired generations among them.
    pub swept: u64,
    pub boundaries: u64,
    pub manifests: u64,
    pub segments: u64,
    pub bytes: u64,
    /// Partitions that could not be collected, and why.
    pub failures: Vec<GcFailure>,
}

/// A partition that could not be collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GcFailure {
    pub partition: String,
    pub kind: String,
    pub error: String,
}

impl GcReport {
    fn add(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.swept += other.swept;
        self.boundaries += other.boundaries;
        self.manifests += other.manifests;
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for GcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did = if self.dry_run { "would delete" } else { "deleted" };
        write!(
            f,
            "{} partitions ({} of retired indexes): {did} {} manifests and {} segments, {} bytes, behind {} new \
             boundaries",
            self.partitions, self.swept, self.manifests, self.segments, self.bytes, self.boundaries
        )?;
        for failure in &self.failures {
            write!(f, "\n{}: not collected: {}", failure.partition, failure.error)?;
        }
        Ok(())
    }
}

/// Collects one partition of a live generation.
///
/// # Errors
/// When the store does not answer, or a retained manifest is damaged: then nothing is deleted.
pub async fn run(
    store: &Store,
    partition: &PartitionRef,
    options: &GcOptions,
    clock: &dyn Clock,
) -> Result<GcReport, ProtocolError> {
    let chain = Chain::new(store.clone(), partition.clone());
    let ChainEnd::At(newest) = chain.end().await? else {
        return Ok(GcReport { dry_run: options.dry_run, partitions: 1, ..GcReport::default() });
    };
    let rule = RetainRule { retain: options.retain, grace: options.grace, now: clock.now() };
    let retained = retained(&chain, &newest, rule).await?;
    // the manifests were read first: what is uploaded or published from here on is above the watermark
    let listing = Listing::take(store, partition).await?;
    let plan = protocol::plan_gc(&GcFacts {
        retained: &retained,
        first_open: first_open(&chain).await?,
        manifests: &listing.manifests,
        segments: &listing.segments,
    });
    execute(&chain, plan, &listing, options.dry_run).await
}

/// Collects everything, or one index: every partition of live generations, and retired generations as a whole. A
/// partition that fails is named in the report and does not stop the others.
///
/// # Errors
/// When the specs or the listings cannot be read.
pub async fn run_all(
    store: &Store,
    index: Option<&IndexName>,
    options: &GcOptions,
    clock: Arc<dyn Clock>,
) -> Result<GcReport, RegistryError> {
    let registry = Registry::new(store.clone(), clock.clone());
    let specs = match index {
        None => registry.list_all().await?,
        Some(name) => {
            let spec = registry.newest(name).await?;
            vec![spec.ok_or_else(|| RegistryError::Unknown(name.clone()))?]
        }
    };
    let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
    for stored in &specs {
        for partition in partitions(store, &stored.spec.name).await? {
            let collected = if is_dead(stored, partition.generation) {
                sweep(store, &partition, options, clock.as_ref()).await
            } else {
                run(store, &partition, options, clock.as_ref()).await
            };
            match collected {
                Ok(part) => report.add(part),
                Err(error) => {
                    tracing::warn!(%partition, %error, "partition not collected");
                    let kind = error.kind().to_string();
                    let (partition, error) = (partition.to_string(), error.to_string());
                    report.failures.push(GcFailure { partition, kind, error });
                }
            }
        }
    }
    Ok(report)
}

/// Whether nobody may serve or extend a generation any more.
pub(crate) fn is_dead(stored: &StoredSpec, generation: Generation) -> bool {
    generation < stored.generation || (generation == stored.generation && stored.retired)
}

/// Every partition of an index that has objects, of any generation.
pub(crate) async fn partitions(store: &Store, index: &IndexName) -> Result<Vec<PartitionRef>, StoreError> {
    let mut found = Vec::new();
    for name in store.folders(&Folder::Index(index.clone())).await? {
        let Some(generation) = Folder::generation(&name) else { continue };
        for name in store.folders(&Folder::Generation(index.clone(), generation)).await? {
            let Some(partition) = Folder::partition(&name) else { continue };
            found.push(PartitionRef { index: index.clone(), generation, partition });
        }
    }
    found.sort();
    Ok(found)
}

/// The retained manifests, newest first: read backwards until the rule or a boundary says stop.
async fn retained(chain: &Chain, newest: &Manifest, rule: RetainRule) -> Result<Vec<Summary>, ProtocolError> {
    let mut retained = vec![Summary::from(newest)];
    let mut seq = newest.seq.0;
    while rule.keeps_one_more(&retained) && seq > 1 {
        seq -= 1;
        match chain.read(ManifestSeq(seq)).await? {
            Some(manifest) => retained.push(Summary::from(&manifest)),
            // an earlier collection retired this chunk, and with it all before
            None if chain.is_retired(Chunk::of(ManifestSeq(seq))).await? => break,
            None => {
                let (partition, seq) = (chain.partition().clone(), ManifestSeq(seq));
                return Err(ProtocolError::Broken { partition, seq, message: "it is missing".into() });
            }
        }
    }
    Ok(retained)
}

/// The first chunk without a boundary; boundaries are made in order, so they form a run.
async fn first_open(chain: &Chain) -> Result<Chunk, ProtocolError> {
    let mut run = RunEnd::from(0);
    while let Some(number) = run.next() {
        run.observe(chain.is_retired(Chunk(number - 1)).await?);
    }
    Ok(Chunk(run.last()))
}

/// Ends a chain of a dead generation: closes it, so that no owner can go on, then takes everything but the
/// boundaries.
async fn sweep(
    store: &Store,
    partition: &PartitionRef,
    options: &GcOptions,
    clock: &dyn Clock,
) -> Result<GcReport, ProtocolError> {
    let chain = Chain::new(store.clone(), partition.clone());
    let end = chain.end().await?;
    let closed = matches!(&end, ChainEnd::At(manifest) if manifest.reason == Reason::Close);
    let closing = match end {
        ChainEnd::Empty => return Ok(GcReport::default()),
        ChainEnd::Swept => None,
        ChainEnd::At(manifest) if closed => Some(manifest.seq),
        ChainEnd::At(manifest) if options.dry_run => Some(manifest.seq.next()),
        ChainEnd::At(manifest) => Some(close(&chain, *manifest, clock).await?),
    };
    let listing = Listing::take(store, partition).await?;
    let plan = protocol::plan_sweep(&SweepFacts {
        closing,
        first_open: first_open(&chain).await?,
        manifests: &listing.manifests,
        segments: &listing.segments,
    });
    let nothing = plan == GcPlan::default();
    let mut report = execute(&chain, plan, &listing, options.dry_run).await?;
    if !options.dry_run {
        store.delete(vec![Object::Hint(partition.clone()).to_string()]).await?;
    }
    // a closing manifest of this run comes and goes with it: a dry run cannot announce it
    if let Some(own) = closing.filter(|_| !closed)
        && let Some(bytes) = listing.bytes_of(&Object::Manifest(partition.clone(), own))
    {
        report.manifests -= 1;
        report.bytes -= bytes;
    }
    report.swept = 1;
    if nothing { Ok(GcReport::default()) } else { Ok(report) }
}

async fn close(chain: &Chain, mut newest: Manifest, clock: &dyn Clock) -> Result<ManifestSeq, ProtocolError> {
    let partition = chain.partition();
    let mut retry = BACKOFF.start();
    for _ in 0..CLOSE_ROUNDS {
        if newest.reason == Reason::Close {
            return Ok(newest.seq);
        }
        failpoint!("gc.close.before");
        let (closing, verdict) = commit(chain, protocol::close(&newest, stamp(clock))).await?;
        match verdict {
            Verdict::Won => {
                failpoint!("gc.close.after");
                tracing::info!(%partition, seq = %closing.seq, "chain of a retired generation closed");
                return Ok(closing.seq);
            }
            Verdict::Lost | Verdict::Collected => retry.wait().await,
            Verdict::Denied | Verdict::Unresolved => {
                return Err(ProtocolError::Unresolved { partition: partition.clone(), seq: closing.seq });
            }
        }
        match chain.newest().await? {
            Some(manifest) => newest = manifest,
            None => return Err(ProtocolError::Retired { partition: partition.clone() }),
        }
    }
    Err(ProtocolError::Restless { partition: partition.clone() })
}

/// What the store shows of a partition.
struct Listing {
    manifests: Vec<ManifestSeq>,
    segments: Vec<SegmentId>,
    listed: Vec<Listed>,
}

impl Listing {
    async fn take(store: &Store, partition: &PartitionRef) -> Result<Self, StoreError> {
        let mut listing = Self { manifests: Vec::new(), segments: Vec::new(), listed: Vec::new() };
        for folder in [Folder::Manifests(partition.clone()), Folder::Segments(partition.clone())] {
            for listed in store.list(&folder).await? {
                match Object::parse(&listed.key) {
                    Some(Object::Manifest(_, seq)) => listing.manifests.push(seq),
                    Some(Object::Segment(_, id)) => listing.segments.push(id),
                    // nobody's object: scrub reports it, nothing here touches it
                    _ => continue,
                }
                listing.listed.push(listed);
            }
        }
        listing.manifests.sort_unstable();
        listing.segments.sort_unstable();
        Ok(listing)
    }

    /// The size of an object, where the listing shows it.
    fn bytes_of(&self, object: &Object) -> Option<u64> {
        let key = object.to_string();
        self.listed.iter().find(|listed| listed.key == key).map(|listed| listed.bytes)
    }
}

async fn execute(
    chain: &Chain,
    plan: GcPlan,
    listing: &Listing,
    dry_run: bool,
) -> Result<GcReport, ProtocolError> {
    let partition = chain.partition();
    let manifest = |seq: &ManifestSeq| Object::Manifest(partition.clone(), *seq).to_string();
    let segment = |id: &SegmentId| Object::Segment(partition.clone(), *id).to_string();
    let manifests: Vec<String> = plan.manifests.iter().map(manifest).collect();
    let segments: Vec<String> = plan.segments.iter().map(segment).collect();
    let doomed: std::collections::BTreeSet<&String> = manifests.iter().chain(&segments).collect();
    let report = GcReport {
        dry_run,
        partitions: 1,
        boundaries: plan.boundaries.len() as u64,
        manifests: manifests.len() as u64,
        segments: segments.len() as u64,
        bytes: listing.listed.iter().filter(|l| doomed.contains(&l.key)).map(|l| l.bytes).sum(),
        ..GcReport::default()
    };
    if dry_run {
        return Ok(report);
    }
    for chunk in plan.boundaries {
        retire(chain, chunk).await?;
    }
    if !doomed.is_empty() {
        failpoint!("gc.delete.before");
        chain.store().delete(manifests).await?;
        failpoint!("gc.delete.between");
        chain.store().delete(segments).await?;
        failpoint!("gc.delete.after");
        let (manifests, segments, bytes) = (report.manifests, report.segments, report.bytes);
        tracing::info!(%partition, manifests, segments, bytes, "garbage collected");
    }
    metrics::collected("manifest", report.manifests);
    metrics::collected("segment", report.segments);
    Ok(report)
}

/// Makes a chunk's boundary durable; another's boundary is as good as mine.
async fn retire(chain: &Chain, chunk: Chunk) -> Result<(), ProtocolError> {
    let partition = chain.partition();
    failpoint!("gc.boundary.before");
    let object = Object::Boundary(partition.clone(), chunk);
    let mut commit = Commit::of_kept(TRIES);
    let body = Bytes::from_static(b"retired");
    match drive(chain.store(), &object, &body, &mut commit, |_| object.clone()).await? {
        Verdict::Won | Verdict::Lost => {}
        Verdict::Collected | Verdict::Denied | Verdict::Unresolved => {
            let seq = chunk.next().predecessor_seq();
            return Err(ProtocolError::Unresolved { partition: partition.clone(), seq });
        }
    }
    failpoint!("gc.boundary.after");
    Ok(())
}
