//! The bytes of a segment: mapped from a file, or copied to aligned memory.

#![allow(unsafe_code, reason = "memory mapping; each block says why it is sound")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use memmap2::{Advice, Mmap};

/// Size of a huge page; where it is another, the advice is refused or covers less.
#[cfg(all(target_os = "linux", not(miri)))]
const HUGE_PAGE: usize = 2 << 20;

/// One unit of aligned memory; sections begin on such boundaries.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Unit([u8; 64]);

impl Unit {
    /// 64 times `byte`.
    pub(crate) fn filled(byte: u8) -> Self {
        Self([byte; 64])
    }
}

// SAFETY: 64 bytes without padding, and zeros are a value of it.
unsafe impl Zeroable for Unit {}
// SAFETY: as above, and any 64 bytes are a value of it.
unsafe impl Pod for Unit {}

/// Bytes that begin on a 64-byte boundary and never change.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped(Mmap),
    Owned { units: Vec<Unit>, len: usize },
}

impl Bytes {
    /// Maps `path`. The file must not be written or cut while it is mapped; see the safety comment.
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self::copy(&[]));
        }
        // SAFETY: segment files are private to this process family, named by their digest or a fresh scratch name,
        // written once before they are opened and only ever unlinked afterwards, which leaves a mapping intact.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Mapped(map))
    }

    /// Copies `bytes` to aligned memory.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        let mut units = vec![Unit([0; 64]); bytes.len().div_ceil(64)];
        let target: &mut [u8] = bytemuck::cast_slice_mut(&mut units);
        target[..bytes.len()].copy_from_slice(bytes);
        Self::Owned { units, len: bytes.len() }
    }

    /// Asks the system to read `part` of these bytes ahead; a refusal changes nothing.
    pub(crate) fn will_need(&self, part: &[u8]) {
        self.advise(Advice::WillNeed, part);
    }

    /// Tells the system that `part` is read here and there: what lies around a page is not read along with it, which
    /// would push out what is needed where memory is short.
    pub(crate) fn read_here_and_there(&self, part: &[u8]) {
        self.advise(Advice::Random, part);
    }

    fn advise(&self, advice: Advice, part: &[u8]) {
        if let Self::Mapped(map) = self
            && let Some(from) = (part.as_ptr() as usize).checked_sub(map.as_ptr() as usize)
            && let Err(error) = map.advise_range(advice, from, part.len())
        {
            tracing::debug!(%error, ?advice, "advice about a mapping was refused");
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned { units, len } => &bytemuck::cast_slice(units)[..*len],
        }
    }
}

/// Memory for a vector of `capacity` values that is used all over without order, on huge pages where the system has
/// them to give.
pub(crate) fn on_huge_pages<T>(capacity: usize) -> Vec<T> {
    let values: Vec<T> = Vec::with_capacity(capacity);
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let (start, bytes) = (values.as_ptr().cast_mut(), values.capacity() * size_of::<T>());
        let from = start.addr();
        let (first, end) = (from.next_multiple_of(HUGE_PAGE), (from + bytes) / HUGE_PAGE * HUGE_PAGE);
        if first < end {
            let pages = start.map_addr(|_| first).cast();
            // SAFETY: the pages lie in what was allocated, and the advice changes nothing that a program can see. A
            // refusal leaves things as they are.
            unsafe { libc::madvise(pages, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_bytes_are_aligned_and_equal() {
        for n in [0usize, 1, 63, 64, 65, 1000] {
            let given: Vec<u8> = (0..n).map(|i| i as u8).collect();
            let bytes = Bytes::copy(&given);
            assert_eq!(&*bytes, given.as_slice());
            assert_eq!(bytes.as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn memory_on_huge_pages_is_memory_as_any_other() {
        for n in [0usize, 1, 1000, if cfg!(miri) { 2000 } else { 3 << 20 }] {
            let mut values = on_huge_pages::<u64>(n);
            values.extend(0..n as u64);
            assert!(values.capacity() >= n && values.iter().copied().eq(0..n as u64));
        }
    }
}
