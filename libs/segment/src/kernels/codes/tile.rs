//! A tile: the distances of 48 rows to 48 columns, the dense step of building a graph.
//!
//! Rows lie one after another as codes. Columns lie in a panel as signed codes: for each group of four components the
//! four bytes of column 0, of column 1, and so on, so that one load serves sixteen columns.

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 48;

/// Bytes of a panel per group of four components.
pub(crate) const PANEL_STEP: usize = 4 * TILE;

/// What code 0 looks like in the rows of a narrow tile.
pub(crate) const NARROW_ZERO: u8 = 32;

/// The largest code of a narrow tile, either way.
pub(crate) const NARROWEST: i8 = 31;

/// Groups of a narrow tile of which 16 bits hold the sum: products of up to (32 + 31) x 31, two of each group.
pub(super) const NARROW_GROUPS: usize = 8;
const _: () = assert!(
    NARROW_GROUPS * 2 * (NARROW_ZERO as usize + NARROWEST as usize) * NARROWEST as usize <= i16::MAX as usize
);

/// What turns sums of products into distances, for the rows or the columns of a tile.
#[derive(Debug, Clone)]
pub(crate) struct Constants {
    /// What one step of a code is worth.
    pub(crate) scales: [f32; TILE],
    /// Squared length.
    pub(crate) norms: [f32; TILE],
    /// One more component, which has no code.
    pub(crate) extras: [f32; TILE],
    /// What code 0 of a row looks like x the sum of the codes; only that of a column counts.
    pub(crate) biases: [i32; TILE],
}

impl Default for Constants {
    fn default() -> Self {
        Self { scales: [0.0; TILE], norms: [0.0; TILE], extras: [0.0; TILE], biases: [0; TILE] }
    }
}

/// What a tile is computed from.
#[derive(Debug)]
pub(crate) struct Tile<'a> {
    /// `TILE` rows of `stride` codes.
    pub(crate) rows: &'a [u8],
    pub(crate) stride: usize,
    /// `groups` steps of [`PANEL_STEP`] bytes; 4 x `groups` is at most `stride`.
    pub(crate) panel: &'a [i8],
    pub(crate) groups: usize,
    /// Codes are no larger than [`NARROWEST`] and rows are [`NARROW_ZERO`] more than that; a kernel may do with 16 bits.
    pub(crate) narrow: bool,
    pub(crate) row: &'a Constants,
    pub(crate) column: &'a Constants,
    /// Distances below these are marked.
    pub(crate) row_bounds: &'a [f32; TILE],
    pub(crate) column_bounds: &'a [f32; TILE],
}

impl Tile<'_> {
    /// Whether the slices are as long as kernels count on.
    pub(super) fn assert_lengths(&self) {
        assert!(self.rows.len() >= TILE * self.stride && 4 * self.groups <= self.stride);
        assert!(self.panel.len() >= self.groups * PANEL_STEP);
    }

    /// Whether its numbers are those of a narrow tile.
    pub(super) fn is_narrow(&self) -> bool {
        let (least, most) = (NARROW_ZERO - NARROWEST.unsigned_abs(), NARROW_ZERO + NARROWEST.unsigned_abs());
        self.rows.iter().all(|byte| (least..=most).contains(byte))
            && self.panel.iter().all(|code| code.unsigned_abs() <= NARROWEST.unsigned_abs())
    }
}

/// What a tile gives.
#[derive(Debug, Clone)]
pub(crate) struct TileOut {
    /// Row by row.
    pub(crate) distances: [[f32; TILE]; TILE],
    /// For each row a bit per column: the distance is below the row's bound.
    pub(crate) row_masks: [u64; TILE],
    /// For each row a bit per column: the distance is below the column's bound.
    pub(crate) column_masks: [u64; TILE],
}

impl Default for TileOut {
    fn default() -> Self {
        Self { distances: [[0.0; TILE]; TILE], row_masks: [0; TILE], column_masks: [0; TILE] }
    }
}
