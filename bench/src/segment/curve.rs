//! Recall against speed: the points of one system, and what lies between them.

use serde::Serialize;

/// One setting of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) ef: usize,
    pub(crate) recall: f64,
    /// Queries a second, the median of the sweeps.
    pub(crate) qps: f64,
}

/// Where a curve reaches a recall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct At {
    pub(crate) ef: f64,
    pub(crate) qps: f64,
}

/// Where `points`, by growing ef, first reach `recall`; `None` when they never do.
///
/// Between two points the logarithms of ef and of QPS go along with recall. A curve that begins above `recall` is
/// taken at its first point: a smaller ef was not measured.
pub(crate) fn reaches(points: &[Point], recall: f64) -> Option<At> {
    let at = points.iter().position(|point| point.recall >= recall)?;
    let after = points[at];
    let Some(before) = at.checked_sub(1).map(|at| points[at]) else {
        return Some(At { ef: after.ef as f64, qps: after.qps });
    };
    let share = (recall - before.recall) / (after.recall - before.recall);
    let between = |from: f64, to: f64| (from.ln() + share * (to.ln() - from.ln())).exp();
    Some(At { ef: between(before.ef as f64, after.ef as f64), qps: between(before.qps, after.qps) })
}

/// The value in the middle; the mean of the two there of an even number of values, 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [Point; 3] = [
        Point { ef: 10, recall: 0.90, qps: 1000.0 },
        Point { ef: 40, recall: 0.96, qps: 250.0 },
        Point { ef: 160, recall: 0.98, qps: 125.0 },
    ];

    #[test]
    fn between_two_points_logarithms_go_along_with_recall() {
        let at = reaches(&POINTS, 0.93).unwrap();
        assert!((at.ef - 20.0).abs() < 1e-9 && (at.qps - 500.0).abs() < 1e-9, "{at:?}");
        let at = reaches(&POINTS, 0.96).unwrap();
        assert!((at.ef - 40.0).abs() < 1e-9 && (at.qps - 250.0).abs() < 1e-9, "{at:?}");
    }

    #[test]
    fn a_curve_is_not_drawn_beyond_its_ends() {
        assert_eq!(reaches(&POINTS, 0.5), Some(At { ef: 10.0, qps: 1000.0 }));
        assert_eq!(reaches(&POINTS, 0.99), None);
        assert_eq!(reaches(&[], 0.9), None);
    }

    #[test]
    fn recall_that_falls_again_does_not_move_the_first_crossing() {
        let mut points = POINTS.to_vec();
        points.push(Point { ef: 200, recall: 0.97, qps: 100.0 });
        assert_eq!(reaches(&points, 0.97), reaches(&POINTS, 0.97));
    }

    #[test]
    fn one_slow_sweep_does_not_move_a_median() {
        assert_eq!(median(&mut [5.0, 100.0, 4.0]), 5.0);
        assert_eq!(median(&mut [2.0, 1.0]), 1.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
