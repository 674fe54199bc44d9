//! `status`: the indexes of a query service, or the partitions of an indexer, whichever answers.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use sluice_query_svc::types::{IndexList, IndexStatus, PartitionState};

use super::CliError;
use super::client::{ServiceArgs, ServiceClient, segment};
use super::options::Common;
use super::output::{Output, number, size, table};

const EXAMPLES: &str = "\
Examples:
  sluice status
  sluice status packages --json
  sluice status --url http://indexer:7700   an indexer: its partitions, and what to do about problems";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// Only this index
    index: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(common: &Common, args: StatusArgs, out: Output) -> Result<ExitCode, CliError> {
    let client = ServiceClient::new(common, &args.service)?;
    if let Some(index) = &args.index {
        let path = format!("/v1/indexes/{}", segment(index));
        let status: IndexStatus = client.get(&path).await.map_err(|e| e.about_index(index))?;
        out.print(&status, |s| render(std::slice::from_ref(s)))?;
        return Ok(ExitCode::SUCCESS);
    }
    match client.get::<IndexList>("/v1/indexes").await {
        Ok(list) => out.print(&list, |l| render(&l.indexes))?,
        Err(CliError::Service { code, .. }) if code == "route_not_found" => {
            let report: Value = client.get("/status").await?;
            out.print(&report, render_indexer)?;
        }
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

fn render(indexes: &[IndexStatus]) -> String {
    if indexes.is_empty() {
        return "no indexes: create one by PUT /v1/indexes/{name}, or by [[index]] in a configuration file"
            .into();
    }
    let mut rows = Vec::new();
    let mut notes = String::new();
    for index in indexes {
        for p in &index.partitions {
            rows.push(vec![
                format!("{} g{}", index.name, index.generation),
                p.partition.to_string(),
                state(p.status).into(),
                number(p.records),
                number(p.segments),
                p.bytes.map_or_else(|| "-".into(), size),
                number(p.next_offset),
                number(p.log_end),
                number(p.lag_records),
                p.lag_seconds.map_or_else(|| "-".into(), |s| format!("{s:.1} s")),
                p.manifest_age_seconds.map_or_else(|| "-".into(), |s| format!("{s:.0} s")),
            ]);
            if let Some(error) = &p.error {
                notes.push_str(&format!("\n{} partition {}: {error}", index.name, p.partition));
            }
        }
    }
    let headings = [
        "index",
        "partition",
        "status",
        "records",
        "segments",
        "bytes",
        "next",
        "log end",
        "lag",
        "lag time",
        "snapshot age",
    ];
    table(&headings, &rows) + &notes
}

fn state(state: PartitionState) -> &'static str {
    match state {
        PartitionState::Ok => "ok",
        PartitionState::Stale => "stale",
        PartitionState::Loading => "loading",
        PartitionState::Error => "error",
    }
}

fn render_indexer(report: &Value) -> String {
    let text = |value: &Value, key: &str| match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let none = Vec::new();
    let partitions = report.get("partitions").and_then(Value::as_array).unwrap_or(&none);
    let row = |p: &Value| {
        let worker = p.get("worker").cloned().unwrap_or_default();
        let keys = ["next_offset", "log_end", "growing_records", "segments"];
        let mut row = vec![text(p, "index"), text(p, "partition"), text(p, "state"), text(p, "lag_records")];
        row.extend(keys.map(|k| text(&worker, k)));
        row.push(text(p, "restarts"));
        row
    };
    let rows: Vec<_> = partitions.iter().map(row).collect();
    let headings =
        ["index", "partition", "state", "lag", "next", "log end", "growing", "segments", "restarts"];
    let mut out = table(&headings, &rows);
    for p in partitions.iter().filter(|p| p.get("problem").is_some()) {
        out.push_str(&format!("\n{}/{}: {}", text(p, "topic"), text(p, "partition"), text(p, "problem")));
        if p.get("advice").is_some() {
            out.push_str(&format!("\n  what to do: {}", text(p, "advice")));
        }
    }
    for (index, problem) in report.get("problems").and_then(Value::as_object).into_iter().flatten() {
        out.push_str(&format!("\nindex {index} is not consumed: {}", problem.as_str().unwrap_or_default()));
    }
    out
}
