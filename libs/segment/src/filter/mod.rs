//! Filters: what a query demands of the declared fields.
//!
//! The operators are `$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or $not`, with a bare value meaning `$eq`
//! and several names in one object meaning all of them. What they mean:
//! - A field has no, one or several values. A comparison matches a row when *any* of its values does; two operators
//!   on one field may be met by two different values.
//! - Missing, `null` and `[]` are all "no value". No comparison matches a row without a value, so their negations
//!   (`$ne`, `$nin`, `$not`) do. `null` in a filter means "no value": `{"a": null}` is `{"a": {"$exists": false}}`.
//! - Keywords order by their bytes, `false` before `true`; integers and floats compare as numbers of the field's type.
//!
//! A filter is parsed against the schema once and then evaluated: on a growing set row by row; on a segment by the
//! its column indexes, by whole columns, or on the rows that a walk meets, as `plan` says. All give the same rows.

mod bits;
mod bound;
mod parse;
mod plan;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use sluice_core::{ErrorKind, FieldType, FieldValue};
use thiserror::Error;

pub(crate) use bits::Bits;
pub(crate) use bound::{Bound, Candidates};
#[cfg(test)]
use plan::CountBounds;
pub(crate) use plan::{Facts, Plan, choose, patience};

use crate::row::ValueRef;

/// Deepest nesting of a filter.
pub(crate) const MAX_DEPTH: usize = 16;
/// Most conditions of a filter.
pub(crate) const MAX_NODES: usize = 1024;
/// Most values of one `$in` or `$nin`.
pub(crate) const MAX_LIST: usize = 4096;

/// A parsed filter; the fields it names are declared and its values of their types.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    root: Node,
}

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    #[error("the filter names field {field:?}, which is not declared; declared fields: {declared}")]
    UnknownField { field: String, declared: String },
    #[error("field {field} is of type {expected}, the filter compares it with {got}")]
    Type { field: String, expected: FieldType, got: String },
    #[error("{operator} is no operator; allowed: {allowed}")]
    UnknownOperator { operator: String, allowed: &'static str },
    #[error("{at} must be {expected}")]
    Shape { at: String, expected: &'static str },
    #[error("the filter has more than {max} {what}")]
    TooLarge { what: &'static str, max: usize },
}

impl FilterError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// Some value of `field` passes `test`.
    Some {
        field: usize,
        test: Test,
    },
}

/// What is asked of one value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// Anything: the field has a value.
    Exists,
    /// One of these, in growing order.
    OneOf(Vec<FieldValue>),
    Compare(Comparison, FieldValue),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    pub(crate) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// The order of two values of one type. Values of two types never meet: rows and filters were read by one schema.
pub(crate) fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    match (a, b) {
        (ValueRef::Keyword(a), ValueRef::Keyword(b)) => a.cmp(b),
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        // zero is one number, whichever its sign
        (ValueRef::Float(a), ValueRef::Float(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
        (ValueRef::Boolean(a), ValueRef::Boolean(b)) => a.cmp(&b),
        (ValueRef::Timestamp(a), ValueRef::Timestamp(b)) => a.cmp(&b),
        _ => Ordering::Less,
    }
}

impl Test {
    pub(crate) fn passes(&self, value: ValueRef<'_>) -> bool {
        match self {
            Self::Exists => true,
            Self::OneOf(list) => list.binary_search_by(|v| compare(v.into(), value)).is_ok(),
            Self::Compare(comparison, bound) => comparison.holds(compare(value, bound.into())),
        }
    }
}

impl Filter {
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// Whether a row passes whose values of field `f` are `values(f)`.
    pub(crate) fn matches<'a>(&self, values: &impl Fn(usize) -> &'a [FieldValue]) -> bool {
        matches_node(&self.root, values)
    }
}

fn matches_node<'a>(node: &Node, values: &impl Fn(usize) -> &'a [FieldValue]) -> bool {
    match node {
        Node::All(nodes) => nodes.iter().all(|n| matches_node(n, values)),
        Node::Any(nodes) => nodes.iter().any(|n| matches_node(n, values)),
        Node::Not(node) => !matches_node(node, values),
        Node::Some { field, test } => values(*field).iter().any(|v| test.passes(v.into())),
    }
}
