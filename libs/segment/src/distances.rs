//! What searches ask of whatever a query is compared with.

/// Distances of a query to rows by number, by whatever is compared.
pub(crate) trait Distances {
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>);

    /// The same for rows that lie one after another, or nearly so.
    fn distances_in_turn(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.distances(rows, out);
    }
}
