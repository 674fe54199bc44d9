//! How far a build is: told by the build, read by whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The share of a build that is done, about; clones are of the same build.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU32>);

/// What is told of a build is no part of how it is built.
impl PartialEq for Progress {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Progress {}

/// Parts of the whole that are counted.
const PARTS: f64 = 10_000.0;

impl Progress {
    /// 0 to 1, and never less than before.
    pub fn share(&self) -> f64 {
        f64::from(self.0.load(Ordering::Relaxed)) / PARTS
    }

    /// So much of the build is done.
    pub(crate) fn reached(&self, share: f64) {
        self.0.fetch_max((share.clamp(0.0, 1.0) * PARTS) as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_never_goes_back_and_stays_between_nothing_and_all() {
        let (progress, mut last) = (Progress::default(), 0.0);
        let seen = progress.clone();
        for share in [-1.0, 0.25, 0.1, f64::NAN, 0.5, 7.0, 0.9] {
            progress.reached(share);
            assert!((last..=1.0).contains(&seen.share()), "{}", seen.share());
            last = seen.share();
        }
        assert_eq!(last, 1.0);
    }
}
