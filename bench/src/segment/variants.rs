//! Segments that are not fresh and whole: merged, with deleted rows, and searched with filters.

use anyhow::{Context, Result};
use rayon::ThreadPool;
use roaring::RoaringBitmap;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_core::{FieldType, GraphBuilder, Metadata, Vector};
use sluice_segment::{BuildOptions, Filter, Query, Segment, merge, seal};
use tempfile::TempDir;

use super::builder_name;
use super::curve::{Point, median, reaches};
use super::ours::{NEVER, filtered, growing_set, metadata, options, plain, schema, vectors};
use super::protocol::Open;
use super::serve::pool;
use super::truth::Truth;
use crate::exact::Exact;
use crate::generate::Random;
use crate::npy::{self, Matrix};

const EF: [usize; 9] = [10, 14, 20, 30, 45, 70, 100, 200, 400];
const SWEEPS: usize = 3;
/// Segments that are merged to one.
const PARTS: usize = 4;
/// Rows in ten that are deleted.
const DELETED: usize = 3;
const SELECTIVITIES: [f64; 4] = [0.001, 0.01, 0.1, 0.5];
/// Rows around which matches lie together.
const PIVOTS: usize = 16;
/// Queries by which the baselines of filters are measured; they are slow.
const BASELINE_QUERIES: usize = 200;

/// All that variants are made of and searched by.
struct Bench<'a> {
    task: &'a Open,
    builder: GraphBuilder,
    build: BuildOptions,
    rows: &'a Matrix<f32>,
    exact: Exact<'a>,
    matrix: Matrix<f32>,
    queries: Vec<Vector>,
    dir: TempDir,
    /// One thread on its processor, which is measured.
    one: ThreadPool,
    /// All of them, for what is not.
    all: ThreadPool,
}

pub(crate) fn run(task: &Open, builder: GraphBuilder) -> Result<Vec<Value>> {
    let mut rows = npy::vectors(&task.vectors)?;
    rows.truncate(task.rows);
    let mut matrix = npy::vectors(&task.queries)?;
    matrix.truncate(task.max_queries);
    let bench = Bench {
        task,
        builder,
        build: options(task, builder),
        exact: Exact::new(&rows, task.metric),
        queries: vectors(&matrix, task.metric)?,
        rows: &rows,
        matrix,
        dir: TempDir::with_prefix_in("variants-", &task.work_dir)?,
        one: pool(task, 1)?,
        all: pool(task, task.cpus.len())?,
    };
    let groups = Groups::new(&bench);
    let fresh = bench.segment_with_fields(&groups)?;
    let mut lines = vec![bench.merged(&fresh)?, bench.deleted(&fresh)?];
    for matches in [Matches::Random, Matches::Near, Matches::Far] {
        for selectivity in SELECTIVITIES {
            lines.push(bench.filtered(&fresh, &groups, matches, selectivity)?);
        }
    }
    Ok(lines)
}

#[derive(Serialize)]
struct Curve {
    recall_default: f64,
    qps_default: f64,
    ef_95: Option<f64>,
    ef_99: Option<f64>,
    qps_95: Option<f64>,
    qps_99: Option<f64>,
}

impl Bench<'_> {
    fn line(&self, variant: &str) -> Value {
        json!({ "bench": "segment", "variant": variant, "system": format!("sluice-{}", builder_name(self.builder)) })
    }

    fn open(&self, name: &str, build: &BuildOptions, rows: impl Iterator<Item = usize>) -> Result<Segment> {
        let schema = schema(self.rows.columns(), self.task.metric, &[])?;
        let set = growing_set(&schema, self.rows, rows, |_| Metadata::empty())?;
        let path = self.dir.path().join(name);
        self.all.install(|| seal(&set, build, &path, &NEVER))?;
        Ok(Segment::open(&path)?)
    }

    fn segment_with_fields(&self, groups: &Groups) -> Result<Segment> {
        let fields = [("near", FieldType::Keyword), ("some", FieldType::Keyword)];
        let schema = schema(self.rows.columns(), self.task.metric, &fields)?;
        let texts =
            (0..self.rows.rows()).map(|row| metadata(&groups.text(row))).collect::<Result<Vec<_>>>()?;
        let set = growing_set(&schema, self.rows, 0..self.rows.rows(), |row| texts[row].clone())?;
        let path = self.dir.path().join("fresh");
        self.all.install(|| seal(&set, &self.build, &path, &NEVER))?;
        Ok(Segment::open(&path)?)
    }

    /// What ought to be found among the rows that count.
    fn truth(&self, counts: impl Fn(usize, usize) -> bool + Sync) -> Truth {
        let nearest = self.exact.nearest(&self.matrix, self.task.k, counts);
        Truth::new(&self.exact, &self.matrix, &nearest)
    }

    /// Recall and QPS of `search`, which is given the number of a query and ef; `row` names what it finds.
    fn point(
        &self,
        truth: &Truth,
        ef: usize,
        queries: usize,
        search: impl Fn(usize, usize) -> Result<Vec<u32>> + Sync,
    ) -> Result<Point> {
        let sweep = || -> Result<(f64, Vec<Vec<u32>>)> {
            let since = self.task.clock.start();
            let found = (0..queries).map(|query| search(query, ef)).collect::<Result<_>>()?;
            Ok((queries as f64 / since.seconds(), found))
        };
        let (mut qps, mut found) = (Vec::new(), Vec::new());
        for _ in 0..SWEEPS {
            let (speed, rows) = self.one.install(sweep)?;
            qps.push(speed);
            found = rows;
        }
        let found: Vec<Vec<i64>> =
            found.into_iter().map(|rows| rows.into_iter().map(i64::from).collect()).collect();
        let recall = truth.recall(&self.exact, &self.matrix, self.rows.rows(), &found);
        Ok(Point { ef, recall, qps: median(&mut qps) })
    }

    fn curve(
        &self,
        truth: &Truth,
        search: impl Fn(usize, usize) -> Result<Vec<u32>> + Sync,
    ) -> Result<(Curve, Vec<Point>)> {
        let mut points = Vec::new();
        for ef in EF {
            points.push(self.point(truth, ef, self.queries.len(), &search)?);
        }
        let default = self.point(truth, self.build.graph.ef as usize, self.queries.len(), &search)?;
        let (at_95, at_99) = (reaches(&points, 0.95), reaches(&points, 0.99));
        let curve = Curve {
            recall_default: default.recall,
            qps_default: default.qps,
            ef_95: at_95.map(|at| at.ef),
            ef_99: at_99.map(|at| at.ef),
            qps_95: at_95.map(|at| at.qps),
            qps_99: at_99.map(|at| at.qps),
        };
        Ok((curve, points))
    }

    /// Searches `segment`, of which `row` names the rows.
    fn search<'a>(
        &'a self,
        segment: &'a Segment,
        deleted: &'a RoaringBitmap,
        row: impl Fn(u32) -> u32 + Sync + 'a,
    ) -> impl Fn(usize, usize) -> Result<Vec<u32>> + Sync + 'a {
        move |query, ef| {
            let query = Query { ef, ..plain(&self.queries[query], self.task.k) };
            Ok(segment.search(&query, deleted)?.iter().map(|hit| row(hit.row)).collect())
        }
    }

    /// Equal parts, merged by one thread; the rows that it merges in a second.
    fn merge(&self, name: &str, parts: &BuildOptions) -> Result<(Segment, f64)> {
        let rows = self.rows.rows();
        let part = |part| self.open(&format!("{name}-{part}"), parts, (part..rows).step_by(PARTS));
        let parts = (0..PARTS.min(rows)).map(part).collect::<Result<Vec<_>>>()?;
        let none = RoaringBitmap::new();
        let inputs: Vec<_> = parts.iter().map(|part| (part, &none)).collect();
        let path = self.dir.path().join(name);
        let since = self.task.clock.start();
        self.one.install(|| merge(&inputs, parts[0].schema(), &self.build, &path, &NEVER))?;
        let seconds = since.seconds();
        Ok((Segment::open(&path)?, rows as f64 / seconds))
    }

    /// Parts with graphs, whose edges are used again, and parts without, against a fresh segment of the same rows.
    fn merged(&self, fresh: &Segment) -> Result<Value> {
        let mut flat = self.build.clone();
        flat.graph.min_records = u32::MAX;
        let (_, flat_rows_per_s) = self.merge("merged-flat", &flat)?;
        let (merged, rows_per_s) = self.merge("merged", &self.build)?;
        let none = RoaringBitmap::new();
        let truth = self.truth(|_, _| true);
        let mut line = self.line("merged");
        line["parts"] = json!(PARTS);
        line["merge_rows_per_s"] = json!(rows_per_s);
        line["merge_flat_rows_per_s"] = json!(flat_rows_per_s);
        line["merged"] = json!(self.curve(&truth, self.search(&merged, &none, |row| row))?.0);
        line["fresh"] = json!(self.curve(&truth, self.search(fresh, &none, |row| row))?.0);
        Ok(line)
    }

    /// A segment with deleted rows against a fresh one of the others.
    fn deleted(&self, whole: &Segment) -> Result<Value> {
        let mut random = Random::new(self.task.seed);
        let dead: RoaringBitmap =
            (0..self.rows.rows() as u32).filter(|_| random.below(10) < DELETED).collect();
        let live: Vec<u32> = (0..self.rows.rows() as u32).filter(|row| !dead.contains(*row)).collect();
        let fresh = self.open("live", &self.build, live.iter().map(|row| *row as usize))?;
        let truth = self.truth(|_, row| !dead.contains(row as u32));
        let none = RoaringBitmap::new();
        let (old, old_points) = self.curve(&truth, self.search(whole, &dead, |row| row))?;
        let (new, new_points) = self.curve(&truth, self.search(&fresh, &none, |row| live[row as usize]))?;
        let gaps = new_points.iter().zip(&old_points).map(|(new, old)| new.recall - old.recall);
        let mut line = self.line("deleted");
        line["deleted"] = json!(dead.len() as f64 / self.rows.rows() as f64);
        line["with_deleted"] = json!(old);
        line["fresh"] = json!(new);
        line["recall_default_below_fresh"] = json!(new.recall_default - old.recall_default);
        line["largest_recall_below_fresh_at_equal_ef"] = json!(gaps.fold(f64::MIN, f64::max));
        Ok(line)
    }

    /// Filters that one row in so many passes, against filtering what a search found and scanning what matches.
    fn filtered(&self, segment: &Segment, groups: &Groups, matches: Matches, share: f64) -> Result<Value> {
        let limit = groups.limit(share);
        let group: Vec<usize> = (0..self.queries.len()).map(|query| groups.of(matches, query)).collect();
        let ranks = |group: usize| &groups.ranks[group];
        let truth = self.truth(|query, row| ranks(group[query])[row] < limit);
        let filters: Vec<Option<Filter>> = (0..groups.ranks.len())
            .map(|at| match group.contains(&at) {
                true => Ok(Some(Filter::parse(&groups.filter(at, share), segment.schema())?)),
                false => Ok(None),
            })
            .collect::<Result<_>>()?;
        let filter = |query: usize| filters[group[query]].as_ref().context("the filter of a query's group");
        let none = RoaringBitmap::new();
        let rows = |hits: Vec<sluice_segment::Hit>| hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
        let (curve, _) = self.curve(&truth, |query, ef| {
            let query = Query { ef, ..filtered(&self.queries[query], self.task.k, filter(query)?) };
            Ok(rows(segment.search(&query, &none)?))
        })?;
        let some = self.queries.len().min(BASELINE_QUERIES);
        let few = self.first(some, |query, row| ranks(group[query])[row] < limit);
        let scan = self.point(&few, 0, some, |query, _| {
            let query = Query { exact: true, ..filtered(&self.queries[query], self.task.k, filter(query)?) };
            Ok(rows(segment.search(&query, &none)?))
        })?;
        let post = self.post_filter(
            &few,
            some,
            share,
            |query, found| {
                // looking a row up costs next to nothing here, which favours this baseline
                let ranks = ranks(group[query]);
                found.retain(|row| ranks[*row as usize] < limit);
            },
            segment,
        )?;
        let best = post.map_or(scan.qps, |post| post.max(scan.qps));
        let mut line = self.line("filtered");
        line["matches"] = json!(matches);
        line["selectivity"] = json!(share);
        line["pre_filter_qps"] = json!(scan.qps);
        line["post_filter_qps_95"] = json!(post);
        line["qps_95_to_best_baseline"] = json!(curve.qps_95.map(|qps| qps / best));
        line["filtered"] = json!(curve);
        Ok(line)
    }

    /// What the first queries ought to find.
    fn first(&self, queries: usize, counts: impl Fn(usize, usize) -> bool + Sync) -> Truth {
        let mut some = self.matrix.clone();
        some.truncate(queries);
        let nearest = self.exact.nearest(&some, self.task.k, counts);
        Truth::new(&self.exact, &some, &nearest)
    }

    /// QPS at 0.95 of searching without the filter for more and more rows, of which the filter leaves enough; `None`
    /// when half of all rows are not enough.
    fn post_filter(
        &self,
        truth: &Truth,
        queries: usize,
        share: f64,
        keep: impl Fn(usize, &mut Vec<u32>) + Sync,
        segment: &Segment,
    ) -> Result<Option<f64>> {
        let none = RoaringBitmap::new();
        let mut points = Vec::new();
        let mut wanted = (self.task.k as f64 / share).ceil() as usize;
        while wanted <= self.rows.rows() / 2 && reaches(&points, 0.95).is_none() {
            points.push(self.point(truth, wanted, queries, |query, wanted| {
                let found =
                    segment.search(&Query { ef: wanted, ..plain(&self.queries[query], wanted) }, &none)?;
                let mut rows: Vec<u32> = found.iter().map(|hit| hit.row).collect();
                keep(query, &mut rows);
                rows.truncate(self.task.k);
                Ok(rows)
            })?);
            wanted *= 2;
        }
        Ok(reaches(&points, 0.95).map(|at| at.qps))
    }
}

/// How the rows that pass a filter lie to the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Matches {
    /// Anywhere.
    Random,
    /// Around the pivot nearest to the query.
    Near,
    /// Around the pivot farthest from it.
    Far,
}

/// Groups of rows that filters select: the first so many by rank around each pivot, and by a random rank.
struct Groups {
    /// The rank of each row in each group; the last group's is random.
    ranks: Vec<Vec<u32>>,
    /// The nearest and the farthest pivot of each query.
    of_query: Vec<(usize, usize)>,
}

impl Groups {
    fn new(bench: &Bench<'_>) -> Self {
        let rows = bench.rows.rows();
        let mut random = Random::new(bench.task.seed ^ 0xf117e2);
        let pivots: Vec<usize> = (0..PIVOTS).map(|_| random.below(rows)).collect();
        let mut ranks: Vec<Vec<u32>> = pivots
            .iter()
            .map(|&pivot| {
                let pivot = bench.rows.row(pivot);
                ranked((0..rows).map(|row| bench.exact.distance(pivot, row)).collect())
            })
            .collect();
        ranks.push(ranked((0..rows).map(|_| random.normal()).collect()));
        let of_query = bench
            .matrix
            .iter()
            .map(|query| {
                let mut order: Vec<usize> = (0..PIVOTS).collect();
                order.sort_by(|&a, &b| {
                    let distance = |at: usize| bench.exact.distance(query, pivots[at]);
                    distance(a).total_cmp(&distance(b))
                });
                (order[0], order[PIVOTS - 1])
            })
            .collect();
        Self { ranks, of_query }
    }

    fn limit(&self, share: f64) -> u32 {
        (self.ranks[0].len() as f64 * share).ceil() as u32
    }

    /// The group that a query's filter selects from.
    fn of(&self, matches: Matches, query: usize) -> usize {
        match matches {
            Matches::Random => PIVOTS,
            Matches::Near => self.of_query[query].0,
            Matches::Far => self.of_query[query].1,
        }
    }

    fn filter(&self, group: usize, share: f64) -> Value {
        let field = if group == PIVOTS { "some" } else { "near" };
        json!({ field: format!("{group}-{share}") })
    }

    /// The metadata of a row: the names of the groups that it is in.
    fn text(&self, row: usize) -> String {
        let names = |groups: std::ops::Range<usize>| -> Vec<String> {
            let pairs = groups.flat_map(|group| SELECTIVITIES.map(|share| (group, share)));
            let inside = pairs.filter(|(group, share)| self.ranks[*group][row] < self.limit(*share));
            inside.map(|(group, share)| format!("{group}-{share}")).collect()
        };
        json!({ "near": names(0..PIVOTS), "some": names(PIVOTS..PIVOTS + 1) }).to_string()
    }
}

/// The rank of each value, of equal ones by place.
fn ranked(values: Vec<f32>) -> Vec<u32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    for (rank, place) in order.into_iter().enumerate() {
        ranks[place] = rank as u32;
    }
    ranks
}
