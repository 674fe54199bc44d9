//! Rows of a numpy matrix (`.npy`, format 1 to 3) beside a JSONL of ids and metadata.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;

use super::lines::{Line, Lines};
use super::rows::{Position, Row, RowEncoder, Rows, Total, describing_line};
use super::{Input, LoadError};

/// A header is a line of Python; a longer one is no header.
const MAX_HEADER: usize = 64 << 10;

/// How a number is stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F16,
    F32,
    F64,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> f32 {
        match self {
            Self::F16 => f16::from_le_bytes(bytes.try_into().unwrap_or_default()).to_f32(),
            Self::F32 => f32::from_le_bytes(bytes.try_into().unwrap_or_default()),
            Self::F64 => f64::from_le_bytes(bytes.try_into().unwrap_or_default()) as f32,
        }
    }
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    number: Number,
    rows: u64,
    columns: usize,
}

/// Reads the header's dictionary, e.g. `{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3), }`.
fn parse_header(text: &str) -> Result<Shape, String> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':")).ok_or(format!("its header has no {key}"))?;
        Ok::<_, String>(rest.trim_start())
    };
    let descr = value("descr")?.trim_start_matches('\'');
    let number = match descr.split('\'').next() {
        Some("<f2") => Number::F16,
        Some("<f4") => Number::F32,
        Some("<f8") => Number::F64,
        other => {
            let other: String = other.unwrap_or_default().chars().take(20).collect();
            return Err(format!("numbers of type {other:?} are not read; allowed: <f2, <f4, <f8"));
        }
    };
    if !value("fortran_order")?.starts_with("False") {
        return Err("it is in Fortran order; save numpy.ascontiguousarray(matrix)".into());
    }
    let shape = value("shape")?.strip_prefix('(').and_then(|s| s.split(')').next()).unwrap_or_default();
    let sides: Vec<u64> = shape.split(',').filter_map(|s| s.trim().parse().ok()).collect();
    match sides[..] {
        [rows, columns @ 1..=65_536] if shape.split(',').filter(|s| !s.trim().is_empty()).count() == 2 => {
            Ok(Shape { number, rows, columns: usize::try_from(columns).unwrap_or_default() })
        }
        _ => Err(format!(
            "its shape ({}) is not (rows, dimension)",
            shape.chars().take(40).collect::<String>()
        )),
    }
}

fn read_header(file: &mut File, path: &Path) -> Result<(Shape, u64), LoadError> {
    let mut head = [0; 8];
    file.read_exact(&mut head).map_err(|_| LoadError::file(path, "it is no .npy file"))?;
    if !head.starts_with(b"\x93NUMPY") {
        return Err(LoadError::file(path, "it is no .npy file"));
    }
    let long = head[6] >= 2;
    let mut length = [0; 4];
    let width = if long { 4 } else { 2 };
    file.read_exact(&mut length[..width]).map_err(LoadError::io(path))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(LoadError::file(path, "its header is too long"));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(LoadError::io(path))?;
    let shape = parse_header(&String::from_utf8_lossy(&text)).map_err(|e| LoadError::file(path, e))?;
    Ok((shape, (8 + width + length) as u64))
}

pub(super) struct Npy {
    matrix: BufReader<File>,
    records: Lines,
    encoder: RowEncoder,
    shape: Shape,
    row: u64,
    buffer: Vec<u8>,
    path: PathBuf,
    records_path: PathBuf,
}

impl Npy {
    pub(super) fn open(input: &Input, encoder: RowEncoder, from: Position) -> Result<Self, LoadError> {
        let path = input.file.clone();
        let mut file = File::open(&path).map_err(LoadError::io(&path))?;
        let (shape, data) = read_header(&mut file, &path)?;
        let row_bytes = (shape.columns * shape.number.bytes()) as u64;
        let expected = shape.rows.checked_mul(row_bytes).and_then(|b| b.checked_add(data));
        let length = file.metadata().map_err(LoadError::io(&path))?.len();
        if expected != Some(length) {
            return Err(LoadError::file(&path, format!("it has {length} bytes, its header tells otherwise")));
        }
        file.seek(SeekFrom::Start(data + from.rows.min(shape.rows) * row_bytes))
            .map_err(LoadError::io(&path))?;
        let records_path = records_beside(input)?;
        let records = Lines::open(&records_path, encoder.max_line_bytes(), from)?;
        let buffer = vec![0; shape.columns * shape.number.bytes()];
        let matrix = BufReader::with_capacity(1 << 18, file);
        Ok(Self { matrix, records, encoder, shape, row: from.rows, buffer, path, records_path })
    }

    fn message(&self, line: Line) -> Result<sluice_connectors::Outgoing, String> {
        let Line::Text(line) = line else { return Err("the line of its record is too long".into()) };
        let (id, metadata) = describing_line(&line)?;
        let vector = self.buffer.chunks_exact(self.shape.number.bytes()).map(|b| self.shape.number.read(b));
        self.encoder.row(&id, vector.collect(), &metadata)
    }
}

/// The JSONL as given, or the one of the same name beside the matrix.
fn records_beside(input: &Input) -> Result<PathBuf, LoadError> {
    if let Some(path) = &input.records {
        return Ok(path.clone());
    }
    let found = ["jsonl", "jsonl.gz"].into_iter().map(|e| input.file.with_extension(e)).find(|p| p.exists());
    found.ok_or_else(|| {
        LoadError::file(&input.file, "there is no .jsonl of the same name beside it; give --records FILE")
    })
}

impl Rows for Npy {
    fn next(&mut self) -> Result<Option<Row>, LoadError> {
        let line = self.records.next().map_err(LoadError::io(&self.records_path))?;
        match (self.row < self.shape.rows, line) {
            (false, None) => Ok(None),
            (false, Some(Line::Text(text))) if text.iter().all(u8::is_ascii_whitespace) => Ok(None),
            (true, Some(line)) => {
                self.matrix.read_exact(&mut self.buffer).map_err(LoadError::io(&self.path))?;
                self.row += 1;
                let end = self.records.position();
                Ok(Some(Row { end, message: self.message(line) }))
            }
            (more, _) => {
                let which = if more { "fewer" } else { "more" };
                let rows = self.shape.rows;
                Err(LoadError::file(
                    &self.records_path,
                    format!("it has {which} lines than the matrix rows, {rows}"),
                ))
            }
        }
    }

    fn total(&self) -> Total {
        Total::Rows(self.shape.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FileFormat;
    use super::super::rows::tests::encoder;
    use super::*;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    fn input(dir: &Path, matrix: &[u8], records: &str) -> Input {
        let file = dir.join("v.npy");
        std::fs::write(&file, matrix).unwrap();
        std::fs::write(dir.join("v.jsonl"), records).unwrap();
        let columns = (String::from("id"), String::from("vector"));
        Input {
            file,
            format: Some(FileFormat::Npy),
            id_column: columns.0,
            vector_column: columns.1,
            records: None,
            flat: false,
        }
    }

    #[test]
    fn rows_of_each_number_type_are_read_and_go_on_from_a_position() {
        let floats = [1.0f32, 2.0, 3.0, 4.0];
        let halves: Vec<u8> = floats.iter().flat_map(|f| f16::from_f32(*f).to_le_bytes()).collect();
        let singles: Vec<u8> = floats.iter().flat_map(|f| f.to_le_bytes()).collect();
        let doubles: Vec<u8> = floats.iter().flat_map(|f| f64::from(*f).to_le_bytes()).collect();
        let mut values = Vec::new();
        for (descr, data) in [("<f2", halves), ("<f4", singles), ("<f8", doubles)] {
            let dir = tempfile::tempdir().unwrap();
            let input = input(dir.path(), &npy(descr, "(2, 2)", &data), "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
            let mut rows = input.open(encoder(2), Position::default()).unwrap();
            let first = rows.next().unwrap().unwrap();
            let mut resumed = input.open(encoder(2), first.end).unwrap();
            let second = resumed.next().unwrap().unwrap().message.unwrap();
            assert_eq!(second.key.as_deref(), Some(&b"b"[..]));
            values.push((first.message.unwrap().value, second.value));
            assert!(resumed.next().unwrap().is_none());
        }
        assert!(values.windows(2).all(|w| w[0] == w[1]));
    }

    #[test]
    fn more_or_fewer_lines_than_rows_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for records in ["{\"id\":\"a\"}\n", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n"] {
            let input = input(dir.path(), &npy("<f4", "(2, 2)", &[1; 16]), records);
            let mut rows = input.open(encoder(2), Position::default()).unwrap();
            let error = loop {
                match rows.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("accepted"),
                    Err(e) => break e.to_string(),
                }
            };
            assert!(error.contains("lines than the matrix rows"), "{error}");
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let huge = format!("({}, 2)", u64::MAX);
        for matrix in [
            b"no".to_vec(),
            npy("<i4", "(1, 2)", &[0; 8]),
            npy("<f4", "(2,)", &[0; 8]),
            npy("<f4", "(1, 2, 1)", &[0; 8]),
            npy("<f4", "(2, 2)", &[0; 8]),
            npy("<f4", &huge, &[0; 8]),
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
        ] {
            assert!(input(dir.path(), &matrix, "").open(encoder(2), Position::default()).is_err());
        }
    }
}
