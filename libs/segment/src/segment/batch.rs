//! Many searches over one segment at once: those that compare with every row read each row together.

use roaring::RoaringBitmap;

use super::Segment;
use super::by_vector::ByVector;
use crate::distances::Distances;
use crate::near::{Near, TopK, hits};
use crate::score::Scorer;
use crate::{Cancelled, Hit, Query};

/// Bytes of vectors that all searches are compared with before the next ones are read: they stay in the second level
/// of cache.
const BLOCK: usize = 256 << 10;

impl Segment {
    /// What [`Segment::search`] gives for each of `queries`, in their order. Those that scan the full vectors of all
    /// live rows share the reading of them, which for a segment larger than the caches is most of what they cost.
    ///
    /// # Errors
    /// When one of the queries was cancelled.
    pub fn search_batch(
        &self,
        queries: &[Query<'_>],
        deleted: &RoaringBitmap,
    ) -> Result<Vec<Vec<Hit>>, Cancelled> {
        let (together, alone): (Vec<usize>, Vec<usize>) =
            (0..queries.len()).partition(|at| self.scans_all_vectors(&queries[*at]));
        let mut found = vec![Vec::new(); queries.len()];
        for at in alone {
            found[at] = self.search(&queries[at], deleted)?;
        }
        let scanning: Vec<&Query<'_>> = together.iter().map(|at| &queries[*at]).collect();
        for (at, hits) in together.into_iter().zip(self.scan_together(&scanning, deleted)?) {
            found[at] = hits;
        }
        Ok(found)
    }

    fn scans_all_vectors(&self, query: &Query<'_>) -> bool {
        query.filter.is_none()
            && query.k > 0
            && (query.exact || !(self.has_graph() || self.codes().is_some()))
    }

    fn scan_together(
        &self,
        queries: &[&Query<'_>],
        deleted: &RoaringBitmap,
    ) -> Result<Vec<Vec<Hit>>, Cancelled> {
        let scorers: Vec<Scorer<'_>> =
            queries.iter().map(|query| Scorer::new(self.meta.metric, query.vector.as_slice())).collect();
        let mut parts: Vec<(ByVector<'_>, TopK)> = scorers
            .iter()
            .zip(queries)
            .map(|(scorer, query)| (ByVector::new(self, scorer), TopK::new(query.k, self.rows())))
            .collect();
        let rows_at_once = (BLOCK / (4 * self.meta.dimension.get())).max(1);
        let mut live = (0..self.meta.rows).filter(|row| !deleted.contains(*row));
        let (mut block, mut lengths) = (Vec::with_capacity(rows_at_once), Vec::with_capacity(rows_at_once));
        while !parts.is_empty() {
            block.clear();
            block.extend(live.by_ref().take(rows_at_once));
            if block.is_empty() {
                break;
            }
            for (at, ((vectors, top), query)) in parts.iter_mut().zip(queries).enumerate() {
                query.check_cancelled()?;
                lengths.clear();
                match at {
                    0 => vectors.distances_in_turn(&block, &mut lengths),
                    _ => vectors.distances_at_hand(&block, &mut lengths),
                }
                block.iter().zip(&lengths).for_each(|(row, length)| top.offer(Near::new(*length, *row)));
            }
        }
        let tops = parts.into_iter().map(|(_, top)| top.into_sorted());
        let answers = tops.zip(&scorers).zip(queries);
        Ok(answers.map(|((top, scorer), query)| hits(top.into_iter(), scorer, query.bound)).collect())
    }
}
