//! Writes a segment front to back: sections, their checksums, the table, and the digest of the whole on the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytemuck::NoUninit;
use sluice_core::VectorType;

use super::entry::{Entry, Kind};
use super::{ALIGN, HEADER, MAGIC, TRAILER, TRAILER_MAGIC, encoding_of, version_of};

/// 256 KiB: long enough that hashing runs over many blocks at once.
const BUFFER: usize = 256 << 10;

/// A segment being written. Nothing is a segment before [`SegmentWriter::finish`] has returned.
pub(crate) struct SegmentWriter {
    file: File,
    buffer: Vec<u8>,
    /// Bytes handed to the file so far.
    flushed: u64,
    digest: blake3::Hasher,
    vector_type: VectorType,
    table: Vec<Entry>,
    /// The open section's checksum over what was handed to the file, and where it goes on in the buffer.
    open: Option<(crc32fast::Hasher, usize)>,
}

impl SegmentWriter {
    /// Creates `path`, or empties it, for a segment with such vectors.
    pub(crate) fn create(path: &Path, vector_type: VectorType) -> io::Result<Self> {
        let mut writer = Self {
            file: File::create(path)?,
            buffer: Vec::with_capacity(BUFFER),
            flushed: 0,
            digest: blake3::Hasher::new(),
            vector_type,
            table: Vec::new(),
            open: None,
        };
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&version_of(vector_type).to_le_bytes());
        let crc = crc32fast::hash(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        writer.put(&header)?;
        Ok(writer)
    }

    /// Begins a section; the one before it ends. Sections come in the order of (kind, part).
    pub(crate) fn begin(&mut self, kind: Kind, part: u32) -> io::Result<()> {
        self.end();
        self.pad()?;
        let start = self.position();
        let encoding = encoding_of(kind, self.vector_type);
        self.table.push(Entry { kind: kind as u16, encoding, part, start, length: 0, crc: 0 });
        self.open = Some((crc32fast::Hasher::new(), self.buffer.len()));
        Ok(())
    }

    /// Appends values to the open section.
    pub(crate) fn values<T: NoUninit>(&mut self, values: &[T]) -> io::Result<()> {
        self.put(bytemuck::cast_slice(values))
    }

    /// Appends one value to the open section.
    pub(crate) fn value<T: NoUninit>(&mut self, value: T) -> io::Result<()> {
        self.put(bytemuck::bytes_of(&value))
    }

    /// Writes table and trailer and syncs the file; returns its length and digest.
    pub(crate) fn finish(mut self) -> io::Result<(u64, blake3::Hash)> {
        self.end();
        self.pad()?;
        let table: Vec<u8> = self.table.iter().flat_map(|e| e.to_bytes()).collect();
        self.put(&table)?;
        let mut trailer = [0u8; TRAILER];
        trailer[..8].copy_from_slice(&(table.len() as u64).to_le_bytes());
        trailer[8..12].copy_from_slice(&crc32fast::hash(&table).to_le_bytes());
        trailer[12..16].copy_from_slice(&version_of(self.vector_type).to_le_bytes());
        trailer[16..24].copy_from_slice(&(self.position() + TRAILER as u64).to_le_bytes());
        let crc = crc32fast::hash(&trailer[..28]);
        trailer[28..32].copy_from_slice(&crc.to_le_bytes());
        trailer[32..].copy_from_slice(TRAILER_MAGIC);
        self.put(&trailer)?;
        self.flush()?;
        self.file.sync_all()?;
        Ok((self.flushed, self.digest.finalize()))
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.position().next_multiple_of(ALIGN as u64) - self.position();
        self.put(&[0u8; ALIGN][..missing as usize])
    }

    fn end(&mut self) {
        let position = self.position();
        if let (Some((mut crc, from)), Some(entry)) = (self.open.take(), self.table.last_mut()) {
            crc.update(&self.buffer[from..]);
            entry.length = position - entry.start;
            entry.crc = crc.finalize();
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(BUFFER) {
            if self.buffer.len() + piece.len() > BUFFER {
                self.flush()?;
            }
            self.buffer.extend_from_slice(piece);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some((crc, from)) = &mut self.open {
            crc.update(&self.buffer[*from..]);
            *from = 0;
        }
        self.digest.update(&self.buffer);
        self.file.write_all(&self.buffer)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
