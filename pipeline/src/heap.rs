//! How the process keeps memory that was freed: it goes back to the system, whichever thread freed it.
//!
//! A record is made by the thread that reads its partition and freed by the one that publishes it. glibc gives such
//! threads up to eight arenas a core, none of which uses what is free in another, and it raises by itself the size
//! from which an allocation stands alone: a partition that was busy for a moment then keeps its peak for good. With 16
//! partitions and `limits.memory` of 64 MiB an indexer stood at 205 MiB of anonymous memory, 168 of them free; with
//! the settings below at 62, and at 18 when it was idle again.

/// Few arenas; large allocations are mapped on their own and unmapped when freed; the top of an arena is given back.
///
/// Called first of all. `MALLOC_..` variables of the environment have the last word.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "glibc's settings have no safe face")]
pub(crate) fn keep_small() {
    const MOST_ARENAS: usize = 4;
    const LARGE: libc::c_int = 128 << 10;
    if std::env::vars_os().any(|(name, _)| name.as_encoded_bytes().starts_with(b"MALLOC_")) {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = libc::c_int::try_from(cores.clamp(2, MOST_ARENAS)).unwrap_or(2);
    let settings =
        [(libc::M_ARENA_MAX, arenas), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)];
    for (setting, value) in settings {
        // SAFETY: mallopt takes two numbers and stores one; there is no other thread yet.
        if unsafe { libc::mallopt(setting, value) } != 1 {
            eprintln!("sluice: glibc refuses malloc setting {setting} = {value}; memory may stay allocated");
        }
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_small() {}
