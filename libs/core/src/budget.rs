//! `ByteBudget`: bytes that may be in flight. A permit rides with the bytes it stands for and is freed on drop.
//!
//! Each partition draws on a share of its own first (a reserved minimum), so that one hot partition cannot starve
//! the others, and then on what is common to all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One semaphore permit stands for this many bytes, so that large budgets fit its counter.
const UNIT: usize = 1024;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

/// A bound on bytes shared by all partitions of a process.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Common>);

#[derive(Debug)]
struct Common {
    free: Arc<Semaphore>,
    total: u32,
    waiting: AtomicUsize,
    pressure: Notify,
}

impl ByteBudget {
    /// A budget of `bytes`, at least one unit of 1 KiB.
    pub fn new(bytes: usize) -> Self {
        let total = units(bytes).min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let free = Arc::new(Semaphore::new(total as usize));
        Self(Arc::new(Common { free, total, waiting: AtomicUsize::new(0), pressure: Notify::new() }))
    }

    /// Takes `bytes`, waiting until they are free. A demand beyond the whole budget takes the whole budget.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let want = units(bytes).min(self.0.total);
        if let Ok(permit) = Arc::clone(&self.0.free).try_acquire_many_owned(want) {
            return BytePermit { parts: vec![permit] };
        }
        let _waiting = Waiting::new(&self.0);
        match Arc::clone(&self.0.free).acquire_many_owned(want).await {
            Ok(permit) => BytePermit { parts: vec![permit] },
            // the semaphore is never closed
            Err(_) => BytePermit::none(),
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let want = units(bytes).min(self.0.total);
        let permit = Arc::clone(&self.0.free).try_acquire_many_owned(want).ok()?;
        Some(BytePermit { parts: vec![permit] })
    }

    /// Whether somebody waits for bytes: whoever holds many should give them back (seal early).
    pub fn is_pressed(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Returns when somebody begins to wait for bytes.
    pub async fn pressed(&self) {
        if !self.is_pressed() {
            self.0.pressure.notified().await;
        }
    }

    pub fn total_bytes(&self) -> usize {
        self.0.total as usize * UNIT
    }

    pub fn used_bytes(&self) -> usize {
        (self.0.total as usize - self.0.free.available_permits()) * UNIT
    }

    /// Sets `bytes` of this budget aside for one partition.
    ///
    /// Returns `None` when so much is not free: the caller then works on the common part alone.
    pub fn reserve(&self, bytes: usize) -> Option<PartitionBudget> {
        let reserved = self.try_acquire(bytes)?;
        Some(PartitionBudget {
            own: Some(Self::new(bytes)),
            common: self.clone(),
            _reserved: Some(Arc::new(reserved)),
        })
    }

    /// A partition's budget without a reserved part.
    pub fn unreserved(&self) -> PartitionBudget {
        PartitionBudget { own: None, common: self.clone(), _reserved: None }
    }
}

struct Waiting<'a>(&'a Common);

impl<'a> Waiting<'a> {
    fn new(common: &'a Common) -> Self {
        common.waiting.fetch_add(1, Ordering::Relaxed);
        common.pressure.notify_waiters();
        common.pressure.notify_one();
        Self(common)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one partition may draw on: its reserved part first, then the common one.
#[derive(Debug, Clone)]
pub struct PartitionBudget {
    own: Option<ByteBudget>,
    common: ByteBudget,
    _reserved: Option<Arc<BytePermit>>,
}

impl PartitionBudget {
    /// Takes `bytes` from whichever part frees them first.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let Some(own) = &self.own else { return self.common.acquire(bytes).await };
        if let Some(permit) = own.try_acquire(bytes).or_else(|| self.common.try_acquire(bytes)) {
            return permit;
        }
        let _waiting = Waiting::new(&self.common.0);
        tokio::select! {
            permit = own.acquire(bytes) => permit,
            permit = self.common.acquire(bytes) => permit,
        }
    }

    /// Takes `bytes` from whichever part has them free now.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let own = self.own.as_ref().and_then(|own| own.try_acquire(bytes));
        own.or_else(|| self.common.try_acquire(bytes))
    }

    /// Whether somebody waits for bytes of the budget that this partition draws on.
    pub fn is_pressed(&self) -> bool {
        self.common.is_pressed()
    }

    /// Returns when somebody begins to wait.
    pub async fn pressed(&self) {
        self.common.pressed().await;
    }
}

/// Bytes taken from a budget; they are free again when this is dropped.
#[derive(Debug, Default)]
pub struct BytePermit {
    parts: Vec<OwnedSemaphorePermit>,
}

impl BytePermit {
    /// Stands for no bytes.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes over the bytes of `other`.
    pub fn merge(&mut self, other: Self) {
        for part in other.parts {
            match self.parts.iter_mut().find(|p| Arc::ptr_eq(p.semaphore(), part.semaphore())) {
                Some(mine) => mine.merge(part),
                None => self.parts.push(part),
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.num_permits() * UNIT).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn mem_1_permits_never_exceed_the_budget() {
        let budget = ByteBudget::new(10 * UNIT);
        let mut first = budget.acquire(4 * UNIT).await;
        first.merge(budget.acquire(6 * UNIT).await);
        assert_eq!((first.bytes(), budget.used_bytes()), (10 * UNIT, 10 * UNIT));
        assert!(budget.try_acquire(1).is_none());
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_demand_beyond_the_budget_takes_the_whole_budget() {
        let budget = ByteBudget::new(2 * UNIT);
        assert_eq!(budget.acquire(usize::MAX).await.bytes(), 2 * UNIT);
    }

    #[tokio::test]
    async fn mem_2_a_partition_has_its_reserved_bytes_when_others_hold_the_rest() {
        let budget = ByteBudget::new(10 * UNIT);
        let cold = budget.reserve(3 * UNIT).unwrap();
        let _hot = budget.acquire(7 * UNIT).await;
        assert_eq!(cold.acquire(3 * UNIT).await.bytes(), 3 * UNIT);
    }

    #[tokio::test]
    async fn a_waiter_is_seen_as_pressure_until_it_is_served() {
        let budget = ByteBudget::new(UNIT);
        let held = budget.acquire(UNIT).await;
        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.acquire(UNIT).await }
        });
        tokio::time::timeout(Duration::from_secs(5), budget.pressed()).await.unwrap();
        assert!(budget.is_pressed());
        drop(held);
        drop(waiter.await.unwrap());
        assert!(!budget.is_pressed());
    }
}
