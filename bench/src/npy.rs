//! Two-dimensional .npy files of f32, f16 or u32, little-endian, in C order: read, and written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use half::f16;

const MAGIC: &[u8] = b"\x93NUMPY";
/// A header is a Python dict of three keys; NumPy itself pads it to 64 bytes.
const MAX_HEADER: usize = 64 << 10;

/// Rows of equal length, one after another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix<T> {
    values: Vec<T>,
    columns: usize,
}

impl<T> Matrix<T> {
    /// # Panics
    /// When `values` are not whole rows.
    pub(crate) fn new(values: Vec<T>, columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "rows are whole");
        Self { values, columns }
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn row(&self, at: usize) -> &[T] {
        &self.values[at * self.columns..][..self.columns]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[T]> {
        self.values.chunks_exact(self.columns)
    }

    /// Keeps the first `rows`.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows.saturating_mul(self.columns));
    }

    /// Keeps the first `rows`, which there are, and returns the others.
    pub(crate) fn split_off(&mut self, rows: usize) -> Self {
        Self { values: self.values.split_off(rows * self.columns), columns: self.columns }
    }
}

impl Matrix<f32> {
    /// Makes every number one that a file of f16 holds.
    pub(crate) fn round_to_f16(&mut self) {
        self.values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
    }

    /// Makes every row one of length 1.
    #[cfg(feature = "peers")]
    pub(crate) fn normalize(&mut self) {
        for row in self.values.chunks_exact_mut(self.columns) {
            let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let scale = squares.sqrt().recip() as f32;
            row.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// Reads vectors, f32 or f16.
pub(crate) fn vectors(path: &Path) -> Result<Matrix<f32>> {
    read(path, |descr, bytes| match descr {
        "<f4" => Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        "<f2" => Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        other => bail!("numbers of type {other:?} are not read; allowed: <f4, <f2"),
    })
}

/// Reads row numbers, u32 or i32.
pub(crate) fn row_numbers(path: &Path) -> Result<Matrix<u32>> {
    read(path, |descr, bytes| match descr {
        "<u4" | "<i4" => {
            Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        other => bail!("numbers of type {other:?} are not read; allowed: <u4, <i4"),
    })
}

/// Writes numbers as f32.
pub(crate) fn write_f32(path: &Path, matrix: &Matrix<f32>) -> Result<()> {
    write(path, "<f4", matrix, |value| value.to_le_bytes())
}

/// Writes numbers as f16, to the nearest.
pub(crate) fn write_f16(path: &Path, matrix: &Matrix<f32>) -> Result<()> {
    write(path, "<f2", matrix, |value| f16::from_f32(*value).to_le_bytes())
}

/// Writes row numbers.
pub(crate) fn write_u32(path: &Path, matrix: &Matrix<u32>) -> Result<()> {
    write(path, "<u4", matrix, |value| value.to_le_bytes())
}

fn write<T, const N: usize>(
    path: &Path,
    descr: &str,
    matrix: &Matrix<T>,
    bytes: impl Fn(&T) -> [u8; N],
) -> Result<()> {
    let shape = format!("({}, {})", matrix.rows(), matrix.columns());
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // magic, version and length take ten bytes; the numbers begin on a multiple of 64
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(MAGIC)?;
        file.write_all(&[1, 0])?;
        // the header is far shorter than 64 KiB
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        matrix.values.iter().try_for_each(|value| file.write_all(&bytes(value)))?;
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn read<T>(path: &Path, numbers: impl FnOnce(&str, &[u8]) -> Result<Vec<T>>) -> Result<Matrix<T>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&bytes, numbers).with_context(|| format!("{} is no .npy file for this program", path.display()))
}

fn parse<T>(bytes: &[u8], numbers: impl FnOnce(&str, &[u8]) -> Result<Vec<T>>) -> Result<Matrix<T>> {
    ensure!(bytes.starts_with(MAGIC), "it does not begin as one");
    let (start, length) = match bytes.get(6..12) {
        Some(&[1, _, a, b, ..]) => (10, usize::from(u16::from_le_bytes([a, b]))),
        Some(&[2 | 3, _, a, b, c, d]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => bail!("its version is not known"),
    };
    ensure!(length <= MAX_HEADER && bytes.len() >= start + length, "its header is cut off");
    let (header, body) = bytes[start..].split_at(length);
    let header = std::str::from_utf8(header)?;
    ensure!(field(header, "fortran_order")? == "False", "it is in Fortran order");
    let shape = field(header, "shape")?.trim_start_matches('(').split(',').map(str::trim);
    let shape: Vec<usize> = shape.filter(|n| !n.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let &[rows, columns] = shape.as_slice() else { bail!("it has {} dimensions, not 2", shape.len()) };
    let values = numbers(field(header, "descr")?.trim_matches(['\'', '"']), body)?;
    ensure!(
        columns > 0 && rows.checked_mul(columns) == Some(values.len()),
        "its size is not that of its shape"
    );
    Ok(Matrix { values, columns })
}

/// The text of one value of the header, without what follows it.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str> {
    let (_, rest) = header.split_once(&format!("'{name}':")).with_context(|| format!("it has no {name}"))?;
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')') } else { rest.find([',', '}']) };
    rest.get(..end.unwrap_or(rest.len())).with_context(|| format!("its {name} is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), body].concat()
    }

    fn floats(bytes: &[u8]) -> Result<Matrix<f32>> {
        parse(bytes, |_, body| Ok(body.iter().map(|b| f32::from(*b)).collect()))
    }

    #[test]
    fn a_matrix_is_read_row_by_row() {
        let bytes =
            file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", &[1, 2, 3, 4, 5, 6]);
        let matrix = floats(&bytes).unwrap();
        assert_eq!((matrix.rows(), matrix.columns(), matrix.row(1)), (2, 3, &[4.0, 5.0, 6.0][..]));
    }

    #[test]
    fn halves_are_widened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let body: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        std::fs::write(&path, file("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2)}", &body))
            .unwrap();
        assert_eq!(vectors(&path).unwrap().row(0), [1.5, -2.0]);
        assert!(row_numbers(&path).unwrap_err().chain().any(|e| e.to_string().contains("<f2")));
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let mut matrix = Matrix::new(vec![1.0, -0.1, 3e-3, 65504.0, 0.0, 7.0], 3);
        write_f32(&path, &matrix).unwrap();
        assert_eq!(vectors(&path).unwrap(), matrix);
        assert!((std::fs::metadata(&path).unwrap().len() - 6 * 4).is_multiple_of(64));
        write_f16(&path, &matrix).unwrap();
        matrix.round_to_f16();
        assert_eq!(vectors(&path).unwrap(), matrix);
        assert_eq!(matrix.split_off(1).row(0), [65504.0, 0.0, 7.0]);
        let numbers = Matrix::new(vec![u32::MAX, 0], 1);
        write_u32(&path, &numbers).unwrap();
        assert_eq!(row_numbers(&path).unwrap(), numbers);
    }

    #[test]
    fn what_is_no_plain_matrix_is_refused() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}";
        let wrong = ["(2, 4)", "(6,)", "(99999999999, 99999999999)", "(2, 3", "(-2, 3)"];
        for shape in wrong {
            assert!(floats(&file(&good.replace("(2, 3)", shape), &[0; 6])).is_err(), "{shape}");
        }
        assert!(floats(&file(&good.replace("False", "True"), &[0; 6])).is_err());
        assert!(floats(b"\x93NUMPY\x01\x00\xff\xff").is_err());
        assert!(floats(b"PK").is_err());
    }
}
