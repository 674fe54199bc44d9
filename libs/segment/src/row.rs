//! A row: one live record as a growing set or a segment holds it.

use sluice_core::{Offset, Timestamp};

use crate::Components;

/// One live record, borrowed from the set or segment that holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowRef<'a> {
    pub key: &'a str,
    /// The record's version.
    pub offset: Offset,
    /// The log's time; decides only between partitions.
    pub timestamp: Timestamp,
    /// The vector as the producer sent it, or the nearest to it that the index keeps.
    pub vector: Components<'a>,
    /// The record's JSON attributes, a JSON object as text.
    pub metadata: &'a str,
}

/// One value of a declared field, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ValueRef<'a> {
    Keyword(&'a str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Timestamp(i64),
}

impl<'a> From<&'a sluice_core::FieldValue> for ValueRef<'a> {
    fn from(value: &'a sluice_core::FieldValue) -> Self {
        use sluice_core::FieldValue;
        match value {
            FieldValue::Keyword(text) => Self::Keyword(text),
            FieldValue::Integer(n) => Self::Integer(*n),
            FieldValue::Float(n) => Self::Float(*n),
            FieldValue::Boolean(b) => Self::Boolean(*b),
            FieldValue::Timestamp(at) => Self::Timestamp(at.0),
        }
    }
}

/// Rows in the order in which they stand in a segment: what a build reads.
///
/// Implementors are cheap to ask: a build asks for each row several times.
pub(crate) trait Rows: Sync {
    fn len(&self) -> usize;
    fn row(&self, at: usize) -> RowRef<'_>;
    /// Calls `each` with every value of declared field `field` of row `at`.
    fn values<'a>(&'a self, at: usize, field: usize, each: &mut dyn FnMut(ValueRef<'a>));
}
