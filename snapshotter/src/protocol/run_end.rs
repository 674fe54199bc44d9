//! Finds the end of a run of consecutive numbers with few looks: doubling strides, then halving.

/// A search for the last number of a run that is known to hold `low`, or to begin at `low + 1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunEnd {
    low: u64,
    absent: Option<u64>,
    stride: u64,
}

impl RunEnd {
    /// A run that holds `low`, or, when `low` is zero, may be empty.
    pub fn from(low: u64) -> Self {
        Self { low, absent: None, stride: 1 }
    }

    /// The number to look at next; `None` when the end is known.
    pub fn next(&self) -> Option<u64> {
        match self.absent {
            None => Some(self.low.saturating_add(self.stride)),
            Some(absent) if absent - self.low <= 1 => None,
            Some(absent) => Some(self.low + (absent - self.low) / 2),
        }
    }

    /// Says whether the number that [`RunEnd::next`] named is there.
    pub fn observe(&mut self, present: bool) {
        let Some(at) = self.next() else { return };
        if present {
            self.low = at;
            self.stride = self.stride.saturating_mul(2);
        } else {
            self.absent = Some(at);
        }
    }

    /// The last number known to be in the run.
    pub fn last(&self) -> u64 {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_end_of_every_run_is_found_in_few_looks(start in 0u64..1000, extra in 0u64..100_000) {
            let end = start + extra;
            let mut search = RunEnd::from(start);
            let mut looks = 0;
            while let Some(at) = search.next() {
                search.observe(at <= end);
                looks += 1;
            }
            prop_assert_eq!(search.last(), end);
            prop_assert!(looks <= 2 * (64 - extra.leading_zeros()) + 2, "{} looks for {}", looks, extra);
        }
    }
}
