//! `bench load`: a snapshot from store to serving, against a raw copy of the same bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use sluice::topology::open_store;
use sluice_snapshotter::{Manifest, SegmentCache, Store};

use crate::data::Rows;
use crate::http::Target;
use crate::process::print;
use crate::setup::{Bench, Chains, Running};
use crate::{DataArgs, SystemArgs};

/// Bytes that a raw copy moves at once.
const BLOCK: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    system: SystemArgs,
    /// Each step is measured so often; the best is reported.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    store: String,
    partitions: u32,
    segments: usize,
    records: u64,
    bytes: u64,
    /// Files read and written, nothing looked at.
    raw_copy_bytes_per_second: f64,
    /// Fetched from the store, digest and every section verified, opened, warmed.
    load_bytes_per_second: f64,
    /// `load` over `raw_copy`.
    ratio_to_raw_copy: f64,
    /// From the start of a query service with an empty cache to the first answer about all records.
    serve_seconds: f64,
}

pub(crate) async fn run(args: LoadArgs) -> Result<()> {
    let rows = Rows::read(&args.data)?;
    let bench = Bench::new(&args.data, &args.system, &rows)?;
    bench.fill_topic(&rows).await?;
    drop(rows);
    eprintln!("building the index");
    let config = bench.config()?;
    let store = open_store(&config)?;
    let mut service = Running::start(config.clone(), sluice::Role::Index).await?;
    let work = async { Chains::find(&store, &bench.spec).await?.covered(bench.per_partition).await };
    let manifests = service.watch(work).await?;
    service.stop().await?;
    let bytes: u64 = manifests.iter().flat_map(|m| &m.segments).map(|s| s.bytes).sum();
    ensure!(bytes > 0, "there is no segment to load");
    let (mut raw, mut loaded) = (f64::MAX, f64::MAX);
    for round in 0..args.repeat.max(1) {
        let place = bench.dir.path().join(format!("round-{round}"));
        let (cache, seconds) = load(&store, &manifests, &place.join("cache")).await?;
        loaded = loaded.min(seconds);
        raw = raw.min(copy(&cache, &manifests, &place)?);
        std::fs::remove_dir_all(&place)?;
    }
    let serve_seconds = serve(&bench).await?;
    print(&Report {
        bench: "load",
        store: bench.store_url.split(':').next().unwrap_or_default().to_owned(),
        partitions: bench.spec.partitions,
        segments: manifests.iter().map(|m| m.segments.len()).sum(),
        records: bench.records(),
        bytes,
        raw_copy_bytes_per_second: bytes as f64 / raw,
        load_bytes_per_second: bytes as f64 / loaded,
        ratio_to_raw_copy: raw / loaded,
        serve_seconds,
    })
}

/// Loads every segment into an empty cache, as a query service does.
async fn load(store: &Store, manifests: &[Manifest], dir: &Path) -> Result<(SegmentCache, f64)> {
    let cache = SegmentCache::open(dir, u64::MAX, store.clone())?;
    let since = Instant::now();
    for manifest in manifests {
        for entry in &manifest.segments {
            let segment = cache.get(&manifest.partition, entry).await?;
            segment.warm();
        }
    }
    Ok((cache, since.elapsed().as_secs_f64()))
}

/// Copies the same bytes from file to file.
fn copy(cache: &SegmentCache, manifests: &[Manifest], dir: &Path) -> Result<f64> {
    let mut block = vec![0; BLOCK];
    let since = Instant::now();
    for entry in manifests.iter().flat_map(|m| &m.segments) {
        let path = cache.path(&entry.digest).context("a loaded segment is on the disk")?;
        let mut from = File::open(path)?;
        let mut to = File::create(dir.join("copy"))?;
        loop {
            let read = from.read(&mut block)?;
            if read == 0 {
                break;
            }
            to.write_all(&block[..read])?;
        }
    }
    Ok(since.elapsed().as_secs_f64())
}

/// Starts a query service with nothing but the store, and waits for it.
async fn serve(bench: &Bench) -> Result<f64> {
    let mut config = bench.config()?;
    config.data_dir = bench.dir.path().join("serve");
    config.store.url.clone_from(&bench.store_url);
    config.indexes.clear();
    let since = Instant::now();
    let mut service = Running::start(config, sluice::Role::Serve).await?;
    let name = bench.spec.name.as_str();
    let target = Target::new(&format!("http://{}", service.address), name)?;
    let work = async {
        target.visible(name, bench.per_partition).await?;
        Ok(since.elapsed().as_secs_f64())
    };
    let seconds = service.watch(work).await?;
    service.stop().await?;
    Ok(seconds)
}
