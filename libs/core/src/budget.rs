//! `ByteBudget`: bytes that may be in flight. A permit rides with the bytes it stands for and is freed on drop.
//!
//! Each partition may have a share of its own (a reserved minimum), so that one hot partition cannot starve the
//! others; what is not reserved is common to all. Whatever is asked for is charged in full. `ledger` decides who is
//! served.

mod ledger;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use self::ledger::{Demand, Ledger};

/// A budget is counted in units of this many bytes.
const UNIT: usize = 1024;

fn units(bytes: usize) -> u64 {
    bytes.div_ceil(UNIT).max(1) as u64
}

fn bytes(units: u64) -> usize {
    usize::try_from(units).unwrap_or(usize::MAX).saturating_mul(UNIT)
}

/// A bound on bytes shared by all partitions of a process.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Mutex<Ledger<oneshot::Sender<BytePermit>>>,
    pressure: Notify,
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger<oneshot::Sender<BytePermit>>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, taken: Demand) -> BytePermit {
        BytePermit { parts: vec![Part { budget: Arc::clone(self), taken }] }
    }

    fn try_acquire(self: &Arc<Self>, share: Option<u64>, bytes: usize) -> Option<BytePermit> {
        let mut ledger = self.ledger();
        let demand = Demand { share, units: units(bytes).min(ledger.total()) };
        ledger.try_take(demand).then(|| self.permit(demand))
    }

    async fn acquire(self: &Arc<Self>, share: Option<u64>, bytes: usize) -> BytePermit {
        let (grant, id) = {
            let mut ledger = self.ledger();
            let demand = Demand { share, units: units(bytes).min(ledger.total()) };
            if ledger.try_take(demand) {
                return self.permit(demand);
            }
            let (to, grant) = oneshot::channel();
            (grant, ledger.wait(demand, to))
        };
        let _waiting = Waiting { budget: Arc::clone(self), id };
        self.pressure.notify_waiters();
        // who is in line leaves it with a grant
        grant.await.unwrap_or_default()
    }

    /// Changes the ledger, then hands out what that made free.
    fn free(self: &Arc<Self>, change: impl FnOnce(&mut Ledger<oneshot::Sender<BytePermit>>)) {
        let served = {
            let mut ledger = self.ledger();
            change(&mut ledger);
            if ledger.is_awaited() { ledger.serve() } else { Vec::new() }
        };
        for (to, taken) in served {
            // who gave up meanwhile does not take the permit: it is dropped here, and its bytes go on
            drop(to.send(self.permit(taken)));
        }
    }
}

/// Somebody in line; leaves it when the wait is given up.
struct Waiting {
    budget: Arc<Inner>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.budget.free(|ledger| ledger.leave(self.id));
    }
}

impl ByteBudget {
    /// A budget of `bytes`, at least one unit of 1 KiB.
    pub fn new(bytes: usize) -> Self {
        let ledger = Mutex::new(Ledger::new(units(bytes)));
        Self(Arc::new(Inner { ledger, pressure: Notify::new() }))
    }

    /// Takes `bytes`, waiting until they are free. A demand beyond the whole budget takes the whole budget.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        self.0.acquire(None, bytes).await
    }

    /// Takes `bytes` if they are free now and nobody waits for them.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        self.0.try_acquire(None, bytes)
    }

    /// Whether somebody waits for bytes: whoever holds many should give them back (seal early).
    pub fn is_pressed(&self) -> bool {
        self.0.ledger().is_awaited()
    }

    /// Returns when somebody waits for bytes.
    pub async fn pressed(&self) {
        let pressed = self.0.pressure.notified();
        if !self.is_pressed() {
            pressed.await;
        }
    }

    pub fn total_bytes(&self) -> usize {
        bytes(self.0.ledger().total())
    }

    pub fn used_bytes(&self) -> usize {
        bytes(self.0.ledger().used())
    }

    /// Sets `bytes` of this budget aside for one partition, until the last clone of the result is dropped.
    ///
    /// Returns `None` when so much is not free: the caller then works on the common part alone.
    pub fn reserve(&self, bytes: usize) -> Option<PartitionBudget> {
        let id = self.0.ledger().reserve(units(bytes))?;
        let share = Arc::new(Reserve { budget: Arc::clone(&self.0), id });
        Some(PartitionBudget { budget: self.clone(), share: Some(share) })
    }

    /// A partition's budget without a share of its own.
    pub fn unreserved(&self) -> PartitionBudget {
        PartitionBudget { budget: self.clone(), share: None }
    }
}

/// Ends a share when it is dropped.
#[derive(Debug)]
struct Reserve {
    budget: Arc<Inner>,
    id: u64,
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.budget.free(|ledger| ledger.close(self.id));
    }
}

/// What one partition may draw on: its share, and what is common to all.
#[derive(Debug, Clone)]
pub struct PartitionBudget {
    budget: ByteBudget,
    share: Option<Arc<Reserve>>,
}

impl PartitionBudget {
    fn share(&self) -> Option<u64> {
        self.share.as_ref().map(|share| share.id)
    }

    /// Takes `bytes`, waiting until they are free.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        self.budget.0.acquire(self.share(), bytes).await
    }

    /// Takes `bytes` if they are free now and nobody waits for them.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        self.budget.0.try_acquire(self.share(), bytes)
    }

    /// Whether somebody waits for bytes of the budget that this partition draws on.
    pub fn is_pressed(&self) -> bool {
        self.budget.is_pressed()
    }

    /// Returns when somebody waits.
    pub async fn pressed(&self) {
        self.budget.pressed().await;
    }
}

/// Bytes taken from a budget; they are free again when this is dropped.
#[derive(Debug, Default)]
pub struct BytePermit {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    budget: Arc<Inner>,
    taken: Demand,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken.units > 0 {
            self.budget.free(|ledger| ledger.give_back(self.taken));
        }
    }
}

impl BytePermit {
    /// Stands for no bytes.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes over the bytes of `other`.
    pub fn merge(&mut self, other: Self) {
        for mut part in other.parts {
            let same = |mine: &&mut Part| {
                Arc::ptr_eq(&mine.budget, &part.budget) && mine.taken.share == part.taken.share
            };
            match self.parts.iter_mut().find(same) {
                Some(mine) => mine.taken.units += std::mem::take(&mut part.taken.units),
                None => self.parts.push(part),
            }
        }
    }

    pub fn bytes(&self) -> usize {
        bytes(self.parts.iter().map(|part| part.taken.units).sum())
    }
}
