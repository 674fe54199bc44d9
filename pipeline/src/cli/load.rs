//! `load`: the rows of a file to the log of an index.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;
use sluice_connectors::{DecodeLimits, Decoder};
use sluice_core::{IndexName, IndexSpec};

use super::options::Common;
use super::output::{self, Output};
use super::{CliError, signals};
use crate::config::Config;
use crate::load::{
    FileFormat, Input, LoadReport, LoadRequest, Position, Progress, RowEncoder, StateFile, Total,
    run as run_load,
};
use crate::topology::{Edges, RunError};

const EXAMPLES: &str = "\
A line of JSONL is a message: {\"id\": \"a\", \"vector\": [..], \"metadata\": {..}}, or {\"id\": \"a\", \"deleted\": true}.
An interrupted load goes on where it stood when it is started again with the same file.
Exit code 1 when a row was refused, or when it was interrupted.

Examples:
  sluice load docs.jsonl --index docs
  zcat docs.jsonl.gz | sluice load - --index docs
  sluice load docs.parquet --index docs --id-column key --vector-column embedding
  sluice load vectors.npy --index docs --records ids.jsonl";

/// Refused rows that are listed.
const LISTED: usize = 20;
const LISTED_JSON: usize = 1000;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LoadArgs {
    /// The file, or - for JSONL on standard input
    file: PathBuf,
    /// The index to fill; may be left out when the configuration has only one
    #[arg(long, short)]
    index: Option<IndexName>,
    /// Format of the file, when its name does not tell
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Parquet: the column of ids
    #[arg(long, default_value = "id", value_name = "NAME")]
    id_column: String,
    /// Parquet: the column of vectors; every other column becomes metadata
    #[arg(long, default_value = "vector", value_name = "NAME")]
    vector_column: String,
    /// npy: JSONL with the id of each row, and metadata; by default the same name with .jsonl
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// JSONL: every key other than id and vector is metadata
    #[arg(long)]
    flat: bool,
    /// Refused rows that are passed over; the next one ends the load, and no row after it is written
    #[arg(long, default_value_t = 1000, value_name = "N")]
    max_errors: u64,
    /// Begin anew, although an earlier load of this file came further
    #[arg(long)]
    restart: bool,
}

pub(super) async fn run(common: &Common, args: LoadArgs, out: Output) -> Result<ExitCode, CliError> {
    let config = common.load()?;
    let input = Input {
        file: args.file,
        format: args.format,
        id_column: args.id_column,
        vector_column: args.vector_column,
        records: args.records,
        flat: args.flat,
    };
    input.format()?;
    let edges = Edges::open(&config).await?;
    let spec = find_spec(&config, &edges, args.index.as_ref()).await?;
    let state = if input.is_stdin() {
        None
    } else {
        Some(StateFile::open(&config.data_dir.join("load"), &input.file, &spec.name)?)
    };
    let earlier = state.as_ref().filter(|_| !args.restart).map(StateFile::resume).unwrap_or_default();
    if earlier.done {
        let report = LoadReport {
            resumed_after: earlier.position.rows,
            already_loaded: true,
            ..LoadReport::default()
        };
        out.print(&report, |_| "loaded to its end before; --restart loads it again".into())?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = input.open(encoder(&config, &spec), earlier.position)?;
    let topic = spec.topic();
    edges.log.producer.ensure_topic(&topic, spec.partitions).await.map_err(RunError::from)?;
    let stop = signals::stop_token()?;
    let bar = bar(rows.total(), earlier.position, out)?;
    let request = LoadRequest {
        rows,
        producer: Arc::clone(&edges.log.producer),
        topic,
        state,
        from: earlier.position,
        max_errors: args.max_errors,
        list_errors: if out.json { LISTED_JSON } else { LISTED },
    };
    let shown = bar.clone();
    let (report, result) = run_load(request, stop, move |p| show(&shown, &p)).await;
    bar.finish_and_clear();
    if let Err(error) = result {
        return output::fail_with(out, &report, |r| render(r, &spec.name), &error.into());
    }
    out.print(&report, |r| render(r, &spec.name))?;
    let clean = report.refused == 0 && !report.interrupted;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The spec of the index: from the configuration, else from the store.
async fn find_spec(config: &Config, edges: &Edges, name: Option<&IndexName>) -> Result<IndexSpec, CliError> {
    let name = match (name, config.indexes.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.clone(),
        (None, _) => return Err(CliError::Usage("which index? give --index NAME".into())),
    };
    // the store knows how many partitions there are; the configuration will do before the index exists
    match edges.registry.get(&name).await? {
        Some(stored) => Ok(stored.spec),
        None => {
            let configured = config.indexes.iter().find(|spec| spec.name == name);
            configured.cloned().ok_or_else(|| CliError::no_index(name))
        }
    }
}

/// Validates as the decoder of the index's log will.
pub(super) fn encoder(config: &Config, spec: &IndexSpec) -> RowEncoder {
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    RowEncoder::new(Decoder {
        format: spec.format,
        schema: Arc::new(spec.schema()),
        limits: DecodeLimits {
            max_message_bytes: bytes(config.limits.max_message_bytes),
            max_metadata_bytes: bytes(config.limits.max_metadata_bytes),
        },
    })
}

/// A progress bar in the unit in which the whole is known.
pub(super) fn bar(total: Total, from: Position, out: Output) -> Result<ProgressBar, CliError> {
    let (length, position, template) = match total {
        Total::Rows(rows) => {
            (Some(rows), from.rows, "{spinner} {wide_bar} {pos}/{len} rows, {rate}, {eta} left{msg}")
        }
        Total::Bytes(bytes) => (
            Some(bytes),
            from.bytes,
            "{spinner} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left{msg}",
        ),
        Total::Unknown => (None, 0, "{spinner} {pos} rows, {rate}{msg}"),
    };
    let bar = output::bar(out, length, template)?;
    bar.set_position(position);
    bar.reset_eta();
    Ok(bar)
}

/// Moves the bar.
pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    match progress.total {
        Total::Bytes(_) => bar.set_position(progress.position.bytes),
        Total::Rows(_) | Total::Unknown => bar.set_position(progress.position.rows),
    }
    if progress.refused > 0 {
        bar.set_message(format!(", {} refused", progress.refused));
    }
}

fn render(report: &LoadReport, index: &IndexName) -> String {
    let mut text = String::new();
    for error in &report.errors {
        text.push_str(&format!("line {}: {}\n", error.line, error.message));
    }
    let more = report.refused.saturating_sub(report.errors.len() as u64);
    if more > 0 {
        text.push_str(&format!(".. and {more} more\n"));
    }
    if report.resumed_after > 0 {
        text.push_str(&format!("went on after row {}\n", report.resumed_after));
    }
    let (loaded, seconds, rate) = (report.loaded, report.seconds, report.rows_per_second);
    text.push_str(&format!("{loaded} rows loaded into {index} in {seconds:.1} s ({rate:.0}/s)"));
    if report.refused > 0 {
        text.push_str(&format!(", {} refused", report.refused));
    }
    if report.interrupted {
        text.push_str("; interrupted, start it again to go on");
    }
    text
}
