//! What a point keeps of the neighbours offered to it: a bounded number, of those in one direction the nearest.
//!
//! The direction of a neighbour is the pattern of signs of the difference to it along random directions (`HashPrune`
//! of PiPNN). What is kept are the nearest [`SLOTS`] among the nearest of each direction, ordered by (distance,
//! neighbour): a function of the set of offers, whatever their order.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::graph::space::Projection;
use crate::kernels::codes::code_kernels;

/// Neighbours that are kept.
pub(super) const SLOTS: usize = 128;

/// Bytes per point.
pub(crate) const MEMORY: usize = size_of::<Mutex<Slots>>();

/// Directions that count: with more, copies of one neighbour are all that is told to be alike.
const DIRECTION_BITS: u16 = 0x3fff;

/// Offers kept for one point.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slots {
    len: u8,
    /// The place of the farthest, when all are taken.
    farthest: u8,
    directions: [u16; SLOTS],
    distances: [f32; SLOTS],
    neighbours: [u32; SLOTS],
}

impl Default for Slots {
    fn default() -> Self {
        Self { directions: [0; SLOTS], distances: [0.0; SLOTS], neighbours: [0; SLOTS], len: 0, farthest: 0 }
    }
}

/// Locks the slots of a point. Slots are whole between any two offers, so a panic elsewhere does no harm.
pub(super) fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slots {
    /// Offers `neighbour`, which lies at `there`, to the point at `here`.
    #[inline]
    pub(super) fn offer(&mut self, here: &Projection, there: &Projection, distance: f32, neighbour: u32) {
        let full = usize::from(self.len) == SLOTS;
        if full && (distance, neighbour) >= self.at(usize::from(self.farthest)) {
            return;
        }
        let kernels = code_kernels();
        let direction = (kernels.larger)(there, here) & DIRECTION_BITS;
        let place = match (kernels.find)(&self.directions[..usize::from(self.len)], direction) {
            Some(place) if (distance, neighbour) >= self.at(place) => return,
            Some(place) => place,
            None if full => usize::from(self.farthest),
            None => {
                self.len += 1;
                usize::from(self.len) - 1
            }
        };
        self.directions[place] = direction;
        self.distances[place] = distance;
        self.neighbours[place] = neighbour;
        if usize::from(self.len) == SLOTS && (!full || place == usize::from(self.farthest)) {
            self.find_farthest();
        }
    }

    fn at(&self, place: usize) -> (f32, u32) {
        (self.distances[place], self.neighbours[place])
    }

    fn find_farthest(&mut self) {
        let mut farthest = 0;
        for place in 1..SLOTS {
            if self.at(place) > self.at(farthest) {
                farthest = place;
            }
        }
        self.farthest = farthest as u8;
    }

    /// What is kept, nearest first.
    pub(super) fn sorted(&self, out: &mut Vec<(f32, u32)>) {
        out.clear();
        out.extend((0..usize::from(self.len)).map(|place| self.at(place)));
        out.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offers() -> impl Strategy<Value = Vec<(u8, u32)>> {
        // few distances and few projections, so that ties and equal directions are common
        prop::collection::vec((0u8..20, 0u32..400), 0..600)
    }

    fn projection(neighbour: u32) -> Projection {
        std::array::from_fn(|d| if (neighbour % 300) >> (d % 9) & 1 == 1 { 1.0 } else { -1.0 })
    }

    fn kept(offers: &[(u8, u32)]) -> Vec<(f32, u32)> {
        let mut slots = Slots::default();
        for (_, neighbour) in offers {
            // a neighbour has one distance
            let distance = f32::from((neighbour * 7 % 23) as u16);
            slots.offer(&[0.0; 16], &projection(*neighbour), distance, *neighbour);
        }
        let mut out = Vec::new();
        slots.sorted(&mut out);
        out
    }

    proptest! {
        #[test]
        fn seg_5_what_is_kept_depends_on_the_set_of_offers_only(offers in offers(), seed in any::<u64>()) {
            let mut shuffled = offers.clone();
            shuffled.sort_by_key(|(a, b)| crate::random::mixed(seed ^ u64::from(*a) << 32 ^ u64::from(*b)));
            shuffled.extend_from_slice(&offers[..offers.len() / 2]);
            prop_assert_eq!(kept(&offers), kept(&shuffled));
        }
    }
}
