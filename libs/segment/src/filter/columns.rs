//! Filters on a segment: each condition is evaluated over its whole column, then the sets of rows are combined.

use super::{Comparison, Filter, Node, Test, compare};
use crate::row::ValueRef;
use crate::segment::{Column, Values};

/// A set of rows, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    rows: usize,
}

impl Bits {
    fn none(rows: usize) -> Self {
        Self { words: vec![0; rows.div_ceil(64)], rows }
    }

    pub(crate) fn all(rows: usize) -> Self {
        let mut bits = Self { words: vec![u64::MAX; rows.div_ceil(64)], rows };
        bits.cut();
        bits
    }

    /// Clears the bits beyond the last row.
    fn cut(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.rows.is_multiple_of(64)
        {
            *last &= (1 << (self.rows % 64)) - 1;
        }
    }

    #[inline]
    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64] >> (row % 64) & 1 == 1
    }

    fn insert(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// Takes rows out; those beyond the last row are passed over.
    pub(crate) fn remove(&mut self, rows: impl Iterator<Item = u32>) {
        for row in rows {
            if let Some(word) = self.words.get_mut(row as usize / 64) {
                *word &= !(1 << (row % 64));
            }
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The rows, in growing order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (mine, other) in self.words.iter_mut().zip(&other.words) {
            *mine = with(*mine, *other);
        }
    }
}

impl Filter {
    /// The rows whose columns pass, out of `rows`.
    pub(crate) fn evaluate<'a>(&self, rows: usize, column: &impl Fn(usize) -> Column<'a>) -> Bits {
        evaluate(self.root(), rows, column)
    }
}

fn evaluate<'a>(node: &Node, rows: usize, column: &impl Fn(usize) -> Column<'a>) -> Bits {
    match node {
        Node::All(nodes) => {
            let mut found = Bits::all(rows);
            for node in nodes {
                found.combine(&evaluate(node, rows, column), |a, b| a & b);
            }
            found
        }
        Node::Any(nodes) => {
            let mut found = Bits::none(rows);
            for node in nodes {
                found.combine(&evaluate(node, rows, column), |a, b| a | b);
            }
            found
        }
        Node::Not(node) => {
            let mut found = evaluate(node, rows, column);
            found.words.iter_mut().for_each(|w| *w = !*w);
            found.cut();
            found
        }
        Node::Some { field, test } => scan(&column(*field), rows, test),
    }
}

fn scan(column: &Column<'_>, rows: usize, test: &Test) -> Bits {
    match (test, &column.values) {
        (Test::Exists, _) => rows_where(column.starts, rows, |_| true),
        // words are in order, so a test on them is a test on their numbers
        (Test::OneOf(list), Values::Keyword { ids, words }) => {
            let wanted: Vec<u32> = list
                .iter()
                .filter_map(|v| match ValueRef::from(v) {
                    ValueRef::Keyword(text) => words.find(text).ok(),
                    _ => None,
                })
                .collect();
            match wanted.as_slice() {
                [] => Bits::none(rows),
                [one] => rows_where(column.starts, rows, |at| ids[at] == *one),
                many => rows_where(column.starts, rows, |at| many.binary_search(&ids[at]).is_ok()),
            }
        }
        (Test::Compare(comparison, bound), Values::Keyword { ids, words }) => {
            let ValueRef::Keyword(bound) = ValueRef::from(bound) else { return Bits::none(rows) };
            let place = words.find(bound);
            let at = place.unwrap_or_else(|at| at);
            let after = at + u32::from(place.is_ok());
            let (from, to) = match comparison {
                Comparison::Greater => (after, u32::MAX),
                Comparison::GreaterOrEqual => (at, u32::MAX),
                Comparison::Less => (0, at),
                Comparison::LessOrEqual => (0, after),
            };
            rows_where(column.starts, rows, |i| (from..to).contains(&ids[i]))
        }
        (Test::Compare(comparison, bound), _) => rows_where(column.starts, rows, |at| {
            comparison.holds(compare(column.values.get(at), bound.into()))
        }),
        (Test::OneOf(_), _) => rows_where(column.starts, rows, |at| test.passes(column.values.get(at))),
    }
}

/// The rows that have a value, by its place in the column, that passes.
fn rows_where(starts: &[u32], rows: usize, passes: impl Fn(usize) -> bool) -> Bits {
    let mut found = Bits::none(rows);
    for (row, pair) in starts.windows(2).enumerate() {
        if (pair[0]..pair[1]).any(|at| passes(at as usize)) {
            found.insert(row);
        }
    }
    found
}
