//! `inspect`: what is in the store, or in a segment file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use sluice_core::{
    Clock, ErrorKind, Generation, IndexName, ManifestSeq, PartitionId, PartitionRef, SystemClock,
};
use sluice_segment::{Segment, SegmentInfo};
use sluice_snapshotter::{Chain, Manifest, Registry, SegmentCache, Store, StoredSpec};

use super::CliError;
use super::options::Common;
use super::output::{Output, size, table};
use crate::topology::open_existing_store;

const EXAMPLES: &str = "\
Examples:
  sluice inspect                                 every index of the store
  sluice inspect packages                        its spec and the newest manifest of each partition
  sluice inspect packages --partition 0          the segments of that manifest
  sluice inspect packages --partition 0 --manifest 12
  sluice inspect packages --partition 0 --segments   fetch and open each segment
  sluice inspect --file 0000000001-01J..seg      a segment file";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// The index to look at
    index: Option<IndexName>,
    /// A segment file instead
    #[arg(long, value_name = "FILE", conflicts_with = "index")]
    file: Option<PathBuf>,
    /// One partition, with its segments
    #[arg(long, requires = "index")]
    partition: Option<u32>,
    /// This manifest rather than the newest
    #[arg(long, requires = "partition", value_name = "NUMBER")]
    manifest: Option<u64>,
    /// This generation rather than the newest
    #[arg(long, requires = "index")]
    generation: Option<u32>,
    /// Fetch and open the segments too
    #[arg(long, requires = "partition")]
    segments: bool,
}

/// A manifest as it is shown.
#[derive(Debug, Serialize)]
struct ManifestView {
    partition: u32,
    generation: u32,
    manifest: u64,
    epoch: u64,
    reason: &'static str,
    created_at: String,
    partitions: u32,
    start: u64,
    next_offset: u64,
    records: u64,
    bytes: u64,
    segments: Vec<SegmentView>,
}

#[derive(Debug, Serialize)]
struct SegmentView {
    id: String,
    bytes: u64,
    records: u32,
    deleted: u64,
    blake3: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<SegmentInfo>,
}

#[derive(Debug, Serialize)]
struct IndexView {
    index: StoredSpec,
    partitions: Vec<Option<ManifestView>>,
}

impl ManifestView {
    fn of(manifest: &Manifest) -> Self {
        let segments = manifest.segments.iter().map(|s| SegmentView {
            id: s.id.to_string(),
            bytes: s.bytes,
            records: s.records,
            deleted: s.deleted.len(),
            blake3: s.digest.to_string(),
            info: None,
        });
        Self {
            partition: manifest.partition.partition.get(),
            generation: manifest.partition.generation.get(),
            manifest: manifest.seq.get(),
            epoch: manifest.epoch.get(),
            reason: manifest.reason.as_str(),
            created_at: manifest.created_at.to_string(),
            partitions: manifest.partitions,
            start: manifest.start.get(),
            next_offset: manifest.next_offset.get(),
            records: manifest.segments.iter().map(|s| s.live()).sum(),
            bytes: manifest.segments.iter().map(|s| s.bytes).sum(),
            segments: segments.collect(),
        }
    }
}

pub(super) async fn run(common: &Common, args: InspectArgs, out: Output) -> Result<ExitCode, CliError> {
    if let Some(file) = &args.file {
        inspect_file(file, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = common.load()?;
    let store = open_existing_store(&config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = Registry::new(store.clone(), clock);
    let Some(name) = &args.index else {
        let all = registry.list_all().await?;
        out.print(&all, |all| render_list(all))?;
        return Ok(ExitCode::SUCCESS);
    };
    let stored = registry.newest(name).await?;
    let stored = stored.ok_or_else(|| CliError::no_index(name))?;
    let generation = args.generation.map_or(stored.generation, Generation);
    match args.partition {
        None => {
            let partitions = newest_of_all(&store, &stored, generation).await?;
            out.print(&IndexView { index: stored, partitions }, render_index)?;
        }
        Some(partition) => {
            let partition =
                PartitionRef { index: name.clone(), generation, partition: PartitionId(partition) };
            let manifest = one_manifest(&store, &partition, args.manifest).await?;
            let mut view = ManifestView::of(&manifest);
            if args.segments {
                let cache = SegmentCache::open(&config.cache_dir(), config.cache.max_bytes.as_u64(), store)?;
                for (entry, view) in manifest.segments.iter().zip(&mut view.segments) {
                    let segment = cache.get(&partition, entry).await?;
                    view.info = Some(segment.info());
                }
            }
            out.print(&view, render_manifest)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect_file(file: &Path, out: Output) -> Result<(), CliError> {
    let segment =
        Segment::open(file).map_err(|e| CliError::failed(e.kind(), format!("{}: {e}", file.display())))?;
    out.print(&segment.info(), render_segment)
}

async fn newest_of_all(
    store: &Store,
    stored: &StoredSpec,
    generation: Generation,
) -> Result<Vec<Option<ManifestView>>, CliError> {
    let mut views = Vec::new();
    for partition in 0..stored.spec.partitions {
        let index = stored.spec.name.clone();
        let partition = PartitionRef { index, generation, partition: PartitionId(partition) };
        let newest = Chain::new(store.clone(), partition).newest().await?;
        views.push(newest.as_ref().map(ManifestView::of));
    }
    Ok(views)
}

async fn one_manifest(
    store: &Store,
    partition: &PartitionRef,
    number: Option<u64>,
) -> Result<Manifest, CliError> {
    let chain = Chain::new(store.clone(), partition.clone());
    let found = match number {
        Some(number) => chain.read(ManifestSeq(number)).await,
        None => chain.newest().await,
    };
    found?.ok_or_else(|| CliError::failed(ErrorKind::NotFound, format!("{partition} has no such manifest")))
}

fn render_list(all: &[StoredSpec]) -> String {
    let row = |s: &StoredSpec| {
        vec![
            s.spec.name.to_string(),
            if s.retired { "retired".into() } else { "active".into() },
            s.generation.to_string(),
            s.version.to_string(),
            s.spec.partitions.to_string(),
            s.spec.dimension.to_string(),
            s.spec.metric.to_string(),
            s.spec.topic().to_string(),
            s.created_at.to_string(),
        ]
    };
    let headings =
        ["index", "state", "generation", "version", "partitions", "dimension", "metric", "topic", "since"];
    table(&headings, &all.iter().map(row).collect::<Vec<_>>())
}

fn render_index(view: &IndexView) -> String {
    let rows = view.partitions.iter().enumerate().map(|(i, manifest)| match manifest {
        None => vec![i.to_string(), "never claimed".into()],
        Some(m) => vec![
            i.to_string(),
            m.manifest.to_string(),
            m.epoch.to_string(),
            m.next_offset.to_string(),
            m.segments.len().to_string(),
            m.records.to_string(),
            size(m.bytes),
            m.created_at.clone(),
        ],
    });
    let headings =
        ["partition", "manifest", "epoch", "next offset", "segments", "records", "bytes", "created"];
    let rows: Vec<_> = rows.collect();
    let spec = serde_json::to_string_pretty(&view.index).unwrap_or_default();
    format!("{spec}\n\n{}", table(&headings, &rows))
}

fn render_manifest(m: &ManifestView) -> String {
    let rows = m.segments.iter().map(|s| {
        vec![s.id.clone(), size(s.bytes), s.records.to_string(), s.deleted.to_string(), s.blake3.clone()]
    });
    let mut text = format!(
        "partition {} of generation {}: manifest {} ({}), epoch {}, {}\noffsets {} to {} (exclusive), {} records in {}\n\n{}",
        m.partition,
        m.generation,
        m.manifest,
        m.reason,
        m.epoch,
        m.created_at,
        m.start,
        m.next_offset,
        m.records,
        size(m.bytes),
        table(&["segment", "bytes", "records", "deleted", "blake3"], &rows.collect::<Vec<_>>()),
    );
    for info in m.segments.iter().filter_map(|s| s.info.as_ref()) {
        text.push_str("\n\n");
        text.push_str(&render_segment(info));
    }
    text
}

fn render_segment(info: &SegmentInfo) -> String {
    serde_json::to_string_pretty(info).unwrap_or_default()
}
