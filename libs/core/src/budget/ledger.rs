//! Who holds how much of a budget, who waits, and who is served next: counts, and no task or clock.
//!
//! | demand of a partition | granted when |
//! |---|---|
//! | fits its free share | so much is free at all |
//! | fits beside the others' shares | so much is free beside what the others have free in their shares |
//! | larger | so much is free at all; while it is first in line nobody else is served, so that its turn comes |
//! | beyond the whole budget | as a demand for the whole budget |
//!
//! Those who wait are served in order. Behind the first who does not fit only free shares are given out: they are
//! no part of what that one waits for.

use std::collections::{HashMap, VecDeque};

/// The state of a budget of `total` units; `T` hands a grant to who waits for it.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    total: u64,
    used: u64,
    /// Of all shares together.
    reserved: u64,
    /// What is not used of each share, together.
    reserved_free: u64,
    shares: HashMap<u64, Share>,
    waiters: VecDeque<Waiter<T>>,
    next_id: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    reserved: u64,
    used: u64,
    /// Nobody takes more of it; what is out comes back later.
    closed: bool,
}

impl Share {
    fn free(&self) -> u64 {
        self.reserved.saturating_sub(self.used)
    }
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    demand: Demand,
    to: T,
}

/// Units that the holder of a share, or of none, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) share: Option<u64>,
    pub(super) units: u64,
}

impl<T> Ledger<T> {
    pub(super) fn new(total: u64) -> Self {
        let (shares, waiters) = (HashMap::new(), VecDeque::new());
        Self { total, used: 0, reserved: 0, reserved_free: 0, shares, waiters, next_id: 0 }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn is_awaited(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Takes `demand` if its turn is now.
    pub(super) fn try_take(&mut self, demand: Demand) -> bool {
        let fits = match self.waiters.front() {
            None => self.fits(demand),
            Some(first) => self.fits_behind(first.demand, demand),
        };
        if fits {
            self.used += demand.units;
            self.change(demand.share, |share| share.used += demand.units);
        }
        fits
    }

    pub(super) fn give_back(&mut self, taken: Demand) {
        self.used -= taken.units;
        self.change(taken.share, |share| share.used -= taken.units);
    }

    /// Stands in line; [`Ledger::serve`] hands out the grant.
    pub(super) fn wait(&mut self, demand: Demand, to: T) -> u64 {
        let id = self.id();
        self.waiters.push_back(Waiter { id, demand, to });
        id
    }

    /// Leaves the line; nothing to do when it was served before.
    pub(super) fn leave(&mut self, id: u64) {
        self.waiters.retain(|waiter| waiter.id != id);
    }

    /// Takes for everybody whose turn has come.
    pub(super) fn serve(&mut self) -> Vec<(T, Demand)> {
        let mut served = Vec::new();
        // each is judged behind those that are put back before it
        for waiter in std::mem::take(&mut self.waiters) {
            if self.try_take(waiter.demand) {
                served.push((waiter.to, waiter.demand));
            } else {
                self.waiters.push_back(waiter);
            }
        }
        served
    }

    /// Makes a share of `units`; `None` when so much is not free.
    pub(super) fn reserve(&mut self, units: u64) -> Option<u64> {
        if self.used + self.reserved_free + units > self.total {
            return None;
        }
        let id = self.id();
        self.shares.insert(id, Share::default());
        self.change(Some(id), |share| share.reserved = units);
        Some(id)
    }

    /// Ends a share.
    pub(super) fn close(&mut self, share: u64) {
        self.change(Some(share), |share| (share.reserved, share.closed) = (0, true));
    }

    /// Whether `demand` fits when nobody is before it in line.
    fn fits(&self, demand: Demand) -> bool {
        let own = self.share(demand.share);
        let others_free = self.reserved_free - own.free();
        let within = |free: u64| self.used + free + demand.units <= self.total;
        within(0) && (demand.units <= own.free() || self.is_oversized(demand) || within(others_free))
    }

    /// Whether `demand` never fits beside the shares of the others.
    fn is_oversized(&self, demand: Demand) -> bool {
        let others = self.reserved - self.share(demand.share).reserved;
        demand.units > self.total - others
    }

    /// Whether `demand` may be granted while `first` is first in line.
    fn fits_behind(&self, first: Demand, demand: Demand) -> bool {
        let own = self.share(demand.share).free();
        !self.is_oversized(first) && demand.units <= own && self.used + demand.units <= self.total
    }

    fn share(&self, id: Option<u64>) -> Share {
        id.and_then(|id| self.shares.get(&id)).copied().unwrap_or_default()
    }

    fn change(&mut self, share: Option<u64>, change: impl FnOnce(&mut Share)) {
        let Some(id) = share else { return };
        let Some(share) = self.shares.get_mut(&id) else { return };
        let (free, reserved) = (share.free(), share.reserved);
        change(share);
        self.reserved_free = self.reserved_free - free + share.free();
        self.reserved = self.reserved - reserved + share.reserved;
        if share.closed && share.used == 0 {
            self.shares.remove(&id);
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mem_2_behind_an_oversized_demand_nobody_is_served_until_it_was() {
        let mut ledger = Ledger::new(10);
        let (a, b) = (ledger.reserve(3).unwrap(), ledger.reserve(3).unwrap());
        let [small, large] = [(a, 2), (b, 9)].map(|(share, units)| Demand { share: Some(share), units });
        assert!(ledger.try_take(small));
        assert!(!ledger.try_take(large));
        ledger.wait(large, "large");
        assert!(!ledger.try_take(Demand { units: 1, ..small }), "else it might wait for ever");
        ledger.give_back(small);
        assert_eq!(ledger.serve(), [("large", large)]);
        assert!(!ledger.try_take(small));
        ledger.give_back(large);
        assert!(ledger.try_take(small));
    }

    #[test]
    fn a_share_that_ends_while_bytes_of_it_are_out_leaves_nothing_behind() {
        let mut ledger: Ledger<()> = Ledger::new(10);
        let share = ledger.reserve(4).unwrap();
        assert_eq!(ledger.reserve(7), None);
        let taken = Demand { share: Some(share), units: 6 };
        assert!(ledger.try_take(taken));
        ledger.close(share);
        assert_eq!((ledger.used, ledger.reserved, ledger.reserved_free), (6, 0, 0));
        ledger.give_back(taken);
        assert_eq!((ledger.used, ledger.shares.len()), (0, 0));
    }
}
