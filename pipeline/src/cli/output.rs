//! Printing: text for people, JSON for programs, never a panic when the reader has gone.

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::CliError;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as one JSON document, or what `text` makes of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        let text = if self.json { to_json(value)? } else { text(value) };
        line(&text);
        Ok(())
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(CliError::internal)
}

/// Prints a line; a reader that has gone (a closed pipe) is no error.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).is_err() {
        tracing::debug!("standard output is closed");
    }
}

/// A progress bar on standard error, hidden where nobody looks; `{rate}` is whole units a second.
pub(super) fn bar(out: Output, length: Option<u64>, template: &str) -> Result<ProgressBar, CliError> {
    let target = if out.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // a bar that cannot be drawn is no reason to stop
        write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
    };
    let style = ProgressStyle::with_template(template).map_err(CliError::internal)?.with_key("rate", rate);
    let bar = ProgressBar::with_draw_target(length, target);
    bar.set_style(style);
    Ok(bar)
}

/// Tells of an error and gives its exit code.
pub(super) fn fail(json: bool, error: &CliError) -> ExitCode {
    if json {
        line(&json!({"error": as_json(error)}).to_string());
    }
    tell(error)
}

/// The same for an error after which there is something to report: one document holds both.
pub(super) fn fail_with<T: Serialize>(
    out: Output,
    report: &T,
    text: impl FnOnce(&T) -> String,
    error: &CliError,
) -> Result<ExitCode, CliError> {
    let mut value = serde_json::to_value(report).map_err(CliError::internal)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("error".into(), as_json(error));
    }
    out.print(&value, |_| text(report))?;
    Ok(tell(error))
}

fn as_json(error: &CliError) -> serde_json::Value {
    json!({"kind": error.kind().as_str(), "message": error.to_string()})
}

fn tell(error: &CliError) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    if writeln!(stderr, "error: {error}").is_err() {
        tracing::debug!("standard error is closed");
    }
    error.exit_code()
}

/// Rows under headings, in columns as wide as they need to be.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let render = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![render(headings.to_vec())];
    lines.extend(rows.iter().map(|row| render(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// A number that may be unknown.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |v| v.to_string())
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name    n\na       1\nlonger  22");
    }
}
