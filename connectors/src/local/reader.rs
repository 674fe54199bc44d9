//! Streams of the local log: reads on the blocking pool, waits for commits in between.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row, params};
use sluice_core::{Offset, RecordBatch, Sender, Timestamp, TopicPartition};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::run_blocking;
use super::schema::{self, Catalogue, Slot, sql};
use crate::batch::{self, Batcher};
use crate::decode::{Header, RawMessage};
use crate::error::LogError;
use crate::metrics::Level;
use crate::source::{BatchStream, ReadRequest};

/// Batches that may wait between a reader and its worker.
const AHEAD: usize = 2;

/// The streams that are open, so that a second one of a partition ends the first.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<TopicPartition, CancellationToken>>);

impl Streams {
    fn replace(&self, at: &TopicPartition) -> CancellationToken {
        let token = CancellationToken::new();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = open.insert(at.clone(), token.clone()) {
            before.cancel();
        }
        token
    }
}

/// Begins to read; the stream's task ends when the stream is dropped.
pub(super) fn open(
    file: PathBuf,
    request: ReadRequest,
    changes: watch::Receiver<u64>,
    streams: &Streams,
) -> Result<BatchStream, LogError> {
    let replaced = streams.replace(&request.at);
    let (sender, receiver) = sluice_core::channel::bounded("worker", AHEAD);
    let at = request.at.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let _open = Level::open_partition();
        let outcome = tokio::select! {
            error = read(file, request, changes, &sender) => error,
            () = replaced.cancelled() => LogError::Closed("the stream"),
        };
        // a stream that was dropped needs no last word
        sender.send(Err(outcome)).await.ok();
    }));
    Ok(batch::stream(at, receiver, task))
}

type Output = Sender<Result<RecordBatch, LogError>>;

/// Reads until something cannot be waited out, and says what.
async fn read(
    file: PathBuf,
    request: ReadRequest,
    mut changes: watch::Receiver<u64>,
    output: &Output,
) -> LogError {
    let mut reader = match run_blocking({
        let request = request.clone();
        move || Reader::open(file, &request)
    })
    .await
    {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    let mut reported = request.start;
    loop {
        // what is committed from here on wakes us below
        changes.mark_unchanged();
        let filled = run_blocking(move || {
            let caught_up = reader.fill()?;
            Ok((reader, caught_up))
        });
        let (filled_reader, caught_up) = match filled.await {
            Ok(filled) => filled,
            Err(error) => return error,
        };
        reader = filled_reader;
        if let Some(filled) = reader.batcher.take(reported) {
            match filled.finish(&request, reader.end).await {
                Ok(batch) => {
                    reported = batch.next_offset;
                    if output.send(Ok(batch)).await.is_err() {
                        return LogError::Closed("the stream");
                    }
                }
                Err(error) => return error,
            }
        }
        reader.batcher.settle().await;
        if caught_up && changes.changed().await.is_err() {
            return LogError::Closed("the local log");
        }
    }
}

struct Reader {
    connection: Connection,
    at: TopicPartition,
    slot: Slot,
    end: Offset,
    max_records: usize,
    batcher: Batcher,
}

impl Reader {
    fn open(file: PathBuf, request: &ReadRequest) -> Result<Self, LogError> {
        let connection = schema::open(&file)?;
        let slot = Catalogue::slot(&connection, &request.at)?;
        let batcher = Batcher::new(request);
        let max_records = request.limits.max_records.max(1);
        Ok(Self { connection, at: request.at.clone(), slot, end: request.start, max_records, batcher })
    }

    /// Offers messages until the batch is full or the end is met; returns whether it was the end.
    fn fill(&mut self) -> Result<bool, LogError> {
        // one transaction: what is read belongs to the bounds that were checked
        let view = self.connection.unchecked_transaction().map_err(sql)?;
        let bounds = Catalogue::bounds(&view, self.slot)?;
        self.end = bounds.end;
        let next = self.batcher.next_offset();
        if next < bounds.start && self.batcher.has_begun() {
            // what was read is handed on first, so that the error names the first record that was not
            return Ok(false);
        }
        if next < bounds.start {
            return Err(LogError::Truncated { at: self.at.clone(), lost_from: next, lost_to: bounds.start });
        }
        if next > bounds.end {
            return Err(LogError::BeyondEnd { at: self.at.clone(), start: next, end: bounds.end });
        }
        if self.batcher.is_full() {
            return Ok(false);
        }
        let mut statement = view
            .prepare_cached(
                "SELECT place, timestamp, key, headers, value FROM message
                 WHERE place >= ?1 AND place < ?2 ORDER BY place LIMIT ?3",
            )
            .map_err(sql)?;
        let range = params![self.slot.place(next), self.slot.place(bounds.end), self.max_records as i64];
        let mut rows = statement.query(range).map_err(sql)?;
        let mut seen = 0;
        while let Some(row) = rows.next().map_err(sql)? {
            seen += 1;
            if !offer(&mut self.batcher, self.slot, row)? {
                return Ok(false);
            }
        }
        if seen < self.max_records {
            self.batcher.skip_to(bounds.end);
            return Ok(true);
        }
        Ok(false)
    }
}

/// Decodes one row where SQLite holds it.
fn offer(batcher: &mut Batcher, slot: Slot, row: &Row<'_>) -> Result<bool, LogError> {
    let damaged = |_| LogError::Corrupt("local log: a message has a column of the wrong type".into());
    let blob =
        |column| row.get_ref(column).and_then(|v| v.as_blob_or_null().map_err(Into::into)).map_err(sql);
    let headers = decode_headers(blob(3)?.unwrap_or_default())
        .ok_or_else(|| LogError::Corrupt("local log: a message has damaged headers".into()))?;
    Ok(batcher.offer(RawMessage {
        key: blob(2)?,
        value: blob(4)?,
        headers: &headers,
        offset: slot.offset(row.get(0).map_err(damaged)?),
        timestamp: Timestamp(row.get(1).map_err(damaged)?),
    }))
}

/// Headers as one blob: for each, name and value with their lengths as u32 before them; none is null.
pub(super) fn encode_headers(headers: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            // messages are far smaller than 4 GiB, which is checked on the whole
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    Some(out)
}

fn decode_headers(mut bytes: &[u8]) -> Option<Vec<Header<'_>>> {
    let mut headers = Vec::new();
    let mut part = || {
        if bytes.is_empty() {
            return Some(None);
        }
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(Some(part))
    };
    while let Some(name) = part()? {
        headers.push((std::str::from_utf8(name).ok()?, Some(part()??)));
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_read_back(headers in proptest::collection::vec(
            ("\\PC{0,8}", proptest::collection::vec(any::<u8>(), 0..8)), 0..4))
        {
            let blob = encode_headers(&headers).unwrap_or_default();
            let read = decode_headers(&blob).unwrap();
            let read: Vec<_> = read.into_iter().map(|(n, v)| (n.to_owned(), v.unwrap().to_vec())).collect();
            prop_assert_eq!(read, headers);
        }

        #[test]
        fn damaged_headers_never_panic(blob in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_headers(&blob);
        }
    }

    #[test]
    fn places_keep_partitions_apart_and_offsets_in_order() {
        let (a, b) = (Slot(1), Slot(2));
        assert!(a.place(Offset(5)) < a.place(Offset(6)));
        assert!(a.place(Offset(u64::MAX)) <= b.place(Offset(0)));
        assert_eq!(a.offset(a.place(Offset(5))), Offset(5));
    }
}
