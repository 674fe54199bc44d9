//! Shutdown as a type: a token says stop, the `Gate` knows by name who has not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts the tasks of a process by name; closing waits for them, and at the deadline names those that hang.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inside: Mutex<BTreeMap<u64, String>>,
    next: std::sync::atomic::AtomicU64,
    left: Notify,
}

/// Somebody inside the gate; dropping it leaves.
#[derive(Debug)]
pub struct GateGuard {
    gate: Gate,
    id: u64,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters under `name`, which is what [`Gate::close`] reports.
    pub fn enter(&self, name: impl Into<String>) -> GateGuard {
        let id = self.0.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.lock().insert(id, name.into());
        GateGuard { gate: self.clone(), id }
    }

    /// Waits until everybody has left.
    ///
    /// # Errors
    /// The names of those still inside after `deadline`.
    pub async fn close(&self, deadline: Duration) -> Result<(), Vec<String>> {
        let empty = async {
            loop {
                let left = self.0.left.notified();
                if self.lock().is_empty() {
                    return;
                }
                left.await;
            }
        };
        match tokio::time::timeout(deadline, empty).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.names()),
        }
    }

    /// Who is inside now.
    pub fn names(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        // a map of names has no state that a panic could break
        self.0.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        self.gate.lock().remove(&self.id);
        self.gate.0.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn liv_5_closing_waits_and_names_who_hangs() {
        let gate = Gate::new();
        let done = gate.enter("quick");
        let _hung = gate.enter("slow");
        drop(done);
        assert_eq!(gate.close(Duration::from_millis(10)).await, Err(vec!["slow".to_owned()]));
    }

    #[tokio::test]
    async fn closing_returns_when_the_last_one_leaves() {
        let gate = Gate::new();
        let guard = gate.enter("task");
        let closing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close(Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        drop(guard);
        assert_eq!(closing.await.unwrap(), Ok(()));
    }
}
