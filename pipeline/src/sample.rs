//! The sample that ships with the binary: names, sections and embeddings of 5,000 Debian packages.
//!
//! `pipeline/data/README.md` documents the file's format and where it comes from.

use std::io::Read;

use flate2::Crc;
use flate2::read::GzDecoder;
use half::f16;
use serde::Deserialize;

const FILE: &[u8] = include_bytes!("../data/sample-packages.bin");
const MAGIC: &[u8; 8] = b"SLUICESA";
const VERSION: u32 = 1;
const HEAD: usize = 28;
/// The names decompress to less than this.
const MAX_NAMES: u64 = 4 << 20;

/// The file in this binary is not whole: the build is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the embedded sample is damaged: {0}")]
pub struct SampleError(String);

impl SampleError {
    pub fn kind(&self) -> sluice_core::ErrorKind {
        sluice_core::ErrorKind::Corrupt
    }
}

/// A package by name and archive section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub id: String,
    pub section: String,
}

/// The sample, opened.
#[derive(Debug)]
pub struct Sample {
    packages: Vec<Package>,
    vectors: &'static [u8],
    dimension: usize,
}

impl Sample {
    /// Opens and checks the embedded file.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn open() -> Result<Self, SampleError> {
        Self::read(FILE)
    }

    fn read(file: &'static [u8]) -> Result<Self, SampleError> {
        let damaged = |what: &str| SampleError(what.to_owned());
        let (body, crc) = file.split_last_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
        let mut sum = Crc::new();
        sum.update(body);
        if sum.sum() != u32::from_le_bytes(*crc) {
            return Err(damaged("its checksum differs"));
        }
        let head = body.get(..HEAD).filter(|h| h.starts_with(MAGIC)).ok_or_else(|| damaged("no magic"))?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let (rows, dimension) = (number(12) as usize, number(16) as usize);
        let (names, vectors) = (number(20) as usize, number(24) as usize);
        if number(8) != VERSION || vectors != rows * dimension * 2 || body.len() != HEAD + names + vectors {
            return Err(damaged("its lengths do not fit"));
        }
        let (names, vectors) = body.split_at(HEAD).1.split_at(names);
        let mut text = String::new();
        GzDecoder::new(names)
            .take(MAX_NAMES)
            .read_to_string(&mut text)
            .map_err(|e| damaged(&e.to_string()))?;
        let packages: Result<Vec<Package>, _> = text.lines().map(serde_json::from_str).collect();
        let packages = packages.map_err(|e| damaged(&e.to_string()))?;
        if packages.len() != rows {
            return Err(damaged("it has more or fewer names than vectors"));
        }
        Ok(Self { packages, vectors, dimension })
    }

    pub fn len(&self) -> usize {
        self.packages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Packages with their vectors, in the file's order.
    pub fn rows(&self) -> impl Iterator<Item = (&Package, Vec<f32>)> {
        let vectors = self.vectors.chunks_exact(self.dimension * 2);
        self.packages.iter().zip(vectors.map(|row| {
            let halves = row.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
            halves.map(f16::to_f32).collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_sample_is_whole_and_holds_what_the_demo_names() {
        let sample = Sample::open().unwrap();
        assert_eq!((sample.len(), sample.dimension()), (5000, 384));
        let ids: HashSet<_> = sample.rows().map(|(p, _)| p.id.as_str()).collect();
        assert_eq!(ids.len(), 5000);
        assert!(ids.contains("nginx") && ids.contains("apache2"));
        assert!(sample.rows().any(|(p, _)| p.section == "httpd"));
        for (package, vector) in sample.rows() {
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((0.98..1.02).contains(&length), "{}: {length}", package.id);
        }
    }

    #[test]
    fn a_damaged_sample_is_an_error() {
        let mut file = FILE.to_vec();
        file[1000] ^= 1;
        assert!(Sample::read(file.leak()).is_err());
        assert!(Sample::read(b"abc").is_err());
    }
}
