//! Lines of a text file, plain or gzip'd, none longer than a limit.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::LoadError;
use super::rows::Position;

/// A line, or why it was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// Reads lines and counts them.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    max_bytes: usize,
    position: Position,
}

impl Lines {
    /// Opens a file after `from`. A plain file goes on at its byte, a gzip'd one is read up to it.
    pub(super) fn open(path: &Path, max_bytes: usize, from: Position) -> Result<Self, LoadError> {
        let mut file = File::open(path).map_err(LoadError::io(path))?;
        let mut magic = [0; 2];
        let got = file.read(&mut magic).map_err(LoadError::io(path))?;
        let gzip = got == 2 && magic == [0x1f, 0x8b];
        let start = if gzip { 0 } else { from.bytes };
        file.seek(SeekFrom::Start(start)).map_err(LoadError::io(path))?;
        let file = BufReader::with_capacity(1 << 18, file);
        if !gzip {
            return Ok(Self { reader: Box::new(file), max_bytes, position: from });
        }
        let reader = Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)));
        let mut lines = Self { reader, max_bytes, position: Position::default() };
        while lines.position.rows < from.rows {
            if lines.next().map_err(LoadError::io(path))?.is_none() {
                break;
            }
        }
        Ok(lines)
    }

    pub(super) fn of_reader(reader: Box<dyn BufRead + Send>, max_bytes: usize) -> Self {
        Self { reader, max_bytes, position: Position::default() }
    }

    /// After the line that was returned last.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The next line without its end; empty ones too.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        let limit = self.max_bytes as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.position.bytes += read as u64;
        self.position.rows += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 == limit {
            self.skip_rest()?;
            return Ok(Some(Line::TooLong));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(Line::Text(line)))
    }

    fn skip_rest(&mut self) -> std::io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            let end = available.iter().position(|b| *b == b'\n');
            let used = end.map_or(available.len(), |at| at + 1);
            self.reader.consume(used);
            self.position.bytes += used as u64;
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn text(line: &str) -> Option<Line> {
        Some(Line::Text(line.into()))
    }

    #[test]
    fn lines_end_by_any_newline_and_long_ones_are_skipped_whole() {
        let mut lines = Lines::of_reader(Box::new(&b"ab\r\n\n123456789\nlast"[..]), 4);
        assert_eq!(lines.next().unwrap(), text("ab"));
        assert_eq!(lines.next().unwrap(), text(""));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.position(), Position { rows: 3, bytes: 15 });
        assert_eq!(lines.next().unwrap(), text("last"));
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn a_file_goes_on_where_it_stood_plain_and_gzipped() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("a.jsonl");
        std::fs::write(&plain, "one\ntwo\nthree\n").unwrap();
        let packed = dir.path().join("a.jsonl.gz");
        let mut gzip = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
        gzip.write_all(b"one\ntwo\nthree\n").unwrap();
        gzip.finish().unwrap();
        for path in [plain, packed] {
            let mut first = Lines::open(&path, 100, Position::default()).unwrap();
            first.next().unwrap();
            let mut second = Lines::open(&path, 100, first.position()).unwrap();
            assert_eq!(second.next().unwrap(), text("two"));
            assert_eq!(second.position(), Position { rows: 2, bytes: 8 });
        }
    }
}
