//! `cargo xtask check`: everything about the sources that a machine can judge.

use anyhow::Result;

use crate::report::Report;
use crate::shell::cargo;
use crate::{edges, shell, sources, words};

/// Runs every check; `quick` leaves out those that compile.
pub(crate) fn run(quick: bool) -> Result<()> {
    let mut report = Report::default();
    report.step("format", || shell::run(cargo(&["fmt", "--all", "--check"])));
    report.step("edges between crates", edges::check);
    report.step("file heads and sizes", sources::check);
    report.step("names", words::check);
    if quick {
        return report.finish();
    }
    let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    report.step("lints", || shell::run(cargo(&lints)));
    report.step("docs", || {
        let mut docs = cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
        // the docs are read beside the code: a link may be spelt out, or lead to what is private
        docs.env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::redundant_explicit_links -A rustdoc::private_intra_doc_links",
        );
        shell::run(docs)
    });
    report.finish()
}
