//! Percentiles of measured times, and recall.

use std::collections::HashSet;
use std::time::Duration;

/// The time within which `percent` of `times` were, in milliseconds.
pub(crate) fn percentile_ms(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

/// Share of `wanted` among `found`.
pub(crate) fn recall(found: &[String], wanted: &[String]) -> f64 {
    let found: HashSet<&String> = found.iter().collect();
    let hits = wanted.iter().filter(|id| found.contains(id)).count();
    hits as f64 / wanted.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!((percentile_ms(&mut times, 50), percentile_ms(&mut times, 99)), (50.0, 99.0));
        assert_eq!(percentile_ms(&mut times[..1], 99), 1.0);
        assert_eq!(percentile_ms(&mut [], 50), 0.0);
    }

    #[test]
    fn recall_counts_what_was_found() {
        let ids = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(recall(&ids("a b c d"), &ids("d a x y")), 0.5);
    }
}
