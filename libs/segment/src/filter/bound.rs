//! A filter bound to the columns of one segment: conditions on the ranks of values, which are cheap to compare.
//!
//! Three ways lead from it to rows, and all give the same ones: [`Bound::passes`] looks at one row, [`Bound::bits`]
//! scans whole columns, and [`Bound::list`] takes candidates from column indexes and looks at each.

use std::ops::Range;

use sluice_core::FieldValue;

use super::bits::Bits;
use super::plan::CountBounds;
use super::{Comparison, Filter, Node, Test};
use crate::column_index::rank;
use crate::row::ValueRef;
use crate::segment::{Column, ColumnIndex, Values};

/// A filter on the rows of one segment.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    root: Part<'a>,
    rows: usize,
}

#[derive(Debug)]
enum Part<'a> {
    All(Vec<Part<'a>>),
    Any(Vec<Part<'a>>),
    Not(Box<Part<'a>>),
    Some(Box<Condition<'a>>),
}

/// Some value of a column is wanted.
#[derive(Debug)]
struct Condition<'a> {
    column: Column<'a>,
    wanted: Wanted,
    /// Which values of the column index these are, if it has one.
    places: Option<(ColumnIndex<'a>, Vec<Range<usize>>)>,
}

/// Which ranks are wanted.
#[derive(Debug)]
enum Wanted {
    Anything,
    /// From the first to the last.
    Within(i64, i64),
    /// Growing.
    OneOf(Vec<i64>),
}

/// Rows among which all are that pass, as slices of column indexes; a row may stand in several.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    slices: Vec<&'a [u32]>,
    /// All of them pass.
    all_pass: bool,
}

impl Candidates<'_> {
    pub(crate) fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum()
    }

    /// Whether taking them one by one costs less than passing over the columns of all `rows`.
    pub(crate) fn are_few(&self, rows: usize) -> bool {
        // rows of one value, or of neighbouring ones where they stand in order, are only copied
        (self.all_pass && self.slices.len() <= 1 && self.len() * 2 <= rows) || self.len() * 8 <= rows
    }
}

impl Filter {
    /// The filter on a segment of so many rows and these columns.
    pub(crate) fn bind<'a>(&self, rows: usize, column: &impl Fn(usize) -> Column<'a>) -> Bound<'a> {
        Bound { root: part(self.root(), column), rows }
    }
}

fn part<'a>(node: &Node, column: &impl Fn(usize) -> Column<'a>) -> Part<'a> {
    let parts = |nodes: &[Node]| nodes.iter().map(|node| part(node, column)).collect();
    match node {
        Node::All(nodes) => Part::All(parts(nodes)),
        Node::Any(nodes) => Part::Any(parts(nodes)),
        Node::Not(node) => Part::Not(Box::new(part(node, column))),
        Node::Some { field, test } => Part::Some(Box::new(Condition::new(column(*field), test))),
    }
}

impl<'a> Bound<'a> {
    /// Whether `row` passes.
    #[inline]
    pub(crate) fn passes(&self, row: u32) -> bool {
        self.root.passes(row as usize)
    }

    /// Between which numbers the count of rows that pass lies; the two are one for a single condition on a field
    /// that has at most one value in each row, and for a single value.
    pub(crate) fn bounds(&self) -> CountBounds {
        self.root.bounds(self.rows)
    }

    /// The rows that pass, by whole columns.
    pub(crate) fn bits(&self) -> Bits {
        self.root.bits(self.rows)
    }

    /// The fewest candidates that the column indexes give; `None` where they do not narrow the rows down.
    pub(crate) fn candidates(&self) -> Option<Candidates<'a>> {
        self.root.candidates()
    }

    /// The rows that pass and that `keep` keeps, in growing order.
    pub(crate) fn list(&self, candidates: &Candidates<'_>, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let wanted = |row: &u32| (candidates.all_pass || self.passes(*row)) && keep(*row);
        let mut rows = Vec::with_capacity(candidates.len());
        for slice in &candidates.slices {
            rows.extend(slice.iter().copied().filter(wanted));
        }
        if !rows.is_sorted_by(|a, b| a < b) {
            rows.sort_unstable();
            rows.dedup();
        }
        rows
    }

    /// About how many rows pass: told by looking at some `sample` of the candidates, or of all rows.
    pub(crate) fn estimate(&self, candidates: Option<&Candidates<'_>>, sample: usize) -> usize {
        let of = candidates.map_or(self.rows, Candidates::len);
        let step = of.div_ceil(sample).max(1);
        let (looked_at, passed) = match candidates {
            Some(candidates) => {
                let mut skip = 0;
                let mut seen = (0, 0);
                for slice in &candidates.slices {
                    for row in slice.iter().skip(skip).step_by(step) {
                        seen = (seen.0 + 1, seen.1 + usize::from(self.passes(*row)));
                    }
                    // where the next slice is entered, so that steps go on over the end of this one
                    let left = slice.len().saturating_sub(skip);
                    skip = (skip + left.div_ceil(step) * step).saturating_sub(slice.len());
                }
                seen
            }
            None => {
                let rows = (0..self.rows as u32).step_by(step);
                (rows.len(), rows.filter(|row| self.passes(*row)).count())
            }
        };
        let bounds = self.bounds();
        // half a row more than was seen: what was not met in a sample may be there
        let estimate = (2 * passed + 1) * of / (2 * looked_at.max(1));
        estimate.clamp(bounds.least, bounds.most)
    }
}

impl<'a> Part<'a> {
    fn passes(&self, row: usize) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.passes(row)),
            Self::Any(parts) => parts.iter().any(|part| part.passes(row)),
            Self::Not(part) => !part.passes(row),
            Self::Some(condition) => condition.passes(row),
        }
    }

    fn bounds(&self, rows: usize) -> CountBounds {
        match self {
            Self::All(parts) => CountBounds::all(parts.iter().map(|part| part.bounds(rows)), rows),
            Self::Any(parts) => CountBounds::any(parts.iter().map(|part| part.bounds(rows)), rows),
            Self::Not(part) => part.bounds(rows).not(rows),
            Self::Some(condition) => condition.bounds(),
        }
    }

    fn bits(&self, rows: usize) -> Bits {
        match self {
            Self::All(parts) => {
                let mut found = Bits::all(rows);
                parts.iter().for_each(|part| found.combine(&part.bits(rows), |a, b| a & b));
                found
            }
            Self::Any(parts) => {
                let mut found = Bits::none(rows);
                parts.iter().for_each(|part| found.combine(&part.bits(rows), |a, b| a | b));
                found
            }
            Self::Not(part) => {
                let mut found = part.bits(rows);
                found.invert();
                found
            }
            Self::Some(condition) => condition.bits(rows),
        }
    }

    fn candidates(&self) -> Option<Candidates<'a>> {
        match self {
            Self::All(parts) => {
                let fewest = parts.iter().filter_map(Self::candidates).min_by_key(Candidates::len)?;
                Some(Candidates { all_pass: fewest.all_pass && parts.len() == 1, ..fewest })
            }
            Self::Any(parts) => {
                let parts = parts.iter().map(Self::candidates).collect::<Option<Vec<_>>>()?;
                let all_pass = parts.iter().all(|part| part.all_pass);
                Some(Candidates {
                    slices: parts.into_iter().flat_map(|part| part.slices).collect(),
                    all_pass,
                })
            }
            Self::Not(_) => None,
            Self::Some(condition) => {
                let (index, places) = condition.places.as_ref()?;
                let slices = places.iter().map(|places| index.rows(places.clone())).collect();
                Some(Candidates { slices, all_pass: true })
            }
        }
    }
}

impl<'a> Condition<'a> {
    fn new(column: Column<'a>, test: &Test) -> Self {
        let wanted = Wanted::new(&column.values, test);
        let places = column.index.map(|index| (index, wanted.places(&index)));
        Self { column, wanted, places }
    }

    fn passes(&self, row: usize) -> bool {
        let values = self.column.starts[row] as usize..self.column.starts[row + 1] as usize;
        values.into_iter().any(|at| self.wanted.holds(self.column.rank(at)))
    }

    fn bounds(&self) -> CountBounds {
        let present = self.column.present as usize;
        match (&self.wanted, &self.places) {
            (Wanted::Anything, _) => CountBounds { least: present, most: present },
            (_, None) => CountBounds { least: 0, most: present },
            (_, Some((index, places))) => {
                let groups = places.iter().map(|places| index.rows(places.clone()).len());
                let one = places.iter().filter(|places| places.len() == 1);
                let largest = one.map(|places| index.rows(places.clone()).len()).max().unwrap_or(0);
                CountBounds::of_values(groups.sum(), largest, index.entries(), present)
            }
        }
    }

    fn bits(&self, rows: usize) -> Bits {
        let starts = self.column.starts;
        match self.column.values {
            Values::Keyword { ids, .. } => self.wanted.bits(starts, rows, |at| ids[at].into()),
            Values::Integer(values) | Values::Timestamp(values) => {
                self.wanted.bits(starts, rows, |at| values[at])
            }
            Values::Float(values) => self.wanted.bits(starts, rows, |at| rank(values[at])),
            Values::Boolean(values) => self.wanted.bits(starts, rows, |at| values[at].into()),
        }
    }
}

impl Wanted {
    fn new(values: &Values<'_>, test: &Test) -> Self {
        match test {
            Test::Exists => Self::Anything,
            Test::OneOf(list) => {
                Self::OneOf(list.iter().filter_map(|v| place(values, v)).filter_map(Result::ok).collect())
            }
            Test::Compare(comparison, bound) => {
                let Some(place) = place(values, bound) else { return Self::OneOf(Vec::new()) };
                // the first that is not less, and the first that is greater
                let (at, after) = match place {
                    Ok(at) => (at, at.checked_add(1)),
                    Err(at) => (at, Some(at)),
                };
                let (first, last) = match comparison {
                    Comparison::Greater => (after, Some(i64::MAX)),
                    Comparison::GreaterOrEqual => (Some(at), Some(i64::MAX)),
                    Comparison::Less => (Some(i64::MIN), at.checked_sub(1)),
                    Comparison::LessOrEqual => {
                        (Some(i64::MIN), after.map_or(Some(i64::MAX), |a| a.checked_sub(1)))
                    }
                };
                match (first, last) {
                    (Some(first), Some(last)) => Self::Within(first, last),
                    _ => Self::OneOf(Vec::new()),
                }
            }
        }
    }

    #[inline]
    fn holds(&self, rank: i64) -> bool {
        match self {
            Self::Anything => true,
            Self::Within(first, last) => (*first..=*last).contains(&rank),
            Self::OneOf(list) => list.binary_search(&rank).is_ok(),
        }
    }

    /// Which values of a column index are wanted.
    fn places(&self, index: &ColumnIndex<'_>) -> Vec<Range<usize>> {
        let range = match self {
            Self::Anything => 0..index.len(),
            Self::Within(first, last) => {
                let from = index.below(*first);
                let to = last.checked_add(1).map_or(index.len(), |after| index.below(after));
                from..to.max(from)
            }
            Self::OneOf(list) => {
                let found = list.iter().filter_map(|rank| index.find(*rank));
                return found.map(|place| place..place + 1).collect();
            }
        };
        std::iter::once(range).collect()
    }

    /// The rows that have a value that is wanted.
    fn bits(&self, starts: &[u32], rows: usize, rank: impl Fn(usize) -> i64) -> Bits {
        match self {
            Self::Anything => rows_where(starts, rows, |_| true),
            Self::Within(first, last) => rows_where(starts, rows, |at| (*first..=*last).contains(&rank(at))),
            Self::OneOf(list) => match list.as_slice() {
                [] => Bits::none(rows),
                [one] => rows_where(starts, rows, |at| rank(at) == *one),
                many => rows_where(starts, rows, |at| many.binary_search(&rank(at)).is_ok()),
            },
        }
    }
}

/// The rank of a value of a filter among those of a column; of a word that the column has not, where it would stand.
/// `None` where the types differ, which the schema rules out.
fn place(values: &Values<'_>, value: &FieldValue) -> Option<Result<i64, i64>> {
    match (values, ValueRef::from(value)) {
        (Values::Keyword { words, .. }, ValueRef::Keyword(word)) => {
            Some(words.find(word).map(i64::from).map_err(i64::from))
        }
        (Values::Integer(_), ValueRef::Integer(n)) | (Values::Timestamp(_), ValueRef::Timestamp(n)) => {
            Some(Ok(n))
        }
        (Values::Float(_), ValueRef::Float(n)) => Some(Ok(rank(n))),
        (Values::Boolean(_), ValueRef::Boolean(b)) => Some(Ok(i64::from(b))),
        _ => None,
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
