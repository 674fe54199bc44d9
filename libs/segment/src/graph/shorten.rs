//! Whether short codes tell rows apart, and how short they may be.

use std::sync::atomic::AtomicBool;

use sluice_core::Metric;

use super::as_searched::AsSearched;
use super::axes::Axes;
use super::full_space::FullSpace;
use super::tell_apart::{Bar, told_apart};
use crate::Cancelled;
use crate::codes::{CodeView, CodedAxes, Codes, MOST_AXES, Projected, ShortCodes, axes_within, short_stride};

/// What is asked of short codes. Queries that are unlike rows find less by them, and more rows are then compared once
/// more than these.
const BAR: Bar = Bar { among: 20, missed: 0.02 };

/// The shortest codes along the leading `axes` that tell `among`, which are distinct, apart.
///
/// # Errors
/// When `cancelled` was set.
pub(super) fn shorten(
    codes: &Codes,
    axes: &Axes,
    (full, metric): (&FullSpace<'_>, Metric),
    among: &[u32],
    cancelled: &AtomicBool,
) -> Result<Option<ShortCodes>, Cancelled> {
    let most = axes.len().min(MOST_AXES);
    let projected = Projected::of(codes, CodedAxes::new(axes.first(most)), cancelled)?;
    // a row as long as before would gain nothing
    let longest = short_stride(most).min(codes.stride() - 64);
    for stride in (64..=longest).step_by(64) {
        let short = projected.cut(axes_within(stride).min(most), metric, &codes.means);
        let searched = AsSearched { full, metric, codes: Some(CodeView::Short(short.view())) };
        if told_apart(searched, among, BAR, cancelled)? {
            return Ok(Some(short));
        }
    }
    Ok(None)
}
