//! What searches ask of whatever a query is compared with.

/// Distances of a query to rows by number, by whatever is compared.
pub(crate) trait Distances {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>);

    /// Says that a row will be asked for soon, with others before it: it may be fetched meanwhile.
    fn prefetch(&self, _row: u32) {}

    /// The same as `distances` for rows that were all prefetched.
    fn distances_of_prefetched(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.distances(rows, out);
    }

    /// The same as `distances` for rows that lie one after another, or nearly so.
    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.distances(rows, out);
    }
}
