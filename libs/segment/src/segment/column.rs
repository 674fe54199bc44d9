//! A declared field as a column: where each row's values begin, and the values.

use std::cmp::Ordering;

use super::column_index::ColumnIndex;
use crate::column_index::rank;
use crate::row::ValueRef;

/// The values of one field; row `r` has those from `starts[r]` to `starts[r + 1]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    pub(crate) starts: &'a [u32],
    pub(crate) values: Values<'a>,
    /// Rows that have a value.
    pub(crate) present: u32,
    /// Absent in files that were written before there were column indexes.
    pub(crate) index: Option<ColumnIndex<'a>>,
}

impl Column<'_> {
    /// A number in the order of the column's values: of a word its place in the dictionary, of a float its rank.
    #[inline]
    pub(crate) fn rank(&self, at: usize) -> i64 {
        match self.values {
            Values::Keyword { ids, .. } => ids[at].into(),
            Values::Integer(values) | Values::Timestamp(values) => values[at],
            Values::Float(values) => rank(values[at]),
            Values::Boolean(values) => values[at].into(),
        }
    }
}

/// The values of a column, by type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    Keyword { ids: &'a [u32], words: Words<'a> },
    Integer(&'a [i64]),
    Float(&'a [f64]),
    Boolean(&'a [u8]),
    Timestamp(&'a [i64]),
}

impl<'a> Values<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Keyword { ids, .. } => ids.len(),
            Self::Integer(values) | Self::Timestamp(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Boolean(values) => values.len(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> ValueRef<'a> {
        match self {
            Self::Keyword { ids, words } => ValueRef::Keyword(words.get(ids[at] as usize)),
            Self::Integer(values) => ValueRef::Integer(values[at]),
            Self::Float(values) => ValueRef::Float(values[at]),
            Self::Boolean(values) => ValueRef::Boolean(values[at] == 1),
            Self::Timestamp(values) => ValueRef::Timestamp(values[at]),
        }
    }
}

/// The dictionary of a keyword column: distinct words in the order of their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) starts: &'a [u64],
    pub(crate) bytes: &'a [u8],
}

impl<'a> Words<'a> {
    pub(crate) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(crate) fn get(&self, at: usize) -> &'a str {
        super::text(&self.bytes[self.starts[at] as usize..self.starts[at + 1] as usize])
    }

    /// The number of `word`, or where it would stand.
    pub(crate) fn find(&self, word: &str) -> Result<u32, u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(word) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle as u32),
            }
        }
        Err(low as u32)
    }
}
