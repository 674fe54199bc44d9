//! The allocator of this program: the system's, with a count of the bytes in use and of the most that ever were.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Passes every call on, so that zeroed and grown memory costs what it costs elsewhere.
pub(crate) struct Counting;

fn grow(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

fn shrink(bytes: usize) {
    CURRENT.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every method hands its arguments to the system's allocator and returns what that returned; counting
// touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller
        let place = unsafe { System.alloc(layout) };
        if !place.is_null() {
            grow(layout.size());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            grow(layout.size());
        }
        place
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised by the caller
        let moved = unsafe { System.realloc(place, layout, size) };
        if !moved.is_null() {
            grow(size);
            shrink(layout.size());
        }
        moved
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller
        unsafe { System.dealloc(place, layout) };
        shrink(layout.size());
    }
}

/// Bytes that are allocated.
pub(crate) fn allocated() -> usize {
    CURRENT.load(Ordering::Relaxed)
}

/// Most bytes that were allocated since [`forget_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Lets the peak begin again at what is allocated now.
pub(crate) fn forget_peak() {
    PEAK.store(allocated(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_counts_in_the_peak_only() {
        const BYTES: usize = 64 << 20;
        forget_peak();
        let before = allocated();
        let mut held = vec![0u8; BYTES];
        held.reserve_exact(BYTES);
        std::hint::black_box(&held);
        assert!(allocated() >= before + BYTES);
        drop(held);
        assert!(peak() >= before + 2 * BYTES);
        assert!(allocated() < before + BYTES);
    }
}
