//! Failpoints: named places at durable steps where a test kills the process, nothing in release builds.
//!
//! `SLUICE_FAILPOINT="publish.before:3"` aborts at the third time that the place is passed (the first, without a
//! number). An abort runs no destructor and flushes nothing: it is as close to `kill -9` as a process can do to itself.

/// Marks a place by name, as in `failpoint!("publish.before")`.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoint::pass($name)
    };
}

/// Aborts the process when `SLUICE_FAILPOINT` names this place and it is passed often enough.
#[cfg(any(debug_assertions, feature = "failpoints"))]
pub fn pass(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("SLUICE_FAILPOINT").ok()?;
        let (name, hit) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), hit.parse().unwrap_or(1)))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if let Some((wanted, hit)) = &*WANTED
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *hit
    {
        eprintln!("failpoint {name} reached {hit} times, aborting");
        std::process::abort();
    }
}

#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline(always)]
pub fn pass(_name: &str) {}
