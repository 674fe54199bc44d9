//! The other side of the protocol for the systems that are in this program.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;
use serde_json::json;

use super::protocol::{Built, Found, Open, Opened, Request, Times};
use crate::npy::{self, Matrix};

/// An index library, or ours.
pub(crate) trait Library: Send + Sync {
    fn version(&self) -> String;

    /// Builds in the current thread pool; what was built before is gone.
    fn build(&mut self, vectors: Matrix<f32>) -> Result<Built>;

    /// Searches by `ef` from now on.
    fn set(&mut self, ef: usize);

    /// The rows nearest to query number `query`.
    fn search(&self, query: usize) -> Result<Vec<i64>>;
}

/// Answers requests until there are no more.
pub(crate) fn serve(make: impl Fn(&Open, Matrix<f32>) -> Result<Box<dyn Library>>) -> Result<()> {
    let mut served: Option<Served> = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Open(open) => Served::new(open, &make).and_then(|new| {
                let version = new.library.version();
                served = Some(new);
                text(&Opened { version })
            }),
            request => served.as_mut().context("nothing is open").and_then(|served| served.answer(&request)),
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }).to_string());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn text(answer: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(answer)?)
}

struct Served {
    open: Open,
    library: Box<dyn Library>,
    queries: usize,
}

impl Served {
    fn new(open: Open, make: impl Fn(&Open, Matrix<f32>) -> Result<Box<dyn Library>>) -> Result<Self> {
        let mut queries = npy::vectors(&open.queries)?;
        queries.truncate(open.max_queries);
        let count = queries.rows();
        let library = make(&open, queries)?;
        Ok(Self { open, library, queries: count })
    }

    fn answer(&mut self, request: &Request) -> Result<String> {
        match *request {
            Request::Open(_) => anyhow::bail!("something is open already"),
            Request::Build { threads } => {
                let mut vectors = npy::vectors(&self.open.vectors)?;
                vectors.truncate(self.open.rows);
                let library = &mut self.library;
                text(&pool(&self.open, threads)?.install(|| library.build(vectors))?)
            }
            Request::Search { ef, threads } => {
                self.library.set(ef);
                let (library, queries) = (&self.library, self.queries);
                let pool = pool(&self.open, threads)?;
                let clock = self.open.clock.of_threads(threads).start();
                let rows: Result<Vec<_>> = pool.install(|| match threads {
                    1 => (0..queries).map(|query| library.search(query)).collect(),
                    _ => (0..queries).into_par_iter().map(|query| library.search(query)).collect(),
                });
                let seconds = clock.seconds();
                text(&Found { seconds, rows: rows? })
            }
            Request::Single { ef } => {
                self.library.set(ef);
                let (library, queries, clock) = (&self.library, self.queries, self.open.clock);
                let seconds = pool(&self.open, 1)?.install(|| {
                    let timed = (0..queries).map(|query| {
                        let since = clock.start();
                        library.search(query)?;
                        Ok(since.seconds())
                    });
                    timed.collect::<Result<Vec<_>>>()
                });
                text(&Times { seconds: seconds? })
            }
        }
    }
}

/// Threads that stay on their processors.
pub(crate) fn pool(open: &Open, threads: usize) -> Result<ThreadPool> {
    let cpus = open.cpus.clone();
    let pin = move |thread: usize| {
        if let Some(&id) = cpus.get(thread) {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
    };
    Ok(ThreadPoolBuilder::new().num_threads(threads).start_handler(pin).build()?)
}
