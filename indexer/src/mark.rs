//! Which rows of published segments are dead: bitmaps by key look-up.
//!
//! A row is marked when the records that overwrite or delete it are published, not before: the bitmaps of a
//! manifest tell of exactly the records before its next offset.

use rayon::prelude::*;
use roaring::RoaringBitmap;
use sluice_core::invariant;
use sluice_segment::{GrowingSet, Segment};

use crate::snapshot::Live;

/// Marks the rows of `segments` whose key has a newer record in `set`.
pub(crate) fn overwritten(set: &GrowingSet, segments: &mut [Live]) {
    let keys: Vec<_> = set.newest().collect();
    segments.par_iter_mut().for_each(|live| {
        for (key, offset) in &keys {
            let Some(row) = live.segment.find(key) else { continue };
            let old = live.segment.row(row).offset;
            invariant!(Fold3, old < *offset, "row at offset {old} is not older than {offset}");
            live.state.deleted.insert(row);
        }
    });
}

/// The rows of `merged` that died while it was built. `inputs` are as they were when the merge began, `now` holds
/// what is left of them.
pub(crate) fn died_since(inputs: &[Live], now: &[Live], merged: &Segment) -> RoaringBitmap {
    let mut dead = RoaringBitmap::new();
    for input in inputs {
        let then = &input.state;
        let newly = match now.iter().find(|live| live.state.id == then.id) {
            Some(live) => &live.state.deleted - &then.deleted,
            // wholly dead, and dropped since
            None => &(0..then.records).collect::<RoaringBitmap>() - &then.deleted,
        };
        for row in newly {
            let old = input.segment.row(row);
            let found = merged.find(old.key).filter(|&row| merged.row(row).offset == old.offset);
            invariant!(Fold4, found.is_some(), "the row at offset {} was lost by a merge", old.offset);
            dead.extend(found);
        }
    }
    dead
}
