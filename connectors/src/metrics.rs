//! The names and help texts of this crate's metrics; functions emit them.

/// Registers the help texts.
pub fn describe() {}
