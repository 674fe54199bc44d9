//! Mishaps: named places where a test makes the task of one partition panic or hang, nothing in release builds.
//!
//! `SLUICE_MISHAP="worker.input@2:panic"` makes partition 2 panic whenever it passes that place, `:panic*3` the first
//! three times only; `:hang` makes its task wait there for ever, as a wait that somebody forgot to bound would. Other
//! partitions pass.

/// A place by name that the task of one partition passes, as in `mishap!("worker.input", partition)`.
#[macro_export]
macro_rules! mishap {
    ($name:literal, $partition:expr) => {
        $crate::mishap::pass($name, $partition).await
    };
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod active {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::PartitionId;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Panic,
        Hang,
    }

    /// What is to happen, where, to whom, and how often.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Mishap {
        pub(super) name: String,
        pub(super) partition: PartitionId,
        pub(super) action: Action,
        pub(super) times: u64,
    }

    /// Reads `name@partition:action[*times]`.
    pub(super) fn parse(text: &str) -> Option<Mishap> {
        let (place, action) = text.split_once(':')?;
        let (name, partition) = place.split_once('@')?;
        let (action, times) = match action.split_once('*') {
            Some((action, times)) => (action, times.parse().ok()?),
            None => (action, u64::MAX),
        };
        let action = match action {
            "panic" => Action::Panic,
            "hang" => Action::Hang,
            _ => return None,
        };
        Some(Mishap { name: name.to_owned(), partition: PartitionId(partition.parse().ok()?), action, times })
    }

    /// What happens to `partition` at the place `name`, this time.
    pub(super) fn due(name: &str, partition: PartitionId) -> Option<Action> {
        static WANTED: LazyLock<Option<Mishap>> = LazyLock::new(|| {
            let text = std::env::var("SLUICE_MISHAP").ok()?;
            let wanted = parse(&text);
            assert!(wanted.is_some(), "SLUICE_MISHAP is no mishap: {text}");
            wanted
        });
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let wanted = WANTED.as_ref().filter(|w| w.name == name && w.partition == partition)?;
        (PASSED.fetch_add(1, Ordering::Relaxed) < wanted.times).then_some(wanted.action)
    }
}

/// Panics or never returns when `SLUICE_MISHAP` says so of this place and partition.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub async fn pass(name: &str, partition: crate::PartitionId) {
    match active::due(name, partition) {
        None => {}
        Some(active::Action::Panic) => panic!("mishap {name} of partition {partition}"),
        Some(active::Action::Hang) => std::future::pending().await,
    }
}

/// Panics or never returns when a test wants it; never in this build.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
pub async fn pass(_name: &str, _partition: crate::PartitionId) {}

#[cfg(test)]
mod tests {
    use super::active::{Action, Mishap, parse};
    use crate::PartitionId;

    #[test]
    fn a_mishap_is_read_whole_or_not_at_all() {
        let mishap = |action, times| {
            Some(Mishap { name: "worker.input".into(), partition: PartitionId(2), action, times })
        };
        assert_eq!(parse("worker.input@2:panic"), mishap(Action::Panic, u64::MAX));
        assert_eq!(parse("worker.input@2:hang*3"), mishap(Action::Hang, 3));
        for bad in ["", "worker.input", "worker.input:panic", "worker.input@x:panic", "worker.input@2:sing"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
