//! What `GET /v1/indexes` says about an index: each partition's snapshot, trouble and lag.

use std::sync::Arc;

use sluice_core::{Offset, Timestamp, TopicPartition};
use sluice_segment::Segment;

use super::App;
use crate::catalogue::{Index, Slot};
use crate::lag::Lag;
use crate::types::{IndexStatus, PartitionStatus};
use crate::view::Snapshot;

/// Describes `indexes` as they are served now. The log is asked for at most a second; what it does not say is
/// null.
pub(crate) async fn of(app: &App, indexes: &[Arc<Index>]) -> Vec<IndexStatus> {
    let mut wanted = Vec::new();
    for index in indexes {
        let topic = index.info().spec.topic();
        for slot in &index.slots {
            let at = TopicPartition { topic: topic.clone(), partition: slot.partition.partition };
            let served = slot.served();
            let next = served.as_ref().map_or(Offset(0), |s| s.next_offset());
            wanted.push((at, next, served.as_deref().and_then(last_timestamp)));
        }
    }
    let mut lags = app.lag.measure(&wanted).await.into_iter();
    let describe = |index: &Arc<Index>| {
        let info = index.info();
        let slots = index.slots.iter().map(|slot| partition(app, slot, lags.next().flatten()));
        IndexStatus {
            name: info.name.to_string(),
            generation: info.generation.get(),
            partitions: slots.collect(),
            spec: info.spec.clone(),
        }
    };
    indexes.iter().map(describe).collect()
}

/// The timestamp of the newest record of a snapshot: each segment's last row is its newest.
fn last_timestamp(snapshot: &Snapshot) -> Option<Timestamp> {
    let last = |(segment, _): (&'_ Segment, _)| {
        let row = segment.row(segment.len().checked_sub(1)?);
        Some((row.offset, row.timestamp))
    };
    snapshot.segments().filter_map(last).max().map(|(_, timestamp)| timestamp)
}

fn partition(app: &App, slot: &Slot, lag: Option<Lag>) -> PartitionStatus {
    let served = slot.served();
    let served = served.as_deref();
    let manifest = served.and_then(|s| s.manifest());
    PartitionStatus {
        partition: slot.partition.partition.get(),
        status: slot.state(),
        error: slot.trouble().map(|t| t.detail),
        manifest: served.map(|s| s.seq().get()),
        epoch: manifest.map(|m| m.epoch.get()),
        next_offset: served.map(|s| s.next_offset().get()),
        visible_offset: served.map(|s| s.visible_offset().get()),
        log_start: lag.map(|l| l.bounds.start.get()),
        log_end: lag.map(|l| l.bounds.end.get()),
        // without a snapshot it is not known how far it would reach
        lag_records: lag.filter(|_| served.is_some()).map(|l| l.records),
        lag_seconds: lag.filter(|_| served.is_some()).and_then(|l| l.seconds),
        segments: served.map(|s| s.segments().len() as u64),
        records: served.map(Snapshot::records),
        bytes: served.map(Snapshot::bytes),
        manifest_age_seconds: manifest.map(|m| app.clock.now().seconds_since(m.created_at)),
    }
}
