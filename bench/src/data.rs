//! The records of a benchmark: vectors of a matrix, ids and metadata of a JSONL beside it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};
use sluice_core::{Document, FieldValues, Key, Metadata, Offset, Op, Record, Timestamp, Vector};

use crate::DataArgs;
use crate::npy::{self, Matrix};

const MAX_METADATA: usize = 64 << 10;

/// What is ingested.
pub(crate) struct Rows {
    pub(crate) vectors: Matrix<f32>,
    names: Vec<(Key, Metadata)>,
}

impl Rows {
    pub(crate) fn read(args: &DataArgs) -> Result<Self> {
        let mut vectors = npy::vectors(&args.vectors)?;
        if let Some(rows) = args.rows {
            vectors.truncate(rows);
        }
        ensure!(vectors.rows() > 0, "{} holds no rows", args.vectors.display());
        let names = match &args.jsonl {
            Some(path) => names_of(path, vectors.rows())?,
            None => (0..vectors.rows())
                .map(|row| Ok((Key::new(&row.to_string())?, Metadata::empty())))
                .collect::<Result<_>>()?,
        };
        Ok(Self { vectors, names })
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn key(&self, row: usize) -> &Key {
        &self.names[row].0
    }

    pub(crate) fn metadata(&self, row: usize) -> &Metadata {
        &self.names[row].1
    }

    /// Row `row` as the record at `offset` of a partition.
    pub(crate) fn record(&self, row: usize, offset: u64, spec: &sluice_core::IndexSpec) -> Result<Record> {
        let vector = Vector::try_new(self.vectors.row(row).to_vec(), spec.dimension, spec.metric)
            .with_context(|| format!("row {row}"))?;
        let document =
            Document { vector, metadata: self.metadata(row).clone(), fields: FieldValues::default() };
        Ok(Record {
            key: self.key(row).clone(),
            offset: Offset(offset),
            timestamp: Timestamp(0),
            op: Op::Upsert(document),
        })
    }
}

fn names_of(path: &Path, rows: usize) -> Result<Vec<(Key, Metadata)>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let text: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let lines = BufReader::new(text).lines().take(rows).enumerate();
    let names: Vec<_> = lines
        .map(|(at, line)| name(&line?).with_context(|| format!("{}, line {}", path.display(), at + 1)))
        .collect::<Result<_>>()?;
    ensure!(names.len() == rows, "{} holds {} lines, the matrix {rows} rows", path.display(), names.len());
    Ok(names)
}

fn name(line: &str) -> Result<(Key, Metadata)> {
    let mut object: Map<String, Value> = serde_json::from_str(line)?;
    let id = object.remove("id").context("it has no id")?;
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let metadata = serde_json::to_string(&object)?;
    Ok((Key::new(&id)?, Metadata::parse(&metadata, MAX_METADATA)?))
}
