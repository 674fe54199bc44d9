//! Writes the column index of a declared field: for each distinct value of its column the rows that have it.

use std::collections::BTreeMap;
use std::mem::replace;
use std::sync::atomic::AtomicBool;

use sluice_core::FieldType;

use crate::BuildError;
use crate::build::{check_cancelled, for_rows};
use crate::columns::Dictionary;
use crate::format::{NO_ROW, SegmentWriter};
use crate::row::{Rows, ValueRef};

/// A number in the order of floats: larger floats have larger ranks, both zeros have one.
#[inline]
pub(crate) fn rank(float: f64) -> i64 {
    let bits = (float + 0.0).to_bits().cast_signed();
    // the other bits of a negative float grow as it falls
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

/// The float of a rank.
fn of_rank(rank: i64) -> f64 {
    f64::from_bits((rank ^ (((rank >> 63).cast_unsigned() >> 1).cast_signed())).cast_unsigned())
}

/// Writes the content of the column index of `field`; see `format`.
///
/// Holds meanwhile, for each value of the field, 4 bytes where values are words or booleans, else 16; and 8 for each
/// word.
///
/// # Errors
/// When the file cannot be written, or `cancelled` was set.
pub(crate) fn write_column_index(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    (field, kind): (usize, FieldType),
    dictionary: &Dictionary<'_>,
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    match kind {
        FieldType::Keyword => {
            let words = dictionary.as_ref();
            let place = |value: ValueRef<'_>| match value {
                ValueRef::Keyword(word) => words.and_then(|words| words.get(word)).map(|n| *n as usize),
                _ => None,
            };
            write_places(file, rows, field, (words.map_or(0, BTreeMap::len), place), cancelled)
        }
        FieldType::Boolean => {
            let place = |value: ValueRef<'_>| match value {
                ValueRef::Boolean(b) => Some(usize::from(b)),
                _ => None,
            };
            write_places(file, rows, field, (2, place), cancelled)
        }
        FieldType::Integer | FieldType::Float | FieldType::Timestamp => {
            write_numbers(file, rows, (field, kind), cancelled)
        }
    }
}

/// Of values that are numbered 0, 1, .. up to `distinct`: rows are counted first, then put where they belong.
fn write_places(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    field: usize,
    (distinct, place): (usize, impl Fn(ValueRef<'_>) -> Option<usize>),
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    // the row that had a value last: a row that has it twice counts once
    let mut last = vec![NO_ROW; distinct];
    let mut next = vec![0u32; distinct];
    for_rows(rows, cancelled, |at| {
        let row = at as u32;
        rows.values(at, field, &mut |value| {
            let Some(place) = place(value) else { return };
            if replace(&mut last[place], row) != row {
                next[place] += 1;
            }
        });
        Ok(())
    })?;
    file.value(distinct as u64)?;
    let mut end = 0;
    for next in &mut next {
        file.value(end)?;
        end += replace(next, end);
    }
    file.value(end)?;
    last.fill(NO_ROW);
    let mut sorted = vec![0u32; end as usize];
    for_rows(rows, cancelled, |at| {
        let row = at as u32;
        rows.values(at, field, &mut |value| {
            let Some(place) = place(value) else { return };
            if replace(&mut last[place], row) != row {
                sorted[next[place] as usize] = row;
                next[place] += 1;
            }
        });
        Ok(())
    })?;
    Ok(file.values(&sorted)?)
}

fn write_numbers(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    (field, kind): (usize, FieldType),
    cancelled: &AtomicBool,
) -> Result<(), BuildError> {
    let entries = entries(rows, field, cancelled)?;
    let distinct = || entries.chunk_by(|a, b| a.0 == b.0).filter_map(|same| same.first()).map(|e| e.0);
    file.value(distinct().count() as u64)?;
    for value in distinct() {
        if kind == FieldType::Float { file.value(of_rank(value))? } else { file.value(value)? }
    }
    check_cancelled(cancelled)?;
    let mut start = 0;
    for same in entries.chunk_by(|a, b| a.0 == b.0) {
        file.value(start)?;
        start += same.len() as u32;
    }
    file.value(start)?;
    check_cancelled(cancelled)?;
    Ok(entries.iter().try_for_each(|(_, row)| file.value(*row))?)
}

/// The values of a field of numbers as ranks, each with its row: sorted, none twice.
fn entries(rows: &impl Rows, field: usize, cancelled: &AtomicBool) -> Result<Vec<(i64, u32)>, BuildError> {
    let number = |value: ValueRef<'_>| match value {
        ValueRef::Integer(n) | ValueRef::Timestamp(n) => Some(n),
        ValueRef::Float(n) => Some(rank(n)),
        ValueRef::Keyword(_) | ValueRef::Boolean(_) => None,
    };
    let mut count = 0;
    for_rows(rows, cancelled, |row| {
        rows.values(row, field, &mut |_| count += 1);
        Ok(())
    })?;
    let mut entries = Vec::with_capacity(count);
    for_rows(rows, cancelled, |row| {
        rows.values(row, field, &mut |value| entries.extend(number(value).map(|n| (n, row as u32))));
        Ok(())
    })?;
    check_cancelled(cancelled)?;
    entries.sort_unstable();
    entries.dedup();
    check_cancelled(cancelled)?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::RowRef;
    use crate::build::CHECK_EVERY;

    /// Sets the flag when it was asked for the values of so many rows.
    struct Flagging<'a> {
        value: ValueRef<'static>,
        asked: AtomicUsize,
        after: usize,
        flag: &'a AtomicBool,
    }

    const ROWS: usize = 20_000;

    impl Rows for Flagging<'_> {
        fn len(&self) -> usize {
            ROWS
        }

        fn row(&self, _: usize) -> RowRef<'_> {
            unreachable!("a column index looks at values only")
        }

        fn values<'a>(&'a self, _: usize, _: usize, each: &mut dyn FnMut(ValueRef<'a>)) {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            self.flag.fetch_or(asked >= self.after, Ordering::Relaxed);
            each(self.value);
        }
    }

    #[test]
    fn writing_stops_soon_after_the_flag_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [
            (FieldType::Keyword, ValueRef::Keyword("a")),
            (FieldType::Boolean, ValueRef::Boolean(true)),
            (FieldType::Integer, ValueRef::Integer(7)),
            (FieldType::Float, ValueRef::Float(0.5)),
        ];
        for (kind, value) in kinds {
            for after in [0, 5000, ROWS - 1, ROWS + 5000, usize::MAX] {
                let flag = AtomicBool::new(false);
                let rows = Flagging { value, asked: AtomicUsize::new(0), after, flag: &flag };
                let words = Some(BTreeMap::from([("a", 0)]));
                let mut file =
                    SegmentWriter::create(&dir.path().join("x"), sluice_core::VectorType::F32).unwrap();
                let written = write_column_index(&mut file, &rows, (0, kind), &words, &flag);
                let asked = rows.asked.into_inner();
                assert_eq!(written.is_err(), after != usize::MAX, "{kind:?}, {after}");
                assert!(asked <= after.saturating_add(CHECK_EVERY + 1), "{kind:?}, {after}: {asked}");
            }
        }
    }

    proptest! {
        #[test]
        fn ranks_order_as_the_floats_and_name_them(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(rank(a).cmp(&rank(b)), (a + 0.0).total_cmp(&(b + 0.0)));
            prop_assert_eq!(of_rank(rank(a)), a);
        }
    }

    #[test]
    fn both_zeros_have_one_rank() {
        assert_eq!(rank(-0.0), rank(0.0));
        assert!(
            rank(-f64::MIN_POSITIVE) < rank(0.0) && rank(f64::MAX) < i64::MAX && rank(f64::MIN) > i64::MIN
        );
    }
}
