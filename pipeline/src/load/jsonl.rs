//! Rows of a JSONL file or of standard input.

use std::io::BufReader;
use std::path::PathBuf;

use super::lines::{Line, Lines};
use super::rows::{Position, Row, RowEncoder, Rows, Total};
use super::{Input, LoadError};

pub(super) struct Jsonl {
    lines: Lines,
    encoder: RowEncoder,
    flat: bool,
    path: PathBuf,
    total: Total,
}

impl Jsonl {
    pub(super) fn open(input: &Input, encoder: RowEncoder, from: Position) -> Result<Self, LoadError> {
        let max = encoder.max_line_bytes();
        let (lines, total) = if input.is_stdin() {
            (Lines::of_reader(Box::new(BufReader::new(std::io::stdin())), max), Total::Unknown)
        } else {
            let gzip = input.file.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
            let bytes = std::fs::metadata(&input.file).map_err(LoadError::io(&input.file))?.len();
            let total = if gzip { Total::Unknown } else { Total::Bytes(bytes) };
            (Lines::open(&input.file, max, from)?, total)
        };
        Ok(Self { lines, encoder, flat: input.flat, path: input.file.clone(), total })
    }
}

impl Rows for Jsonl {
    fn next(&mut self) -> Result<Option<Row>, LoadError> {
        loop {
            let Some(line) = self.lines.next().map_err(LoadError::io(&self.path))? else { return Ok(None) };
            let message = match line {
                Line::Text(text) if text.iter().all(u8::is_ascii_whitespace) => continue,
                Line::Text(text) if self.flat => self.encoder.flat_json(&text),
                Line::Text(text) => self.encoder.json(&text),
                Line::TooLong => {
                    Err(format!("the line is longer than {} bytes", self.encoder.max_line_bytes()))
                }
            };
            return Ok(Some(Row { end: self.lines.position(), message }));
        }
    }

    fn total(&self) -> Total {
        self.total
    }
}
