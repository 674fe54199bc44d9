//! Failpoints: named places at durable steps where a test kills the process, nothing in release builds.
//!
//! `SLUICE_FAILPOINT="publish.before:3"` aborts at the third time that the place is passed (the first, without a
//! number). An abort runs no destructor and flushes nothing: it is as close to `kill -9` as a process can do to itself.
//!
//! [`NAMES`] is the catalogue: a place under any other name does not compile, and the kill campaign
//! (`pipeline/tests/campaign`) aborts at every name in it and fails when one is never reached.
//!
//! ```compile_fail
//! sluice_core::failpoint!("somewhere.else");
//! ```

/// Every failpoint: before and after each step whose effect outlives the process.
pub const NAMES: &[&str] = &[
    "spec.before",
    "spec.after",
    "claim.before",
    "claim.after",
    "indexer.publish.before",
    "upload.before",
    "upload.after",
    "publish.before",
    "publish.after",
    "hint.before",
    "hint.after",
    "indexer.publish.after",
    "indexer.adopt.before",
    "indexer.adopt.after",
    "gc.boundary.before",
    "gc.boundary.after",
    "gc.delete.before",
    "gc.delete.between",
    "gc.delete.after",
    "gc.close.before",
    "gc.close.after",
];

/// Marks a place by its name in [`NAMES`], as in `failpoint!("publish.before")`.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        const { assert!($crate::failpoint::is_named($name), "not in the catalogue of failpoints") };
        $crate::failpoint::pass($name)
    }};
}

/// Whether [`NAMES`] holds `name`.
pub const fn is_named(name: &str) -> bool {
    let mut at = 0;
    while at < NAMES.len() {
        if same(NAMES[at].as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_catalogue_only_as_a_whole() {
        for name in NAMES {
            assert!(is_named(name));
            assert!(!is_named(name.get(1..).unwrap()) && !is_named(name.get(..name.len() - 1).unwrap()));
            assert!(!is_named(&format!("{name}s")));
        }
        assert!(!is_named(""));
    }

    #[test]
    fn every_step_has_a_place_before_and_one_after() {
        let steps = NAMES.iter().filter_map(|name| name.strip_suffix(".before"));
        for step in steps {
            assert!(NAMES.contains(&format!("{step}.after").as_str()), "{step}");
        }
    }
}
