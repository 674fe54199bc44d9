//! The graph of a segment: flat arrays of neighbours, level by level.

mod build;
mod repair;
mod space;
mod walk;

pub(crate) use build::build;
pub(crate) use walk::{Links, Scratch, Target, Walked, beam, descend};

/// A graph as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Neighbours per row of level 0.
    pub(crate) stride0: usize,
    /// Neighbours per node of an upper level.
    pub(crate) stride: usize,
    /// Place of the entry point in the highest level; its row, where there is no upper level.
    pub(crate) entry: u32,
    /// Rows from which every walk over level 0 starts, beside the one that the upper levels lead to.
    pub(crate) seeds: Vec<u32>,
    /// `stride0` neighbours per row, filled up with `NO_ROW`.
    pub(crate) level0: Vec<u32>,
    /// Level 1, 2, ..
    pub(crate) upper: Vec<Level>,
}

/// One upper level of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    /// The rows of its nodes, in growing order.
    pub(crate) rows: Vec<u32>,
    /// Each node's place in the level below.
    pub(crate) below: Vec<u32>,
    /// `stride` neighbours per node, as places in this level, filled up with `NO_ROW`.
    pub(crate) neighbours: Vec<u32>,
}
