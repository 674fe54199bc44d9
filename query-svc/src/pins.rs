//! Views kept for listings that go on over several requests, and the cursors that lead back to them.
//!
//! At most so many views are kept, each until it was not asked for during a while; listings of the same view
//! share it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_core::IndexName;
use tokio::time::Instant;
use ulid::Ulid;

use crate::error::ApiError;
use crate::metrics;
use crate::view::{RowId, View};

/// Where a listing goes on: the view it began with and the next row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) view: Ulid,
    pub(crate) next: RowId,
}

/// Bytes of a cursor before they become text.
const CURSOR_BYTES: usize = 28;

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..16].copy_from_slice(&u128::from(self.view).to_be_bytes());
        bytes[16..20].copy_from_slice(&self.next.partition.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.next.segment.to_be_bytes());
        bytes[24..].copy_from_slice(&self.next.row.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// `Cursor` when `text` is none.
    pub(crate) fn decode(text: &str) -> Result<Self, ApiError> {
        let mut bytes = [0; CURSOR_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(CURSOR_BYTES) => {}
            _ => return Err(ApiError::Cursor),
        }
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let view = bytes[..16].iter().fold(0u128, |id, byte| id << 8 | u128::from(*byte));
        let next = RowId { partition: number(16), segment: number(20), row: number(24) };
        Ok(Self { view: Ulid::from(view), next })
    }
}

#[derive(Debug)]
struct Pin {
    view: Arc<View>,
    expires: Instant,
    /// A listing read it to the end; it is the first to go when room is needed.
    finished: bool,
}

/// The views kept.
#[derive(Debug)]
pub(crate) struct Pins {
    held: Mutex<BTreeMap<Ulid, Pin>>,
    max: usize,
    ttl: Duration,
}

impl Pins {
    pub(crate) fn new(max: usize, ttl: Duration) -> Self {
        Self { held: Mutex::default(), max: max.max(1), ttl }
    }

    /// Keeps `view` and returns the id that finds it again.
    ///
    /// # Errors
    /// `TooManyListings` when as many others as allowed are in use.
    pub(crate) fn pin(&self, view: &Arc<View>, now: Instant) -> Result<Ulid, ApiError> {
        let mut held = self.purged(now);
        let expires = now + self.ttl;
        let same = |pin: &Pin| pin.view.index.name == view.index.name && pin.view.same_as(view);
        if let Some((id, pin)) = held.iter_mut().find(|(_, pin)| same(pin)) {
            (pin.expires, pin.finished) = (expires, false);
            return Ok(*id);
        }
        if held.len() >= self.max {
            let finished = held.iter().filter(|(_, pin)| pin.finished).min_by_key(|(_, pin)| pin.expires);
            let id = finished.map(|(id, _)| *id).ok_or(ApiError::TooManyListings)?;
            held.remove(&id);
        }
        let id = Ulid::generate();
        held.insert(id, Pin { view: Arc::clone(view), expires, finished: false });
        metrics::pinned_views(held.len());
        Ok(id)
    }

    /// The view with this id, if it is of `index` and still kept; it is kept on from now.
    ///
    /// # Errors
    /// `CursorExpired` when it is not.
    pub(crate) fn get(&self, id: Ulid, index: &IndexName, now: Instant) -> Result<Arc<View>, ApiError> {
        let mut held = self.purged(now);
        let pin = held.get_mut(&id).filter(|pin| pin.view.index.name == *index);
        let pin = pin.ok_or(ApiError::CursorExpired)?;
        (pin.expires, pin.finished) = (now + self.ttl, false);
        Ok(Arc::clone(&pin.view))
    }

    /// A listing has read the view to its end.
    pub(crate) fn finish(&self, id: Ulid, now: Instant) {
        if let Some(pin) = self.purged(now).get_mut(&id) {
            pin.finished = true;
        }
    }

    /// Lets go of what expired.
    pub(crate) fn purge(&self, now: Instant) {
        drop(self.purged(now));
    }

    fn purged(&self, now: Instant) -> MutexGuard<'_, BTreeMap<Ulid, Pin>> {
        // nothing panics while the map is half changed
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, pin| pin.expires > now);
        metrics::pinned_views(held.len());
        held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_core::{Generation, IndexSpec};

    use super::*;
    use crate::view::{IndexInfo, Snapshot};

    fn view() -> Arc<View> {
        let spec: IndexSpec = serde_json::from_str(r#"{"name":"a","dimension":2,"partitions":1}"#).unwrap();
        let info = Arc::new(IndexInfo::new(spec, Generation(1)));
        let partition = sluice_core::PartitionRef {
            index: info.name.clone(),
            generation: info.generation,
            partition: sluice_core::PartitionId(0),
        };
        let snapshot = Arc::new(Snapshot::empty(partition, Arc::default()));
        Arc::new(View::new(info, Box::new([Some(snapshot)])))
    }

    #[test]
    fn a_view_is_kept_until_it_was_not_asked_for_during_a_while() {
        let (pins, view, begun) = (Pins::new(2, Duration::from_secs(10)), view(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let id = pins.pin(&view, begun).unwrap();
        assert!(pins.get(id, &view.index.name, after(9)).is_ok());
        assert!(pins.get(id, &view.index.name, after(18)).is_ok());
        let late = pins.get(id, &view.index.name, after(28));
        assert!(matches!(late, Err(ApiError::CursorExpired)));
    }

    #[test]
    fn listings_share_a_view_and_finished_ones_make_room() {
        let (pins, now) = (Pins::new(2, Duration::from_secs(10)), Instant::now());
        let (a, b, c) = (view(), view(), view());
        let first = pins.pin(&a, now).unwrap();
        assert_eq!(pins.pin(&a, now).unwrap(), first);
        pins.pin(&b, now).unwrap();
        assert!(matches!(pins.pin(&c, now), Err(ApiError::TooManyListings)));
        pins.finish(first, now);
        assert!(pins.pin(&c, now).is_ok());
        assert!(pins.get(first, &a.index.name, now).is_err());
    }

    #[test]
    fn a_cursor_of_another_index_finds_nothing() {
        let (pins, now) = (Pins::new(2, Duration::from_secs(10)), Instant::now());
        let id = pins.pin(&view(), now).unwrap();
        assert!(pins.get(id, &IndexName::new("b").unwrap(), now).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_in_one_spelling_or_none(text in "[A-Za-z0-9_-]{36,39}") {
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn a_cursor_reads_back(id in any::<u128>(), partition in any::<u32>(), segment in any::<u32>(), row in any::<u32>()) {
            let cursor = Cursor { view: Ulid::from(id), next: RowId { partition, segment, row } };
            prop_assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }
    }
}
