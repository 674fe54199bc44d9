//! Bounded channels that measure the time a sender was blocked: back-pressure as seconds, by stage.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Time that senders of a stage stood before a full channel; a counter holds whole numbers, hence microseconds.
pub const BLOCKED: &str = "sluice_channel_blocked_microseconds_total";

/// The receiver is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiving stage has stopped")]
pub struct Closed;

/// The sending half; names the stage that it feeds.
#[derive(Debug)]
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
    stage: &'static str,
}

/// The receiving half.
pub type Receiver<T> = mpsc::Receiver<T>;

/// A channel of at most `capacity` items into `stage`.
pub fn bounded<T>(stage: &'static str, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (inner, receiver) = mpsc::channel(capacity);
    (Sender { inner, stage }, receiver)
}

impl<T> Sender<T> {
    /// Sends `item`, waiting while the channel is full.
    ///
    /// # Errors
    /// When the receiver is gone.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        match self.inner.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Closed),
            Err(TrySendError::Full(item)) => {
                let sent = while_blocked(self.inner.send(item), |since| record_blocked(self.stage, since));
                sent.await.map_err(|_| Closed)
            }
        }
    }

    /// As [`Sender::send`], for a thread outside the runtime.
    ///
    /// # Errors
    /// When the receiver is gone.
    pub fn blocking_send(&self, item: T) -> Result<(), Closed> {
        match self.inner.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Closed),
            Err(TrySendError::Full(item)) => {
                let since = Instant::now();
                let sent = self.inner.blocking_send(item);
                record_blocked(self.stage, since);
                sent.map_err(|_| Closed)
            }
        }
    }

    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), stage: self.stage }
    }
}

/// Waits for `work`. `record` is told of the time as it passes, second by second: a wait that does not end is the one
/// that somebody wants to see.
pub async fn while_blocked<T>(work: impl Future<Output = T>, record: impl Fn(Instant)) -> T {
    const TICK: Duration = Duration::from_secs(1);
    let mut work = pin!(work);
    loop {
        let since = Instant::now();
        let done = tokio::time::timeout(TICK, &mut work).await;
        record(since);
        if let Ok(done) = done {
            return done;
        }
    }
}

/// Adds the time since `since` to what `stage` was blocked.
pub fn record_blocked(stage: &'static str, since: Instant) {
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    metrics::counter!(BLOCKED, "stage" => stage).increment(micros);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_channel_holds_the_sender_until_the_receiver_takes() {
        let (sender, mut receiver) = bounded("test", 1);
        sender.send(1).await.unwrap();
        let blocked = tokio::spawn(async move { sender.send(2).await });
        tokio::task::yield_now().await;
        assert!(!blocked.is_finished());
        assert_eq!(receiver.recv().await, Some(1));
        assert_eq!(receiver.recv().await, Some(2));
        blocked.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_wait_that_does_not_end_is_recorded_while_it_lasts() {
        let recorded = std::cell::Cell::new(0);
        let wait = while_blocked(std::future::pending::<()>(), |_| recorded.set(recorded.get() + 1));
        assert!(tokio::time::timeout(Duration::from_millis(2500), wait).await.is_err());
        let meanwhile = recorded.get();
        assert!(meanwhile > 0);
        while_blocked(std::future::ready(()), |_| recorded.set(recorded.get() + 1)).await;
        assert_eq!(recorded.get(), meanwhile + 1);
    }

    #[tokio::test]
    async fn a_gone_receiver_is_an_error() {
        let (sender, receiver) = bounded("test", 1);
        drop(receiver);
        assert_eq!(sender.send(1).await, Err(Closed));
    }
}
