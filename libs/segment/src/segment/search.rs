//! Search over one segment: a walk over its graph, or a scan of the rows that match.
//!
//! Indexes of columns tell about how many rows match before the search begins (see `select`), and the choice between
//! the two is made by that: few rows are scanned, many are walked to, and then only rows that the walk meets are asked
//! whether they match. A walk that finds fewer than `k`, or that computes more distances than a scan would, is given
//! up for the scan; so `k` live matches come back whenever `k` exist, at no more than a few times the cost of the scan.
//!
//! Where the segment has codes, walks and scans go by them, and the nearest are compared once more by their full
//! vectors; an exact search reads full vectors only.

use std::cell::Cell;

use roaring::RoaringBitmap;

use super::Segment;
use super::by_vector::ByVector;
use super::select::{Rows, Selection};
use crate::codes::{CodeView, QueryCodes};
use crate::distances::Distances;
use crate::filter::{Plan, choose, patience};
use crate::graph::{Keep, Links, Scratch, Target, Walked, approach, beam, pool};
use crate::near::{Near, TopK, hits};
use crate::score::Scorer;
use crate::{Cancelled, Hit, Query};

/// Rows between two looks at the cancelled flag.
const CHECK_EVERY: usize = 256;

/// Rows that are compared by their full vectors at once: beyond, those that a scan by codes leaves over are fewer.
const FEW: usize = 96;

thread_local! {
    /// Each thread's memory for searches; it grows to one byte per row of the largest segment searched.
    static MEMORY: Cell<Memory> = Cell::default();
}

/// What a search needs of memory, kept from one to the next.
#[derive(Default)]
struct Memory {
    scratch: Scratch,
    query: QueryCodes,
}

/// The rows that may stand in the answer.
enum Live<'a> {
    All,
    AllBut(&'a RoaringBitmap),
    These(Box<Selection<'a>>),
}

impl Live<'_> {
    #[inline]
    fn contains(&self, row: u32) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(deleted) => !deleted.contains(row),
            Self::These(selection) => selection.contains(row),
        }
    }
}

impl Segment {
    /// The nearest rows that pass the filter and are not in `deleted`: `k` of them whenever so many exist.
    ///
    /// # Errors
    /// When the query was cancelled.
    pub fn search(&self, query: &Query<'_>, deleted: &RoaringBitmap) -> Result<Vec<Hit>, Cancelled> {
        if query.k == 0 {
            return Ok(Vec::new());
        }
        query.check_cancelled()?;
        let live = match query.filter {
            None if deleted.is_empty() => Live::All,
            None => Live::AllBut(deleted),
            Some(filter) => Live::These(Box::new(Selection::new(self, filter, deleted))),
        };
        // only a choice between walking and scanning needs to know how many there are
        let (count, most) = match &live {
            Live::These(selection) if self.has_graph() && !query.exact => {
                (selection.estimate(), selection.most())
            }
            Live::All | Live::These(_) => (self.rows(), self.rows()),
            Live::AllBut(deleted) => (self.live(deleted), self.live(deleted)),
        };
        let scorer = Scorer::new(self.meta.metric, query.vector.as_slice());
        let vectors = ByVector::new(self, &scorer);
        let search = Search { segment: self, query, live: &live, count, most, finds_more: false };
        // comparing so few by their codes first would spare nothing
        let coded = if query.exact || most <= FEW { None } else { self.codes() };
        let Some(codes) = coded else {
            let mut memory = MEMORY.take();
            let found = search.run(&vectors, query.k, &mut memory.scratch);
            MEMORY.set(memory);
            return Ok(hits(found?.rows.into_iter(), &scorer, query.bound));
        };
        let mut memory = MEMORY.take();
        let Memory { scratch, query: codes_of_query } = &mut memory;
        let (metric, vector) = (self.meta.metric, scorer.query());
        let (found, wanted) = match codes {
            CodeView::Whole(codes) => {
                let wanted = query.k.saturating_add(again(query.k));
                (search.run(&codes.compared_with(vector, metric, codes_of_query), wanted, scratch), wanted)
            }
            CodeView::Short(codes) => {
                let wanted = query.k.saturating_add(again_along_axes(query.k, query.ef));
                let search = Search { finds_more: true, ..search };
                (search.run(&codes.compared_with(vector, metric, codes_of_query), wanted, scratch), wanted)
            }
        };
        MEMORY.set(memory);
        let found = found?;
        let found = match found.scanned && is_crowded(&found.rows, wanted, query.k) {
            true => search.scan(&vectors, query.k)?,
            false => vectors.order(&found.rows, query.k),
        };
        Ok(hits(found.into_iter(), &scorer, query.bound))
    }
}

/// How many more than `k` rows are compared once more by their full vectors.
fn again(k: usize) -> usize {
    (k / 2).max(20)
}

/// The same, of rows compared by short codes, which say less of the order of rows that are nearly as near.
fn again_along_axes(k: usize, ef: usize) -> usize {
    again(k).max(k).max((ef / 2).min(k.saturating_mul(4)))
}

/// How many of `found` are to be compared once more: `wanted`, but of a run of equally near rows only `k` count, so
/// that copies of one vector, coded a little too near, do not keep others from that.
fn worth_a_look(found: &[Near], wanted: usize, k: usize) -> usize {
    let (mut counted, mut run) = (0, 0);
    for (at, near) in found.iter().enumerate() {
        if counted == wanted {
            return at;
        }
        run = if at > 0 && found[at - 1].is_as_near_as(*near) { run + 1 } else { 1 };
        counted += usize::from(run <= k);
    }
    found.len()
}

/// Whether copies of one vector, coded a little too near, may have kept others out of a scan for `wanted` rows: they
/// took more places than there are hits.
fn is_crowded(found: &[Near], wanted: usize, k: usize) -> bool {
    found.len() >= wanted && found.chunk_by(|a, b| a.is_as_near_as(*b)).any(|run| run.len() > k)
}

/// Rows in rank order, and how they were found.
struct Found {
    rows: Vec<Near>,
    /// By comparing all of them; else by a walk.
    scanned: bool,
}

/// One search over one segment.
#[derive(Clone, Copy)]
struct Search<'a> {
    segment: &'a Segment,
    query: &'a Query<'a>,
    live: &'a Live<'a>,
    /// Rows that may stand in the answer, or about so many.
    count: usize,
    /// No more rows than these may stand in it.
    most: usize,
    /// Whether a walk finds all rows that it is wanted to find, though it goes on from fewer.
    finds_more: bool,
}

impl Search<'_> {
    /// The nearest `wanted` rows by `distances`, best first; at least `k` where there are so many.
    fn run(
        &self,
        distances: &impl Distances,
        wanted: usize,
        scratch: &mut Scratch,
    ) -> Result<Found, Cancelled> {
        let rows = self.segment.rows();
        let ef = self.query.ef.max(self.query.k).min(rows);
        if !self.query.exact
            && self.segment.has_graph()
            && let (Plan::Walk, limit) = self.plan(ef)
            && let Some(found) = self.walk(distances, wanted, (ef, limit), scratch)?
        {
            return Ok(Found { rows: found, scanned: false });
        }
        Ok(Found { rows: self.scan(distances, wanted)?, scanned: true })
    }

    /// How to search, and how many distances a walk may compute.
    fn plan(&self, ef: usize) -> (Plan, usize) {
        match self.live {
            Live::These(selection) => {
                let facts = selection.facts(self.count, ef);
                (choose(facts), patience(facts))
            }
            Live::All | Live::AllBut(_) => {
                let (count, rows) = (self.count as u128, self.segment.rows() as u128);
                // a walk for ef rows of which one in rows / count is live computes 20 x ef x rows / count distances
                let walks = count * count > 20 * ef as u128 * rows;
                (if walks { Plan::Walk } else { Plan::Scan }, self.count.saturating_add(64 * ef))
            }
        }
    }

    /// Walks the graph; `None` when that leads to fewer rows than there are, or too far.
    fn walk(
        &self,
        distances: &impl Distances,
        wanted: usize,
        (ef, limit): (usize, usize),
        scratch: &mut Scratch,
    ) -> Result<Option<Vec<Near>>, Cancelled> {
        let (layout, bytes) = (&self.segment.layout, &self.segment.bytes);
        let Some(graph) = &self.segment.meta.graph else { return Ok(None) };
        let target = OnGraph { search: self, distances };
        let levels = (1..=layout.upper_levels()).rev().map(|level| layout.upper(bytes, level));
        let (stride, width) = (graph.stride as usize, graph.width as usize);
        approach(levels, graph.entry, (stride, width), &target, scratch)?;
        let links = Links { neighbours: layout.level0(bytes), stride: graph.stride0 as usize };
        let reached = scratch.take_starts();
        let starts = reached.iter().chain(&graph.seeds).copied();
        let walked = match self.live {
            Live::All => {
                let found = if self.finds_more { wanted } else { 0 };
                pool(links, starts, Keep { ef, found, alike: wanted }, &target, scratch)?;
                Walked::Done
            }
            // here it goes on from all that it finds, so a few more must do
            _ if self.finds_more => {
                let ef = ef.max(self.query.k.saturating_add(self.query.k / 2));
                beam(links, starts, ef, limit, &target, scratch)?
            }
            _ => beam(links, starts, ef, limit, &target, scratch)?,
        };
        scratch.give_back(reached);
        let found = scratch.found();
        let complete = walked == Walked::Done && found.len() >= self.query.k.min(self.most);
        Ok(complete.then(|| found[..worth_a_look(found, wanted, self.query.k)].to_vec()))
    }

    /// Compares the query with every live row.
    fn scan(&self, distances: &impl Distances, wanted: usize) -> Result<Vec<Near>, Cancelled> {
        let rows = 0..self.segment.meta.rows;
        let in_turn = |rows: &[u32], out: &mut Vec<f32>| distances.distances_in_turn(rows, out);
        let here_and_there = |rows: &[u32], out: &mut Vec<f32>| distances.distances(rows, out);
        match self.live {
            Live::All => self.scan_rows(rows, in_turn, wanted),
            Live::AllBut(deleted) => {
                self.scan_rows(rows.filter(|row| !deleted.contains(*row)), in_turn, wanted)
            }
            Live::These(selection) => match selection.all() {
                Rows::List(rows) => self.scan_rows(rows.into_iter(), here_and_there, wanted),
                Rows::Bits(rows) => self.scan_rows(rows.iter(), here_and_there, wanted),
            },
        }
    }

    fn scan_rows(
        &self,
        mut rows: impl Iterator<Item = u32>,
        distances: impl Fn(&[u32], &mut Vec<f32>),
        wanted: usize,
    ) -> Result<Vec<Near>, Cancelled> {
        let mut top = TopK::new(wanted, self.most);
        let mut batch = Vec::with_capacity(CHECK_EVERY);
        let mut lengths = Vec::with_capacity(CHECK_EVERY);
        loop {
            batch.clear();
            batch.extend(rows.by_ref().take(CHECK_EVERY));
            if batch.is_empty() {
                return Ok(top.into_sorted());
            }
            self.query.check_cancelled()?;
            lengths.clear();
            distances(&batch, &mut lengths);
            batch.iter().zip(&lengths).for_each(|(row, distance)| top.offer(Near::new(*distance, *row)));
        }
    }
}

/// The query among the rows of the graph.
struct OnGraph<'a, D> {
    search: &'a Search<'a>,
    distances: &'a D,
}

impl<D: Distances> Target for OnGraph<'_, D> {
    #[inline]
    fn distances(&self, rows: &[u32], out: &mut Vec<f32>) {
        self.distances.distances_of_prefetched(rows, out);
    }

    #[inline]
    fn prefetch(&self, row: u32) {
        self.distances.prefetch(row);
    }

    #[inline]
    fn admits(&self, row: u32) -> bool {
        self.search.live.contains(row)
    }

    fn check_cancelled(&self) -> Result<(), Cancelled> {
        self.search.query.check_cancelled()
    }
}
