//! When the growing set becomes a segment: a pure function of its size, its age and the pressure on the byte budget.

use std::time::Duration;

use sluice_core::SealSpec;

/// Under pressure a growing set of this share of `max_bytes` is worth a segment of its own.
const PRESSED_SHARE: u64 = 16;
/// Under pressure no growing set gets older than this, however small, so that bytes come free at last.
const PRESSED_AGE: Duration = Duration::from_secs(1);

/// The bounds of a growing set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealLimits {
    pub max_records: u64,
    pub max_bytes: u64,
    pub max_age: Duration,
}

impl SealLimits {
    /// The bounds that `spec` sets, with fewer records where a build of so many would not fit into `build_bytes`.
    /// `build_memory` says what a build of so many rows takes; at least one record is always allowed.
    pub fn new(spec: &SealSpec, build_bytes: u64, build_memory: impl Fn(u64) -> u64) -> Self {
        let fits = largest_fit(u64::from(spec.max_records), build_bytes, build_memory);
        Self { max_records: fits.max(1), max_bytes: spec.max_bytes.as_u64(), max_age: spec.max_age }
    }
}

/// The largest number of rows up to `max` whose build takes at most `bytes`; zero when none fits.
pub fn largest_fit(max: u64, bytes: u64, build_memory: impl Fn(u64) -> u64) -> u64 {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if build_memory(middle) <= bytes { low = middle } else { high = middle - 1 }
    }
    low
}

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrowingFacts {
    /// Keys whose newest record is an upsert: the rows of the segment to be.
    pub live: u64,
    /// Bytes that the set is charged for.
    pub bytes: u64,
    /// Age of the first record, or of the first offset that is to be skipped. `None`: nothing to publish.
    pub age: Option<Duration>,
    /// Whether somebody waits for bytes of the budget that this set holds.
    pub pressed: bool,
}

/// Why a growing set is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Records,
    Bytes,
    Age,
    Pressure,
}

impl Reason {
    /// Whether the set can take no more: input has to wait when the seal cannot start at once.
    pub fn is_full(self) -> bool {
        matches!(self, Self::Records | Self::Bytes)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Pressure => "pressure",
        }
    }
}

/// What to do with the growing set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Seal(Reason),
    /// Look again when something changes, at the latest after this time, if any.
    Wait(Option<Duration>),
}

/// Decides about a growing set.
pub fn decide(facts: GrowingFacts, limits: &SealLimits) -> Decision {
    let Some(age) = facts.age else { return Decision::Wait(None) };
    if facts.live >= limits.max_records {
        return Decision::Seal(Reason::Records);
    }
    if facts.bytes >= limits.max_bytes {
        return Decision::Seal(Reason::Bytes);
    }
    if age >= limits.max_age {
        return Decision::Seal(Reason::Age);
    }
    if !facts.pressed {
        return Decision::Wait(Some(limits.max_age - age));
    }
    if facts.bytes >= limits.max_bytes / PRESSED_SHARE || age >= PRESSED_AGE {
        return Decision::Seal(Reason::Pressure);
    }
    Decision::Wait(Some((PRESSED_AGE - age).min(limits.max_age - age)))
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use proptest::prelude::*;

    use super::*;

    fn limits() -> SealLimits {
        let spec =
            SealSpec { max_records: 1000, max_bytes: ByteSize::mib(1), max_age: Duration::from_secs(10) };
        SealLimits::new(&spec, u64::MAX, |rows| rows)
    }

    fn facts(live: u64, bytes: u64, age_ms: u64, pressed: bool) -> GrowingFacts {
        GrowingFacts { live, bytes, age: Some(Duration::from_millis(age_ms)), pressed }
    }

    #[test]
    fn records_bytes_age_and_pressure_each_seal() {
        let reason = |f| decide(f, &limits());
        assert_eq!(reason(facts(1000, 0, 0, false)), Decision::Seal(Reason::Records));
        assert_eq!(reason(facts(1, 1 << 20, 0, false)), Decision::Seal(Reason::Bytes));
        assert_eq!(reason(facts(0, 0, 10_000, false)), Decision::Seal(Reason::Age));
        assert_eq!(reason(facts(1, 1 << 16, 0, true)), Decision::Seal(Reason::Pressure));
        assert_eq!(reason(facts(1, 1, 1000, true)), Decision::Seal(Reason::Pressure));
        assert_eq!(reason(facts(1, 1, 400, true)), Decision::Wait(Some(Duration::from_millis(600))));
        assert_eq!(reason(facts(1, 1 << 16, 0, false)), Decision::Wait(Some(Duration::from_secs(10))));
    }

    #[test]
    fn mem_1_a_growing_set_is_bounded_by_what_its_build_may_take() {
        let spec = SealSpec { max_records: 50_000, ..SealSpec::default() };
        assert_eq!(SealLimits::new(&spec, 4000, |rows| rows * 4).max_records, 1000);
        assert_eq!(SealLimits::new(&spec, 0, |rows| rows * 4).max_records, 1);
    }

    proptest! {
        #[test]
        fn nothing_to_publish_is_never_sealed(live: u64, bytes: u64, pressed: bool) {
            let facts = GrowingFacts { live, bytes, age: None, pressed };
            prop_assert_eq!(decide(facts, &limits()), Decision::Wait(None));
        }

        #[test]
        fn liv_3_no_timer_is_lost(live in 0u64..2000, bytes in 0u64..2 << 20, age in 0u64..20_000, pressed: bool) {
            let limits = limits();
            match decide(facts(live, bytes, age, pressed), &limits) {
                Decision::Seal(_) => {}
                // looking again after the wait finds something to seal, and the wait is never zero
                Decision::Wait(Some(wait)) => {
                    prop_assert!(!wait.is_zero());
                    let later = age + u64::try_from(wait.as_millis()).unwrap();
                    prop_assert!(matches!(decide(facts(live, bytes, later, pressed), &limits), Decision::Seal(_)));
                }
                Decision::Wait(None) => prop_assert!(false, "there is something to publish"),
            }
        }

        #[test]
        fn more_of_anything_never_unseals(live in 0u64..2000, bytes in 0u64..2 << 20, age in 0u64..20_000, more in 0u64..5000) {
            if let Decision::Seal(_) = decide(facts(live, bytes, age, false), &limits()) {
                let grown = facts(live + more, bytes + more, age + more, true);
                prop_assert!(matches!(decide(grown, &limits()), Decision::Seal(_)));
            }
        }

        #[test]
        fn the_largest_fit_fits_and_one_more_does_not(max in 0u64..100_000, bytes in 0u64..1_000_000, step in 1u64..5000) {
            // grows, with a jump where a graph begins
            let memory = |rows: u64| rows * 7 + if rows >= step { rows * 20 } else { 0 };
            let fit = largest_fit(max, bytes, memory);
            prop_assert!(fit <= max && memory(fit) <= bytes);
            prop_assert!(fit == max || memory(fit + 1) > bytes);
        }
    }
}
