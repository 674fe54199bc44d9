//! A column index as it stands in a file: distinct values in order, and the rows of each.

use std::ops::Range;

use sluice_core::FieldType;

use super::column::Column;
use crate::SegmentError;
use crate::column_index::rank;
use crate::format::Kind;

/// Where the parts of a column index lie in a file.
#[derive(Debug)]
pub(super) struct ColumnIndexSpans {
    /// Of numbers; other values are their own places.
    values: Option<Range<usize>>,
    starts: Range<usize>,
    rows: Range<usize>,
}

/// A column index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnIndex<'a> {
    values: Distinct<'a>,
    /// Where the rows of each value begin, and the end of the last.
    starts: &'a [u32],
    rows: &'a [u32],
}

/// The distinct values of a column, growing.
#[derive(Debug, Clone, Copy)]
enum Distinct<'a> {
    /// 0, 1, .. : numbers of words, or false and true.
    Places,
    Integers(&'a [i64]),
    Floats(&'a [f64]),
}

fn refuse<T>(field: u32, problem: impl ToString) -> Result<T, SegmentError> {
    Err(SegmentError::damaged(format!("{} {field}", Kind::ColumnIndex), problem))
}

impl ColumnIndexSpans {
    /// The parts of `section`, which begins with the number of distinct values; `words` is that of a keyword column.
    pub(super) fn new(
        bytes: &[u8],
        section: Range<usize>,
        (field, kind): (u32, FieldType),
        words: usize,
    ) -> Result<Self, SegmentError> {
        let Some((count, rest)) = bytes[section.clone()].split_first_chunk::<8>() else {
            return refuse(field, "it has no number of values");
        };
        let named = u64::from_le_bytes(*count);
        let (size, expected) = match kind {
            FieldType::Keyword => (0, Some(words as u64)),
            FieldType::Boolean => (0, Some(2)),
            FieldType::Integer | FieldType::Float | FieldType::Timestamp => (8, None),
        };
        if expected.is_some_and(|expected| expected != named) {
            return refuse(field, format!("{named} are not the values of the column"));
        }
        // the section's length bounds the number before anything is computed from it
        let count = usize::try_from(named).ok().filter(|count| *count <= rest.len() / (size + 4));
        // what is left for rows, after the values and one start more than there are values
        let left = count.and_then(|count| Some((count, rest.len().checked_sub(count * (size + 4) + 4)?)));
        let Some((count, _)) = left.filter(|(_, left)| left.is_multiple_of(4)) else {
            return refuse(field, format!("{} bytes do not hold {named} values", section.len()));
        };
        let starts = section.start + 8 + count * size;
        let rows = starts + (count + 1) * 4;
        let values = (size > 0).then(|| section.start + 8..starts);
        Ok(Self { values, starts: starts..rows, rows: rows..section.end })
    }

    pub(super) fn view<'a>(&self, bytes: &'a [u8], kind: FieldType) -> ColumnIndex<'a> {
        let values = match (&self.values, kind) {
            (None, _) => Distinct::Places,
            (Some(span), FieldType::Float) => Distinct::Floats(bytemuck::cast_slice(&bytes[span.clone()])),
            (Some(span), _) => Distinct::Integers(bytemuck::cast_slice(&bytes[span.clone()])),
        };
        ColumnIndex {
            values,
            starts: bytemuck::cast_slice(&bytes[self.starts.clone()]),
            rows: bytemuck::cast_slice(&bytes[self.rows.clone()]),
        }
    }
}

impl<'a> ColumnIndex<'a> {
    /// Distinct values of the column.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Values below `rank`, which is a number in the order of the column's values.
    pub(crate) fn below(&self, rank: i64) -> usize {
        match self.values {
            Distinct::Places => usize::try_from(rank).unwrap_or(0).min(self.len()),
            Distinct::Integers(values) => values.partition_point(|value| *value < rank),
            Distinct::Floats(values) => values.partition_point(|value| self::rank(*value) < rank),
        }
    }

    fn rank_of(&self, place: usize) -> i64 {
        match self.values {
            Distinct::Places => place as i64,
            Distinct::Integers(values) => values[place],
            Distinct::Floats(values) => rank(values[place]),
        }
    }

    /// The place of the value that is `rank`.
    pub(crate) fn find(&self, rank: i64) -> Option<usize> {
        let place = self.below(rank);
        (place < self.len() && self.rank_of(place) == rank).then_some(place)
    }

    /// The rows of the values in `places`: those of each value growing.
    pub(crate) fn rows(&self, places: Range<usize>) -> &'a [u32] {
        &self.rows[self.starts[places.start] as usize..self.starts[places.end] as usize]
    }

    /// Pairs of a row and a value that it has.
    pub(crate) fn entries(&self) -> usize {
        self.rows.len()
    }

    /// Checks that the column index says of `column`, which is sound, what the column says, all of it and nothing else.
    pub(super) fn check(&self, column: &Column<'_>, field: u32) -> Result<(), SegmentError> {
        let whole = self.starts.first() == Some(&0)
            && self.starts.last().is_some_and(|end| *end as usize == self.rows.len());
        if !whole || !self.starts.is_sorted() {
            return refuse(field, "starts do not grow from 0 to the end of the rows");
        }
        let sound = match self.values {
            Distinct::Places => true,
            Distinct::Integers(values) => values.is_sorted_by(|a, b| a < b),
            // one zero, and that the positive one: a column index has one form
            Distinct::Floats(values) => {
                values.is_sorted_by(|a, b| a < b)
                    && values.iter().all(|v| v.is_finite() && (*v != 0.0 || v.is_sign_positive()))
            }
        };
        let used = |pair: &[u32]| matches!(self.values, Distinct::Places) || pair[0] < pair[1];
        if !sound || !self.starts.windows(2).all(used) {
            return refuse(field, "its values do not grow, or one has no row");
        }
        // filling the column index again from the column must lead to each of its rows, and to the end of each value's
        let mut next = self.starts[..self.len()].to_vec();
        let mut entered = 0;
        for (row, pair) in column.starts.windows(2).enumerate() {
            for at in pair[0]..pair[1] {
                let Some(place) = self.find(column.rank(at as usize)) else {
                    return refuse(field, format!("a value of row {row} is missing"));
                };
                let (begin, end) = (self.starts[place], self.starts[place + 1]);
                let next = &mut next[place];
                if *next > begin && self.rows[*next as usize - 1] as usize == row {
                    continue;
                }
                if *next == end || self.rows[*next as usize] as usize != row {
                    return refuse(field, format!("a value of row {row} has not that row"));
                }
                *next += 1;
                entered += 1;
            }
        }
        if entered != self.rows.len() {
            return refuse(field, "it names rows that have not the value");
        }
        Ok(())
    }
}
